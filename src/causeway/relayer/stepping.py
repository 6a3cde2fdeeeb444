"""One step of a relayer: at most one action for every open thing, each under its own commits.

What goes wrong with one transaction does not hold up the others; it is in `Did.errors` and is
tried again at the next step. Only a lost lease ends the step at once.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from uuid import UUID

import structlog
from prometheus_client import Gauge
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from causeway.base.errors import LeaseLost, TransientError
from causeway.relayer import account, ledger
from causeway.relayer.cancelling import cancel_open
from causeway.relayer.ended import watch_ended
from causeway.relayer.lane import Did, Lane, Sight, alarm
from causeway.relayer.models import TransactionRow, UnitRow
from causeway.relayer.planning import plan
from causeway.relayer.recovery import check_nonces, recover
from causeway.relayer.review import review, to_review
from causeway.relayer.sending import send_due
from causeway.relayer.signing import outbid, sign
from causeway.relayer.states import ENDED, OPEN, TO_REVIEW
from causeway.relayer.watching import watch_mined, watch_unmined
from causeway.store.lease import Lease

_log = structlog.get_logger(__name__)
_OPEN = Gauge(
    "causeway_relayer_open", "Transactions that are not final", ["chain", "sender", "state"]
)
_PENDING = Gauge("causeway_relayer_pending_units", "Units that wait for a plan", ["kind"])

_STATES = ("planned", "signed", "sent", "mined")


async def step(lane: Lane, lease: Lease) -> Did:
    """Do what can be done now."""
    did = Did()
    busy = await _has_work(lane)
    every_s = lane.settings.hold_check_s if busy else lane.settings.account_check_s
    looks_at_account = lane.turn("account", every_s)
    looks_back = await _is_anything_not_final(lane) and lane.turn(
        "ended", lane.settings.hold_check_s
    )
    if not (busy or looks_at_account or looks_back):
        return did
    sight = await Sight.look(lane)
    row = await check_nonces(lane, sight, lease)
    if looks_at_account:
        async with _isolated(did):
            await account.refresh(lane, lease)
    await _watch(lane, sight, lease, did)
    if looks_back:
        async with _isolated(did):
            await watch_ended(lane, sight, lease, did)
    for tx in await to_review(lane):
        async with _isolated(did, tx.id):
            await review(lane, sight, lease, tx, did)
    if row.mode == "no-sign" and row.mode_by == account.KERNEL:
        async with _isolated(did):
            await recover(lane, sight, lease, did)
    async with _isolated(did):
        await cancel_open(lane, lease, did)
    await _outbid(lane, sight, lease, did)
    await _sign(lane, sight, lease, did)
    async with _isolated(did):
        await send_due(lane, sight, lease, did)
    for kind in filter(lane.carries, lane.kinds.values()):
        async with _isolated(did):
            await plan(lane, sight, lease, kind, did)
    return did


@asynccontextmanager
async def _isolated(did: Did, tx_id: UUID | None = None) -> AsyncGenerator[None]:
    """Keep what goes wrong inside to one transaction."""
    bound = {} if tx_id is None else {"transaction_id": str(tx_id)}
    with structlog.contextvars.bound_contextvars(**bound):
        try:
            yield
        except (LeaseLost, SQLAlchemyError):
            raise
        except TransientError as error:
            did.errors.append(error)
            _log.info("relayer_tries_again", error=error)
        except Exception as error:  # noqa: BLE001 - an app's function may raise anything
            did.errors.append(error)
            alarm("error", "relayer_step_failed", error=error, exc_info=error)


async def _has_work(lane: Lane) -> bool:
    """Return whether anything is open, to be reviewed or due; keep the gauges up to date."""
    async with lane.database.transaction() as session:
        ours = (
            TransactionRow.chain_id == lane.chain.chain_id,
            TransactionRow.sender == lane.sender,
        )
        counts = await session.execute(
            select(TransactionRow.state, func.count())
            .where(*ours, TransactionRow.state.in_(_STATES))
            .group_by(TransactionRow.state)
        )
        by_state = dict(counts.all())
        pending = await session.execute(
            select(
                UnitRow.app,
                UnitRow.kind,
                func.count(),
                func.count().filter(UnitRow.ready_at <= lane.now()),
            )
            .where(UnitRow.state == "pending", UnitRow.chain_id == lane.chain.chain_id)
            .group_by(UnitRow.app, UnitRow.kind)
        )
        by_kind = {(app, name): (all_, due) for app, name, all_, due in pending}
        row = await ledger.account(session, lane)
        reviewing = await session.scalar(
            select(UnitRow.id)
            .join(TransactionRow, TransactionRow.id == UnitRow.tx_id)
            .where(UnitRow.state == "bound", *ours, TransactionRow.state.in_(TO_REVIEW))
            .limit(1)
        )
    for state in _STATES:
        _OPEN.labels(lane.chain.name, lane.sender, state).set(by_state.get(state, 0))
    due = 0
    for key, kind in lane.kinds.items():
        of_kind = by_kind.get(key, (0, 0))
        _PENDING.labels(kind.label).set(of_kind[0])
        due += of_kind[1] if lane.carries(kind) else 0
    held_up = row is not None and row.mode_by == account.KERNEL
    return bool(by_state or due or held_up or reviewing)


async def _is_anything_not_final(lane: Lane) -> bool:
    async with lane.database.transaction() as session:
        found = await session.scalar(
            select(TransactionRow.id)
            .where(
                TransactionRow.chain_id == lane.chain.chain_id,
                TransactionRow.sender == lane.sender,
                TransactionRow.nonce.is_not(None),
                TransactionRow.final_at.is_(None),
                TransactionRow.state.in_(ENDED),
            )
            .limit(1)
        )
    return found is not None


async def _watch(lane: Lane, sight: Sight, lease: Lease, did: Did) -> None:
    async with lane.database.transaction() as session:
        open_ones = await ledger.held(session, lane, *OPEN)
    for one in open_ones:
        async with _isolated(did, one.tx.id):
            if one.tx.state == "mined":
                await watch_mined(lane, sight, lease, one, did)
            else:
                await watch_unmined(lane, sight, lease, one, did)


async def _outbid(lane: Lane, sight: Sight, lease: Lease, did: Did) -> None:
    async with lane.database.transaction() as session:
        unmined = await ledger.held(session, lane, "signed", "sent")
    # A higher nonce cannot be mined before a lower one: raising its fees would be wasted.
    waiting = [one for one in unmined if one.nonce >= sight.mined]
    for place, one in enumerate(waiting):
        to_cancel = one.tx.cancel_requested_at is not None and not one.last.is_cancel
        if place == 0 or to_cancel:
            async with _isolated(did, one.tx.id):
                await outbid(lane, sight, lease, one, did)


async def _sign(lane: Lane, sight: Sight, lease: Lease, did: Did) -> None:
    async with lane.database.transaction() as session:
        planned = list(
            await session.scalars(
                select(TransactionRow)
                .where(
                    TransactionRow.chain_id == lane.chain.chain_id,
                    TransactionRow.sender == lane.sender,
                    TransactionRow.state == "planned",
                )
                .order_by(TransactionRow.created_at, TransactionRow.id)
            )
        )
    for tx in planned:
        async with _isolated(did, tx.id):
            await sign(lane, sight, lease, tx, did)
