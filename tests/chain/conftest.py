"""A ledger contract on an anvil node of its own, and tables for its events."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from causeway.chains.evm.chain import EvmChain
from causeway.sandbox.anvil import AnvilNode
from causeway.store.engine import Database
from tests.chain.ledger import Book, Ledger, chain_at


@pytest.fixture
async def ledger(anvil: AnvilNode) -> Ledger:
    """The contract, deployed; blocks are mined only when told."""
    made = Ledger(anvil)
    await made.deploy()
    return made


@pytest.fixture
async def chain(anvil: AnvilNode) -> AsyncGenerator[EvmChain]:
    """The chain of the node."""
    opened = chain_at(anvil.url, anvil.chain_id)
    yield opened
    await opened.close()


@pytest.fixture
async def book(database: Database) -> Book:
    """Empty tables for the ledger's events."""
    made = Book("book")
    await made.create(database)
    return made
