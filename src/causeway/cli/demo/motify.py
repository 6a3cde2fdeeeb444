"""Motify's demo: 450 people stake on goals, and everybody gets what the evidence says.

Everything is real but the money: PostgreSQL, an Ethereum node with the contract and its tokens,
Motify as an API and two workers, and servers that speak GitHub's, WakaTime's and Neynar's wire
formats. What should be paid is computed here a second time, from what people did.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import httpx2
from eth_account import Account
from eth_account.messages import encode_defunct
from rich.console import Console
from rich.table import Table
from sqlalchemy import text

from causeway.base.errors import CausewayError
from causeway.cli.demo.processes import Processes, empty, free_port, inherited, until
from causeway.sandbox.anvil import AnvilNode, DevAccount
from causeway.sandbox.motify_chain import USDC, MotifyContract, people
from causeway.sandbox.server import SandboxServer
from causeway.sandbox.settings import SandboxSettings
from causeway.store.embedded import EmbeddedPostgres
from causeway.store.encryption import new_key
from causeway.store.engine import Database

DAY = 86_400
DAYS = 7
EACH = 150
FUNDS = 200 * USDC
RECIPIENT = "0x" + "5a" * 20
#: Stages of a challenge as the table shows them.
STATUSES = ("live", "measuring", "declaring", "declared", "finalizing", "archived")


@dataclass
class Person:
    """Somebody with a stake, and what they do for it."""

    account: DevAccount
    stake: int
    provider: str
    #: Good days of seven; on WakaTime seconds of the goal.
    effort: int
    connected: bool = True

    @property
    def wallet(self) -> str:
        """The address in lower case."""
        return self.account.address.lower()

    def share(self) -> int:
        """Return what they should get, in basis points, by the specification's rule."""
        if not self.connected:
            return 10_000
        whole = DAYS if self.provider != "wakatime" else 7 * 3600
        ppm = int(Fraction(min(self.effort, whole), whole) * 1_000_000 + Fraction(1, 2))
        return (ppm + 50) // 100


@dataclass
class World:
    """Everything the story is played in."""

    folder: Path
    database: Database
    node: AnvilNode
    contract: MotifyContract
    sandbox: SandboxServer
    api_url: str
    processes: Processes
    http: httpx2.AsyncClient


@dataclass
class Challenge:
    """One challenge of the story."""

    id: int
    provider: str
    people: list[Person] = field(default_factory=list[Person])


async def play(console: Console, data_dir: Path, *, keep: bool, faults: bool) -> int:
    """Play the demo; return 0 when every check passed, 1 when one did not."""
    started = time.monotonic()
    console.print("[bold]Motify demo[/bold]: stakes, goals, evidence, and who is paid what.\n")
    folder = data_dir / "demo-motify"
    try:
        async with open_world(folder) as world:
            story = Story(console, world)
            await story.begin()
            await story.compete()
            await story.settle(faults=faults)
            problems = await story.claim()
            await story.explain()
            story.farewell(problems, time.monotonic() - started)
            if keep:
                console.print("\nIt goes on until you press Ctrl-C.")
                await asyncio.Event().wait()
            return 1 if problems else 0
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
        node = await stack.enter_async_context(AnvilNode.start())
        sandbox = await stack.enter_async_context(
            SandboxServer.start(settings=SandboxSettings(neynar_per_minute=100_000))
        )
        contract = await MotifyContract.deploy(node)
        server = await stack.enter_async_context(EmbeddedPostgres.open(folder))
        database = Database(server.url)
        stack.push_async_callback(database.close)
        port = free_port()
        known = SandboxSettings()
        environment = inherited() | {
            "DATABASE_URL": server.url,
            "CAUSEWAY_PORT": str(port),
            "CAUSEWAY_LOG_FORMAT": "json",
            "CAUSEWAY_ENCRYPTION_KEYS": new_key(),
            "CHAIN_ID": str(node.chain_id),
            "WEB3_RPC_URL": node.url,
            "MOTIFY_CONTRACT_ADDRESS": contract.address,
            "MOTIFY_START_BLOCK": "0",
            "MOTIFY_FINALITY": "2",
            "MOTIFY_POLL_SECONDS": "0.25",
            "MOTIFY_LEASE_SECONDS": "3",
            "SEND_TX": "true",
            "PRIVATE_KEY": contract.owner.private_key,
            "BACKEND_URL": f"http://127.0.0.1:{port}",
            "GITHUB_CLIENT_ID": known.github_client_id,
            "GITHUB_CLIENT_SECRET": known.github_client_secret,
            "GITHUB_API_BASE_URL": sandbox.github_api_url,
            "GITHUB_OAUTH_BASE_URL": sandbox.github_oauth_url,
            "WAKATIME_API_BASE_URL": sandbox.wakatime_api_url,
            "NEYNAR_API_BASE_URL": sandbox.neynar_url,
            "NEYNAR_API_KEY": known.neynar_api_key,
            "NEYNAR_REQUESTS_PER_MINUTE": "100000",
        }
        http = await stack.enter_async_context(httpx2.AsyncClient(timeout=15))
        processes = Processes(folder, environment)
        try:
            yield World(
                folder,
                database,
                node,
                contract,
                sandbox,
                f"http://127.0.0.1:{port}",
                processes,
                http,
            )
        finally:
            await processes.stop()


class Story:
    """What happens, in order."""

    def __init__(self, console: Console, world: World) -> None:
        self.console = console
        self.world = world
        self.challenges: list[Challenge] = []
        self.start = self.end = 0
        self._dice = random.Random(7)  # noqa: S311 - the same story each time
        self._began = time.monotonic()

    @property
    def people(self) -> list[Person]:
        """Everybody with a stake."""
        return [one for challenge in self.challenges for one in challenge.people]

    async def begin(self) -> None:
        """Start Motify; have 450 people stake."""
        world, console = self.world, self.console
        console.print(f"  PostgreSQL  embedded, in {world.folder / 'postgres'}")
        console.print(
            f"  chain       anvil at {world.node.url}, id {world.node.chain_id}, "
            f"contract {world.contract.address}"
        )
        console.print(f"  stand-ins   GitHub, WakaTime and Neynar at {world.sandbox.url}")
        await world.processes.start("api", "serve", "motify")
        await until(self._api_ready, 30, "the API's start")
        await world.processes.start("worker-1", "work", "motify")
        console.print(f"  Causeway    API at {world.api_url}, a worker\n")
        accounts = people(3 * EACH, "runner")
        await world.contract.fund([one.address for one in accounts], FUNDS)
        self.start = (await world.contract.now() // DAY + 1) * DAY
        self.end = self.start + DAYS * DAY
        goals = (
            ("github", "contribution_per_day", 1),
            ("wakatime", "CODING_TIME", 7),
            ("farcaster", "cast_per_day", 1),
        )
        for number, (provider, goal_type, amount) in enumerate(goals):
            challenge = Challenge(
                await world.contract.create(
                    recipient=RECIPIENT,
                    start_time=self.start,
                    end_time=self.end,
                    api_type=provider,
                    goal_type=goal_type,
                    goal_amount=amount,
                    name=f"A week of {provider}",
                ),
                provider,
            )
            for account in accounts[number * EACH : (number + 1) * EACH]:
                challenge.people.append(self._person(account, provider))
            stakes = {one.account.address: one.stake for one in challenge.people}
            await world.contract.join(challenge.id, stakes)
            self.challenges.append(challenge)
        staked = sum(one.stake for one in self.people) / USDC
        self._note(f"{len(self.people)} people staked {staked:,.2f} USDC in three challenges")
        await asyncio.gather(*(self._connect(one) for one in self._connectors()))
        await self._connect_github([p for p in self.challenges[0].people if p.connected])
        left = sum(not one.connected for one in self.people)
        self._note(f"all but {left} connected their accounts, with signatures of their wallets")

    def _person(self, account: DevAccount, provider: str) -> Person:
        most = DAYS if provider != "wakatime" else 9 * 3600
        lucky = self._dice.random()
        effort = most if lucky < 0.5 else self._dice.randrange(most + 1)
        stake = self._dice.randrange(5 * USDC, 100 * USDC)
        connected = provider == "farcaster" or self._dice.random() > 0.02
        return Person(account, stake, provider, effort, connected)

    def _connectors(self) -> list[Person]:
        return [p for p in self.challenges[1].people if p.connected]

    async def _api_ready(self) -> bool:
        try:
            return (await self.world.http.get(f"{self.world.api_url}/readyz")).status_code == 200
        except httpx2.HTTPError:
            return False

    async def _connect(self, person: Person) -> None:
        """Connect WakaTime by an API key, as the frontend does."""
        key = f"waka_{person.wallet[2:]}"
        self.world.sandbox.settings.wakatime_keys[key] = person.wallet
        signed = _signed(person, "Connect OAuth provider wakatime to wallet {} at {}")
        answer = await self.world.http.post(
            f"{self.world.api_url}/oauth/wakatime/api-key",
            json={"wallet_address": person.wallet, "api_key": key, **signed},
        )
        _expect(answer, 200)

    async def _connect_github(self, connecting: Sequence[Person]) -> None:
        """Connect GitHub accounts through its authorization page, one browser after another."""
        for person in connecting:
            signed = _signed(person, "Connect OAuth provider github to wallet {} at {}")
            self.world.sandbox.settings.github_login = _login(person)
            asked = await self.world.http.get(
                f"{self.world.api_url}/oauth/connect/github",
                params={"wallet_address": person.wallet, **signed},
            )
            _expect(asked, 200)
            page = await self.world.http.get(asked.json()["auth_url"])
            back = await self.world.http.get(page.headers["location"])
            if "success=true" not in back.headers.get("location", ""):
                raise CausewayError(f"an account could not be connected: {back.headers}")

    async def compete(self) -> None:
        """Let the week pass: people code and write as they do."""
        world = self.world
        settings = world.sandbox.settings
        first = datetime.fromtimestamp(self.start, UTC)
        for number, person in enumerate(self.people):
            if person.provider == "github":
                settings.github_contributions[_login(person)] = {
                    day: (2, 2, 0) for day in _days(first, person.effort)
                }
            elif person.provider == "wakatime":
                settings.wakatime_seconds[person.wallet] = {
                    first.date() + timedelta(days=3): float(person.effort)
                }
            else:
                settings.neynar_accounts[person.wallet] = (number + 1000,)
                settings.neynar_casts[number + 1000] = tuple(
                    first + timedelta(days=n, hours=12) for n in range(person.effort)
                )
        await world.contract.travel_to(self.start)
        await self._mine_until("live")
        self._note("the week began: everybody is read once a day while it lasts")
        await world.contract.travel_to(self.end)

    async def settle(self, *, faults: bool) -> None:
        """From the end to the archive, through an outage, a killed worker and a reorganisation."""
        world = self.world
        if faults:
            world.sandbox.fault("wakatime", "status", status=503)
            await self._mine_until("measuring")
            self._note("the week is over; WakaTime is down (503): nobody fails for that, it waits")
            await world.processes.start("worker-2", "work", "motify")
            world.processes.running[1].kill()
            self._note("the worker was killed (SIGKILL) while it measured; another went on")
        await self._mine_until("measuring")
        await world.contract.travel_to(self.end + DAY)
        if faults:
            await self._mine_until("archived", only=(self.challenges[0], self.challenges[2]))
            world.sandbox.clear_faults()
            self._note("WakaTime is back")
            await self._declared(self.challenges[1])
            await world.node.rollback(1)
            self._note("a reorganisation took a declaration out of the chain")
        await self._mine_until("archived")
        self._note("declared, finalized and archived")

    async def _declared(self, challenge: Challenge) -> None:
        async def mined() -> bool:
            state = await self.world.contract.challenge(challenge.id)
            return all(one.declared for one in state.participants)

        for _ in range(600):
            if await mined():
                return
            if await self._status(challenge) == "measuring":
                await self.world.node.mine()
            await asyncio.sleep(0.1)
        raise CausewayError("the last challenge was not declared")

    async def claim(self) -> list[str]:
        """Have every winner claim; compare every balance with what is computed here."""
        world, problems = self.world, list[str]()
        before = await world.contract.usdc_of([world.contract.address])
        donated = fees = 0
        for challenge in self.challenges:
            winners = [one for one in challenge.people if one.share()]
            await world.contract.claim(challenge.id, [one.account.address for one in winners])
            given = sum(one.stake - one.stake * one.share() // 10_000 for one in challenge.people)
            fee = given * 1000 // 10_000
            donated, fees = donated + given - fee, fees + fee
        balances = await world.contract.usdc_of([one.account.address for one in self.people])
        for one in self.people:
            should = FUNDS - one.stake + one.stake * one.share() // 10_000
            has = balances[one.account.address]
            if has != should:
                problems.append(f"{one.wallet} has {has}, should have {should}")
        recipient = (await world.contract.usdc_of([RECIPIENT]))[RECIPIENT]
        if recipient != donated:
            problems.append(f"the recipient has {recipient}, should have {donated}")
        left = (await world.contract.usdc_of([world.contract.address]))[world.contract.address]
        if left != fees:
            problems.append(f"the contract has {left}, should have {fees} of fees")
        sent = await self._transactions()
        if sent != {"declare": 3, "finalize": 3}:
            problems.append(f"transactions confirmed: {sent}, should be three of each")
        paid = sum(balances.values()) - sum(FUNDS - one.stake for one in self.people)
        self._note(
            f"claimed {paid / USDC:,.6f} USDC, given {recipient / USDC:,.6f}, "
            f"fees {left / USDC:,.6f}; of {sum(before.values()) / USDC:,.6f} in the contract"
        )
        self._table(sent)
        return problems

    async def _transactions(self) -> dict[str, int]:
        async with self.world.database.sessions() as session:
            rows = await session.execute(
                text(
                    "SELECT kind, count(*) FROM causeway.relayer_transactions "
                    "WHERE state = 'confirmed' GROUP BY 1"
                )
            )
            return {str(kind): int(number) for kind, number in rows}

    def _table(self, sent: dict[str, int]) -> None:
        table = Table("challenge", "people", "staked", "all back", "some", "nothing", box=None)
        for challenge in self.challenges:
            shares = [one.share() for one in challenge.people]
            whole, none = shares.count(10_000), shares.count(0)
            table.add_row(
                f"{challenge.id} {challenge.provider}",
                str(len(shares)),
                f"{sum(one.stake for one in challenge.people) / USDC:,.2f}",
                str(whole),
                str(len(shares) - whole - none),
                str(none),
            )
        self.console.print()
        self.console.print(table)
        self.console.print(
            f"\n{sent.get('declare', 0)} declarations, {sent.get('finalize', 0)} finalizations, "
            f"{len(self.people)} people, every balance compared to the last unit"
        )

    async def explain(self) -> None:
        """Explain one winner and one loser, as they would ask."""
        everybody = [(c, p) for c in self.challenges for p in c.people if p.connected]
        winner = next(pair for pair in everybody if pair[1].share() == 10_000)
        loser = next(pair for pair in everybody if 0 < pair[1].share() < 5000)
        for title, (challenge, person) in (("a winner", winner), ("a loser", loser)):
            self.console.print(
                f"\n[bold]{title}[/bold]: causeway motify explain {challenge.id} {person.wallet}"
            )
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "causeway.cli", "motify", "explain"),
                *(str(challenge.id), person.wallet),
                env=self.world.processes.environment,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            out, _ = await process.communicate()
            self.console.print(out.decode().rstrip(), highlight=False, markup=False)
            if process.returncode:
                raise CausewayError("a verdict could not be explained")

    async def _mine_until(self, status: str, only: Sequence[Challenge] = ()) -> None:
        """Make a block a moment until the challenges are in a status, or further."""
        wanted = set(STATUSES[STATUSES.index(status) :])
        which = only or self.challenges

        async def reached() -> bool:
            await self.world.node.mine()
            return {await self._status(one) for one in which} <= wanted

        await until(reached, 120, f"the status {status!r} of every challenge")

    async def _status(self, challenge: Challenge) -> str:
        async with self.world.database.sessions() as session:
            found = await session.scalar(
                text("SELECT status FROM motify.settlements WHERE challenge_id = :id"),
                {"id": challenge.id},
            )
        return str(found)

    def _note(self, note: str) -> None:
        seconds = time.monotonic() - self._began
        self.console.print(f"[dim]{seconds:5.1f} s[/dim]  {note}", highlight=False)

    def farewell(self, problems: list[str], seconds: float) -> None:
        """Say how it went and where to look further."""
        world, console = self.world, self.console
        console.print()
        for problem in itertools.islice(problems, 20):
            console.print(f"[red]✗ {problem}[/red]")
        if not problems:
            console.print(f"[green]✓ all checks passed[/green] in {seconds:.1f} s")
        wallet = self.people[0].wallet
        console.print(f"  logs           {world.folder / 'logs'}")
        console.print("  look further   make demo APP=motify ARGS=--keep, then")
        console.print(f"                 {world.api_url}/docs  (the API, live)")
        console.print(f"                 curl '{world.api_url}/stats/user?wallet={wallet}'")


def _days(first: datetime, number: int) -> list[date]:
    return [first.date() + timedelta(days=n) for n in range(number)]


def _login(person: Person) -> str:
    return f"coder-{person.wallet[2:12]}"


def _signed(person: Person, message: str) -> dict[str, Any]:
    moment = int(time.time())
    words = encode_defunct(text=message.format(person.wallet, moment))
    signed = Account.sign_message(words, person.account.private_key)
    return {"signature": "0x" + bytes(signed.signature).hex(), "timestamp": moment}


def _expect(answer: httpx2.Response, status: int) -> None:
    if answer.status_code != status:
        raise CausewayError(f"{answer.request.url.path}: {answer.status_code} {answer.text[:300]}")
