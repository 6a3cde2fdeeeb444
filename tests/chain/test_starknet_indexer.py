"""The stories that an indexer must survive on an EVM chain, told again on Starknet, word for word.

Events come in pages of random sizes, some of them empty, and the ledger is a Cairo contract that
the node's engine executes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

import pytest

from causeway.chains.starknet.chain import StarknetChain
from causeway.indexing.indexer import Indexer
from causeway.sandbox.starknet.node import StarknetNode
from causeway.store.engine import Database
from tests.chain.ledger import assert_as_fresh, drop, put, settle
from tests.chain.test_indexer import (
    test_nothing_happens_before_the_chain_reaches_the_start,
    test_the_tip_is_followed_block_by_block,
    test_two_at_once_apply_each_fact_once,
)
from tests.chain.test_indexer_crash import (
    test_facts_are_applied_once_when_killed_in_mid_range,
    test_rows_are_undone_once_when_killed_in_an_undo,
)
from tests.chain.test_indexer_random import tell
from tests.chain.test_indexer_reorg import (
    test_a_reorg_below_finality_stops_the_source_and_says_so,
    test_a_shorter_chain_of_another_branch_is_believed_at_once,
    test_an_undo_keeps_what_stages_wrote,
    test_facts_of_the_start_block_are_undone,
    test_many_at_once_undo_and_apply_once,
    test_rows_are_those_of_the_new_chain_when_blocks_are_replaced,
    test_rows_go_when_the_chain_becomes_shorter,
    test_same_transactions_in_other_blocks_are_other_facts,
    test_the_app_is_told_in_the_transaction_of_the_undo,
    test_what_is_noted_for_undoing_is_dropped_when_it_is_final,
)
from tests.starknet_world import StarknetBook, StarknetLedger, starknet, starknet_at

__all__ = [
    "test_a_reorg_below_finality_stops_the_source_and_says_so",
    "test_a_shorter_chain_of_another_branch_is_believed_at_once",
    "test_an_undo_keeps_what_stages_wrote",
    "test_facts_are_applied_once_when_killed_in_mid_range",
    "test_facts_of_the_start_block_are_undone",
    "test_many_at_once_undo_and_apply_once",
    "test_nothing_happens_before_the_chain_reaches_the_start",
    "test_rows_are_those_of_the_new_chain_when_blocks_are_replaced",
    "test_rows_are_undone_once_when_killed_in_an_undo",
    "test_rows_go_when_the_chain_becomes_shorter",
    "test_same_transactions_in_other_blocks_are_other_facts",
    "test_the_app_is_told_in_the_transaction_of_the_undo",
    "test_the_tip_is_followed_block_by_block",
    "test_two_at_once_apply_each_fact_once",
    "test_what_is_noted_for_undoing_is_dropped_when_it_is_final",
]


@dataclass(frozen=True)
class Place:
    """Where the node is, in the words of the tests that tell a process of it."""

    url: str
    chain_id: str


@pytest.fixture
async def anvil(node: StarknetNode) -> Place:
    return Place(node.url, "SN_SEPOLIA")


@pytest.fixture
async def node() -> AsyncGenerator[StarknetNode]:
    async with starknet() as running:
        yield running


@pytest.fixture
async def ledger(node: StarknetNode) -> StarknetLedger:
    made = StarknetLedger(node)
    await made.deploy()
    return made


@pytest.fixture
async def chain(node: StarknetNode) -> AsyncGenerator[StarknetChain]:
    opened = starknet_at(node.url, node.ledger.chain_id)
    yield opened
    await opened.close()


@pytest.fixture
async def book(database: Database) -> StarknetBook:
    made = StarknetBook("book")
    await made.create(database)
    return made


async def test_facts_become_rows_and_a_reorganisation_takes_them_back(
    database: Database, chain: StarknetChain, book: StarknetBook, ledger: StarknetLedger
) -> None:
    for n in range(6):
        await ledger.block(put(n % 3, n + 2**130, "é" * 20), *([drop(n % 3)] if n == 4 else []))
    one = Indexer(database, chain, book.source("ledger", ledger.address, 1), patience_s=0.0)
    await settle(one)
    before = await book.rows(database)
    assert len(before) == 2 + 4
    await assert_as_fresh(database, chain, book, ledger.address)
    await ledger.reorg(3, [(put(9, 9), 1)])
    await settle(one)
    after = await book.rows(database)
    assert {row[0] for row in after if len(row) > 4} == {0, 1, 2, 9}
    await assert_as_fresh(database, chain, book, ledger.address)


async def test_any_story_ends_in_the_rows_of_the_chain(
    database: Database, chain: StarknetChain, book: StarknetBook, ledger: StarknetLedger
) -> None:
    await tell(range(6), 25, database, chain, book, ledger)


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_any_of_many_long_stories_ends_in_the_rows_of_the_chain(
    database: Database, chain: StarknetChain, book: StarknetBook, ledger: StarknetLedger
) -> None:
    await tell(range(1000, 1040), 60, database, chain, book, ledger)
