"""Alert rules on a chain that a test tells block by block, on a clock of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from sqlalchemy import text

from causeway.app import Context
from causeway.apps.mobs.alerts.evaluator import evaluate_rules
from causeway.apps.mobs.context import MobsContext, Services
from causeway.apps.mobs.scanner import Scanner
from causeway.base.settings import KernelSettings, load
from causeway.chains.evm.blocks import FullBlock
from causeway.store.engine import Database
from causeway.store.lease import Lease
from tests.mobs_blocks import NOON, Sent, block, scanner, settings, undone_to

LEASE = Lease("mobs:alerts", "a test", 1)


@dataclass
class HandClock:
    """A clock that stands until it is moved."""

    at: int = NOON

    def now(self) -> datetime:
        """Return where it stands."""
        return datetime.fromtimestamp(self.at, UTC)

    def monotonic(self) -> float:
        """Return where it stands."""
        return float(self.at)

    async def sleep(self, seconds: float) -> None:
        """Move on."""
        self.at += int(seconds)


@dataclass
class Story:
    """A chain, rules, and what became of them."""

    ctx: MobsContext
    clock: HandClock
    scanner: Scanner
    chain: list[FullBlock] = field(default_factory=list[FullBlock])
    #: Each transaction is another one.
    nonce: int = 0

    async def mine(self, *sent: Sent, seconds: int = 2, branch: object = 0) -> FullBlock:
        """Add a block; the clock goes with it."""
        self.clock.at += seconds
        number = self.chain[-1].block.number + 1 if self.chain else 1
        made = block(number, self.clock.at, sent, branch)
        async with self.ctx.database.transaction() as session:
            await self.scanner.apply(session, [made])
        self.chain.append(made)
        return made

    async def mixed(self, good: int, bad: int, *, seconds: int = 2, to: int = 2) -> FullBlock:
        """Add a block with so many transactions that went well and that failed."""
        sent: list[Sent] = []
        for number in range(good + bad):
            self.nonce += 1
            sent.append(Sent(nonce=self.nonce, status=int(number < good), to=to))
        return await self.mine(*sent, seconds=seconds)

    async def reorg(self, blocks: int) -> None:
        """Take the newest blocks away, as a reorg does."""
        fork, head = self.chain[-blocks - 1], self.chain[-1]
        async with self.ctx.database.transaction() as session:
            await self.scanner.undone(session, undone_to(fork, head))
            await session.execute(
                text("UPDATE mobs.reorgs SET detected_at = :now"), {"now": self.clock.at}
            )
        del self.chain[-blocks:]

    async def rule(self, **values: Any) -> int:
        """Make a rule and return its number."""
        rule: dict[str, Any] = {
            "name": "a rule",
            "alert_type": "failure_rate",
            "conditions": {},
            "threshold": 5,
            "channels": [{"type": "log"}],
        }
        rule.update(values)
        for name in ("conditions", "channels"):
            rule[name] = orjson.dumps(rule[name]).decode()
        async with self.ctx.database.transaction() as session:
            return int(
                await session.scalar(
                    text(
                        f"INSERT INTO mobs.alerts ({', '.join(rule)}) VALUES "
                        f"({', '.join(':' + name for name in rule)}) RETURNING id"
                    ),
                    rule,
                )
                or 0
            )

    async def contract(self, address: str, name: str) -> int:
        """Watch a contract and return its number."""
        async with self.ctx.database.transaction() as session:
            number = await session.scalar(
                text("INSERT INTO mobs.contracts (address, name) VALUES (:a, :n) RETURNING id"),
                {"a": bytes.fromhex(address[2:]), "n": name},
            )
        return int(number or 0)

    async def evaluate(self, seconds: int = 0) -> None:
        """Let the clock go on, and evaluate every rule."""
        self.clock.at += seconds
        await evaluate_rules(self.ctx, LEASE)

    async def rows(self, query: str, **values: Any) -> list[tuple[Any, ...]]:
        """Return what a query finds."""
        async with self.ctx.database.sessions() as session:
            return [tuple(row) for row in await session.execute(text(query), values)]

    async def events(self) -> list[tuple[Any, ...]]:
        """Return kind, value and how it ended of all events."""
        return await self.rows(
            "SELECT kind, value_observed::float, resolve_reason FROM mobs.alert_events ORDER BY id"
        )

    async def notices(self) -> list[tuple[str, str]]:
        """Return kind and state of all notifications."""
        found = await self.rows("SELECT body->>'kind', state FROM mobs.notifications ORDER BY id")
        return [(str(kind), str(state)) for kind, state in found]

    async def states(self) -> Sequence[tuple[Any, ...]]:
        """Return series and state of all rules."""
        return await self.rows("SELECT series, state FROM mobs.alert_states ORDER BY 1")


@asynccontextmanager
async def story(database: Database, **changed: Any) -> AsyncGenerator[Story]:
    """Open a story on a database."""
    clock = HandClock()
    async with scanner(database) as one, aiohttp.ClientSession() as http:
        ctx: MobsContext = Context(
            app="mobs",
            settings=settings(**changed),
            kernel=load(KernelSettings),
            database=database,
            services=Services(http),
            clock=clock,
        )
        yield Story(ctx, clock, one)


async def child(database_url: str, at: int, what: str, fault: str) -> int:
    """Evaluate or deliver once in a process of its own; return how it ended."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.mobs_evaluate", database_url, str(at), what),
        env={**os.environ, "CAUSEWAY_FAULT": fault},
        cwd=Path(__file__).parents[1],
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        return await asyncio.wait_for(process.wait(), 60)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
