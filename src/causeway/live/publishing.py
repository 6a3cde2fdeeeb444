"""Publishing: inside the transaction that does what is told, or not at all.

    async with database.transaction() as session:
        ...change the rows...
        await publish(session, f"race:{race_id}", "split", {"distance": 1000})

The message has its number when the transaction commits and is told to clients then; rolled back, it
never was. Numbers of a channel go up by one in the order of the commits. A channel is locked from
here to the commit: publish last, and to several channels in the order of their names
(`publish_all`), so that two transactions never wait for each other.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.base.errors import Bug

#: Messages kept of each channel.
KEPT = 1000

#: What NOTIFY carries: a channel's name, or with this before it one whose followers are to be
#: asked about again. It is a hint; a lost one costs one sweep.
NOTICE = "causeway_live"
RECHECK = "?"

#: Where a session keeps what is to be hinted at by other ways once it has committed.
HINTS = "causeway_live_hints"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,199}")

_PUBLISH = text("SELECT causeway.live_publish(:channel, :kind, CAST(:data AS jsonb), :keep)")


def is_name(channel: str) -> bool:
    """Whether a text can be a channel's name: letters, digits, `._:/-`, at most 200."""
    return _NAME.fullmatch(channel) is not None


async def publish(
    session: AsyncSession, channel: str, kind: str, data: Any, *, keep: int = KEPT
) -> int:
    """Publish one message with the transaction of `session`; return its number.

    `keep` is how many messages of this channel can be asked for again.
    """
    if not is_name(channel):
        raise Bug(f"{channel!r} is no name of a channel")
    values = {"channel": channel, "kind": kind, "data": orjson.dumps(data).decode(), "keep": keep}
    number = await session.scalar(_PUBLISH, values)
    _hint(session, channel)
    return int(number or 0)


async def publish_all(session: AsyncSession, messages: Sequence[tuple[str, str, Any]]) -> None:
    """Publish (channel, kind, data) of several channels in an order that cannot deadlock."""
    for channel, kind, data in sorted(messages, key=lambda message: message[0]):
        await publish(session, channel, kind, data)


async def recheck(session: AsyncSession, channel: str) -> None:
    """Have every follower of a channel asked about again, once this transaction commits.

    To be called where somebody's right to follow is taken away.
    """
    await session.execute(
        text("SELECT pg_notify(:notice, :channel)"),
        {"notice": NOTICE, "channel": RECHECK + channel},
    )
    _hint(session, RECHECK + channel)


def _hint(session: AsyncSession, payload: str) -> None:
    # Of a session used for several transactions some are hinted at again: a look for nothing.
    told: set[str] = session.info.setdefault(HINTS, set())
    told.add(payload)


def allow_publishing(role: str) -> list[str]:
    """Return the statements that let a role of requests publish within its transactions."""
    function = "causeway.live_publish(text, text, jsonb, bigint)"
    return [
        f"GRANT USAGE ON SCHEMA causeway TO {role}",
        f"GRANT EXECUTE ON FUNCTION {function} TO {role}",
    ]


async def trim(session: AsyncSession, older_than_s: float) -> int:
    """Delete messages of that age, and tickets nobody came with; return how many messages.

    For a schedule; without one a channel keeps its last messages for ever.
    """
    await session.execute(
        text("DELETE FROM causeway.live_tickets WHERE expires_at < clock_timestamp()")
    )
    gone = await session.scalar(
        text(
            "WITH gone AS (DELETE FROM causeway.live_messages"
            " WHERE sent_at < clock_timestamp() - make_interval(secs => :age) RETURNING 1)"
            " SELECT count(*) FROM gone"
        ),
        {"age": older_than_s},
    )
    return int(gone or 0)
