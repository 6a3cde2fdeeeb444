"""GLISK's pipeline with stand-ins that answer at once, and the stage engine beside a bare loop.

tokens_per_second            tokens through the whole pipeline, one worker process
mint_to_reveal_s_p50 / p99   from the mint being sent to its reveal being confirmed
ours_share                   part of that time not spent waiting for the stand-ins or the chain
ratio_to_bare_loop           transitions per second of the engine over those of a bare SKIP
                             LOCKED loop with the same lease and fence, median of the run
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY
from sqlalchemy import text

from bench.pipelines_engine import engine_vs_bare
from causeway.base import logging
from causeway.base.settings import KernelSettings, load
from causeway.runtime.discover import find_apps
from causeway.runtime.installation import Installation, open_installation
from causeway.runtime.process import working
from causeway.sandbox.anvil import AnvilNode
from causeway.sandbox.glisk_chain import GliskContract, receipt_of
from causeway.sandbox.process import SandboxProcess
from causeway.sandbox.settings import SandboxSettings
from causeway.store.embedded import EmbeddedPostgres

TOKENS = 300
A_MINT = 25
SINGLE = 20


async def run() -> dict[str, Any]:
    """Return the figures."""
    logging.configure("ERROR")
    with tempfile.TemporaryDirectory() as folder:
        async with EmbeddedPostgres.open(Path(folder)) as server:
            engine = await engine_vs_bare(server.url)
            pipeline = await _pipeline(server.url, Path(folder))
    return {**pipeline, **engine}


async def _pipeline(database_url: str, folder: Path) -> dict[str, Any]:
    instant = SandboxSettings(
        latency_s=0,
        picture_px=64,
        creations_per_minute=1_000_000,
        reads_per_minute=1_000_000,
        pinata_per_minute=1_000_000,
    )
    async with (
        AnvilNode.start() as node,
        SandboxProcess.start(folder / "sandbox.state", settings=instant) as sandbox,
    ):
        contract = await GliskContract.deploy(node, keeper_address=node.accounts[1].address)
        os.environ.update(
            {
                "DATABASE_URL": database_url,
                "NETWORK": "LOCAL",
                "GLISK_CHAIN_ID": str(node.chain_id),
                "GLISK_NFT_CONTRACT_ADDRESS": contract.address,
                "GLISK_START_BLOCK": "0",
                "GLISK_POLL_SECONDS": "0.1",
                "GLISK_REVEAL_CONFIRMATIONS": "0",
                "RPC_URLS": node.url,
                "KEEPER_PRIVATE_KEY": node.accounts[1].private_key,
                "REPLICATE_BASE_URL": sandbox.replicate_url,
                "REPLICATE_API_TOKEN": instant.replicate_token,
                "IMAGE_URL_ALLOWED_HOSTS": "127.0.0.1",
                "GLISK_ALLOW_INSECURE_IMAGE_URLS": "true",
                "PINATA_BASE_URL": sandbox.pinata_url,
                "PINATA_JWT": instant.pinata_jwt,
                "PINATA_GATEWAY": sandbox.gateway_url,
                "PINATA_RATE_PER_MINUTE": "100000",
                "BATCH_REVEAL_WAIT_SECONDS": "0",
                "WORKER_BATCH_SIZE": "20",
            }
        )
        kernel = load(KernelSettings)
        async with open_installation(find_apps(["glisk"]), kernel) as installation:
            async with working(installation):
                quiet = await _quiet(installation, node, contract)
                sent = await _mint_and_wait(installation, node, contract, SINGLE + 1)
            return quiet | await _figures(installation, sent)


async def _quiet(
    installation: Installation, node: AnvilNode, contract: GliskContract
) -> dict[str, float]:
    """Mint one token after another, each when the one before is revealed."""
    sent: dict[int, float] = {}
    waited_before = _waited_s()
    for token_id in range(1, SINGLE + 1):
        sent[token_id] = time.time()
        await receipt_of(node, await contract.mint(node.accounts[2], node.accounts[4].address, 1))
        await _all_revealed(installation, token_id)
    waited_s = (_waited_s() - waited_before) / SINGLE
    revealed = await _revealed_at(installation)
    took = sorted(revealed[i] - sent[i] for i in sent)
    async with installation.database.sessions() as session:
        chain_s = await session.scalar(
            text(
                "SELECT avg(extract(epoch FROM confirmed_at - sent_at)) "
                "FROM causeway.relayer_transactions WHERE state = 'confirmed'"
            )
        )
    return {
        "mint_to_reveal_s_p50": took[len(took) // 2],
        "mint_to_reveal_s_p99": took[-1],
        "stand_ins_s_per_token": waited_s,
        "send_to_confirm_s_mean": float(chain_s or 0),
        "ours_share": max(0.0, 1 - (waited_s + float(chain_s or 0)) / statistics.fmean(took)),
    }


async def _mint_and_wait(
    installation: Installation, node: AnvilNode, contract: GliskContract, start: int
) -> dict[int, float]:
    """Mint everything, wait for the last reveal; return when each token's mint was sent."""
    sent: dict[int, float] = {}
    for first in range(start, start + TOKENS, A_MINT):
        now = time.time()
        sent |= dict.fromkeys(range(first, first + A_MINT), now)
        author = node.accounts[4 + first % 3].address
        await receipt_of(node, await contract.mint(node.accounts[2], author, A_MINT))
    await _all_revealed(installation, start + TOKENS - 1)
    return sent


async def _all_revealed(installation: Installation, tokens: int) -> None:
    deadline, done = time.monotonic() + 300, 0
    while time.monotonic() < deadline:
        async with installation.database.sessions() as session:
            done = await session.scalar(
                text("SELECT count(*) FROM glisk.tokens_s0 WHERE status = 'revealed'")
            )
        if done == tokens:
            return
        await asyncio.sleep(0.02 if tokens <= SINGLE else 0.2)
    raise TimeoutError(f"only {done} of {tokens} tokens were revealed")


def _waited_s() -> float:
    """Return the seconds spent so far waiting for answers of stand-ins, over all requests."""
    return sum(
        REGISTRY.get_sample_value("causeway_http_client_seconds_sum", {"service": service}) or 0.0
        for service in ("replicate", "pinata", "ipfs-gateway")
    )


async def _revealed_at(installation: Installation) -> dict[int, float]:
    async with installation.database.sessions() as session:
        return {
            int(i): at.timestamp()
            for i, at in await session.execute(
                text("SELECT token_id, revealed_at FROM glisk.tokens_s0")
            )
        }


async def _figures(installation: Installation, sent: dict[int, float]) -> dict[str, Any]:
    revealed = await _revealed_at(installation)
    async with installation.database.sessions() as session:
        transactions = await session.scalar(
            text("SELECT count(*) FROM causeway.relayer_transactions")
        )
    took = sorted(revealed[i] - sent[i] for i in sent)
    span = max(revealed[i] for i in sent) - min(sent.values())
    return {
        "tokens": TOKENS,
        "tokens_per_second": TOKENS / span,
        "burst_mint_to_reveal_s_p50": took[len(took) // 2],
        "burst_mint_to_reveal_s_p99": took[int(len(took) * 0.99) - 1],
        "reveal_transactions": int(transactions or 0),
    }
