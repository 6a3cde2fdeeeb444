"""Telling people before they lose money, and when there is some to fetch: once each.

A reminder is a row, written in the transaction of what caused it; stage `remind` delivers it to
the webhook of `REMINDER_WEBHOOK_URL`, which knows how to reach the person.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.motify.contract import Challenge
from causeway.apps.motify.models import Reminder, Settlement


def key_of(settlement: Settlement) -> str:
    """Return how reminders name a challenge."""
    return f"{settlement.chain_id}:{settlement.contract_address}:{settlement.challenge_id}"


async def remind(
    session: AsyncSession, kind: str, key: str, people: Mapping[str, Mapping[str, Any]]
) -> None:
    """Owe these people a reminder of a kind, unless they were owed it before."""
    rows = [
        {"kind": kind, "settlement_key": key, "wallet": wallet, "body": dict(body)}
        for wallet, body in people.items()
    ]
    if rows:
        await session.execute(insert(Reminder).on_conflict_do_nothing(), rows)


async def remind_finished(
    session: AsyncSession, settlement: Settlement, challenge: Challenge
) -> None:
    """Tell everybody the result, and those who get something back that they can claim it."""
    key = key_of(settlement)
    people = challenge.participants
    await remind(
        session,
        "result_declared",
        key,
        {one.wallet: {"bps": one.bps, "challenge_id": str(challenge.id)} for one in people},
    )
    await remind(
        session,
        "refund_claimable",
        key,
        {
            one.wallet: {"amount_minor_units": str(one.amount), "challenge_id": str(challenge.id)}
            for one in people
            if one.amount
        },
    )


async def remind_all(
    session: AsyncSession, kind: str, settlement: Settlement, wallets: Iterable[str], **body: Any
) -> None:
    """Tell these people the same of one challenge."""
    what = {"challenge_id": str(settlement.challenge_id), **body}
    await remind(session, kind, key_of(settlement), dict.fromkeys(wallets, what))
