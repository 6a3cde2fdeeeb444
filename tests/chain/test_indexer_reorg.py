"""Reorganisations: what was undone was never there."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.base.errors import ChainBehind
from causeway.chains.evm.chain import EvmChain
from causeway.indexing.indexer import Indexer
from causeway.indexing.reorg import ReorgTooDeep
from causeway.indexing.source import OnUndone, Undone
from causeway.sandbox.anvil import AnvilNode
from causeway.store.engine import Database
from tests.chain.ledger import Book, Ledger, assert_as_fresh, chain_at, drop, put, settle
from tests.chain.proxy import fault_proxy


def indexer(
    database: Database,
    chain: EvmChain,
    book: Book,
    ledger: Ledger,
    on_undone: OnUndone | None = None,
    start_block: int = 1,
) -> Indexer:
    source = book.source("ledger", ledger.address, start_block, on_undone)
    return Indexer(database, chain, source, patience_s=0.0)


async def fill(ledger: Ledger, blocks: int) -> None:
    """Mine blocks that insert, change and delete entries."""
    for n in range(blocks):
        calls = [put(n % 4, 100 + n, f"n{n}"), *([drop(1)] if n % 5 == 2 else [])]
        await ledger.block(*calls)


async def undo_rows(database: Database) -> int:
    async with database.transaction() as session:
        return int(await session.scalar(text("SELECT count(*) FROM causeway.undo_log")) or 0)


@pytest.mark.parametrize("depth", [1, 2, 5, 20])
async def test_rows_are_those_of_the_new_chain_when_blocks_are_replaced(
    database: Database, chain: EvmChain, book: Book, ledger: Ledger, depth: int
) -> None:
    one = indexer(database, chain, book, ledger)
    await ledger.block(put(1, 10, "first"), put(2, 2**200))
    await fill(ledger, 20)
    await settle(one)
    before = await book.rows(database)
    await ledger.reorg(depth, [(put(1, 7, "moved"), 0), (put(9, 9), depth - 1)])
    progress = await one.step()
    assert progress.undone == depth
    await settle(one)
    assert await book.rows(database) != before
    await assert_as_fresh(database, chain, book, ledger.address)


async def test_same_transactions_in_other_blocks_are_other_facts(
    database: Database, chain: EvmChain, book: Book, ledger: Ledger
) -> None:
    one = indexer(database, chain, book, ledger)
    await ledger.block(put(1, 10), put(2, 20))
    await ledger.block(drop(1))
    await settle(one)
    await ledger.reorg(2, [(put(2, 20), 0), (put(1, 10), 1)])
    await settle(one)
    rows = await book.rows(database)
    assert [row[0] for row in rows[:2]] == [1, 2]
    await assert_as_fresh(database, chain, book, ledger.address)


async def test_rows_go_when_the_chain_becomes_shorter(
    database: Database, chain: EvmChain, book: Book, ledger: Ledger
) -> None:
    one = indexer(database, chain, book, ledger)
    await fill(ledger, 9)
    await settle(one)
    await ledger.shrink(4)
    assert (await one.step()).undone == 0  # a provider that lags looks the same
    assert (await one.step()).undone == 0
    assert (await one.step()).undone == 4
    await assert_as_fresh(database, chain, book, ledger.address)
    await ledger.block(put(3, 3))
    await settle(one)
    await assert_as_fresh(database, chain, book, ledger.address)


async def test_nothing_is_undone_when_a_provider_lags_for_a_moment(
    database: Database, anvil: AnvilNode, book: Book, ledger: Ledger
) -> None:
    async with fault_proxy(anvil.url) as proxy:
        chain = chain_at(proxy.url, anvil.chain_id)
        one = indexer(database, chain, book, ledger)
        await fill(ledger, 5)
        await settle(one)
        before = await book.rows(database)
        old = await anvil.rpc("eth_getBlockByNumber", hex(3), False)

        def lag(true: dict[str, str]) -> dict[str, str] | None:
            """Answer as if block 3 were the newest; a batch is answered from its end."""
            seen.append(1)
            asked = ("checkpoint", "finalized", "latest")[(len(seen) - 1) % 3]
            return {"checkpoint": None, "finalized": true, "latest": old}[asked]

        seen: list[int] = []
        proxy.lies["eth_getBlockByNumber"] = lag
        for _ in range(2):
            assert (await one.step()).undone == 0
        proxy.lies.clear()
        for _ in range(5):
            assert (await one.step()).undone == 0
        assert await book.rows(database) == before
        await chain.close()


async def test_nothing_is_undone_when_a_providers_answers_do_not_fit_together(
    database: Database, anvil: AnvilNode, book: Book, ledger: Ledger
) -> None:
    async with fault_proxy(anvil.url) as proxy:
        chain = chain_at(proxy.url, anvil.chain_id)
        one = indexer(database, chain, book, ledger)
        await fill(ledger, 5)
        await settle(one)
        before = await book.rows(database)
        applied = hex(await ledger.head())
        await ledger.block()  # the head is above the checkpoint, whose block is said to be gone
        proxy.lies["eth_getBlockByNumber"] = lambda block: (
            None if block is None or block["number"] == applied else block
        )
        for _ in range(4):
            with pytest.raises(ChainBehind):
                await one.step()
        assert await book.rows(database) == before
        await chain.close()


async def test_a_shorter_chain_of_another_branch_is_believed_at_once(
    database: Database, chain: EvmChain, book: Book, ledger: Ledger
) -> None:
    source = book.source("ledger", ledger.address, 1)
    one = Indexer(database, chain, source, patience_s=3600)
    await fill(ledger, 6)
    await settle(one)
    await ledger.shrink(2)
    await ledger.reorg(1)
    assert (await one.step()).undone == 3
    await assert_as_fresh(database, chain, book, ledger.address)


async def test_rows_follow_back_to_an_earlier_branch(
    database: Database, chain: EvmChain, book: Book, ledger: Ledger
) -> None:
    one = indexer(database, chain, book, ledger)
    await fill(ledger, 3)
    snapshot = await ledger.rpc("evm_snapshot")
    await fill(ledger, 3)
    await settle(one)
    first = await book.rows(database)
    state = await ledger.rpc("anvil_dumpState")
    await ledger.rpc("evm_revert", snapshot)
    for n in range(4):
        await ledger.block(put(n, 1000))
    await settle(one)
    assert await book.rows(database) != first
    await assert_as_fresh(database, chain, book, ledger.address)
    assert state


async def test_facts_of_the_start_block_are_undone(
    database: Database, chain: EvmChain, book: Book, ledger: Ledger
) -> None:
    await ledger.mine(1)
    start = await ledger.block(put(1, 1))
    one = indexer(database, chain, book, ledger, start_block=start)
    await ledger.block(put(2, 2))
    await settle(one)
    assert len(await book.rows(database)) == 4
    # The block before the start goes too: everything ever applied can be undone.
    await ledger.reorg(3, [(put(5, 5), 2)])
    await settle(one)
    assert (await book.rows(database))[0][0] == 5
    await assert_as_fresh(database, chain, book, ledger.address, start)


async def test_a_reorg_below_finality_stops_the_source_and_says_so(
    database: Database, chain: EvmChain, book: Book, ledger: Ledger
) -> None:
    one = indexer(database, chain, book, ledger)
    await fill(ledger, 4)
    await ledger.mine(200)  # far below: final
    await settle(one)
    before = await book.rows(database)
    assert await undo_rows(database) == 0
    await ledger.reorg(100)
    with pytest.raises(ReorgTooDeep):
        await one.step()
    with pytest.raises(ReorgTooDeep) as stopped:
        await one.step()
    assert 60 < stopped.value.depth <= 100
    assert await book.rows(database) == before
    async with database.transaction() as session:
        problem = await session.scalar(text("SELECT problem FROM causeway.checkpoints"))
    assert str(stopped.value.depth) in str(problem)


async def test_what_is_noted_for_undoing_is_dropped_when_it_is_final(
    database: Database, chain: EvmChain, book: Book, ledger: Ledger
) -> None:
    one = indexer(database, chain, book, ledger)
    await fill(ledger, 4)
    await settle(one)
    assert await undo_rows(database) > 0
    await ledger.mine(150)
    await settle(one)
    assert await undo_rows(database) == 0
    async with database.transaction() as session:
        kept = await session.scalar(text("SELECT count(*) FROM causeway.blocks"))
        final = (await chain.look("finalized"))[0]
        lowest = await session.scalar(text("SELECT min(number) FROM causeway.blocks"))
    assert final is not None
    assert final.number > 0
    assert lowest == final.number
    assert kept == await ledger.head() - final.number + 1


async def test_an_undo_keeps_what_stages_wrote(
    database: Database, chain: EvmChain, book: Book, ledger: Ledger
) -> None:
    one = indexer(database, chain, book, ledger)
    await ledger.block(put(1, 10, "kept"), put(2, 20))
    await settle(one)
    await ledger.block(put(1, 11, "undone"))
    await settle(one)
    async with database.transaction() as session:
        await session.execute(text("UPDATE book.entries SET status = 'sent' WHERE key = 1"))
    await ledger.reorg(1)
    await settle(one)
    entries = [row for row in await book.rows(database) if len(row) > 4]
    assert [(row[1], row[2], row[-1]) for row in entries] == [
        (10, "kept", "sent"),
        (20, None, "new"),
    ]


async def test_the_app_is_told_in_the_transaction_of_the_undo(
    database: Database, chain: EvmChain, book: Book, ledger: Ledger
) -> None:
    told: list[tuple[Undone, int]] = []

    async def note(session: AsyncSession, undone: Undone) -> None:
        left = await session.scalar(text("SELECT count(*) FROM book.entries"))
        told.append((undone, int(left or 0)))
        if len(told) == 1:
            raise RuntimeError("the first time it fails")

    one = indexer(database, chain, book, ledger, note)
    first = await ledger.block(put(1, 1))
    await ledger.block(put(2, 2), put(2, 3))
    await settle(one)
    before = await book.rows(database)
    await ledger.reorg(1)
    with pytest.raises(RuntimeError):
        await one.step()
    assert await book.rows(database) == before
    await one.step()
    # Two entries and two moves, the second a change of the first's entry.
    undone, left = told[1]
    assert (undone.first, undone.last, undone.rows, left) == (first + 1, first + 1, 4, 1)
    assert (undone.fork.number, undone.old_head.number) == (first, first + 1)


async def test_many_at_once_undo_and_apply_once(
    database: Database, chain: EvmChain, book: Book, ledger: Ledger
) -> None:
    several = [indexer(database, chain, book, ledger) for _ in range(4)]
    await fill(ledger, 12)
    await asyncio.gather(*(settle(one) for one in several))
    for depth in (3, 6):
        await ledger.reorg(depth, [(put(depth, 1), 0)])
        await asyncio.gather(*(settle(one) for one in several))
    await assert_as_fresh(database, chain, book, ledger.address)


@pytest.mark.parametrize("max_range", [3, 100])
@pytest.mark.parametrize("request_number", range(5))
async def test_a_reorg_between_two_questions_is_noticed(
    database: Database,
    anvil: AnvilNode,
    book: Book,
    ledger: Ledger,
    request_number: int,
    max_range: int,
) -> None:
    async with fault_proxy(anvil.url) as proxy:
        chain = chain_at(proxy.url, anvil.chain_id)
        source = book.source("ledger", ledger.address, 1)
        one = Indexer(database, chain, source, max_range=max_range, patience_s=0.0)
        await fill(ledger, 6)
        await settle(one)
        await fill(ledger, 6)
        reorg = partial(ledger.reorg, 8, [(put(1, 99), 0), (drop(2), 5), (put(3, 1), 7)])
        proxy.meanwhile = [*[None] * request_number, reorg]
        async with asyncio.timeout(20):
            while proxy.meanwhile:
                with suppress(ChainBehind):
                    await one.step()
        await settle(one)
        await assert_as_fresh(database, chain, book, ledger.address)
        await chain.close()


async def test_a_slow_reader_adds_nothing_to_another_branch_of_the_same_height(
    database: Database, anvil: AnvilNode, book: Book, ledger: Ledger, chain: EvmChain
) -> None:
    quick = indexer(database, chain, book, ledger)
    await fill(ledger, 5)
    await settle(quick)
    height = await ledger.block(put(4, 4))

    async def replace() -> None:
        """Put the checkpoint on a block of the same number in another branch."""
        await ledger.shrink(1)
        await ledger.reorg(2, [(put(9, 9), 1)])
        await settle(quick)
        assert await ledger.head() == height - 1

    async with fault_proxy(anvil.url) as proxy:
        slow_chain = chain_at(proxy.url, anvil.chain_id)
        await slow_chain.verify()
        slow = indexer(database, slow_chain, book, ledger)
        # Its two questions: where are we, and what does the new block hold.
        proxy.meanwhile = [None, replace]
        progress = await slow.step()
        assert not proxy.meanwhile
        assert progress.facts == 0
        await assert_as_fresh(database, chain, book, ledger.address)
        await slow_chain.close()
