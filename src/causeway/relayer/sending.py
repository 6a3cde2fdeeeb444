"""Step 3, send: stored bytes to all providers, again and again until their fate is known.

An answer that leaves open whether somebody took the bytes (a timeout, a broken connection, a 500)
changes nothing: the same bytes go out again, after a while. A new nonce is never taken for them.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

import structlog
from prometheus_client import Counter

from causeway.base.errors import TransientError
from causeway.base.faults import fault_point
from causeway.chains.errors import (
    AlreadyKnown,
    FeeCapExceeded,
    InsufficientFunds,
    IntrinsicGasTooLow,
    NonceTooHigh,
    NonceTooLow,
    ReplacementUnderpriced,
    RpcError,
    Underpriced,
)
from causeway.relayer import account, ledger
from causeway.relayer.fees import doubled
from causeway.relayer.lane import Did, Lane, Sight, alarm
from causeway.relayer.ledger import Held
from causeway.relayer.pauses import gate
from causeway.store.lease import Lease

_log = structlog.get_logger(__name__)
_SENDS = Counter(
    "causeway_relayer_sends_total", "Times that signed bytes went out", ["chain", "answer"]
)

#: What a provider's answer to the bytes means. `open`: nobody knows.
Answer = Literal["accepted", "spent", "gap", "rival", "funds", "cheap", "cap", "gas", "open"]

_ANSWERS: tuple[tuple[type[Exception], Answer], ...] = (
    (AlreadyKnown, "accepted"),
    (NonceTooLow, "spent"),
    (ReplacementUnderpriced, "rival"),
    (NonceTooHigh, "gap"),
    (InsufficientFunds, "funds"),
    (Underpriced, "cheap"),
    (FeeCapExceeded, "cap"),
    (IntrinsicGasTooLow, "gas"),
)


def meaning(error: Exception) -> Answer:
    """Return what an error of `send_raw` means for the bytes."""
    for kind, answer in _ANSWERS:
        if isinstance(error, kind):
            return answer
    return "open"


async def send_due(lane: Lane, sight: Sight, lease: Lease, did: Did) -> None:
    """Send what is due, lowest nonce first; stop at the first that nobody has taken yet."""
    async with lane.database.transaction() as session:
        waiting = await ledger.held(session, lane, "signed", "sent")
        row = await ledger.account(session, lane)
        if row is None:
            return
        gates = {app: await gate(session, row, app) for app in {one.tx.app for one in waiting}}
    for one in waiting:
        if gates[one.tx.app].is_stopped and one.last.sends == 0 and not one.last.is_cancel:
            return  # never sent as far as we know: it stays here until signing is allowed again
        if not _is_due(lane, one) and not await _is_gone(lane, one):
            if one.last.sent_at is None and one.tx.state == "signed":
                return
            continue
        if not await _send(lane, sight, lease, one, did) and one.tx.state == "signed":
            return  # the next nonce would only be refused for the gap


def _is_due(lane: Lane, one: Held) -> bool:
    last = one.last
    if last.last_sent_at is None:
        return True
    if last.state == "rejected":  # other bytes take its place, unless the ceiling forbids it
        return lane.now() - last.last_sent_at >= timedelta(seconds=lane.settings.resend_most_s)
    if last.sent_at is not None:
        return False
    wait_s = doubled(lane.settings.resend_first_s, last.sends - 1, lane.settings.resend_most_s)
    return lane.now() - last.last_sent_at >= timedelta(seconds=wait_s)


async def _is_gone(lane: Lane, one: Held) -> bool:
    """Return whether accepted bytes are not with the provider any more (looked at now and then).

    Where transactions wait in private this is normal; sending them again does no harm.
    """
    last = one.last
    if last.sent_at is None or last.state == "rejected":
        return False
    now = lane.clock.monotonic()
    looked = lane.memory.presence.setdefault(one.tx.id, now)
    if now - looked < lane.settings.presence_check_s:
        return False
    lane.memory.presence[one.tx.id] = now
    return await lane.chain.transaction(last.hash) is None


async def _send(lane: Lane, sight: Sight, lease: Lease, one: Held, did: Did) -> bool:
    """Send the bytes of a transaction; return whether a provider has them now."""
    last = one.last
    failure: Exception | None = None
    lane.memory.presence[one.tx.id] = lane.clock.monotonic()
    with structlog.contextvars.bound_contextvars(transaction_id=str(one.tx.id)):
        try:
            await lane.chain.send_raw(last.raw)
        except (TransientError, RpcError) as error:
            failure = error
        answer: Answer = "accepted" if failure is None else meaning(failure)
        _SENDS.labels(lane.chain.name, answer).inc()
        fault_point("relayer.sent_unrecorded")
        if answer == "rival" and await _is_ours(lane, one):
            answer = "cheap"  # our own earlier attempt: raise more
        await _record(lane, sight, lease, one, answer, failure)
        if answer == "accepted":
            fault_point("relayer.sent")
        elif answer == "rival":
            await _stop_for_rival(lane, lease, one)
        elif answer == "funds":
            await account.check_means(lane, lease, 0)
        elif answer == "gap":
            # An earlier one may be gone there: look at once.
            lane.memory.presence = dict.fromkeys(lane.memory.presence, float("-inf"))
    first = last.sent_at is None
    did.sent += first and answer == "accepted"
    return answer == "accepted"


async def _is_ours(lane: Lane, one: Held) -> bool:
    earlier = one.attempts[:-1]
    return any([await lane.chain.transaction(attempt.hash) is not None for attempt in earlier])


async def _record(
    lane: Lane, sight: Sight, lease: Lease, one: Held, answer: Answer, failure: Exception | None
) -> None:
    now = lane.now()
    async with lane.commit(lease) as session:
        tx = await ledger.locked(session, one.tx.id, "signed", "sent")
        if tx is None:
            return
        attempt = await ledger.locked_attempt(session, one.last)
        attempt.sends += 1
        attempt.last_sent_at = now
        tx.updated_at = now
        if answer == "accepted":
            again = attempt.sent_at is not None
            if not again:
                attempt.sent_at = now
                attempt.sent_block = sight.head.number
            attempt.state = "sent"
            tx.waiting = None
            if tx.state == "signed":
                ledger.move(session, tx, now, "sent", hash=attempt.hash, attempt=attempt.n)
            else:
                what = "replacement_sent" if attempt.sends == 1 else "resent"
                ledger.record(session, tx, now, what, hash=attempt.hash, attempt=attempt.n)
            return
        reason = f"{type(failure).__name__}: {failure}"[:300]
        if answer in ("cheap", "gas"):
            attempt.state = "rejected"
            attempt.rejected_reason = reason
            ledger.record(session, tx, now, "refused", reason=reason, attempt=attempt.n)
        elif answer == "open":
            ledger.wait_for(session, tx, now, f"no clear answer to its bytes: {reason}")
        elif answer == "spent":
            ledger.wait_for(session, tx, now, "its nonce is spent; looking for what spent it")
        elif ledger.wait_for(session, tx, now, f"the provider refuses it for now: {reason}"):
            if answer == "cap":
                alarm("fee_cap", "relayer_fee_cap", chain=lane.chain.name, reason=reason)


async def _stop_for_rival(lane: Lane, lease: Lease, one: Held) -> None:
    """Somebody else's transaction waits at our nonce: sign nothing until it is decided."""
    async with lane.commit(lease) as session:
        row = await ledger.account(session, lane, lock=True)
        if row is not None and row.mode != "no-sign":
            reason = f"another program uses this key: it has a transaction at nonce {one.nonce}"
            await account.switch(session, lane, row, "no-sign", reason)
