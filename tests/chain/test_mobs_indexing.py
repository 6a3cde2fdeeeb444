"""M-OBS's rows of a real chain that is reorganised, cut short and read by a lying provider."""

from __future__ import annotations

import random
from typing import Any

from sqlalchemy import text

from causeway.apps.mobs.rollup import compute_marked
from causeway.apps.mobs.scanner import Scanner
from causeway.chains.evm.blocks import full_blocks
from causeway.chains.evm.chain import EvmChain
from causeway.indexing.indexer import Indexer
from causeway.indexing.source import BlockSource
from causeway.sandbox.anvil import AnvilNode
from causeway.store.engine import Database
from tests.chain.ledger import SENDER, chain_at, settle
from tests.chain.proxy import fault_proxy
from tests.mobs_blocks import scanner

FAILS = "0x" + "01" * 20


def source(one: Scanner, start: int = 0) -> BlockSource:
    return BlockSource(
        name="mobs", chain="ledger", start_block=start, apply=one.apply, on_undone=one.undone
    )


async def rows(database: Database, query: str) -> list[Any]:
    async with database.sessions() as session:
        return [tuple(row) for row in await session.execute(text(query))]


async def assert_stored(database: Database, chain: EvmChain, last: int) -> None:
    """Every block of the chain is stored once, and nothing else."""
    blocks = await full_blocks(chain, range(last + 1))
    assert await rows(
        database, "SELECT number, hash, tx_count, failed_count FROM mobs.blocks ORDER BY number"
    ) == [
        (
            one.block.number,
            bytes.fromhex(one.block.hash[2:]),
            len(one.receipts),
            sum(receipt.status == "0x0" for receipt in one.receipts),
        )
        for one in blocks
    ]
    assert await rows(
        database,
        "SELECT block_number, tx_index, hash, status, gas_used FROM mobs.txs "
        "ORDER BY block_number, tx_index",
    ) == [
        (
            one.block.number,
            index,
            bytes.fromhex(tx.hash[2:]),
            int(receipt.status or "", 16),
            int(receipt.gas_used, 16),
        )
        for one in blocks
        for index, (tx, receipt) in enumerate(zip(one.transactions, one.receipts, strict=True))
    ]


async def mine(node: AnvilNode, rng: random.Random, blocks: int) -> None:
    for _ in range(blocks):
        await node.rpc("evm_setAutomine", False)
        for _ in range(rng.randrange(4)):
            call = {"from": SENDER, "to": rng.choice([FAILS, SENDER]), "gas": "0xc350"}
            await node.rpc("eth_sendTransaction", call)
        await node.mine(1)
        await node.rpc("evm_setAutomine", True)


async def test_rows_follow_a_chain_that_is_reorganised(
    anvil: AnvilNode, chain: EvmChain, database: Database
) -> None:
    rng = random.Random(11)
    await anvil.rpc("anvil_setCode", FAILS, "0x60006000fd")
    async with scanner(database) as one:
        indexer = Indexer(database, chain, source(one), patience_s=0, patience_polls=1)
        removed = 0
        for turn in range(8):
            await mine(anvil, rng, rng.randrange(1, 5))
            await settle(indexer)
            height = await anvil.height()
            await assert_stored(database, chain, height)
            depth = rng.randrange(1, min(height, 4) + 1)
            if turn % 3 == 2:
                await anvil.rollback(depth)
            else:
                await anvil.reorg(depth)
            removed += 1
            await mine(anvil, rng, rng.randrange(3))
            await settle(indexer)
            await assert_stored(database, chain, await anvil.height())
        async with database.transaction() as session:
            while await compute_marked(session):
                pass
    assert 1 <= len(await rows(database, "SELECT id FROM mobs.reorgs")) <= removed
    # What fell out with an abandoned branch is known by its hash, and only that.
    assert not await rows(
        database, "SELECT 1 FROM mobs.removed_txs AS r JOIN mobs.txs AS t ON t.hash = r.hash"
    )
    waiting = await rows(
        database, "SELECT block_number, tx_index FROM mobs.trace_queue ORDER BY 1, 2"
    )
    assert waiting == await rows(
        database, "SELECT block_number, tx_index FROM mobs.txs WHERE status = 0 ORDER BY 1, 2"
    )
    assert await rows(
        database,
        "SELECT (value->>'block_number')::bigint FROM mobs.worker_state "
        "WHERE key = 'last_scanned_block'",
    ) == [(await anvil.height(),)]


async def test_a_provider_that_alters_a_receipt_stores_nothing_wrong(
    anvil: AnvilNode, database: Database
) -> None:
    rng = random.Random(5)
    await anvil.rpc("anvil_setCode", FAILS, "0x60006000fd")
    await mine(anvil, rng, 6)

    def lie(receipts: Any) -> Any:
        return receipts and [{**one, "gasUsed": "0x1", "status": "0x1"} for one in receipts]

    async with fault_proxy(anvil.url) as proxy, scanner(database) as one:
        proxy.lies["eth_getBlockReceipts"] = lie
        both = chain_at(proxy.url, anvil.chain_id, anvil.url)
        try:
            indexer = Indexer(database, both, source(one))
            await settle(indexer)
            honest = chain_at(anvil.url, anvil.chain_id)
            try:
                await assert_stored(database, honest, await anvil.height())
            finally:
                await honest.close()
        finally:
            await both.close()
        assert proxy.calls["eth_getBlockReceipts"]
