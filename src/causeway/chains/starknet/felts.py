"""Field elements: numbers below a prime, and what Starknet writes with them.

A node writes a felt as `0x` hex without leading zeros and refuses any other spelling (OpenRPC
schema `FELT`). We keep hashes and addresses as `0x` and 64 digits, so that one value has one
spelling; `wire` is the node's.
"""

from __future__ import annotations

import re
from functools import lru_cache

from causeway.base.errors import Field, InvalidInput
from causeway.chains.evm.hashing import keccak

#: The field's size.
PRIME = 2**251 + 17 * 2**192 + 1
#: Addresses of contracts are below this.
ADDRESS_BOUND = 2**251 - 256
_SELECTOR_MASK = 2**250 - 1
#: Bytes in a short string, and in a word of a `ByteArray`.
SHORT = 31

_HEX = re.compile(r"0[xX][0-9a-fA-F]{1,64}")


@lru_cache(maxsize=4096)
def selector(name: str) -> int:
    """Return the number a function or an event goes by: `sn_keccak` of its name.

    `__default__` and `__l1_default__` have the selector 0.
    """
    if name in ("__default__", "__l1_default__"):
        return 0
    return int.from_bytes(keccak(name.encode("ascii")), "big") & _SELECTOR_MASK


def felt(value: int | str, *, name: str = "felt") -> int:
    """Return a felt from a number or from hex in any spelling.

    Raises `InvalidInput`, which names the field `name`, for anything else.
    """
    number = value
    if isinstance(number, str):
        number = int(number, 16) if _HEX.fullmatch(number) else -1
    if isinstance(number, bool) or not 0 <= number < PRIME:
        raise InvalidInput(
            fields=[Field(name, str(value)[:80], "a field element: 0x and up to 64 hex digits")]
        )
    return number


def wire(value: int | str) -> str:
    """Return a felt as nodes write it; `InvalidInput` when it is none."""
    return hex(felt(value))


def padded(value: int | str) -> str:
    """Return a felt as we keep it: 0x and 64 lower-case digits; `InvalidInput` when it is none."""
    return f"0x{felt(value):064x}"


def address(value: int | str, *, name: str = "address") -> str:
    """Return a contract's address as we keep it.

    Raises `InvalidInput`, which names the field `name`, when it is none.
    """
    number = felt(value, name=name)
    if number >= ADDRESS_BOUND:
        raise InvalidInput(
            fields=[Field(name, str(value)[:80], "an address: a number below 2^251 - 256")]
        )
    return f"0x{number:064x}"


def short_string(value: int) -> str | None:
    """Return the text in a felt; None where it holds other than printable ASCII."""
    if not 0 < value < 1 << (8 * SHORT):
        return "" if value == 0 else None
    plain = value.to_bytes((value.bit_length() + 7) // 8, "big")
    text = plain.decode("ascii", "replace")
    return text if text.isascii() and text.isprintable() else None


def from_short_string(text: str, *, name: str = "text") -> int:
    """Return the felt that holds this text; `InvalidInput` when it does not fit."""
    if not text.isascii() or len(text) > SHORT:
        raise InvalidInput(fields=[Field(name, text[:80], f"ASCII of up to {SHORT} characters")])
    return int.from_bytes(text.encode("ascii"), "big")
