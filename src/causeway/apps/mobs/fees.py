"""What a transaction cost its sender, by the rules of the chain it is on. Pure functions, in wei.

Mantle counts the L1 cost inside the gas before its Arsia upgrade; since then it is charged on top,
already in MNT, with an operator fee beside it. Other chains of the OP stack add `l1Fee` always, and
an operator fee since their Isthmus upgrade. Deposits pay nothing here: they paid on L1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Profile = Literal["mantle", "op", "plain"]

#: Mantle mainnet, 22 April 2026, Unix seconds.
ARSIA = 1_776_841_200

#: The type of a transaction that the OP stack makes from one on L1.
DEPOSIT = 0x7E

#: Times (Unix seconds) at which prices changed their meaning: nothing is compared across them.
FORKS: dict[int, tuple[int, ...]] = {5000: (ARSIA,)}


@dataclass(frozen=True, slots=True)
class Fee:
    """The parts of a fee."""

    l2: int
    #: What was paid for data on L1; before Arsia it is told but is part of `l2`.
    l1: int | None
    operator: int | None
    total: int


def fee(
    profile: Profile,
    timestamp: int,
    gas_used: int,
    gas_price: int,
    l1_fee: int | None = None,
    operator_fee_scalar: int | None = None,
    operator_fee_constant: int | None = None,
    *,
    has_footprint: bool = False,
) -> Fee:
    """Return the fee of a transaction mined at that time (Unix seconds).

    The operator fee is `gas × scalar × 100 + constant` on Mantle and, from their Jovian upgrade on,
    elsewhere: receipts tell that by a data footprint (`has_footprint`). Isthmus before it says
    `gas × scalar / 10^6 + constant`.
    """
    l2 = gas_used * gas_price
    if profile == "plain":
        return Fee(l2, None, None, l2)
    if profile == "mantle" and timestamp < ARSIA:
        return Fee(l2, l1_fee, None, l2)
    operator: int | None = None
    if operator_fee_scalar is not None or operator_fee_constant is not None:
        scaled = gas_used * (operator_fee_scalar or 0)
        by_hundred = profile == "mantle" or has_footprint
        operator = scaled * 100 if by_hundred else scaled // 10**6
        operator += operator_fee_constant or 0
    return Fee(l2, l1_fee, operator, l2 + (l1_fee or 0) + (operator or 0))


def forks_between(forks: Sequence[int], first_ts: int, last_ts: int) -> tuple[int, ...]:
    """Return the fee upgrades after `first_ts` and not after `last_ts` (Unix seconds)."""
    return tuple(at for at in forks if first_ts < at <= last_ts)
