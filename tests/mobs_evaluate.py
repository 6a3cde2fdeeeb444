"""A process that evaluates all rules once at a time, or delivers; ended by its fault point."""

from __future__ import annotations

import asyncio
import sys

from causeway.apps.mobs.alerts.delivery import step
from causeway.apps.mobs.alerts.evaluator import evaluate_rules
from causeway.store.engine import Database
from tests.mobs_alerts import LEASE, story


async def main(url: str, at: int, what: str) -> None:
    """Do it."""
    database = Database(url)
    async with story(database, notification_group_s=0, private_webhooks=True) as tale:
        tale.clock.at = at
        if what == "evaluate":
            await evaluate_rules(tale.ctx, LEASE)
        else:
            await step(tale.ctx)
    await database.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
