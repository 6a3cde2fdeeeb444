"""What the chain says about units, and what follows for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from causeway.base.errors import Bug
from causeway.relayer import ledger
from causeway.relayer.kind import (
    At,
    Done,
    Never,
    NotDone,
    NotYet,
    Other,
    Outcome,
    SettledBatch,
    Unit,
    UnitKind,
)
from causeway.relayer.lane import Did, Lane, Sight, alarm


@dataclass
class Verdict:
    """Units sorted by what follows."""

    #: May be sent.
    ready: list[Unit] = field(default_factory=list[Unit])
    #: The chain has them, deep enough.
    done: dict[str, Done] = field(default_factory=dict[str, Done])
    #: The chain has something else in their place, deep enough.
    other: dict[str, Other] = field(default_factory=dict[str, Other])
    #: To be looked at again: seconds from now, and why.
    later: dict[str, tuple[float, str]] = field(default_factory=dict[str, tuple[float, str]])
    #: Cannot be done, and why.
    never: dict[str, str] = field(default_factory=dict[str, str])
    #: Of those that are looked at again: tries that do not count yet but are limited.
    counted: set[str] = field(default_factory=set[str])


async def look(lane: Lane, kind: UnitKind, units: Sequence[Unit], at: At) -> dict[str, Outcome]:
    """Return the outcome of every unit at a block; `Bug` when the kind leaves one out."""
    if not units:
        return {}
    outcomes = dict(await kind.is_done(lane.chain, units, at))
    missing = [unit.key for unit in units if unit.key not in outcomes]
    if missing:
        raise Bug(f"is_done of {kind.label} says nothing about {missing[0]!r}")
    return outcomes


async def judge(lane: Lane, sight: Sight, kind: UnitKind, units: Sequence[Unit]) -> Verdict:
    """Look before acting: at the newest block, and as deep as the kind asks at what is done."""
    newest = await look(lane, kind, units, "latest")
    depth = await sight.depth(kind.finality)
    seen = [unit for unit in units if isinstance(newest[unit.key], Done | Other)]
    deep = {} if depth is None else await look(lane, kind, seen, depth)
    verdict = Verdict()
    for unit in units:
        outcome = newest[unit.key]
        if isinstance(outcome, Done | Other):
            below = deep.get(unit.key)
            if type(below) is not type(outcome):
                reason = "the chain has it, not deep enough yet"
                verdict.later[unit.key] = (lane.settings.recheck_s, reason)
                continue
        _sort(verdict, unit, outcome)
    return verdict


async def judge_at(lane: Lane, kind: UnitKind, units: Sequence[Unit], block: int) -> Verdict:
    """Say what follows for units from the state at a block that is deep enough itself."""
    outcomes = await look(lane, kind, units, block)
    verdict = Verdict()
    for unit in units:
        _sort(verdict, unit, outcomes[unit.key])
    return verdict


def settled_only(verdict: Verdict) -> Verdict:
    """Return what an older block can decide; the rest is decided when it is planned again."""
    return Verdict(done=verdict.done, other=verdict.other)


def _sort(verdict: Verdict, unit: Unit, outcome: Outcome) -> None:
    match outcome:
        case Done():
            verdict.done[unit.key] = outcome
        case Other():
            verdict.other[unit.key] = outcome
        case NotYet(reason, after_s):
            verdict.later[unit.key] = (after_s, reason)
        case Never(reason):
            verdict.never[unit.key] = reason
        case NotDone():
            verdict.ready.append(unit)


async def carry_out(
    session: AsyncSession,
    lane: Lane,
    kind: UnitKind,
    units: Sequence[Unit],
    verdict: Verdict,
    did: Did,
    *,
    state: str,
) -> None:
    """Write down what follows for units that are in `state`, but for those that are ready."""
    now = lane.now()
    rows = await ledger.locked_units(session, [unit.id for unit in units], state)
    still = [unit for unit in units if unit.id in rows]
    done = tuple(unit for unit in still if unit.key in verdict.done)
    if done:
        hashes = {key: one.hash for key, one in verdict.done.items() if one.hash is not None}
        batch = SettledBatch(done, "already_on_chain", hashes=hashes)
        await ledger.settle(session, kind, rows, batch, now)
    other = tuple(unit for unit in still if unit.key in verdict.other)
    if other:
        batch = SettledBatch(
            other,
            "other_value",
            hashes={key: one.hash for key, one in verdict.other.items() if one.hash is not None},
            values={key: one.value for key, one in verdict.other.items()},
        )
        await ledger.settle(session, kind, rows, batch, now)
        for unit in other:
            alarm("other_value", "relayer_other_value", kind=kind.label, unit_key=unit.key)
    did.settled += len(done) + len(other)
    for unit in still:
        row = rows[unit.id]
        if unit.key in verdict.later:
            after_s, reason = verdict.later[unit.key]
            ledger.release(row, now, now + timedelta(seconds=after_s), reason)
            row.attempts += unit.key in verdict.counted
        elif unit.key in verdict.never:
            await ledger.fail(session, kind, row, verdict.never[unit.key], now)
            did.failed += 1
