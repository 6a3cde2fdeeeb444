"""An indexer killed at any point goes on where it was: nothing is lost, nothing applied twice."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

import pytest

import causeway.indexing
from causeway.chains.evm.chain import EvmChain
from causeway.indexing.indexer import Indexer
from causeway.sandbox.anvil import AnvilNode
from causeway.store.engine import Database
from tests.chain.ledger import Book, Ledger, assert_as_fresh, drop, put, settle

FORWARD = ["indexing.moved", "indexing.before_commit", "indexing.after_commit"]
BACK = ["indexing.undo.before_commit", "indexing.undo.after_commit"]


def test_every_fault_point_is_tried() -> None:
    folder = Path(next(iter(causeway.indexing.__path__)))
    source = "".join(path.read_text() for path in folder.glob("*.py"))
    assert sorted(re.findall(r'fault_point\("([^"]+)"\)', source)) == sorted(FORWARD + BACK)


async def index(
    database_url: str, anvil: AnvilNode, ledger: Ledger, fault: str, max_range: int
) -> int:
    """Run an indexer in a process of its own; return how it ended."""
    to_block = await ledger.head()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.chain.index_once", database_url, anvil.url),
        *(str(anvil.chain_id), ledger.address, str(to_block), str(max_range)),
        env={**os.environ, "CAUSEWAY_FAULT": fault},
        cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        return await asyncio.wait_for(process.wait(), 60)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


#: The second pass is below finality, the fourth above it.
KILLS = [
    ("indexing.moved", 2),
    ("indexing.before_commit", 4),
    ("indexing.after_commit", 2),
    pytest.param("indexing.moved", 4, marks=pytest.mark.long),
    pytest.param("indexing.before_commit", 2, marks=pytest.mark.long),
    pytest.param("indexing.after_commit", 4, marks=pytest.mark.long),
]


@pytest.mark.parametrize(("fault", "passes"), KILLS)
async def test_facts_are_applied_once_when_killed_in_mid_range(
    database: Database,
    database_url: str,
    chain: EvmChain,
    book: Book,
    ledger: Ledger,
    anvil: AnvilNode,
    fault: str,
    passes: int,
) -> None:
    for n in range(8):
        await ledger.block(put(n % 3, n), *([drop(n % 3)] if n % 4 == 3 else []))
    await ledger.mine(64)
    for n in range(8):
        await ledger.block(put(n % 3, 50 + n), put(7, n))
    ended = await index(database_url, anvil, ledger, f"{fault}:{passes}", 5)
    assert ended == -signal.SIGKILL
    await settle(Indexer(database, chain, book.source("ledger", ledger.address, 1), max_range=5))
    await assert_as_fresh(database, chain, book, ledger.address)


@pytest.mark.parametrize("fault", BACK)
async def test_rows_are_undone_once_when_killed_in_an_undo(
    database: Database,
    database_url: str,
    chain: EvmChain,
    book: Book,
    ledger: Ledger,
    anvil: AnvilNode,
    fault: str,
) -> None:
    for n in range(6):
        await ledger.block(put(n % 3, n), *([drop(n % 3)] if n % 4 == 3 else []))
    source = book.source("ledger", ledger.address, 1)
    await settle(Indexer(database, chain, source))
    await ledger.reorg(4, [(put(1, 99), 0), (drop(2), 1)])
    assert await index(database_url, anvil, ledger, fault, 100) == -signal.SIGKILL
    await settle(Indexer(database, chain, source, patience_s=0.0))
    await assert_as_fresh(database, chain, book, ledger.address)
