"""M-OBS's demo: a busy chain, contracts that fail, a provider that lies, and who is told.

Everything is real: PostgreSQL, an Ethereum node, three RPC providers before it over HTTP, M-OBS as
an API and a worker, and receivers that check the signatures of what they are told.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx2
import orjson
from eth_abi.abi import encode
from eth_utils.crypto import keccak
from rich.console import Console
from rich.table import Table

from causeway.base.errors import CausewayError
from causeway.cli.demo.processes import Processes, empty, free_port, inherited, until
from causeway.sandbox.alerts import AlertReceiver, alert_receiver
from causeway.sandbox.anvil import AnvilNode
from causeway.sandbox.rpc_proxy import RpcProxy, rpc_proxy
from causeway.store.embedded import EmbeddedPostgres

_BUILD = Path(__file__).parents[2] / "sandbox" / "artifacts" / "Troubles.json"
_ETHER = 10**18
_GAS = 200_000
#: What senders do, again and again: a call and the ether that goes with it.
TRAFFIC = (
    ("pay()", 10**15),
    ("pay()", 10**15),
    ("buy()", 3 * 10**17),
    ("pay()", 10**15),
    ("open()", 0),
    ("divide(uint256)", 0),
    ("pay()", 10**15),
    ("silent()", 0),
    ("deep()", 0),
    ("burn()", 0),
)
RULES: tuple[dict[str, Any], ...] = (
    {
        "name": "a contract fails",
        "alert_type": "custom",
        "threshold": 3,
        "window_minutes": 5,
        "conditions": {"metric": "tx_failed_count", "operator": ">", "by": "contract"},
    },
    {
        "name": "the quiet contract fails",
        "alert_type": "custom",
        "threshold": 0,
        "window_minutes": 60,
        "severity": "critical",
        "conditions": {"metric": "tx_failed_count", "operator": ">"},
    },
)


@dataclass
class World:
    """Everything the story is played in."""

    folder: Path
    node: AnvilNode
    providers: list[RpcProxy]
    receiver: AlertReceiver
    processes: Processes
    http: httpx2.AsyncClient
    busy: str
    quiet: str

    @property
    def liar(self) -> RpcProxy:
        """The provider that will lie."""
        return self.providers[2]


async def play(console: Console, data_dir: Path, *, keep: bool) -> int:
    """Play the demo; return 0 when every check passed, 1 when one did not."""
    console.print("[bold]M-OBS demo[/bold]: failures, a liar, a reorganisation, and who is told.\n")
    folder = data_dir / "demo-mobs"
    try:
        async with open_world(folder) as world:
            story = Story(console, world)
            await story.begin()
            busy = asyncio.create_task(story.keep_busy())
            try:
                await story.run()
                if keep:
                    console.print("\nIt goes on until you press Ctrl-C.")
                    await asyncio.Event().wait()
            finally:
                busy.cancel()
                await asyncio.gather(busy, return_exceptions=True)
            return 0
    except asyncio.CancelledError:
        return 130
    except CausewayError as error:
        console.print(f"[red]✗ {error.message}[/red]")
        console.print(f"  logs: {folder / 'logs'}")
        return 1


@asynccontextmanager
async def open_world(folder: Path) -> AsyncGenerator[World]:
    """Start the world in `folder`, which is emptied first."""
    await asyncio.to_thread(empty, folder)
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(AnvilNode.start(block_time_s=1))
        providers = [await stack.enter_async_context(rpc_proxy(node.url)) for _ in range(3)]
        secret = secrets.token_hex(16)
        receiver = await stack.enter_async_context(alert_receiver(secret))
        server = await stack.enter_async_context(EmbeddedPostgres.open(folder))
        port = free_port()
        environment = inherited() | {
            "DATABASE_URL": server.url,
            "CAUSEWAY_PORT": str(port),
            "CAUSEWAY_LOG_FORMAT": "json",
            "MANTLE_RPC_ENDPOINTS": ",".join(one.url for one in providers),
            "CHAIN_ID": str(node.chain_id),
            "START_BLOCK": "0",
            "MOBS_BLOCK_TIME": "1",
            "POLL_INTERVAL_PROBE": "3",
            "POLL_INTERVAL_SCANNER": "0.5",
            "POLL_INTERVAL_ROLLUP": "5",
            "POLL_INTERVAL_ALERTS": "2",
            "MAX_TRACES_PER_MINUTE": "600",
            "MOBS_NOTIFICATION_GROUP": "0",
            "MOBS_PRIVATE_WEBHOOKS": "true",
            "MOBS_WEBHOOK_SECRET": secret,
        }
        processes = Processes(folder, environment)
        stack.push_async_callback(processes.stop)
        http = await stack.enter_async_context(
            httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10)
        )
        code = str(orjson.loads(_BUILD.read_bytes())["bytecode"])
        busy, quiet = [await _deploy(node, code) for _ in range(2)]
        yield World(folder, node, providers, receiver, processes, http, busy, quiet)


async def _deploy(node: AnvilNode, code: str) -> str:
    owner = node.accounts[0].address
    made = await node.rpc("eth_sendTransaction", {"from": owner, "data": code})
    await node.mine()
    return str((await node.rpc("eth_getTransactionReceipt", made))["contractAddress"])


class Story:
    """What happens, in order."""

    def __init__(self, console: Console, world: World) -> None:
        self.console = console
        self.world = world
        self.began = time.monotonic()
        self.sent = 0

    def note(self, text: str) -> None:
        """Say what has just been seen."""
        self.console.print(f"[dim]{time.monotonic() - self.began:5.1f} s[/dim]  {text}")

    async def begin(self) -> None:
        """Start M-OBS, have it watch two contracts, and make the rules."""
        world, console = self.world, self.console
        console.print(f"  PostgreSQL  embedded, in {world.folder / 'postgres'}")
        console.print(f"  chain       anvil, id {world.node.chain_id}, a block a second")
        console.print(f"  providers   {', '.join(one.url for one in world.providers)}")
        await world.processes.start("api", "serve", "mobs")
        await until(self._ready, 30, "the API's start")
        await world.processes.start("worker-1", "work", "mobs")
        console.print(f"  M-OBS       API at {world.http.base_url}, one worker\n")
        abi = orjson.loads(_BUILD.read_bytes())["abi"]
        ids: list[int] = []
        for name, address in (("market", world.busy), ("vault", world.quiet)):
            body = {"address": address, "name": name, "abi_json": abi}
            ids.append((await self._post("/contracts", body))["contract"]["id"])
        hooks = [
            {"type": "webhook", "url": f"{world.receiver.url}/webhook"},
            {"type": "slack", "url": f"{world.receiver.url}/slack"},
        ]
        for rule, contract in zip(RULES, ids, strict=True):
            await self._post("/alerts", rule | {"channels": hooks, "contract_ids": [contract]})
        down = {"name": "a provider is down", "alert_type": "provider_down", "threshold": 1}
        await self._post("/alerts", down | {"window_minutes": 5, "channels": hooks})
        self.note("two contracts are watched, three rules are made")
        world.liar.lies = True
        self.note("the third provider lies: it names other hashes for its blocks")

    async def run(self) -> None:
        """Watch, have a provider lie, kill the worker, undo a block, compare everything."""
        await until(self._a_decoded_failure, 60, "a decoded failure")
        await self._liar("wrong_fork", "hash")
        world = self.world
        world.liar.lies, world.liar.alters = False, True
        self.note("now it tells the truth about its blocks, and alters receipts")
        await until(lambda: self._told("a contract fails", "firing"), 90, "the first alert")
        self.note(f"alert [b]{RULES[0]['name']}[/b] was delivered: signed webhook and Slack")
        await self._kill()
        await self._liar("altered_receipt", "gas_used")
        await self._reorganise()
        await self._compare()
        self._received(world.receiver)
        failed = await self._get("/txs?status=failed&limit=100")
        self._table(cast("list[dict[str, Any]]", failed["transactions"]))
        self.console.print(
            f"\n[green]✓ all checks passed[/green] in {time.monotonic() - self.began:.1f} s"
        )
        self.console.print(f"  logs          {self.world.folder / 'logs'}")
        self.console.print("  look further  make demo APP=mobs ARGS=--keep, then")
        self.console.print(f"                {self.world.http.base_url}/docs")

    async def keep_busy(self) -> None:
        """Send what succeeds and what fails, several a second, until cancelled."""
        node = self.world.node
        for at, (signature, value) in zip(
            itertools.count(), itertools.cycle(TRAFFIC), strict=False
        ):
            await self._send(self.world.busy, signature, value, at % 8 + 1)
            self.sent += 1
            await asyncio.sleep(0.2)
            if at % 50 == 49:
                await node.rpc("eth_blockNumber")

    async def _send(self, to: str, signature: str, value: int, account: int) -> str:
        data = keccak(text=signature)[:4]
        if signature.endswith("(uint256)"):
            data += encode(["uint256"], [0])
        sender = self.world.node.accounts[account].address
        transaction = {"from": sender, "to": to, "data": "0x" + data.hex(), "gas": hex(_GAS)}
        sent = await self.world.node.rpc("eth_sendTransaction", transaction | {"value": hex(value)})
        return str(sent)

    async def _ready(self) -> bool:
        try:
            return (await self.world.http.get("/readyz")).status_code == 200
        except httpx2.HTTPError:
            return False

    async def _a_decoded_failure(self) -> bool:
        for one in (await self._get("/txs?status=failed&limit=50"))["transactions"]:
            if "NotEnough" in orjson.dumps(one).decode():
                self.note(f"first decoded failure: {one['hash'][:12]}… NotEnough(…), decoded")
                return True
        return False

    async def _told(self, rule: str, kind: str) -> bool:
        return kind in self.world.receiver.kinds(rule)

    async def _liar(self, kind: str, what: str) -> None:
        """Wait until the liar is named for this kind of lie, with both answers."""
        found: list[dict[str, Any]] = []

        async def named() -> bool:
            lies = cast("list[dict[str, Any]]", (await self._get("/lies"))["lies"])
            found[:] = [one for one in lies if one["kind"] == kind]
            return bool(found)

        since = time.monotonic()
        await until(named, 60, f"the naming of the liar ({kind})")
        lie = found[0]
        self.note(
            f"the liar is named after {time.monotonic() - since:.0f} s: {lie['provider']} "
            f"({kind.replace('_', ' ')}): {what.replace('_', ' ')} of block {lie['block_number']} "
            f"is {_short(lie['said'][what])} there and {_short(lie['others_said'][what])} elsewhere"
        )

    def _received(self, receiver: AlertReceiver) -> None:
        """Check what came: all of it signed, Slack told, nothing again but for the kill."""
        if receiver.forged or not receiver.texts:
            raise CausewayError("a notification had a wrong signature, or Slack was not told")
        if receiver.twice > 1:
            # One delivery may have been on its way when the worker was killed.
            raise CausewayError(f"{receiver.twice} notifications were delivered a second time")
        again = f", {receiver.twice} of them twice (its key said so)" if receiver.twice else ""
        self.note(f"{len(receiver.keys)} signed notifications came{again}")

    async def _kill(self) -> None:
        world = self.world
        worker = world.processes.running[-1]
        worker.kill()
        await worker.handle.wait()
        self.note(f"{worker.name} was killed (SIGKILL); another one goes on")
        await world.processes.start("worker-2", "work", "mobs")

    async def _reorganise(self) -> None:
        """Have one transaction fail, be told of it, and take its block away."""
        world, rule = self.world, "the quiet contract fails"
        sent = await self._send(world.quiet, "open()", 0, 9)

        async def mined() -> bool:
            return await world.node.rpc("eth_getTransactionReceipt", sent) is not None

        await until(mined, 15, "the failure in the quiet contract")
        block = int((await world.node.rpc("eth_getTransactionReceipt", sent))["blockNumber"], 16)
        await until(lambda: self._told(rule, "firing"), 60, "the alert of the quiet contract")
        self.note(f"alert [b]{rule}[/b] (block {block})")
        depth = await world.node.height() - block + 3  # more may be mined meanwhile
        await world.node.reorg(depth)
        self.note(f"a reorganisation of {depth} blocks takes the failure away")
        await until(lambda: self._told(rule, "retracted"), 60, "the retraction")
        kinds = world.receiver.kinds(rule)
        if kinds.count("firing") != 1 or kinds.count("retracted") != 1:
            raise CausewayError(f"of one episode this was told: {', '.join(kinds)}")
        self.note("the alert was retracted: the receivers know that it never happened")

    async def _compare(self) -> None:
        """Compare what is stored with the chain, as an operator does."""
        world = self.world
        height = await world.node.height()

        async def indexed() -> bool:
            shown = await self._get("/txs?limit=1")
            newest = cast("list[dict[str, Any]]", shown["transactions"])
            return bool(newest) and int(newest[0]["block_number"]) >= height - 1

        await until(indexed, 60, "the newest blocks")
        arguments = ("mobs", "verify", "1", str(height - 2))
        process = await world.processes.start("verify", *arguments)
        if await process.handle.wait():
            raise CausewayError(f"stored rows differ from the chain: see {process.log}")
        self.note(
            f"causeway mobs verify: blocks 1 to {height - 2} are stored as the chain has them"
        )

    def _table(self, failed: list[dict[str, Any]]) -> None:
        """Show why the last transactions failed."""
        reasons = Counter[str]()
        for one in failed:
            reasons[str(one.get("error_decoded") or "no reason given")] += 1
        table = Table(box=None, pad_edge=False)
        table.add_column(f"why the last {len(failed)} failed")
        table.add_column("times", justify="right")
        for reason, times in reasons.most_common():
            table.add_row(reason, str(times))
        self.console.print()
        self.console.print(table)

    async def _get(self, path: str) -> dict[str, Any]:
        try:
            answer = await self.world.http.get(path)
        except httpx2.TimeoutException:
            raise CausewayError(f"GET {path} did not answer in time") from None
        return _checked(answer)

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return _checked(await self.world.http.post(path, json=body))


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 12 else f"{text[:10]}…"


def _checked(answer: httpx2.Response) -> dict[str, Any]:
    if answer.status_code >= 400:
        raise CausewayError(f"{answer.request.url.path}: {answer.status_code} {answer.text}")
    return cast("dict[str, Any]", answer.json())
