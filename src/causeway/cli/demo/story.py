"""The story: authors, mints, a reorganisation, a killed worker, reveals, and the proof."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import orjson
from eth_account import Account
from eth_account.messages import encode_defunct
from rich.console import Console
from rich.live import Live
from rich.table import Table
from sqlalchemy import text

from causeway.base.errors import CausewayError
from causeway.cli.demo.checks import check_all, write_sheet
from causeway.cli.demo.processes import until
from causeway.cli.demo.world import World, open_world
from causeway.sandbox.anvil import DevAccount
from causeway.sandbox.glisk_chain import receipt_of

PROMPTS = (
    "Neon koi in a flooded server room",
    "Brutalist lighthouse at dusk",
    "A quiet field of static",
)
STATUSES = ("detected", "generating", "uploading", "ready", "revealed", "failed")


@dataclass
class Seen:
    """When each token was first seen in each status, seconds since its mint was sent."""

    began: float = field(default_factory=time.monotonic)
    first: dict[int, dict[str, float]] = field(default_factory=dict[int, dict[str, float]])
    status: dict[int, str] = field(default_factory=dict[int, str])
    notes: list[str] = field(default_factory=list[str])


async def play(console: Console, data_dir: Path, *, keep: bool, tokens: int, faults: bool) -> int:
    """Play the demo; return 0 when every check passed, 1 when one did not."""
    started = time.monotonic()
    console.print("[bold]Causeway demo[/bold]: mints become pictures, pins and reveals.\n")
    folder = data_dir / "demo"
    try:
        async with open_world(folder) as world, httpx2.AsyncClient(timeout=10) as http:
            story = Story(console, world, http, tokens)
            await story.begin()
            await story.run(faults=faults)
            problems = await check_all(world, http, story.token_ids, console)
            sheet = await write_sheet(world, http, story.token_ids, folder / "contact-sheet.png")
            story.farewell(sheet, time.monotonic() - started, problems)
            if keep:
                console.print("\nIt goes on until you press Ctrl-C.")
                await asyncio.Event().wait()
            return 1 if problems else 0
    except asyncio.CancelledError:
        return 130
    except CausewayError as error:
        console.print(f"[red]{error.message}[/red]")
        if error.hint:
            console.print(f"  {error.hint}")
        console.print(f"  logs: {folder / 'logs'}")
        return 1


class Story:
    """What happens, in order."""

    def __init__(
        self, console: Console, world: World, http: httpx2.AsyncClient, tokens: int
    ) -> None:
        self.console = console
        self.world = world
        self.http = http
        self.tokens = tokens
        self.token_ids: list[int] = []
        self.seen = Seen()
        accounts = world.node.accounts
        self.authors = accounts[2:5]
        self.wallets = accounts[5:9]

    async def begin(self) -> None:
        """Start Causeway and register the authors."""
        world, console = self.world, self.console
        console.print(f"  PostgreSQL  embedded, in {world.folder / 'postgres'}")
        console.print(
            f"  chain       anvil at {world.node.url}, id {world.node.chain_id}, "
            f"contract {world.contract.address}"
        )
        console.print(f"  stand-ins   Replicate, Pinata and IPFS at {world.sandbox.url}")
        await world.processes.start("api", "serve", "glisk")
        await until(self._api_ready, 30, "the API's start")
        await world.processes.start("worker-1", "work", "glisk")
        await world.processes.start("worker-2", "work", "glisk")
        console.print(f"  Causeway    API at {world.api_url}, two workers\n")
        for author, prompt in zip(self.authors, PROMPTS, strict=True):
            await self._register(author, prompt)
        console.print("three authors signed their prompts in (EIP-4361, single use)")

    async def _api_ready(self) -> bool:
        try:
            answer = await self.http.get(f"{self.world.api_url}/readyz")
        except httpx2.HTTPError:
            return False
        return answer.status_code == 200

    async def _register(self, author: DevAccount, prompt: str) -> None:
        """Set an author's prompt the way the frontend does: challenge, signature, prompt."""
        api = f"{self.world.api_url}/api/authors"
        digest = hashlib.sha256(prompt.encode()).hexdigest()
        asked = await self.http.get(
            f"{api}/challenge",
            params={"wallet": author.address, "action": "prompt", "prompt_sha256": digest},
        )
        message = asked.json()["message"]
        signed = Account.sign_message(encode_defunct(text=message), author.private_key)
        answer = await self.http.post(
            f"{api}/prompt",
            json={
                "wallet_address": author.address,
                "prompt_text": prompt,
                "message": message,
                "signature": "0x" + bytes(signed.signature).hex(),
            },
        )
        if answer.status_code != 200:
            raise CausewayError(f"an author could not register: {answer.text}")

    async def run(self, *, faults: bool) -> None:
        """Mint, watch, disturb, and wait for the last reveal."""
        self.seen.began = time.monotonic()
        watching = asyncio.create_task(self._watch())
        try:
            await self._mint(self.tokens - (2 if faults else 0))
            if faults:
                kill = asyncio.create_task(self._kill_a_worker())
                await self._reorganise()
                await kill
            await until(self._all_revealed, 90, "the last reveal")
        finally:
            await asyncio.sleep(0.3)  # the last picture of the table
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _mint(self, tokens: int) -> None:
        """Mint in several transactions from several wallets; announce some by webhook."""
        sizes: list[int] = []
        left = tokens
        for size in (5, 3, 1, 4, 2, 6, 1, 3) * 100:
            if left <= 0:
                break
            sizes.append(min(size, left))
            left -= sizes[-1]
        hashes = [
            await self.world.contract.mint(
                self.wallets[i % len(self.wallets)],
                self.authors[i % len(self.authors)].address,
                size,
            )
            for i, size in enumerate(sizes)
        ]
        for i, tx_hash in enumerate(hashes):
            receipt = await receipt_of(self.world.node, tx_hash)
            if i % 2 == 0:
                await self._announce(receipt)
        self.token_ids = list(range(1, tokens + 1))
        self._note(
            f"{tokens} tokens minted in {len(sizes)} transactions from "
            f"{len(self.wallets)} wallets, every other one announced by a webhook"
        )

    async def _announce(self, receipt: dict[str, Any]) -> None:
        """Deliver the webhook that Alchemy would send."""
        logs = [
            {
                "account": {"address": log["address"]},
                "topics": log["topics"],
                "data": log["data"],
                "index": int(log["logIndex"], 16),
                "transaction": {"hash": receipt["transactionHash"], "status": 1},
            }
            for log in receipt["logs"]
        ]
        body = orjson.dumps(
            {
                "webhookId": "wh_demo",
                "id": f"whevt_{receipt['transactionHash'][2:18]}",
                "type": "GRAPHQL",
                "event": {
                    "data": {
                        "block": {
                            "number": int(receipt["blockNumber"], 16),
                            "hash": receipt["blockHash"],
                            "logs": logs,
                        }
                    }
                },
            }
        )
        secret = self.world.webhook_secret.encode()
        answer = await self.http.post(
            f"{self.world.api_url}/webhooks/alchemy",
            content=body,
            headers={
                "X-Alchemy-Signature": hmac.new(secret, body, hashlib.sha256).hexdigest(),
                "Content-Type": "application/json",
            },
        )
        if answer.status_code not in (200, 202, 409):
            raise CausewayError(f"a webhook was refused: {answer.status_code} {answer.text}")

    async def _reorganise(self) -> None:
        """Mint two tokens, take their block away, and let somebody else have their ids."""
        world = self.world
        first = self.tokens - 1
        loser, winner = self.authors[0], self.authors[2]
        tx_hash = await world.contract.mint(self.wallets[0], loser.address, 2)
        receipt = await receipt_of(world.node, tx_hash)

        async def detected() -> bool:
            return await self._author_of(first) == loser.address

        await until(detected, 15, "the detection of the mint that will be undone")
        depth = await world.node.height() - int(receipt["blockNumber"], 16) + 1
        await world.node.reorg(depth)

        async def undone() -> bool:
            return await self._author_of(first) is None

        await until(undone, 20, "the undoing of the reorganised mint")
        self._note(
            f"a reorganisation {depth} deep took tokens {first} and {first + 1} away: undone"
        )
        tx_hash = await world.contract.mint(self.wallets[1], winner.address, 2)
        await receipt_of(world.node, tx_hash)

        async def again() -> bool:
            return await self._author_of(first) == winner.address

        await until(again, 15, "the detection of the mint that took its place")
        self._note(f"another author was minted under the same ids {first} and {first + 1}")
        self.token_ids = list(range(1, self.tokens + 1))

    async def _author_of(self, token_id: int) -> str | None:
        answer = await self.http.get(f"{self.world.api_url}/admin/token/{token_id}")
        if answer.status_code == 404:
            return None
        return str(answer.json()["author"]["wallet_address"])

    async def _kill_a_worker(self) -> None:
        """Kill a worker that has tokens in hand, and start another."""
        world = self.world
        victims: list[tuple[int, int]] = []

        async def holding() -> bool:
            async with world.database.sessions() as session:
                rows = await session.execute(
                    text(
                        "SELECT split_part(lease_owner, ':', 2), count(*) FROM glisk.tokens_s0 "
                        "WHERE status = 'generating' AND lease_until > clock_timestamp() GROUP BY 1"
                    )
                )
                victims[:] = [(int(pid), int(count)) for pid, count in rows]
            return bool(victims)

        await until(holding, 20, "a worker with tokens in hand")
        pid, count = max(victims, key=lambda v: v[1])
        process = next(p for p in world.processes.running if p.pid == pid)
        process.kill()
        await process.handle.wait()
        self._note(f"{process.name} was killed (SIGKILL) with {count} pictures in the making")
        await world.processes.start("worker-3", "work", "glisk")

    async def _all_revealed(self) -> bool:
        if self.seen.status and any(s == "failed" for s in self.seen.status.values()):
            raise CausewayError("a token failed")
        return len(self.token_ids) == self.tokens and all(
            self.seen.status.get(i) == "revealed" for i in self.token_ids
        )

    def _note(self, note: str) -> None:
        self.seen.notes.append(f"[dim]{time.monotonic() - self.seen.began:5.1f} s[/dim]  {note}")

    async def _watch(self) -> None:
        """Look at the tokens and draw the table, until cancelled."""
        terminal = self.console.is_terminal
        with Live(
            self._table(),
            console=self.console,
            refresh_per_second=8,
            transient=False,
            auto_refresh=terminal,
        ) as live:
            while True:
                await self._look()
                live.update(self._table())
                await asyncio.sleep(0.15)

    async def _look(self) -> None:
        async with self.world.database.sessions() as session:
            rows = await session.execute(text("SELECT token_id, status FROM glisk.tokens_s0"))
            now = time.monotonic() - self.seen.began
            self.seen.status = {int(i): str(s) for i, s in rows}
        for token_id, status in self.seen.status.items():
            self.seen.first.setdefault(token_id, {}).setdefault(status, now)

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False)
        table.add_column("status", width=11)
        table.add_column("tokens", justify="right")
        table.add_column("", width=max(25, min(60, self.tokens)))
        table.add_column("first seen, seconds (median)", justify="right")
        for status in STATUSES:
            ids = sorted(i for i, s in self.seen.status.items() if s == status)
            times = sorted(f[status] for f in self.seen.first.values() if status in f)
            median = f"{times[len(times) // 2]:.1f}" if times else ""
            colour = {"revealed": "green", "failed": "red"}.get(status, "cyan")
            bar = "█" * round(len(ids) * min(60, max(25, self.tokens)) / self.tokens)
            table.add_row(status, str(len(ids) or ""), f"[{colour}]{bar}[/{colour}]", median)
        table.caption = "\n".join(self.seen.notes)
        table.caption_justify = "left"
        return table

    def farewell(self, sheet: Path, seconds: float, problems: list[str]) -> None:
        """Say how it went and where to look further."""
        world, console = self.world, self.console
        console.print()
        if problems:
            for problem in problems:
                console.print(f"[red]✗ {problem}[/red]")
        else:
            console.print(f"[green]✓ all checks passed[/green] in {seconds:.1f} s")
        console.print(f"  contact sheet  {sheet}")
        console.print(f"  logs           {world.folder / 'logs'}")
        console.print("  look further   make demo ARGS=--keep, then")
        console.print(f"                 {world.api_url}/docs  (the API, live)")
        console.print(f"                 curl {world.api_url}/admin/token/1")
        console.print(f"                 curl {world.api_url}/health/metrics")
