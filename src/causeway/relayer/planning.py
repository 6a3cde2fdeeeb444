"""Step 1, plan: which units go together in the next transaction, checked on chain before.

Nothing is signed here and no nonce taken: when the process dies, or the plan is too old by the
time it could be signed, the units are planned anew.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.base.errors import PermanentError, TransactionReverted
from causeway.base.faults import fault_point
from causeway.base.ids import uuid7
from causeway.chains.errors import RpcError
from causeway.relayer import account, claims, ledger
from causeway.relayer.batching import Fitted, TooMuchGas, fit
from causeway.relayer.fees import MILLION, gas_limit, starting_fees
from causeway.relayer.judging import Verdict, carry_out, judge
from causeway.relayer.kind import Call, Unit, UnitKind
from causeway.relayer.lane import Did, Lane, Sight
from causeway.relayer.models import TransactionRow, TransactionUnitRow, UnitRow
from causeway.relayer.pauses import gate, hold_still
from causeway.store.lease import Lease

#: Simulations that name a unit which its kind says is not done: then it fails.
_MOST_CONTRADICTIONS = 5


#: What nodes say of a call for which a whole block has not gas enough.
_NO_GAS = re.compile(r"out.?of.?gas|gas required exceeds|exceeds block gas limit", re.IGNORECASE)


class _Refused(TransactionReverted):
    """The provider would not try the call, for a reason it does not say in a known way."""


class _HeldBack(Exception):
    """The contract refuses us for a reason of our own."""


async def plan(lane: Lane, sight: Sight, lease: Lease, kind: UnitKind, did: Did) -> None:
    """Bind the next units of a kind to a planned transaction, if there are any and they may go."""
    async with lane.database.transaction() as session:
        waiting = await account.is_waiting(session, lane, kind)
        if not await _may_plan(session, lane, kind, waiting=waiting):
            return
        units = await _due(session, lane, kind)
    if not lane.shares(kind):
        await _plan(lane, sight, lease, kind, units, did, waiting=waiting)
        return
    try:
        if not units or await claims.others_are_sound(lane):
            await _plan(lane, sight, lease, kind, units, did, waiting=waiting)
    finally:
        await claims.give_back(lane, units)


async def _plan(
    lane: Lane,
    sight: Sight,
    lease: Lease,
    kind: UnitKind,
    units: Sequence[Unit],
    did: Did,
    *,
    waiting: bool,
) -> None:
    if not units:
        if waiting:
            await account.end_wait(lane, lease, kind)
        return
    quote = await sight.quote(kind)
    ceiling = lane.ceiling(kind)
    if starting_fees(quote, ceiling) is None:
        reason = f"the gas price is {gwei(quote.price_wei)}, the most allowed {gwei(ceiling or 0)}"
        await account.wait(lane, lease, kind, "gas_price", reason)
        return
    verdict = await judge(lane, sight, kind, units)
    fitted = Fitted()
    call: Call | None = None
    most = await _most_gas(lane) if verdict.ready else 0
    if verdict.ready:
        try:
            fitted = await _simulated(lane, kind, verdict.ready, most)
        except _HeldBack as error:
            await account.wait(lane, lease, kind, "refused", f"the contract refuses us: {error}")
            return
        _judge_reverts(lane, verdict, fitted)
        call = kind.encode(fitted.units) if fitted.units else None
    if waiting:
        await account.end_wait(lane, lease, kind)
    if verdict.done or verdict.other or verdict.later or verdict.never:
        async with lane.commit(lease) as session:
            await carry_out(session, lane, kind, units, verdict, did, state="pending")
    _remember_size(lane, kind, fitted)
    if call is None:
        return
    limit = min(most, gas_limit(fitted.gas, kind.gas_buffer_ppm))
    await _bind(lane, lease, kind, fitted.units, call, limit, did)


def gwei(amount_wei: int) -> str:
    """Return an amount per gas as people write it, exactly."""
    whole, rest = divmod(amount_wei, 10**9)
    return f"{whole}.{rest:09d}".rstrip("0").rstrip(".") + " gwei"


async def _may_plan(session: AsyncSession, lane: Lane, kind: UnitKind, *, waiting: bool) -> bool:
    row = await ledger.account(session, lane)
    if row is None or not (await gate(session, row, kind.app)).may_plan:
        return False
    if waiting and not lane.turn(f"wait:{kind.label}", lane.settings.hold_check_s):
        return False
    counts = await session.execute(
        select(TransactionRow.app, TransactionRow.kind, TransactionRow.state, func.count())
        .where(
            TransactionRow.chain_id == lane.chain.chain_id,
            TransactionRow.sender == lane.sender,
            TransactionRow.state.in_(("planned", "signed", "sent")),
        )
        .group_by(TransactionRow.app, TransactionRow.kind, TransactionRow.state)
    )
    under_way = 0
    for app, name, state, count in counts:
        if state == "planned" and (app, name) == (kind.app, kind.name):
            return False  # the next ones wait, and travel together
        under_way += count
    return under_way < lane.settings.in_flight_max


async def _due(session: AsyncSession, lane: Lane, kind: UnitKind) -> list[Unit]:
    due = (
        select(UnitRow)
        .where(
            UnitRow.state == "pending",
            UnitRow.chain_id == lane.chain.chain_id,
            UnitRow.app == kind.app,
            UnitRow.kind == kind.name,
            UnitRow.ready_at <= lane.now(),
            *(claims.free(lane) if lane.shares(kind) else ()),
        )
        .order_by(UnitRow.priority.desc(), UnitRow.ready_at, UnitRow.created_at, UnitRow.id)
    )
    if lane.shares(kind):
        due = due.with_for_update(skip_locked=True)
    first = await session.scalar(due.limit(1))
    if first is None:
        return []
    if first.reverts > 1:  # twice in a batch that was reverted: alone from now on
        rows = [first]
    else:
        size = min(kind.max_batch, lane.memory.fitting.get(kind.label, kind.max_batch))
        together = UnitRow.batch_id.is_not_distinct_from(first.batch_id)
        rows = list(await session.scalars(due.where(together, UnitRow.reverts <= 1).limit(size)))
    if lane.shares(kind):
        claims.claim(lane, rows)
    return [ledger.unit_of(row) for row in rows]


async def _simulated(lane: Lane, kind: UnitKind, units: Sequence[Unit], most: int) -> Fitted:
    async def estimate(part: Sequence[Unit]) -> int:
        try:
            call = kind.encode(part)
        except PermanentError as error:
            # As good as a revert: the batch is split until the unit to blame is alone.
            raise TransactionReverted(f"it cannot be encoded: {error}") from error
        if call.value > kind.max_value_wei:
            most = account.ether(kind.max_value_wei)
            raise TransactionReverted(f"it sends {account.ether(call.value)}, allowed is {most}")
        try:
            return await lane.chain.estimate_gas(lane.sender, call.to, call.data, call.value)
        except TransactionReverted as error:
            known = error if kind.abi is None else kind.abi.explain(error)
            said = str(known.error_args[0]) if known.error_name == "Error" else known.error_name
            if said in kind.hold_errors:
                raise _HeldBack(str(known)) from None
            raise known from None
        except RpcError as error:
            if _NO_GAS.search(error.message):
                raise TooMuchGas(error.message) from None
            if type(error) is not RpcError:
                raise  # about the account or the provider, not about this call
            # It will not even try this call: perhaps for one of the units.
            raise _Refused(error.message) from None

    def named(error: TransactionReverted, part: Sequence[Unit]) -> str | None:
        if kind.drop_reverted is None or error.error_name is None:
            return None
        return kind.drop_reverted(error.error_name, error.error_args, part)

    with_buffer = most * MILLION // kind.gas_buffer_ppm

    def allowed(size: int) -> int:
        return with_buffer if size > 1 else most  # a single one may go with less room

    return await fit(units, estimate, named, allowed)


def _judge_reverts(lane: Lane, verdict: Verdict, fitted: Fitted) -> None:
    """Fail units that revert alone; look again at those that a revert named.

    A named one was not done when we looked: another provider is ahead of ours, or somebody was
    quicker. Only when that goes on does the unit fail.
    """
    by_key = {unit.key: unit for unit in verdict.ready}
    for key, error in fitted.bad.items():
        if not isinstance(error, _Refused):
            who = "" if isinstance(error, TooMuchGas) else "the contract refuses it: "
            verdict.never[key] = f"{who}{error}"
    refused = {key: e for key, e in fitted.bad.items() if isinstance(e, _Refused)}
    for key, error in (fitted.named | refused).items():
        tries = by_key[key].attempts
        if tries >= _MOST_CONTRADICTIONS:
            verdict.never[key] = f"the contract refuses it: {error}"
        else:
            again_s = lane.settings.recheck_s * 2**tries
            verdict.later[key] = (again_s, f"the contract says {error}")
            verdict.counted.add(key)


async def _most_gas(lane: Lane) -> int:
    """Return the most gas that one transaction may have."""
    part_of_block = await lane.chain.gas_limit_of_block() * lane.settings.block_part_ppm // MILLION
    return min(lane.settings.gas_limit_max, part_of_block)


def _remember_size(lane: Lane, kind: UnitKind, fitted: Fitted) -> None:
    """Start the next batch with the size that fitted; try twice as many when that went well."""
    sizes = lane.memory.fitting
    if fitted.cut_to is not None:
        sizes[kind.label] = max(1, len(fitted.units) or fitted.cut_to)
    elif kind.label in sizes and len(fitted.units) >= sizes[kind.label]:
        sizes[kind.label] *= 2
        if sizes[kind.label] >= kind.max_batch:
            del sizes[kind.label]


async def _bind(
    lane: Lane,
    lease: Lease,
    kind: UnitKind,
    units: Sequence[Unit],
    call: Call,
    limit: int,
    did: Did,
) -> None:
    now = lane.now()
    async with lane.commit(lease) as session:
        await hold_still(session)
        row = await ledger.account(session, lane, lock=True)
        rows = await ledger.locked_units(session, [unit.id for unit in units], "pending")
        changed = any(
            unit.id not in rows or dict(unit.payload) != rows[unit.id].payload for unit in units
        )
        if row is None or changed or not (await gate(session, row, kind.app)).may_plan:
            return  # withdrawn, renewed or switched off meanwhile: plan anew
        tx = TransactionRow(
            id=uuid7(),
            app=kind.app,
            kind=kind.name,
            chain_id=lane.chain.chain_id,
            sender=lane.sender,
            to_address=call.to,
            calldata=call.data,
            value=call.value,
            gas_limit=limit,
            state="planned",
            requested_by=units[0].requested_by,
            created_at=now,
            updated_at=now,
        )
        session.add(tx)
        await session.flush()
        session.add_all(
            TransactionUnitRow(
                tx_id=tx.id,
                ordinal=ordinal,
                unit_id=unit.id,
                unit_key=unit.key,
                payload=dict(unit.payload),
            )
            for ordinal, unit in enumerate(units)
        )
        for unit in units:
            rows[unit.id].state = "bound"
            rows[unit.id].tx_id = tx.id
            rows[unit.id].claimed_by = rows[unit.id].claimed_until = None
            rows[unit.id].updated_at = now
        ledger.record(session, tx, now, "planned", units=len(units), gas_limit=limit)
    fault_point("relayer.planned")
    did.planned += 1
