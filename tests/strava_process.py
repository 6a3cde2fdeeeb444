"""A worker for a test: asks Strava as fast as it can, of every kind, each time it is told to."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from datetime import datetime

from pydantic import SecretStr

from causeway.base.errors import RateLimited
from causeway.connections.application_budget import ApplicationBudget, Limit, Purpose
from causeway.connections.credential import Account, Credential
from causeway.connections.strava import Strava
from causeway.store.engine import Database


class ToldClock:
    """A clock that stands where the test says."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def now(self) -> datetime:
        """Return where it stands."""
        return self.at

    def monotonic(self) -> float:
        """Return where it stands."""
        return self.at.timestamp()

    async def sleep(self, seconds: float) -> None:
        """Let others work: nobody waits for a clock that stands."""
        await asyncio.sleep(0)


async def main() -> None:
    """Read orders, one in a line, and answer each with what came of it."""
    order = json.loads(await asyncio.to_thread(sys.stdin.readline))
    clock = ToldClock(datetime.fromisoformat(order["now"]))
    database = Database(order["database"], pool_size=4)
    limits = {"overall": Limit(200, 2000), "read": Limit(100, 1000)}
    strava = Strava(
        ApplicationBudget(database, "strava 12345", limits, clock=clock),
        api_url=order["api_url"],
        clock=clock,
    )
    who = Credential("strava", "oauth", SecretStr(order["token"]), account=Account(order["who"]))

    async def ask(counts: Counter[str], n: int) -> None:
        purposes: list[Purpose] = ["event", "interactive", "backfill"]
        try:
            if n % 7 == 0:
                await strava.upload(who, b"<trkpt", "gpx", external_id=f"wisp-{n}")
            else:
                await strava.activities(who, purpose=purposes[n % 3])
            counts["ok"] += 1
        except RateLimited:
            counts["refused"] += 1

    for line in iter(sys.stdin.readline, ""):
        clock.at = datetime.fromisoformat(json.loads(line)["now"])
        counts: Counter[str] = Counter()
        for begin in range(0, 60, 6):
            await asyncio.gather(*[ask(counts, n) for n in range(begin, begin + 6)])
        sys.stdout.write(json.dumps(counts) + "\n")
        sys.stdout.flush()
    await strava.aclose()
    await database.engine.dispose()


asyncio.run(main())
