"""M-OBS served and working in this process, over a real socket, on a real database and chain."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from eth_abi.abi import encode

from causeway.apps.mobs.context import MobsContext
from causeway.base.settings import KernelSettings, load
from causeway.runtime.discover import find_apps
from causeway.runtime.installation import Installation, open_installation
from causeway.runtime.process import listen, serving, working
from causeway.sandbox.anvil import AnvilNode

#: Reverts with what it is called with: calldata becomes the revert data.
_REVERTER = "0x600a600c600039600a6000f3" + "366000600037366000fd".ljust(20, "0")
#: Returns at once, whatever it is called with.
_STOPPER = "0x6001600c60003960016000f300"


def error(text: str) -> str:
    """Return revert data of `Error(string)`."""
    return "0x08c379a0" + encode(["string"], [text]).hex()


@dataclass
class Mobs:
    """A running M-OBS and what it depends on."""

    http: httpx2.AsyncClient
    installation: Installation
    node: AnvilNode

    @property
    def ctx(self) -> MobsContext:
        """What the app's code is given."""
        return self.installation.contexts["mobs"]

    async def deploy(self, code: str) -> str:
        """Put a contract on the chain; return its address."""
        made = await self.send(None, code)
        receipt = await self.node.rpc("eth_getTransactionReceipt", made)
        return str(receipt["contractAddress"])

    async def send(self, to: str | None, data: str = "0x", wallet: int = 0, value: int = 0) -> str:
        """Send a transaction, which may fail; return its hash."""
        call = {
            "from": self.node.accounts[wallet].address,
            "data": data,
            "gas": hex(500_000),
            "value": hex(value),
        }
        if to is not None:
            call["to"] = to
        sent = str(await self.node.rpc("eth_sendTransaction", call))

        async def mined() -> bool:
            return await self.node.rpc("eth_getTransactionReceipt", sent) is not None

        await self.until(mined, f"the receipt of {sent}")
        return sent

    async def get(self, path: str, expect: int = 200, **query: Any) -> Any:
        """Return a JSON answer with that status."""
        answer = await self.http.get(path, params=query)
        assert answer.status_code == expect, answer.text
        return answer.json()

    async def post(self, path: str, body: Any, status: int = 200) -> Any:
        """Post JSON; return the answer, which has that status."""
        answer = await self.http.post(path, json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def until(
        self, found: Callable[[], Awaitable[Any]], what: str, seconds: float = 20
    ) -> Any:
        """Return what is found as soon as it is something."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            value = await found()
            if value:
                return value
            await asyncio.sleep(0.05)
        raise AssertionError(f"waited {seconds} s in vain for {what}")

    async def caught_up(self) -> int:
        """Wait until the newest block is applied; return its number."""
        height = await self.node.height()

        async def there() -> bool:
            blocks = (await self.get("/blocks", limit=1))["blocks"]
            return bool(blocks) and blocks[0]["number"] >= height

        await self.until(there, f"block {height}")
        return height

    async def explained(self, tx_hash: str) -> Any:
        """Wait until it is known why a transaction failed; return it."""

        async def found() -> Any:
            answer = await self.http.get(f"/txs/{tx_hash}")
            if answer.status_code != 200:
                return None
            shown = answer.json()
            state = shown["transaction"]["error"]["trace_state"]
            return shown if state in ("done", "unsupported", "failed") else None

        return await self.until(found, f"the reason of {tx_hash}")


REVERTER, STOPPER = _REVERTER, _STOPPER


@asynccontextmanager
async def running_mobs(
    database_url: str,
    node: AnvilNode,
    monkeypatch: pytest.MonkeyPatch,
    *,
    providers: Sequence[str] = (),
    work: bool = True,
    **settings: str,
) -> AsyncGenerator[Mobs]:
    """Serve M-OBS and do its work, with short intervals; `providers` stand before the node."""
    defaults = {
        "DATABASE_URL": database_url,
        "MANTLE_RPC_ENDPOINTS": ",".join(providers or (node.url,)),
        "CHAIN_ID": str(node.chain_id),
        "START_BLOCK": "0",
        "POLL_INTERVAL_SCANNER": "0.05",
        "POLL_INTERVAL_PROBE": "0.5",
        "POLL_INTERVAL_ROLLUP": "0.2",
        "POLL_INTERVAL_ALERTS": "0.2",
        "MAX_TRACES_PER_MINUTE": "1000",
        "MOBS_PRIVATE_WEBHOOKS": "true",
    }
    for name, value in (defaults | settings).items():
        monkeypatch.setenv(name, value)
    async with AsyncExitStack() as stack:
        apps = find_apps(["mobs"])
        installation = await stack.enter_async_context(
            open_installation(apps, load(KernelSettings))
        )
        listening = listen("127.0.0.1", 0)
        await stack.enter_async_context(serving(installation, listening, 2))
        if work:
            await stack.enter_async_context(working(installation))
        port = listening.getsockname()[1]
        http = await stack.enter_async_context(
            httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20)
        )
        yield Mobs(http, installation, node)
