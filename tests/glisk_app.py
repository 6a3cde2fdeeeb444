"""GLISK served in this process, over a real socket, on a real database, chain and stand-ins."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import orjson
import pytest
from eth_account import Account
from eth_account.messages import encode_defunct

from causeway.base.settings import KernelSettings, load
from causeway.runtime.discover import find_apps
from causeway.runtime.installation import Installation, open_installation
from causeway.runtime.process import listen, serving, working
from causeway.sandbox.anvil import AnvilNode, DevAccount
from causeway.sandbox.glisk_chain import GliskContract, receipt_of
from causeway.sandbox.server import SandboxServer
from causeway.sandbox.settings import SandboxSettings

WEBHOOK_SECRET = "whsec_of_the_tests"


@dataclass
class Glisk:
    """A running GLISK and what it depends on."""

    http: httpx2.AsyncClient
    installation: Installation
    node: AnvilNode
    contract: GliskContract
    sandbox: SandboxServer
    extra: dict[str, Any] = field(default_factory=dict[str, Any])

    async def mint(self, author: str, quantity: int, wallet: int = 2) -> dict[str, Any]:
        """Mint and return the receipt."""
        tx_hash = await self.contract.mint(self.node.accounts[wallet], author, quantity)
        return await receipt_of(self.node, tx_hash)

    async def deliver(self, body: Any, *, secret: str = WEBHOOK_SECRET) -> httpx2.Response:
        """Deliver a webhook, signed."""
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        signature = hmac.new(secret.encode(), content, hashlib.sha256).hexdigest()
        return await self.http.post(
            "/webhooks/alchemy",
            content=content,
            headers={"X-Alchemy-Signature": signature, "Content-Type": "application/json"},
        )

    async def deliver_and_read(self, body: Any, seconds: float = 60) -> httpx2.Response:
        """Deliver a webhook, again as long as the machine is too busy to read its block at once."""
        deadline = time.monotonic() + seconds
        while True:
            answer = await self.deliver(body)
            if answer.status_code != 202:
                return answer
            assert time.monotonic() < deadline, f"not read within {seconds:g} s"

    async def page(self, path: str, seconds: float = 60) -> Any:
        """Return a page, asked for again as long as a busy machine answers that it cannot."""
        deadline = time.monotonic() + seconds
        while (answer := await self.http.get(path)).status_code == 503:
            assert time.monotonic() < deadline, f"no answer within {seconds:g} s"
        return answer.json()

    async def status_of(self, token_id: int) -> str | None:
        """Return a token's status, None when there is no such token."""
        answer = await self.http.get(f"/admin/token/{token_id}")
        return None if answer.status_code == 404 else str(answer.json()["status"])

    async def until_status(self, token_id: int, status: str, seconds: float = 80) -> None:
        """Wait until a token has a status."""

        async def reached() -> bool:
            return await self.status_of(token_id) == status

        await until(reached, seconds)

    async def sign_in(self, account: DevAccount, prompt: str) -> httpx2.Response:
        """Set an author's prompt as the frontend does."""
        digest = hashlib.sha256(prompt.encode()).hexdigest()
        asked = await self.http.get(
            "/api/authors/challenge",
            params={"wallet": account.address, "action": "prompt", "prompt_sha256": digest},
        )
        message = str(asked.json()["message"])
        return await self.http.post(
            "/api/authors/prompt",
            json={
                "wallet_address": account.address,
                "prompt_text": prompt,
                "message": message,
                "signature": personal_sign(account, message),
            },
        )


def personal_sign(account: DevAccount, message: str) -> str:
    """Return the EIP-191 signature of a text."""
    signed = Account.sign_message(encode_defunct(text=message), account.private_key)
    return "0x" + bytes(signed.signature).hex()


def delivery_of(
    receipt: dict[str, Any], *, name: str = "whevt_1", **changes: Any
) -> dict[str, Any]:
    """Return the Custom webhook that reports a transaction's logs."""
    logs = [
        {
            "account": {"address": log["address"].lower()},
            "topics": log["topics"],
            "data": log["data"],
            "index": int(log["logIndex"], 16),
            "transaction": {"hash": receipt["transactionHash"], "status": 1},
        }
        for log in receipt["logs"]
    ]
    block = {
        "number": int(receipt["blockNumber"], 16),
        "hash": receipt["blockHash"],
        "logs": logs,
    }
    return {
        "webhookId": "wh_1",
        "id": name,
        "type": "GRAPHQL",
        "event": {"data": {"block": block | changes}, "network": "BASE_MAINNET"},
    }


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    """Look at a condition until it holds, or fail."""
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        await asyncio.sleep(0.05)


@asynccontextmanager
async def running_glisk(
    database_url: str,
    node: AnvilNode,
    contract: GliskContract,
    monkeypatch: pytest.MonkeyPatch,
    *,
    worker: bool = True,
    **environment: str,
) -> AsyncGenerator[Glisk]:
    """Serve GLISK (and work, unless told not to) until the block is left."""
    async with AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(
            SandboxServer.start(settings=SandboxSettings(latency_s=0.05))
        )
        settings = SandboxSettings()
        values = {
            "DATABASE_URL": database_url,
            "NETWORK": "LOCAL",
            "GLISK_CHAIN_ID": str(node.chain_id),
            "GLISK_NFT_CONTRACT_ADDRESS": contract.address,
            "GLISK_START_BLOCK": "0",
            "GLISK_POLL_SECONDS": "0.1",
            "GLISK_REVEAL_CONFIRMATIONS": "0",
            "RPC_URLS": node.url,
            "KEEPER_PRIVATE_KEY": node.accounts[1].private_key,
            "ALCHEMY_WEBHOOK_SECRET": WEBHOOK_SECRET,
            "REPLICATE_BASE_URL": sandbox.replicate_url,
            "REPLICATE_API_TOKEN": settings.replicate_token,
            "IMAGE_URL_ALLOWED_HOSTS": "127.0.0.1",
            "GLISK_ALLOW_INSECURE_IMAGE_URLS": "true",
            "PINATA_BASE_URL": sandbox.pinata_url,
            "PINATA_JWT": settings.pinata_jwt,
            "PINATA_GATEWAY": sandbox.gateway_url,
            "BATCH_REVEAL_WAIT_SECONDS": "0",
            "CAUSEWAY_GRACE_SECONDS": "2",
            **environment,
        }
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        installation = await stack.enter_async_context(
            open_installation(find_apps(["glisk"]), load(KernelSettings))
        )
        listening = listen("127.0.0.1", 0)
        await stack.enter_async_context(serving(installation, listening, 2))
        if worker:
            await stack.enter_async_context(working(installation))
        port = listening.getsockname()[1]
        http = await stack.enter_async_context(
            httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=15)
        )
        yield Glisk(http, installation, node, contract, sandbox)
