"""Minutes equal a fresh aggregate over the stored transactions, whatever happened before."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import text

from causeway.apps.mobs import partitions, sketches
from causeway.apps.mobs.rollup import compute_marked, compute_minutes
from causeway.apps.mobs.scanner import Scanner, mark_dirty
from causeway.chains.evm.blocks import FullBlock
from causeway.store.engine import Database
from tests.mobs_blocks import NOON, Sent, address, block, scanner, undone_to


async def rows(database: Database, query: str, **values: Any) -> list[dict[str, Any]]:
    async with database.sessions() as session:
        found = (await session.execute(text(query), values)).mappings()
        return [dict(row) for row in found]


async def compute_all(database: Database) -> None:
    for most in itertools.cycle((7, 1)):  # several minutes at once, and one alone
        async with database.transaction() as session:
            if not await compute_marked(session, most):
                return


ERROR = "0x08c379a0" + f"{32:064x}{2:064x}"


def failing(word: str) -> str:
    """Revert data of `Error(string)` with a word of two letters."""
    return ERROR + word.encode().hex().ljust(64, "0")


def expected(blocks: Sequence[FullBlock]) -> dict[int, dict[str, Any]]:
    """What the minutes of these blocks must be, counted without the database."""
    minutes: dict[int, dict[str, Any]] = {}
    newest = blocks[-1].timestamp if blocks else 0
    for full in blocks:
        minute = full.timestamp - full.timestamp % 60
        if minute + 60 > newest:
            continue
        here = minutes.setdefault(
            minute,
            {
                "block_count": 0,
                "tx_count": 0,
                "tx_failed_count": 0,
                "system_tx_count": 0,
                "gas_used_total": 0,
                "fees_total": 0,
                "senders": set(),
                "prices": [],
                "errors": Counter(),
            },
        )
        here["block_count"] += 1
        for tx, receipt in zip(full.transactions, full.receipts, strict=True):
            gas, price = int(receipt.gas_used, 16), int(receipt.effective_gas_price or "0", 16)
            here["gas_used_total"] += gas
            if tx.from_.startswith("0xdeaddead"):
                here["system_tx_count"] += 1
                continue
            here["tx_count"] += 1
            here["fees_total"] += gas * price
            here["senders"].add(tx.from_)
            if tx.kind != 126:
                here["prices"].append(price)
            if receipt.status == "0x0":
                here["tx_failed_count"] += 1
                reason = receipt.revert_reason
                here["errors"]["none" if reason is None else reason[:10]] += 1
    return minutes


async def check(database: Database, blocks: Sequence[FullBlock]) -> None:
    """Compare every stored minute with `expected`."""
    want = expected(blocks)
    found = {
        int(row["bucket_ts"]): row
        for row in await rows(database, "SELECT * FROM mobs.metrics_minute")
    }
    assert set(found) == set(want)
    for minute, here in want.items():
        row = found[minute]
        for name in (
            *("block_count", "tx_count", "tx_failed_count", "system_tx_count"),
            *("gas_used_total", "fees_total"),
        ):
            assert int(row[name]) == here[name], (minute, name)
        assert row["unique_senders"] == len(here["senders"])
        prices = sorted(here["prices"])
        assert int(row["gas_price_sum"]) == sum(prices)
        assert row["gas_price_count"] == len(prices)
        if prices:
            assert int(row["gas_price_avg"]) == sum(prices) // len(prices)
            for name, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
                true = prices[math.floor(q * (len(prices) - 1))]
                assert abs(int(row[f"gas_price_{name}"]) - true) <= 0.0101 * true + 1
        else:
            assert row["gas_price_avg"] is None
            assert row["gas_price_p50"] is None
        ranked = sorted(here["errors"].items(), key=lambda pair: (-pair[1], pair[0]))
        shown = [(one["signature"], one["count"]) for one in row["top_errors"]]
        others = sum(count for _, count in ranked[5:])
        assert shown == ranked[:5] + ([("other", others)] if others else [])
        assert sketches.distinct(bytes(row["senders_sketch"])) == pytest.approx(
            len(here["senders"]), abs=1
        )


def random_block(rng: random.Random, number: int, at: int, branch: int) -> FullBlock:
    sent: list[Sent] = [Sent(system=True, price=0)] if rng.random() < 0.7 else []
    for place in range(rng.choice([0, 0, 1, 3, 8])):
        status = int(rng.random() < 0.6)
        words = ["aa", "bb", None]
        reason = None if status else rng.choice(words)
        selector = rng.randrange(9)
        sent.append(
            Sent(
                sender=rng.randrange(6),
                to=rng.randrange(4) or None,
                status=status,
                gas_used=rng.randrange(21_000, 10**6),
                price=rng.choice([0, 1, 20_000_000, rng.randrange(1, 10**12)]),
                nonce=number * 1000 + place,
                deposit=rng.random() < 0.1,
                reason=reason and f"0x{selector:08x}" + failing(reason)[10:],
            )
        )
    return block(number, at, sent, branch)


async def apply(database: Database, one: Scanner, *blocks: FullBlock) -> None:
    async with database.transaction() as session:
        await one.apply(session, blocks)


@pytest.mark.parametrize("seed", range(6))
async def test_after_any_history_minutes_equal_a_fresh_aggregate(
    database: Database, seed: int
) -> None:
    rng = random.Random(seed)
    blocks = [random_block(rng, 0, NOON, 0)]
    async with scanner(database) as one:
        await apply(database, one, blocks[0])
        for branch in range(1, 40):
            what = rng.random()
            if what < 0.6:
                new: list[FullBlock] = []
                for _ in range(rng.randrange(1, 5)):
                    last = (new or blocks)[-1]
                    at = last.timestamp + rng.choice([0, 2, 15, 61, 200])
                    new.append(random_block(rng, last.block.number + 1, at, branch))
                await apply(database, one, *new)
                blocks += new
            elif what < 0.75 and len(blocks) > 1:
                keep = rng.randrange(max(1, len(blocks) - 8), len(blocks))
                async with database.transaction() as session:
                    await one.undone(session, undone_to(blocks[keep - 1], blocks[-1]))
                del blocks[keep:]
            elif what < 0.9:
                async with database.transaction() as session:
                    await compute_marked(session, rng.randrange(1, 5))
            else:
                async with database.transaction() as session:
                    await mark_dirty(session, [rng.choice(blocks).timestamp])
        await compute_all(database)
        through = blocks[-1].timestamp
        async with database.transaction() as session:
            # A chain that became shorter leaves marks of minutes that are not over: none was lost.
            await session.execute(
                text("DELETE FROM mobs.metrics_minute WHERE bucket_ts + 60 > :through"),
                {"through": through},
            )
        await check(database, blocks)


async def test_a_mark_made_meanwhile_stays(database: Database) -> None:
    blocks = [block(n, NOON + 40 * n, [Sent(nonce=n)]) for n in range(4)]
    async with scanner(database) as one:
        await apply(database, one, *blocks)
        started, go = asyncio.Event(), asyncio.Event()

        async def mark_late() -> None:
            async with database.transaction() as session:
                await mark_dirty(session, [NOON])
                await session.execute(
                    text("UPDATE mobs.txs SET is_system = true WHERE block_number = 0")
                )
                started.set()
                await go.wait()

        late = asyncio.create_task(mark_late())
        await started.wait()

        async def compute() -> int:
            async with database.transaction() as session:
                return await compute_marked(session)

        computing = asyncio.create_task(compute())
        go.set()
        await late
        assert await computing == 2
        await compute_all(database)
        assert await rows(database, "SELECT bucket_ts FROM mobs.dirty_minutes") == [
            {"bucket_ts": NOON + 120}
        ]
        found = await rows(
            database, "SELECT tx_count, system_tx_count FROM mobs.metrics_minute ORDER BY bucket_ts"
        )
        assert [tuple(row.values()) for row in found] == [(1, 1), (1, 0)]


async def test_hours_are_put_together_from_minutes(database: Database) -> None:
    rng = random.Random(3)
    at = NOON
    blocks: list[FullBlock] = []
    for number in range(120):
        at += rng.randrange(30, 70)
        sent = [
            Sent(
                sender=rng.randrange(400),
                price=rng.randrange(1, 10**9),
                nonce=number * 100 + n,
                status=int(rng.random() < 0.8),
            )
            for n in range(10)
        ]
        blocks.append(block(number, at, sent))
    async with scanner(database) as one:
        await apply(database, one, *blocks)
        await compute_all(database)
    (hour,) = await rows(
        database, "SELECT * FROM mobs.metrics_hour WHERE bucket_ts = :noon", noon=NOON
    )
    mine = [full for full in blocks if full.timestamp < NOON + 3600]
    sent = [
        (tx, r) for full in mine for tx, r in zip(full.transactions, full.receipts, strict=True)
    ]
    assert hour["tx_count"] == len(sent)
    assert hour["block_count"] == len(mine)
    senders = len({tx.from_ for tx, _ in sent})
    assert abs(hour["unique_senders"] - senders) <= 0.02 * senders
    prices = sorted(int(r.effective_gas_price or "0", 16) for _, r in sent)
    for name, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        true = prices[math.floor(q * (len(prices) - 1))]
        assert abs(int(hour[f"gas_price_{name}"]) - true) <= 0.0101 * true


async def test_a_watched_contract_has_minutes_of_its_own(database: Database) -> None:
    async with scanner(database) as one:
        async with database.transaction() as session:
            await session.execute(
                text("INSERT INTO mobs.contracts (id, address, name) VALUES (7, :a, 'vault')"),
                {"a": bytes.fromhex(address(2)[2:])},
            )
        await apply(
            database,
            one,
            block(1, NOON, [Sent(to=2), Sent(to=2, sender=5, status=0), Sent(to=3)]),
            block(2, NOON + 60, [Sent(to=3, nonce=9)]),
        )
        await compute_all(database)
        found = await rows(
            database,
            "SELECT contract_id, bucket_ts, tx_count, tx_failed_count, unique_senders, top_errors "
            "FROM mobs.metrics_minute_contract",
        )
        assert [tuple(row.values()) for row in found] == [
            (7, NOON, 2, 1, 2, [{"signature": "none", "name": None, "count": 1}])
        ]
        async with database.transaction() as session:
            await session.execute(text("UPDATE mobs.txs SET contract_id = NULL"))
            await compute_minutes(session, [NOON])
        assert await rows(database, "SELECT 1 FROM mobs.metrics_minute_contract") == []


async def test_what_retention_let_go_leaves_minutes_and_hours_as_they_were(
    database: Database,
) -> None:
    day = NOON // partitions.DAY_S
    async with scanner(database) as one:
        blocks = [
            block(at, NOON + 20 * at, [Sent(nonce=at), Sent(nonce=at + 50, status=at % 2)])
            for at in range(7)
        ]
        await apply(database, one, *blocks)
        await compute_all(database)
        minutes = await rows(database, "SELECT * FROM mobs.metrics_minute ORDER BY 1")
        hours = await rows(database, "SELECT * FROM mobs.metrics_hour ORDER BY 1")
        assert [int(row["tx_count"]) for row in hours] == [12]
        # Successful transactions go earlier than failed ones; then a label marks their minute.
        async with database.transaction() as session:
            await partitions.drop(session, "txs_ok", day)
            await mark_dirty(session, [NOON])
        await compute_all(database)
        assert await rows(database, "SELECT * FROM mobs.metrics_minute ORDER BY 1") == minutes
        assert await rows(database, "SELECT count(*) AS n FROM mobs.dirty_minutes") == [{"n": 1}]
        # The minutes go, their hour stays.
        async with database.transaction() as session:
            await partitions.drop(session, "metrics_minute", day)
            await mark_dirty(session, [NOON, NOON + 60])
        await compute_all(database)
        assert await rows(database, "SELECT * FROM mobs.metrics_hour ORDER BY 1") == hours


async def test_an_hour_without_all_its_minutes_stays_as_it_was(database: Database) -> None:
    async with scanner(database) as one:
        await apply(
            database, one, *(block(at, NOON + 30 * at, [Sent(nonce=at)]) for at in range(9))
        )
        await compute_all(database)
        async with database.transaction() as session:
            await session.execute(
                text("DELETE FROM mobs.metrics_minute WHERE bucket_ts > :noon"), {"noon": NOON}
            )
            await mark_dirty(session, [NOON])
        await compute_all(database)
        assert await rows(database, "SELECT tx_count FROM mobs.metrics_hour") == [{"tx_count": 8}]
