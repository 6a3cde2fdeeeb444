"""The demo's world: database, chain, stand-ins, and Causeway's own processes."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from causeway.apps.glisk.art import draw
from causeway.cli.demo.processes import Processes, empty, free_port, inherited
from causeway.sandbox.anvil import AnvilNode
from causeway.sandbox.glisk_chain import GliskContract
from causeway.sandbox.server import SandboxServer
from causeway.sandbox.settings import SandboxSettings
from causeway.store.embedded import EmbeddedPostgres
from causeway.store.engine import Database

#: The demo's lease: short, so that a killed worker's token is taken over while you watch.
LEASE_S = 4


@dataclass
class World:
    """Everything the story is played in."""

    folder: Path
    database: Database
    node: AnvilNode
    contract: GliskContract
    sandbox: SandboxServer
    webhook_secret: str
    api_url: str
    processes: Processes


@asynccontextmanager
async def open_world(folder: Path) -> AsyncGenerator[World]:
    """Start the world in `folder`, which is emptied first."""
    await asyncio.to_thread(empty, folder)
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(AnvilNode.start(block_time_s=1))
        sandbox = await stack.enter_async_context(
            SandboxServer.start(
                settings=SandboxSettings(latency_s=1.0, picture_px=512), painter=draw
            )
        )
        keeper = node.accounts[1]
        contract = await GliskContract.deploy(node, keeper_address=keeper.address)
        server = await stack.enter_async_context(EmbeddedPostgres.open(folder))
        database = Database(server.url)
        stack.push_async_callback(database.close)
        webhook_secret = f"whsec_{secrets.token_hex(16)}"
        port = free_port()
        environment = {
            **inherited(),
            "DATABASE_URL": server.url,
            "CAUSEWAY_PORT": str(port),
            "CAUSEWAY_LOG_FORMAT": "json",
            "NETWORK": "LOCAL",
            "GLISK_CHAIN_ID": str(node.chain_id),
            "GLISK_NFT_CONTRACT_ADDRESS": contract.address,
            "GLISK_START_BLOCK": "0",
            "GLISK_POLL_SECONDS": "0.25",
            "GLISK_REVEAL_CONFIRMATIONS": "2",
            "GLISK_LEASE_SECONDS": str(LEASE_S),
            "RPC_URLS": node.url,
            "KEEPER_PRIVATE_KEY": keeper.private_key,
            "ALCHEMY_WEBHOOK_SECRET": webhook_secret,
            "REPLICATE_BASE_URL": sandbox.replicate_url,
            "REPLICATE_API_TOKEN": SandboxSettings().replicate_token,
            "IMAGE_URL_ALLOWED_HOSTS": "127.0.0.1",
            "GLISK_ALLOW_INSECURE_IMAGE_URLS": "true",
            "PINATA_BASE_URL": sandbox.pinata_url,
            "PINATA_JWT": SandboxSettings().pinata_jwt,
            "PINATA_GATEWAY": sandbox.gateway_url,
            "BATCH_REVEAL_WAIT_SECONDS": "3",
            "WORKER_BATCH_SIZE": "5",
        }
        processes = Processes(folder, environment)
        world = World(
            folder=folder,
            database=database,
            node=node,
            contract=contract,
            sandbox=sandbox,
            webhook_secret=webhook_secret,
            api_url=f"http://127.0.0.1:{port}",
            processes=processes,
        )
        try:
            yield world
        finally:
            await processes.stop()
