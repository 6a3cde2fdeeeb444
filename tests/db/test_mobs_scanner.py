"""Blocks become rows in one go, and go away whole when they are replaced."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from causeway.apps.mobs.fees import ARSIA
from causeway.apps.mobs.scanner import Scanner, TooDeep, settle
from causeway.base.errors import InvalidInput
from causeway.chains.evm.blocks import FullBlock
from causeway.store.engine import Database
from tests.mobs_blocks import NOON, SYSTEM, Sent, address, block, scanner, undone_to

REASON = "0x08c379a0" + f"{32:064x}{5:064x}" + b"no go".hex().ljust(64, "0")


async def apply(database: Database, one: Scanner, *blocks: FullBlock) -> None:
    async with database.transaction() as session:
        await one.apply(session, blocks)


async def rows(database: Database, query: str, **values: Any) -> list[Any]:
    async with database.sessions() as session:
        return [tuple(row) for row in await session.execute(text(query), values)]


async def test_a_block_becomes_rows(database: Database) -> None:
    sent = [
        Sent(system=True, price=0, sender=0),
        Sent(sender=1, to=2, data="0xa9059cbb" + "00" * 12 + "11" * 20 + f"{7:064x}", nonce=4),
        Sent(sender=3, to=None, data="0x600160", gas_used=60_000, nonce=1),
        Sent(sender=3, to=None, data="0x600160", status=0, nonce=2),
        Sent(sender=4, to=5, status=0, reason=REASON),
        Sent(sender=4, to=5, status=0, reason="words\0 only", nonce=2),
        Sent(sender=6, to=7, deposit=True, price=0),
        Sent(
            sender=8,
            to=9,
            price=3,
            extra=(("l1Fee", "0x64"), ("operatorFeeScalar", "0x2"), ("operatorFeeConstant", "0x1")),
        ),
    ]
    async with scanner(database) as one:
        await apply(database, one, block(10, NOON, sent), block(11, NOON + 2))
    found = await rows(
        database,
        "SELECT tx_index, status, is_system, method_name, created_contract IS NOT NULL, "
        "error_decoded, error_source, trace_state, is_tentative FROM mobs.txs ORDER BY tx_index",
    )
    assert found == [
        (0, 1, True, None, False, None, None, None, True),
        (1, 1, False, "transfer", False, None, None, None, True),
        (2, 1, False, None, True, None, None, None, True),
        (3, 0, False, None, False, None, "none", "queued", True),
        (4, 0, False, None, False, "no go", "receipt", "done", True),
        (5, 0, False, None, False, "words only", "receipt", "done", True),
        (6, 1, False, None, False, None, None, None, True),
        (7, 1, False, None, False, None, None, None, True),
    ]
    assert NOON > ARSIA
    assert await rows(
        database,
        "SELECT gas_limit, gas_used, l1_fee, operator_fee, total_fee FROM mobs.txs "
        "WHERE tx_index = 7",
    ) == [(42_000, 21_000, 100, 21_000 * 2 * 100 + 1, 63_000 + 100 + 4_200_001)]
    assert await rows(
        database, "SELECT method_id, input_size FROM mobs.txs WHERE tx_index IN (1, 2) ORDER BY 2"
    ) == [(None, 3), (bytes.fromhex("a9059cbb"), 68)]
    assert await rows(
        database, "SELECT number, tx_count, failed_count FROM mobs.blocks ORDER BY number"
    ) == [(10, 8, 3), (11, 0, 0)]
    assert await rows(database, "SELECT bucket_ts, marks FROM mobs.dirty_minutes") == [(NOON, 1)]
    assert await rows(database, "SELECT tx_index, priority FROM mobs.trace_queue") == [(3, 1)]
    assert await rows(
        database,
        "SELECT value->>'block_number', value->>'timestamp' FROM mobs.worker_state "
        "WHERE key = 'last_scanned_block'",
    ) == [("11", str(NOON + 2))]
    assert SYSTEM


async def test_a_block_across_days_and_minutes_has_its_places(database: Database) -> None:
    async with scanner(database) as one:
        midnight = NOON + 43_200
        blocks = [block(n, midnight - 3 + 2 * n, [Sent(nonce=n)]) for n in range(4)]
        await apply(database, one, *blocks)
    assert await rows(database, "SELECT bucket_ts FROM mobs.dirty_minutes ORDER BY 1") == [
        (midnight - 60,),
        (midnight,),
    ]
    assert await rows(database, "SELECT count(*) FROM mobs.txs_ok") == [(4,)]


async def test_a_receipt_without_a_status_is_refused_and_nothing_is_written(
    database: Database,
) -> None:
    bad = block(11, NOON, [Sent(extra=(("status", None),))])
    async with scanner(database) as one:
        with pytest.raises(InvalidInput, match="without a status"):
            await apply(database, one, block(10, NOON, [Sent()]), bad)
    assert await rows(database, "SELECT count(*) FROM mobs.blocks") == [(0,)]


async def test_watched_contracts_are_labelled_and_traced_first(database: Database) -> None:
    abi = '[{"type": "function", "name": "poke", "inputs": []}]'
    async with scanner(database) as one:
        async with database.transaction() as session:
            await session.execute(
                text(
                    "INSERT INTO mobs.contracts (address, name, abi_json) "
                    "VALUES (:address, 'vault', CAST(:abi AS jsonb))"
                ),
                {"address": bytes.fromhex(address(2)[2:]), "abi": abi},
            )
        await apply(
            database,
            one,
            block(1, NOON, [Sent(to=2, status=0, data="0x18178358"), Sent(to=3, status=0)]),
        )
    assert await rows(
        database,
        "SELECT q.tx_index, q.priority, t.method_name, t.contract_id IS NOT NULL "
        "FROM mobs.trace_queue AS q JOIN mobs.txs AS t USING (block_number, tx_index) ORDER BY 2",
    ) == [(0, 0, "poke", True), (1, 1, None, False)]


async def test_replaced_blocks_go_whole_and_what_comes_back_is_counted(database: Database) -> None:
    stays, goes, returns, lost = (Sent(nonce=n, status=n % 2) for n in range(4))
    one_block = block(5, NOON, [stays])
    old = [block(6, NOON + 30, [goes, returns]), block(7, NOON + 61, [lost], "old")]
    async with scanner(database) as one:
        await apply(database, one, one_block, *old)
        async with database.transaction() as session:
            await session.execute(text("DELETE FROM mobs.dirty_minutes"))
        async with database.transaction() as session:
            await one.undone(session, undone_to(one_block, old[-1]))
        assert await rows(database, "SELECT number FROM mobs.blocks") == [(5,)]
        assert await rows(database, "SELECT count(*) FROM mobs.txs") == [(1,)]
        assert await rows(database, "SELECT block_number FROM mobs.trace_queue") == [(5,)]
        assert await rows(database, "SELECT bucket_ts FROM mobs.dirty_minutes ORDER BY 1") == [
            (NOON,),
            (NOON + 60,),
        ]
        assert await rows(
            database, "SELECT block_number, block_hash FROM mobs.removed_txs ORDER BY 1, 2"
        ) == sorted((n, bytes.fromhex(old[n - 6].block.hash[2:])) for n in (6, 6, 7))
        new = block(6, NOON + 31, [returns], "new")
        await apply(database, one, new)
        assert await rows(
            database,
            "SELECT ancestor, depth, txs_removed, txs_returned, new_head FROM mobs.reorgs",
        ) == [(5, 2, 3, 1, bytes.fromhex(new.block.hash[2:]))]
        assert await rows(
            database,
            "SELECT block_number, block_timestamp FROM mobs.txs WHERE hash = :hash",
            hash=bytes.fromhex(returns.hash[2:]),
        ) == [(6, NOON + 31)]
        assert len(await rows(database, "SELECT hash FROM mobs.removed_txs")) == 2
        assert await rows(database, "SELECT value->>'block_number' FROM mobs.worker_state") == [
            ("6",)
        ]


async def test_a_reorg_deeper_than_allowed_takes_nothing_away(database: Database) -> None:
    async with scanner(database, max_reorg_depth=2) as one:
        blocks = [block(at, NOON + 2 * at, [Sent(nonce=at)]) for at in range(5)]
        await apply(database, one, *blocks)
        with pytest.raises(TooDeep, match=r"replaced 3 blocks, more than MAX_REORG_DEPTH \(2\)"):
            async with database.transaction() as session:
                await one.undone(session, undone_to(blocks[1], blocks[4]))
        assert await rows(database, "SELECT count(*) FROM mobs.txs") == [(5,)]
        async with database.transaction() as session:
            await one.undone(session, undone_to(blocks[2], blocks[4]))
    assert await rows(database, "SELECT count(*) FROM mobs.txs") == [(3,)]


async def test_settled_transactions_are_tentative_no_more(database: Database) -> None:
    async def tentative() -> list[int]:
        found = await rows(
            database, "SELECT block_number FROM mobs.txs WHERE is_tentative ORDER BY 1"
        )
        return [number for (number,) in found]

    async def move_to(safe: int) -> int:
        async with database.transaction() as session:
            return await settle(session, safe)

    async with scanner(database) as one:
        assert await move_to(1) == 0  # before anything was read
        await apply(database, one, *(block(n, NOON + 2 * n, [Sent(nonce=n)]) for n in range(6)))
        assert await tentative() == [2, 3, 4, 5]
        assert await move_to(3) == 2
        assert await tentative() == [4, 5]
        assert await move_to(2) == 0  # a safe block that goes down changes nothing
        assert await move_to(8) == 2
        assert await tentative() == []
        await apply(database, one, *(block(n, NOON + 2 * n, [Sent(nonce=n)]) for n in range(6, 11)))
        assert await tentative() == [9, 10]
        assert await move_to(9) == 1
        assert await tentative() == [10]
