"""Numbers as people read them, without a detour through floats. Pure functions."""

from __future__ import annotations

WEI = 10**18
GWEI = 10**9


def decimal(amount: int, unit: int, places: int) -> str:
    """Return an amount in a larger unit, cut off after so many places: `1.500000`."""
    sign = "-" if amount < 0 else ""
    whole, rest = divmod(abs(amount), unit)
    digits = len(str(unit)) - 1
    return f"{sign}{whole}.{str(rest).zfill(digits)[:places]}"


def native(wei: int) -> str:
    """Return wei in the native token (MNT, ETH), cut off after 6 places."""
    return decimal(wei, WEI, 6)


def gwei(wei: int) -> str:
    """Return wei in gwei, cut off after 6 places."""
    return decimal(wei, GWEI, 6)


def hexed(value: bytes | None) -> str | None:
    """Return bytes as lower-case hex with 0x; None for None."""
    return None if value is None else "0x" + value.hex()
