"""Finding the largest part of a batch that the chain would accept, by trying (no database).

A contract reverts a whole batch because of one unit. If the revert names the unit, it is left out
at once; otherwise the batch is split in halves, depth first, which costs about k·log2(n/k)+k
tries for k bad units among n.

A batch that needs more gas than one transaction may have is cut to as many units as should fit;
the others stay for the next one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from causeway.base.errors import TransactionReverted
from causeway.relayer.kind import Unit


class TooMuchGas(TransactionReverted):
    """More gas than one transaction may have."""


#: Returns the gas that a batch would need; raises `TransactionReverted` with its decoded reason,
#: and `TooMuchGas` when the chain has not even an estimate for it.
Estimate = Callable[[Sequence[Unit]], Awaitable[int]]
#: The key of the unit that a revert names, if it names one.
Named = Callable[[TransactionReverted, Sequence[Unit]], str | None]
#: The most gas that a transaction with that many units may need; None: as much as it likes.
Allowed = Callable[[int], int | None]


@dataclass
class Fitted:
    """The part of a batch that passes, in its order, and why others do not."""

    units: list[Unit] = field(default_factory=list[Unit])
    gas: int = 0
    #: Reverts that named these units, by key: they may be done by now.
    named: dict[str, TransactionReverted] = field(default_factory=dict[str, TransactionReverted])
    #: Units that revert alone, by key.
    bad: dict[str, TransactionReverted] = field(default_factory=dict[str, TransactionReverted])
    #: Units fitted into a transaction when it was cut for its gas; None when it was not.
    cut_to: int | None = None


async def fit(
    units: Sequence[Unit], estimate: Estimate, named: Named, allowed: Allowed = lambda _size: None
) -> Fitted:
    """Return what passes of `units` with the gas allowed; all errors but reverts are yours."""
    found = await _passing(list(units), estimate, named)
    while found.units:
        size = len(found.units)
        most_gas = allowed(size)
        if most_gas is None or found.gas <= most_gas:
            break
        if size == 1:
            (unit,) = found.units
            found.bad[unit.key] = TooMuchGas(f"it needs {found.gas} gas, {most_gas} is allowed")
            found.units, found.cut_to = [], None
            break
        # What all of them share (the bytes around, the first storage) is why it may need a second
        # cut; one less each time in any case.
        found.cut_to = max(1, min(size - 1, size * most_gas // found.gas))
        found.units = found.units[: found.cut_to]
        try:
            found.gas = await estimate(found.units)
        except TransactionReverted:
            # They pass with the others and not without: this far only what comes first counts.
            fewer = await _passing(found.units, estimate, named)
            found.units, found.gas = fewer.units, fewer.gas
            found.bad |= fewer.bad
            found.named |= fewer.named
    return found


async def _passing(rest: list[Unit], estimate: Estimate, named: Named) -> Fitted:
    found = Fitted()
    while rest:
        try:
            found.gas = await estimate(rest)
        except TooMuchGas as error:
            if len(rest) == 1:
                found.bad[rest[0].key] = error
                found.cut_to = None
                return found
            found.cut_to = (len(rest) + 1) // 2
            rest = rest[: found.cut_to]
        except TransactionReverted as error:
            key = named(error, rest)
            if key is not None and any(unit.key == key for unit in rest):
                found.named[key] = error
                rest = [unit for unit in rest if unit.key != key]
                continue
            if len(rest) == 1:
                found.bad[rest[0].key] = error
                return found
            break
        else:
            found.units = rest
            return found
    if not rest:
        return found
    parts: list[tuple[list[Unit], int]] = []
    await _split(rest, estimate, parts, found.bad)
    if not parts:
        return found
    together = [unit for part, _ in parts for unit in part]
    if len(parts) > 1:
        try:
            found.gas = await estimate(together)
        except TransactionReverted:
            # They pass apart and not together: send the largest, the others come next.
            together, found.gas = max(parts, key=lambda part: len(part[0]))
    else:
        found.gas = parts[0][1]
    found.units = together
    return found


async def _split(
    units: list[Unit],
    estimate: Estimate,
    parts: list[tuple[list[Unit], int]],
    bad: dict[str, TransactionReverted],
) -> None:
    middle = (len(units) + 1) // 2
    for half in (units[:middle], units[middle:]):
        try:
            parts.append((half, await estimate(half)))
        except TransactionReverted as error:
            if len(half) == 1:
                bad[half[0].key] = error
            else:
                await _split(half, estimate, parts, bad)
