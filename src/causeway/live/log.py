"""Reading channels: where one stands, and what came after a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson
from sqlalchemy import text

from causeway.base.clock import iso
from causeway.store.engine import Database

#: Messages read at once of one channel, at most.
PAGE = 200

_AFTER = text(
    """
    SELECT m.channel, m.seq, m.kind, m.data::text, m.sent_at
    FROM unnest(CAST(:names AS text[]), CAST(:seqs AS bigint[])) AS w (channel, seq)
    CROSS JOIN LATERAL (
        SELECT * FROM causeway.live_messages l
        WHERE l.channel = w.channel AND l.seq > w.seq ORDER BY l.seq LIMIT :page
    ) AS m ORDER BY m.channel, m.seq
    """
)


@dataclass(frozen=True, slots=True)
class Message:
    """A message, and the frame that every client of the channel is sent."""

    seq: int
    frame: str


async def last_seq(database: Database, channel: str) -> int:
    """Return the number of a channel's newest message; 0 before the first."""
    async with database.transaction() as session:
        found = await session.scalar(
            text("SELECT last_seq FROM causeway.live_channels WHERE name = :name"),
            {"name": channel},
        )
    return int(found or 0)


async def read_after(
    database: Database, positions: Mapping[str, int], page: int = PAGE
) -> dict[str, Sequence[Message]]:
    """Return what came after these numbers, of each channel `page` messages at most.

    Older messages than the log holds are missing: the numbers tell.
    """
    found: dict[str, list[Message]] = {name: [] for name in positions}
    values = {"names": list(positions), "seqs": list(positions.values()), "page": page}
    async with database.transaction() as session:
        for channel, seq, kind, data, sent_at in await session.execute(_AFTER, values):
            # `data` is JSON already: it is not read and written again for each process.
            head = orjson.dumps({"type": kind, "channel": channel, "seq": seq, "ts": iso(sent_at)})
            frame = f'{head.decode()[:-1]},"data":{data}}}'
            found[channel].append(Message(seq, frame))
    return dict(found)
