"""Schedules: cron work that runs once for each tick across all machines."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from procrastinate import App as Procrastinate

from causeway.base.errors import ConfigurationError

PREFIX = "causeway.schedule"


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Work at the times of a cron expression (five fields, UTC).

    A tick is worked on once, by whichever process takes it. When that process is lost the tick is
    taken again, so the work must bear repeating.
    """

    name: str
    cron: str
    work: Callable[[Any], Awaitable[None]]


def queue_of(app: str) -> str:
    """Return the name of the queue of an app's schedules."""
    return f"{app}:schedules"


def register(engine: Procrastinate, app: str, schedule: Schedule, context: Any) -> None:
    """Have procrastinate run a schedule in this process when its tick is taken here."""

    async def tick(timestamp: int) -> None:
        await schedule.work(context)

    name = f"{PREFIX}.{app}.{schedule.name}"
    try:
        task = engine.task(name=name, queue=queue_of(app))(tick)
        engine.periodic(cron=schedule.cron, periodic_id=name)(task)
    except ValueError as error:
        raise ConfigurationError(
            f"{app}: the schedule {schedule.name!r} has no valid cron expression: {error}"
        ) from None
