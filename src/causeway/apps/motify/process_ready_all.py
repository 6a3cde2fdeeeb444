"""The hourly job: `python -m causeway.apps.motify.process_ready_all [--dry-run]`.

It becomes `causeway motify process`, under the name that crons of the original call.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    command = [sys.executable, "-m", "causeway.cli", "motify", "process", *sys.argv[1:]]
    os.execv(sys.executable, command)  # noqa: S606 - the same program, under its own name
