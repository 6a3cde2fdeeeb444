"""A small state machine in a table of its own, and a worker process for it.

python -m tests.staged DATABASE_URL [lease_s] [seconds of work] [how it behaves]
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Integer, Text, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from causeway.base import logging
from causeway.base.errors import ConfigurationError, PermanentError, ProviderUnavailable
from causeway.pipelines.bells import Bells
from causeway.pipelines.history import attach_history
from causeway.pipelines.stage import Advance, Claim, Outcome, Stage
from causeway.pipelines.worker import PipelineWorker, Work
from causeway.store.engine import Database
from causeway.store.schema import Instant, metadata_for

EDGES = (
    ("new", "working"),
    ("working", "new"),
    ("working", "half"),
    ("half", "done"),
    ("working", "failed"),
    ("half", "failed"),
    ("failed", "new"),
)


class Base(DeclarativeBase):
    """Base of the one table."""

    metadata = metadata_for("staged")


class Item(Base):
    """A row that two stages move."""

    __tablename__ = "items"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    status: Mapped[str] = mapped_column(Text, server_default="new")
    attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    next_at: Mapped[datetime | None] = mapped_column(Instant)
    lease_owner: Mapped[str | None] = mapped_column(Text)
    lease_until: Mapped[datetime | None] = mapped_column(Instant)
    fence: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    last_error: Mapped[str | None] = mapped_column(Text)


async def create(database: Database, rows: int = 0) -> None:
    """Make the table, its guard, a table of what was done, and some rows."""
    async with database.engine.begin() as connection:
        await connection.execute(text("CREATE SCHEMA staged"))
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(text("CREATE TABLE staged.done (id bigint, stage text, pid int)"))
        for statement in attach_history("staged.items", app="staged", key="id", edges=EDGES):
            await connection.execute(text(statement))
        await connection.execute(
            text(f"INSERT INTO staged.items SELECT generate_series(1, {rows})")
        )


class Behaviour:
    """What the work of the first stage does; a test changes it while it runs."""

    def __init__(self, database: Database, seconds: float = 0.0, how: str = "") -> None:
        self.database = database
        self.seconds = seconds
        self.how = how
        self.calls = 0
        self.started = asyncio.Event()

    async def first(self, claim: Claim) -> Outcome:
        """Work on a new row."""
        self.calls += 1
        self.started.set()
        if self.how == "away":
            raise ProviderUnavailable("nobody there", service="x")
        if self.how == "configuration":
            raise ConfigurationError("the key is wrong")
        if self.how == "permanent":
            raise PermanentError("this can never work")
        if self.how == "bug":
            raise ZeroDivisionError("ours")
        if self.seconds:
            await asyncio.sleep(self.seconds)
        await self._note(claim, "first")
        return Advance()

    async def second(self, claim: Claim) -> Outcome:
        """Work on a half-done row."""
        await self._note(claim, "second")
        return Advance()

    async def _note(self, claim: Claim, stage: str) -> None:
        async with self.database.transaction() as session:
            await session.execute(
                text("INSERT INTO staged.done VALUES (:id, :stage, :pid)"),
                {"id": claim.key, "stage": stage, "pid": os.getpid()},
            )


def stages(**changes: Any) -> tuple[Stage[Behaviour], Stage[Behaviour]]:
    """Return the two stages."""

    async def first(behaviour: Behaviour, claim: Claim) -> Outcome:
        return await behaviour.first(claim)

    async def second(behaviour: Behaviour, claim: Claim) -> Outcome:
        return await behaviour.second(claim)

    shared: dict[str, Any] = {
        "app": "staged",
        "model": Item,
        "key": "id",
        "failed": "failed",
        "lease_s": 2.0,
        "poll_interval_s": 0.2,
        **changes,
    }
    return (
        Stage(name="first", claims="new", working="working", done="half", work=first, **shared),
        Stage(name="second", claims="half", working=None, done="done", work=second, **shared),
    )


@asynccontextmanager
async def working(
    database: Database, behaviour: Behaviour, *, poll_only: bool = False, **changes: Any
) -> AsyncGenerator[PipelineWorker]:
    """Run a worker inside the block."""
    stop = asyncio.Event()
    async with Bells.open(database) as bells:
        worker = PipelineWorker(
            database,
            bells,
            [Work("staged", behaviour, stages(**changes))],
            poll_only=poll_only,
            grace_s=1.0,
        )
        task = asyncio.create_task(worker.run(stop))
        try:
            yield worker
        finally:
            stop.set()
            await task


async def main() -> None:
    """Work until SIGTERM."""
    logging.configure("WARNING", "json")
    url, lease_s, seconds = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
    database = Database(url)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with working(database, Behaviour(database, seconds), lease_s=lease_s):
        sys.stdout.write("working\n")
        sys.stdout.flush()
        await stop.wait()
    await database.close()


if __name__ == "__main__":
    asyncio.run(main())
