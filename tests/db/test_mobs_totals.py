"""Totals from hours and minutes equal a count of the rows."""

from __future__ import annotations

import random

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.mobs import partitions
from causeway.apps.mobs.rollup import compute_marked
from causeway.apps.mobs.scanner import mark_dirty
from causeway.apps.mobs.totals import Status, by_time
from causeway.store.engine import Database
from tests.mobs_blocks import NOON, Sent, block, scanner

_WHERE: dict[Status, str] = {"all": "true", "success": "status = 1", "failed": "status = 0"}
DAY_S = partitions.DAY_S


async def check(session: AsyncSession, rng: random.Random, first: int, last: int) -> None:
    """Compare totals of random ranges with counts."""
    for turn in range(60):
        since, until = sorted(rng.randrange(first, last) for _ in range(2))
        if turn % 5 == 0:
            since, until = 0, 2**62
        for status, where in _WHERE.items():
            for system in (True, False):
                counted = await session.scalar(
                    text(
                        "SELECT count(*) FROM mobs.txs WHERE block_timestamp BETWEEN :since AND "
                        f":until AND {where} AND (:system OR NOT is_system)"
                    ),
                    {"since": since, "until": until, "system": system},
                )
                found = await by_time(session, status, since, until, system=system)
                assert found == counted, (since - NOON, until - NOON, status, system)


async def test_totals_are_what_is_stored_whatever_was_let_go(database: Database) -> None:
    rng = random.Random(5)
    async with scanner(database) as one:
        # Two days, blocks ten minutes apart and some close together.
        times = sorted(
            {*range(NOON - DAY_S, NOON, 600), *(NOON - rng.randrange(9000) for _ in range(60))}
        )
        blocks = [
            block(
                number,
                at,
                [
                    Sent(system=True, nonce=number),
                    *(
                        Sent(nonce=number * 10 + n, status=rng.randrange(2))
                        for n in range(rng.randrange(4))
                    ),
                ],
            )
            for number, at in enumerate(times)
        ]
        async with database.transaction() as session:
            await one.apply(session, blocks)
        while True:
            async with database.transaction() as session:
                if not await compute_marked(session):
                    break
        first, last = times[0] - 100, times[-1] + 100
        async with database.transaction() as session:
            await check(session, rng, first, last)
            await mark_dirty(session, [times[-70]])
            await check(session, rng, first, last)
            # Minutes go before hours, successful transactions before failed ones.
            day = times[0] // DAY_S
            await partitions.drop(session, "metrics_minute", day)
            await check(session, rng, first, last)
            await partitions.drop(session, "txs_ok", day)
            await check(session, rng, first, last)
