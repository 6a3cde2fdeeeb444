"""The demo's world: database, chain, stand-ins, and Causeway's own processes."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from causeway.apps.glisk.art import draw
from causeway.base.errors import CausewayError
from causeway.sandbox.anvil import AnvilNode
from causeway.sandbox.glisk_chain import GliskContract
from causeway.sandbox.server import SandboxServer
from causeway.sandbox.settings import SandboxSettings
from causeway.store.embedded import EmbeddedPostgres
from causeway.store.engine import Database

#: The demo's lease: short, so that a killed worker's token is taken over while you watch.
LEASE_S = 4


@dataclass
class Process:
    """One of Causeway's own processes, with its log file."""

    name: str
    handle: asyncio.subprocess.Process
    log: Path

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.handle.pid

    def kill(self) -> None:
        """End it as a lost machine would: SIGKILL, no farewell."""
        self.handle.send_signal(signal.SIGKILL)


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
    environment: dict[str, str]
    processes: list[Process] = field(default_factory=list[Process])

    async def start(self, name: str, *arguments: str) -> Process:
        """Start one more of Causeway's processes."""
        log = self.folder / "logs" / f"{name}.log"
        log.parent.mkdir(exist_ok=True)
        with log.open("ab") as out:
            handle = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                "from causeway.cli import main; main()",
                *arguments,
                env=self.environment,
                stdout=out,
                stderr=out,
            )
        process = Process(name, handle, log)
        self.processes.append(process)
        return process

    async def stop(self) -> None:
        """Stop every process gracefully, and by force after ten seconds."""
        running = [p for p in self.processes if p.handle.returncode is None]
        for process in running:
            process.handle.terminate()
        for process in running:
            try:
                async with asyncio.timeout(10):
                    await process.handle.wait()
            except TimeoutError:
                process.kill()
                await process.handle.wait()


def free_port() -> int:
    """Return a port that was free a moment ago, from the operating system."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _empty(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


@asynccontextmanager
async def open_world(folder: Path) -> AsyncGenerator[World]:
    """Start the world in `folder`, which is emptied first."""
    await asyncio.to_thread(_empty, folder)
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
            **{k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "TMPDIR")},
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
        world = World(
            folder=folder,
            database=database,
            node=node,
            contract=contract,
            sandbox=sandbox,
            webhook_secret=webhook_secret,
            api_url=f"http://127.0.0.1:{port}",
            environment=environment,
        )
        try:
            yield world
        finally:
            await world.stop()


async def until(condition: Callable[[], Awaitable[bool]], seconds: float, what: str) -> None:
    """Look at a condition until it holds; `CausewayError` says what did not come in time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not await condition():
        if loop.time() > deadline:
            raise CausewayError(f"{what} did not happen within {seconds:.0f} s")
        await asyncio.sleep(0.1)
