"""Writing whole blocks down: transactions with their fees and errors, in one COPY a commit.

Runs in the transaction that moves the kernel's checkpoint, so that a block is there whole or not at
all. A reorg takes the rows of its blocks away in the same way, and their minutes are computed anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import structlog
from sqlalchemy import Table, text
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.mobs import partitions
from causeway.apps.mobs.models import Block, Tx
from causeway.apps.mobs.settings import MobsSettings
from causeway.apps.mobs.watched import Watched
from causeway.apps.mobs.wire import Labels, block_row, tx_rows
from causeway.base.clock import SYSTEM_CLOCK, Clock
from causeway.base.errors import PermanentError
from causeway.chains.evm.blocks import FullBlock
from causeway.indexing.source import Undone
from causeway.store.copy import copy_rows

log = structlog.get_logger(__name__)

_TXS: Table = Tx.__table__  # pyright: ignore[reportAssignmentType]
_BLOCKS: Table = Block.__table__  # pyright: ignore[reportAssignmentType]

#: Hashes written into the row of a reorg; all of them are in `removed_txs`.
_HASHES_SHOWN = 1000


class TooDeep(PermanentError):
    """The chain replaced more blocks than are undone without asking."""


class Scanner:
    """Writes whole blocks down."""

    def __init__(
        self, settings: MobsSettings, watched: Watched, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._settings = settings
        self._watched = watched
        self._clock = clock

    async def apply(self, session: AsyncSession, blocks: Sequence[FullBlock]) -> None:
        """Write blocks down and note where the scanner is."""
        await self.write(session, blocks)
        newest = blocks[-1]
        await note_scanned(session, newest.block.number, newest.block.hash, newest.timestamp)

    async def write(self, session: AsyncSession, blocks: Sequence[FullBlock]) -> None:
        """Write blocks, their transactions, and what is to be done about them."""
        await self._watched.refresh(session)
        times = [block.timestamp for block in blocks]
        tables = ("txs_ok", "txs_failed", "blocks", "tx_traces")
        await partitions.ensure(session, min(times), max(times), tables)
        settled, reorged = (
            await session.execute(
                text(
                    "SELECT (SELECT (value->>'safe')::bigint FROM mobs.worker_state "
                    "WHERE key = 'settled'), EXISTS (SELECT FROM mobs.removed_txs) "
                    "OR EXISTS (SELECT FROM mobs.reorgs WHERE new_head IS NULL)"
                )
            )
        ).one()
        labels = Labels(
            self._watched.decoder,
            self._watched.by_address,
            self._settings.profile(),
            -1 if settled is None else settled,
            self._settings.trace_queue_size > 0,
        )
        now = int(self._clock.now().timestamp())
        rows = [row for block in blocks for row in tx_rows(block, labels, now)]
        await _copy(session, _TXS, rows)
        await _copy(session, _BLOCKS, [block_row(block, now) for block in blocks])
        await mark_dirty(session, times)
        await self._queue(session, [row for row in rows if row["trace_state"] == "queued"])
        if reorged:
            await self._after_reorg(session, blocks[-1], [row["hash"] for row in rows])

    async def undone(self, session: AsyncSession, undone: Undone) -> None:
        """Take the rows of replaced blocks away and note which transactions went with them."""
        fork = undone.fork
        depth, most = undone.last - fork.number, self._settings.max_reorg_depth
        if depth > most:
            raise TooDeep(
                f"the chain replaced {depth} blocks, more than MAX_REORG_DEPTH ({most}); "
                "nothing is undone until an operator decides",
                hint="check that the providers serve the right chain; if they do, raise "
                "MAX_REORG_DEPTH for once",
            )
        fork_ts = int(fork.timestamp.timestamp())
        place = {"above": fork.number, "since": fork_ts}
        blocks = (
            await session.execute(
                text(
                    "DELETE FROM mobs.blocks WHERE number > :above AND timestamp >= :since "
                    "RETURNING timestamp, number, hash"
                ),
                place,
            )
        ).all()
        await mark_dirty(session, [at for at, _, _ in blocks])
        hashes = {number: bytes(block_hash) for _, number, block_hash in blocks}
        gone = (
            await session.execute(
                text(
                    "DELETE FROM mobs.txs WHERE block_number > :above "
                    "AND block_timestamp >= :since RETURNING hash, block_number"
                ),
                place,
            )
        ).all()
        await session.execute(
            text(
                "DELETE FROM mobs.tx_traces WHERE block_number > :above "
                "AND block_timestamp >= :since"
            ),
            place,
        )
        await session.execute(
            text("DELETE FROM mobs.trace_queue WHERE block_number > :above"), place
        )
        old_head = bytes.fromhex(undone.old_head.hash[2:])
        removed = [{"hash": "0x" + bytes(one).hex(), "block": number} for one, number in gone]
        reorg = await session.scalar(
            text(
                "INSERT INTO mobs.reorgs (ancestor, depth, old_head, txs_removed, hashes_removed) "
                "VALUES (:ancestor, :depth, :old_head, :removed, CAST(:hashes AS jsonb)) "
                "RETURNING id"
            ),
            {
                "ancestor": fork.number,
                "depth": depth,
                "old_head": old_head,
                "removed": len(gone),
                "hashes": orjson.dumps(removed[:_HASHES_SHOWN]).decode(),
            },
        )
        await session.execute(
            text(
                "INSERT INTO mobs.removed_txs (hash, reorg_id, block_number, block_hash) "
                "SELECT DISTINCT ON (hash) hash, :reorg, number, block_hash FROM unnest("
                "CAST(:hashes AS bytea[]), CAST(:numbers AS bigint[]), CAST(:blocks AS bytea[])) "
                "AS gone (hash, number, block_hash) ON CONFLICT (hash) DO UPDATE "
                "SET reorg_id = excluded.reorg_id, block_number = excluded.block_number, "
                "block_hash = excluded.block_hash"
            ),
            {
                "reorg": reorg,
                "hashes": [bytes(one) for one, _ in gone],
                "numbers": [number for _, number in gone],
                "blocks": [hashes.get(number, old_head) for _, number in gone],
            },
        )
        await note_scanned(session, fork.number, fork.hash, fork_ts)
        log.warning(
            "blocks_replaced",
            ancestor=fork.number,
            depth=depth,
            transactions=len(gone),
        )

    async def _after_reorg(
        self, session: AsyncSession, newest: FullBlock, hashes: Sequence[bytes]
    ) -> None:
        """Note the new branch, and which transactions of abandoned ones have come back."""
        await session.execute(
            text("UPDATE mobs.reorgs SET new_head = :hash WHERE new_head IS NULL"),
            {"hash": bytes.fromhex(newest.block.hash[2:])},
        )
        await session.execute(
            text(
                "WITH back AS (DELETE FROM mobs.removed_txs WHERE hash = ANY(:hashes) "
                "RETURNING reorg_id), counted AS (SELECT reorg_id, count(*) AS n FROM back "
                "GROUP BY reorg_id) UPDATE mobs.reorgs AS r SET txs_returned = txs_returned + n "
                "FROM counted AS c WHERE r.id = c.reorg_id"
            ),
            {"hashes": list(hashes)},
        )

    async def _queue(self, session: AsyncSession, rows: Sequence[dict[str, Any]]) -> None:
        if not rows:
            return
        await session.execute(
            text(
                "INSERT INTO mobs.trace_queue "
                "(block_number, tx_index, block_timestamp, hash, priority) "
                "SELECT * FROM unnest(CAST(:numbers AS bigint[]), CAST(:places AS integer[]), "
                "CAST(:times AS bigint[]), CAST(:hashes AS bytea[]), "
                "CAST(:priorities AS smallint[])) ON CONFLICT DO NOTHING"
            ),
            {
                "numbers": [row["block_number"] for row in rows],
                "places": [row["tx_index"] for row in rows],
                "times": [row["block_timestamp"] for row in rows],
                "hashes": [row["hash"] for row in rows],
                "priorities": [0 if row["contract_id"] is not None else 1 for row in rows],
            },
        )


async def _copy(session: AsyncSession, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        names = list(rows[0])
        await copy_rows(session, table, names, [[row[name] for row in rows] for name in names])


async def note_scanned(session: AsyncSession, number: int, block_hash: str, at: int) -> None:
    """Write down the newest applied block and its time (Unix seconds)."""
    value = {"block_number": number, "block_hash": block_hash, "timestamp": at}
    await note(session, "last_scanned_block", value)


async def settle(session: AsyncSession, safe: int) -> int:
    """Have the transactions of blocks up to `safe` tentative no more; return how many were.

    What is settled stays so: a head that goes down, or a safe block that does not move, changes
    nothing. Blocks up to `safe` that are not written down yet will be written as settled.
    """
    before, since, known, scanned = (
        await session.execute(
            text(
                "SELECT (s.value->>'block_number')::bigint, (s.value->>'timestamp')::bigint, "
                "(s.value->>'safe')::bigint, (l.value->>'block_number')::bigint "
                "FROM mobs.worker_state AS l LEFT JOIN mobs.worker_state AS s "
                "ON s.key = 'settled' WHERE l.key = 'last_scanned_block'"
            )
        )
    ).first() or (None, None, None, None)
    before, since, safe = before or -1, since or 0, max(safe, known or -1)
    # Whoever writes blocks now writes above these: nothing slips through between them and us.
    through = min(safe, -1 if scanned is None else scanned)
    changed = 0
    if through > before:
        until = await session.scalar(
            text("SELECT max(timestamp) FROM mobs.blocks WHERE number > :above AND number <= :to"),
            {"above": before, "to": through},
        )
        rows = await session.scalars(
            text(
                "UPDATE mobs.txs SET is_tentative = false WHERE is_tentative "
                "AND block_timestamp >= :since AND block_timestamp <= :until "
                "AND block_number > :above AND block_number <= :to RETURNING 1"
            ),
            {"since": since, "until": until or since, "above": before, "to": through},
        )
        changed = len(rows.all())
        before, since = through, until or since
    await note(session, "settled", {"block_number": before, "timestamp": since, "safe": safe})
    return changed


async def mark_dirty(session: AsyncSession, times: Sequence[int]) -> None:
    """Have the minutes of these times (Unix seconds) computed again."""
    minutes = sorted({time - time % 60 for time in times})
    if minutes:
        await session.execute(
            text(
                "INSERT INTO mobs.dirty_minutes (bucket_ts) SELECT unnest(CAST(:minutes AS "
                "bigint[])) ON CONFLICT (bucket_ts) DO UPDATE SET "
                "marks = mobs.dirty_minutes.marks + 1, marked_at = excluded.marked_at"
            ),
            {"minutes": minutes},
        )


async def note(session: AsyncSession, key: str, value: dict[str, Any]) -> None:
    """Write down where a pipeline is, for operators."""
    await session.execute(
        text(
            "INSERT INTO mobs.worker_state (key, value) VALUES (:key, CAST(:value AS jsonb)) "
            "ON CONFLICT (key) DO UPDATE SET value = excluded.value, "
            "updated_at = extract(epoch FROM clock_timestamp())::bigint"
        ),
        {"key": key, "value": orjson.dumps(value).decode()},
    )
