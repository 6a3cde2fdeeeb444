"""Nonces that were spent without us: the key is used elsewhere, or the database is an older one.

Both look the same from here, so both are treated as the worse one. Signing stops, what was only
planned is dropped, and when everything that was spent is final, each unit that is owed is looked
up on chain before anything is signed again.
"""

from __future__ import annotations

from sqlalchemy import select

from causeway.relayer import account, ledger
from causeway.relayer.filing import drop
from causeway.relayer.judging import carry_out, judge_at, settled_only
from causeway.relayer.kind import UnitKind
from causeway.relayer.lane import Did, Lane, Sight
from causeway.relayer.models import AccountRow, TransactionRow, UnitRow
from causeway.store.lease import Lease


async def check_nonces(lane: Lane, sight: Sight, lease: Lease) -> AccountRow:
    """Compare the chain's count with ours; stop signing when it is ahead. Return the account."""
    async with lane.database.transaction() as session:
        row = await ledger.account(session, lane)
        expected = 0
        if row is not None:
            expected = await ledger.next_nonce(session, lane, row.nonce_floor)
    if row is not None and row.nonce_mined == sight.mined and sight.mined <= expected:
        return row
    floor = await _first_floor(lane, sight) if row is None else row.nonce_floor
    async with lane.commit(lease) as session:
        await ledger.ensure_account(session, lane, floor)
        locked = await ledger.account(session, lane, lock=True)
        assert locked is not None  # noqa: S101 - just made
        expected = await ledger.next_nonce(session, lane, locked.nonce_floor)
        locked.nonce_mined = sight.mined
        if sight.mined > expected and locked.mode != "no-sign":
            spent = f"nonces {expected} to {sight.mined - 1} of {lane.sender} were spent"
            reason = (
                f"{spent} without this relayer: another program uses the key, or the database was "
                "restored"
            )
            if row is None:
                reason = f"{spent} just before this relayer first saw it: it waits until that stays"
            await account.switch(session, lane, locked, "no-sign", reason)
        return locked


async def _first_floor(lane: Lane, sight: Sight) -> int:
    """Return the nonces spent for good when an account is first seen: they are none of ours.

    What is spent in newer blocks may be given back by a reorg and leave a gap before ours.
    """
    depth = await _shallowest(lane, sight)
    return sight.mined if depth is None else await lane.chain.nonce(lane.sender, depth)


async def _shallowest(lane: Lane, sight: Sight) -> int | None:
    """Return the block that is deep enough for every kind; None while there is none."""
    depths = [await sight.depth(kind.finality) for kind in lane.kinds.values()]
    known = [depth for depth in depths if depth is not None]
    return min(known) if known and len(known) == len(depths) else None


async def recover(lane: Lane, sight: Sight, lease: Lease, did: Did) -> None:
    """Go on after nonces were spent without us, once that is final and every unit looked up."""
    at = await _shallowest(lane, sight)
    if at is None:
        return
    await _drop_plans(lane, lease, did)
    if await lane.chain.nonce(lane.sender, at) != sight.mined:
        return  # not deep enough yet
    if await lane.chain.nonce(lane.sender, "pending") != sight.mined:
        return  # more is on its way
    async with lane.database.transaction() as session:
        open_ones = await ledger.held(session, lane, "signed", "sent")
    if any(one.nonce < sight.mined for one in open_ones):
        return  # being found out
    for kind in lane.kinds.values():
        await _look_up(lane, lease, kind, at, did)
    if not lane.settings.resume_after_review:
        return
    async with lane.commit(lease) as session:
        row = await ledger.account(session, lane, lock=True)
        if row is None or row.mode != "no-sign" or row.mode_by != account.KERNEL:
            return
        row.nonce_floor = max(row.nonce_floor, sight.mined)
        await account.switch(session, lane, row, "run", None)


async def _drop_plans(lane: Lane, lease: Lease, did: Did) -> None:
    async with lane.commit(lease) as session:
        for tx in await session.scalars(
            select(TransactionRow)
            .where(
                TransactionRow.chain_id == lane.chain.chain_id,
                TransactionRow.sender == lane.sender,
                TransactionRow.state == "planned",
            )
            .with_for_update()
        ):
            await drop(session, tx, lane.now(), "nonces were spent without us")
            did.dropped += 1


async def _look_up(lane: Lane, lease: Lease, kind: UnitKind, at: int, did: Did) -> None:
    """Settle what the chain has already, in pieces."""
    after = None
    while True:
        query = (
            select(UnitRow)
            .where(
                UnitRow.state == "pending",
                UnitRow.chain_id == lane.chain.chain_id,
                UnitRow.app == kind.app,
                UnitRow.kind == kind.name,
            )
            .order_by(UnitRow.id)
            .limit(kind.max_batch)
        )
        if after is not None:
            query = query.where(UnitRow.id > after)
        async with lane.database.transaction() as session:
            units = [ledger.unit_of(row) for row in await session.scalars(query)]
        if not units:
            return
        after = units[-1].id
        verdict = settled_only(await judge_at(lane, kind, units, at))
        async with lane.commit(lease) as session:
            await carry_out(session, lane, kind, units, verdict, did, state="pending")
