"""Named places where a test may end the process.

Every step after which a crash would matter calls `fault_point("room.step")`. The environment
variable `CAUSEWAY_FAULT` chooses one by name, `relayer.signed` or `relayer.signed:3` for the
third time it is passed: the process then ends itself with SIGKILL, as a lost machine would. It
costs one comparison when nothing is chosen.
"""

from __future__ import annotations

import os
import signal

_name, _, _count = os.environ.get("CAUSEWAY_FAULT", "").partition(":")
_passes_left = int(_count or 1)


def fault_point(name: str) -> None:
    """End the process here, by SIGKILL, when `CAUSEWAY_FAULT` names this point."""
    global _passes_left
    if name != _name:
        return
    _passes_left -= 1
    if _passes_left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
