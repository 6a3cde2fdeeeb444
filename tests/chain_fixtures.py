"""A local Ethereum node for a test, and the contracts of GLISK and Motify on it."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest_asyncio

from causeway.sandbox.anvil import AnvilNode
from causeway.sandbox.glisk_chain import GliskContract
from causeway.sandbox.motify_chain import MotifyContract


@pytest_asyncio.fixture
async def anvil() -> AsyncGenerator[AnvilNode]:
    """A node of its own that makes a block with each transaction."""
    async with AnvilNode.start() as node:
        yield node


@pytest_asyncio.fixture
async def glisk_contract(anvil: AnvilNode) -> GliskContract:
    """GLISK's contract; the node's second account may reveal."""
    return await GliskContract.deploy(anvil, keeper_address=anvil.accounts[1].address)


@pytest_asyncio.fixture
async def motify_contract(anvil: AnvilNode) -> MotifyContract:
    """Motify's contract with its tokens; the node's first account is the owner."""
    return await MotifyContract.deploy(anvil)
