"""keccak-256 of short byte strings, as fast as this machine has it.

Every address that is checksummed and every item looked for in a bloom costs one. Where there is a
wheel of safe-pysha3 it takes a quarter of the time of eth-hash's usual backend; elsewhere that
backend does the same.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from eth_hash.auto import keccak as _portable


def _fastest() -> Callable[[bytes], bytes]:
    try:
        sponge: Any = import_module("sha3").keccak_256
    except ImportError:
        return _portable
    return lambda data: sponge(data).digest()


#: Return the 32 bytes of the digest.
keccak: Callable[[bytes], bytes] = _fastest()
