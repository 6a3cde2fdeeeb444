"""A local Ethereum node for a test, and GLISK's contract on it."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest_asyncio

from causeway.sandbox.anvil import AnvilNode
from causeway.sandbox.glisk_chain import GliskContract


@pytest_asyncio.fixture
async def anvil() -> AsyncGenerator[AnvilNode]:
    """A node of its own that makes a block with each transaction."""
    async with AnvilNode.start() as node:
        yield node


@pytest_asyncio.fixture
async def glisk_contract(anvil: AnvilNode) -> GliskContract:
    """GLISK's contract; the node's second account may reveal."""
    return await GliskContract.deploy(anvil, keeper_address=anvil.accounts[1].address)
