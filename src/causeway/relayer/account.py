"""The account that signs: its mode, its funds, and kinds that wait.

    run         goes on
    no-new      plans nothing; what is planned and signed goes on
    no-sign     signs nothing; signed bytes that were sent are sent again, everything is watched
    hold:funds  as `no-sign` until the balance suffices; nothing fails
    hold:budget the same until enough of the last day's spending is past

`no-sign` by `kernel` stands while nonces that were spent without us are looked into
(`causeway.relayer.recovery`); what an operator sets only an operator lifts. Pauses
(`causeway.relayer.pauses`) come on top.
"""

from __future__ import annotations

from datetime import timedelta

import structlog
from prometheus_client import Gauge
from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.base.errors import InvalidInput, NotFound
from causeway.relayer import budget, ledger
from causeway.relayer.fees import Quote
from causeway.relayer.filing import notify
from causeway.relayer.kind import UnitKind
from causeway.relayer.lane import Lane, alarm
from causeway.relayer.models import MODES, AccountRow, WaitRow
from causeway.relayer.notices import Notice, NoticeCause
from causeway.store.lease import Lease

_log = structlog.get_logger(__name__)
_BALANCE = Gauge(
    "causeway_relayer_balance_wei", "Balance of a signing account", ["chain", "sender"]
)
_LOW = Gauge(
    "causeway_relayer_balance_low", "1 while an account has too little", ["chain", "sender"]
)
_BASE_FEE = Gauge("causeway_relayer_base_fee_wei", "Base fee of the next block", ["chain"])
_STOPPED = Gauge(
    "causeway_relayer_stopped", "1 while the account's mode is not `run`", ["chain", "sender"]
)
_WAITING = Gauge("causeway_relayer_waiting", "1 while a kind waits", ["kind", "cause"])

KERNEL = "kernel"


def ether(amount_wei: int) -> str:
    """Return an amount as people write it, exactly."""
    whole, rest = divmod(amount_wei, 10**18)
    return f"{whole}.{rest:018d}".rstrip("0").rstrip(".") + " ETH"


async def tell(session: AsyncSession, lane: Lane, cause: NoticeCause, message: str) -> None:
    """Tell who wants to know, in this commit."""
    if lane.on_notice is not None:
        chain = lane.chain
        notice = Notice(cause, chain.name, chain.chain_id, lane.sender, message, lane.now())
        await session.flush()
        await lane.on_notice(session, notice)


async def switch(
    session: AsyncSession,
    lane: Lane,
    row: AccountRow,
    mode: str,
    reason: str | None,
    by: str | None = KERNEL,
) -> None:
    """Set the mode of a locked account row and say so."""
    changed = row.mode != mode
    row.mode = mode
    row.reason = reason
    row.mode_by = None if mode == "run" else by
    if not mode.startswith("hold:"):
        row.needed_wei = None
    if not changed:
        return
    row.mode_since = lane.now()
    _STOPPED.labels(lane.chain.name, lane.sender).set(mode != "run")
    if by == KERNEL and mode != "run":
        alarm(mode, "relayer_stopped", account=lane.sender, chain=lane.chain.name, reason=reason)
    else:
        _log.warning("relayer_mode", account=lane.sender, chain=lane.chain.name, mode=mode)
    if mode == "run":
        await tell(session, lane, "running", f"{lane.sender} goes on")
    else:
        await tell(session, lane, "stopped", reason or f"{lane.sender} is switched to {mode}")


async def set_mode(
    session: AsyncSession, lane: Lane, mode: str, *, reason: str | None, by: str
) -> None:
    """Set the mode by an operator's word, in the caller's transaction.

    Raises `InvalidInput` for another mode than `run`, `no-new` and `no-sign`, and `NotFound` when
    the account has never been used.
    """
    if mode not in MODES or mode.startswith("hold:"):
        raise InvalidInput(f"{mode!r} is no mode; it is one of run, no-new, no-sign")
    row = await ledger.account(session, lane, lock=True)
    if row is None:
        raise NotFound(f"the relayer has not used {lane.sender} on {lane.chain.name} yet")
    await switch(session, lane, row, mode, reason, by)
    await notify(session)


async def refresh(lane: Lane, lease: Lease) -> None:
    """Look at balance and base fee, warn when the balance is low, and end holds."""
    balance = await lane.chain.balance(lane.sender)
    history = await lane.chain.fee_history(1, [])
    base = history.base_fee_per_gas[-1]
    _BASE_FEE.labels(lane.chain.name).set(base)
    async with lane.commit(lease) as session:
        row = await ledger.account(session, lane, lock=True)
        if row is None:
            return
        await _note_balance(session, lane, row, balance)
        row.base_fee_wei = base
        row.checked_at = lane.now()
        used, most = await budget.used_wei(session, lane), lane.settings.daily_budget_wei
        if row.mode == "hold:funds" and balance >= (row.needed_wei or 0):
            await switch(session, lane, row, "run", None)
        elif row.mode == "hold:budget" and (most is None or used + (row.needed_wei or 0) <= most):
            await switch(session, lane, row, "run", None)


async def _note_balance(
    session: AsyncSession, lane: Lane, row: AccountRow, balance_wei: int
) -> None:
    """Keep the balance; say once when it falls below the warning, and once when it is back."""
    row.balance_wei = balance_wei
    warning = lane.settings.balance_warning_wei
    is_low = warning is not None and balance_wei < warning
    _BALANCE.labels(lane.chain.name, lane.sender).set(balance_wei)
    _LOW.labels(lane.chain.name, lane.sender).set(is_low)
    if is_low == (row.low_since is not None):
        return
    row.low_since = lane.now() if is_low else None
    held = f"{lane.sender} has {ether(balance_wei)} on {lane.chain.name}"
    if not is_low:
        _log.info("relayer_balance_restored", account=lane.sender, chain=lane.chain.name)
        await tell(session, lane, "balance_restored", f"{held}: enough again")
        return
    alarm(
        "balance_low",
        "relayer_balance_low",
        account=lane.sender,
        chain=lane.chain.name,
        balance=ether(balance_wei),
    )
    message = f"{held}, less than {ether(warning or 0)}: send it some soon"
    await tell(session, lane, "balance_low", message)


async def check_means(lane: Lane, lease: Lease, cost_wei: int) -> str | None:
    """Return None when the account can and may pay `cost_wei` on top of what is under way.

    If not, it is put on hold, and why is returned. A balance that cannot be read is not a
    balance that is short: that error is the caller's.
    """
    balance = await lane.chain.balance(lane.sender)
    async with lane.commit(lease) as session:
        row = await ledger.account(session, lane, lock=True)
        if row is None:
            return "the account is not known yet"
        await _note_balance(session, lane, row, balance)
        need = cost_wei + await budget.committed_wei(session, lane)
        if balance < need:
            await _hold_for_funds(session, lane, row, need)
            return "the account cannot pay for it"
        used, most = await budget.used_wei(session, lane), lane.settings.daily_budget_wei
        # What is signed already was allowed; it is not held up by what it may cost itself.
        if most is not None and cost_wei and used + cost_wei > most:
            await _hold_for_budget(session, lane, row, used, cost_wei, most)
            return "the day's budget does not allow it"
        if row.mode.startswith("hold:"):
            await switch(session, lane, row, "run", None)
        return None


async def _hold_for_funds(
    session: AsyncSession, lane: Lane, row: AccountRow, need_wei: int
) -> None:
    """Put a locked account on hold until it holds `need_wei`; never over another stop."""
    if row.mode != "run" and not row.mode.startswith("hold:"):
        return
    balance = row.balance_wei or 0
    reason = (
        f"{lane.sender} has {ether(balance)} on {lane.chain.name} and needs {ether(need_wei)}: "
        f"send it {ether(max(0, need_wei - balance))}"
    )
    await switch(session, lane, row, "hold:funds", reason)
    row.needed_wei = need_wei


async def _hold_for_budget(
    session: AsyncSession, lane: Lane, row: AccountRow, used_wei: int, cost_wei: int, most_wei: int
) -> None:
    if row.mode != "run" and not row.mode.startswith("hold:"):
        return
    reason = (
        f"{lane.sender} has used {ether(used_wei)} of the {ether(most_wei)} that it may spend on "
        f"{lane.chain.name} in 24 hours, and the next transaction may cost {ether(cost_wei)}: "
    )
    alone = (
        "raise the budget" if cost_wei > most_wei else "it goes on by itself, or raise the budget"
    )
    await switch(session, lane, row, "hold:budget", reason + alone)
    row.needed_wei = cost_wei


def note_price(row: AccountRow, quote: Quote) -> None:
    """Keep what a transaction pays per gas now, for the pages that show it."""
    row.base_fee_wei, row.gas_price_wei = quote.base_wei, quote.price_wei


async def is_waiting(session: AsyncSession, lane: Lane, kind: UnitKind) -> bool:
    """Return whether a kind waits for something outside."""
    return await session.scalar(select(WaitRow.cause).where(_of(lane, kind))) is not None


async def wait(lane: Lane, lease: Lease, kind: UnitKind, cause: str, reason: str) -> None:
    """Say that a kind waits, and raise an alarm once it has waited for long."""
    now = lane.now()
    async with lane.commit(lease) as session:
        row = await session.scalar(select(WaitRow).where(_of(lane, kind)))
        if row is None or row.cause != cause:
            if row is not None:
                _WAITING.labels(kind.label, row.cause).set(0)
                await session.delete(row)
                await session.flush()
            row = WaitRow(
                chain_id=lane.chain.chain_id,
                sender=lane.sender,
                app=kind.app,
                kind=kind.name,
                cause=cause,
                since=now,
            )
            session.add(row)
            _WAITING.labels(kind.label, cause).set(1)
            _log.warning("relayer_waits", kind=kind.label, cause=cause, reason=reason)
        row.reason = reason
        row.checked_at = now
        # A refusal for a reason of ours never heals by itself: say so at once.
        patience_s = 0.0 if cause == "refused" else lane.settings.wait_alert_s
        if row.alerted_at is None and now - row.since >= timedelta(seconds=patience_s):
            row.alerted_at = now
            alarm(cause, "relayer_waits_for_long", kind=kind.label, reason=reason)
            await tell(session, lane, "waiting", f"{kind.label} waits: {reason}")


async def end_wait(lane: Lane, lease: Lease, kind: UnitKind) -> None:
    """Say that a kind goes on."""
    async with lane.commit(lease) as session:
        cause = await session.scalar(
            delete(WaitRow).where(_of(lane, kind)).returning(WaitRow.cause)
        )
    if cause is not None:
        _WAITING.labels(kind.label, cause).set(0)
        _log.info("relayer_goes_on", kind=kind.label, cause=cause)


def _of(lane: Lane, kind: UnitKind) -> ColumnElement[bool]:
    return (
        (WaitRow.chain_id == lane.chain.chain_id)
        & (WaitRow.sender == lane.sender)
        & (WaitRow.app == kind.app)
        & (WaitRow.kind == kind.name)
    )
