"""One application's limit, shared: never more is sent than Strava allows, whoever sends."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causeway.base.errors import ProviderUnavailable, RateLimited
from causeway.connections.application_budget import (
    DAY_S,
    EDGE_S,
    JITTER_S,
    QUARTER_S,
    RECENT_S,
    ApplicationBudget,
    Limit,
    Purpose,
    Window,
    read_headers,
    window_start,
)
from causeway.sandbox.grants import Pair
from causeway.sandbox.server import SandboxServer
from causeway.sandbox.settings import SandboxSettings
from causeway.store.engine import Database
from tests.connections import HandClock
from tests.strava import Runners, runners

LIMITS = {"overall": Limit(20, 100), "read": Limit(10, 60)}
PURPOSES: tuple[Purpose, ...] = ("event", "interactive", "backfill")
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


@pytest.fixture
def clock() -> HandClock:
    # Two minutes into a window.
    return HandClock(NOON + timedelta(minutes=2))


@pytest.fixture
def budget(database: Database, clock: HandClock) -> ApplicationBudget:
    return ApplicationBudget(database, "strava 1", LIMITS, clock=clock)


async def taken(
    budget: ApplicationBudget, purpose: Purpose, subject: str = "anna", *, is_read: bool = True
) -> RateLimited | None:
    try:
        request = await budget.take(purpose, subject, is_read=is_read)
    except RateLimited as refused:
        return refused
    await budget.settle(request)
    return None


async def fill(budget: ApplicationBudget, purpose: Purpose, subject: str = "anna") -> int:
    """Take reads until there are no more; return how many there were."""
    count = 0
    while await taken(budget, purpose, subject) is None:
        count += 1
    return count


def said(limit: str, usage: str, read_limit: str = "", read_usage: str = "") -> dict[str, str]:
    return {
        "X-RateLimit-Limit": limit,
        "X-RateLimit-Usage": usage,
        "X-ReadRateLimit-Limit": read_limit,
        "X-ReadRateLimit-Usage": read_usage,
    }


# The rules, without a database


@given(st.datetimes(timezones=st.just(UTC)), st.sampled_from([QUARTER_S, DAY_S]))
def test_windows_begin_at_quarters_and_midnights(at: datetime, period_s: int) -> None:
    start = window_start(at, period_s)
    assert start <= at < start + timedelta(seconds=period_s)
    assert (start.second, start.microsecond) == (0, 0)
    assert start.minute in ((0, 15, 30, 45) if period_s == QUARTER_S else (0,))
    assert period_s == QUARTER_S or start.hour == 0


@given(
    st.integers(1, 500),
    st.lists(st.tuples(st.sampled_from(PURPOSES), st.integers(1, 50))),
)
def test_reserves_hold_and_nothing_is_sent_beyond_the_limit(
    most: int, wishes: list[tuple[Purpose, int]]
) -> None:
    window = Window("overall", QUARTER_S, most, NOON)
    for purpose, wish in wishes:
        window.count(purpose, min(wish, window.available(purpose)))
    kept = int(most * 0.3)
    assert window.used <= most
    assert window.by_purpose["backfill"] <= most - 2 * kept
    for purpose in PURPOSES[:2]:
        # Each finds at least what is left of its own part.
        assert window.by_purpose[purpose] + window.available(purpose) >= kept


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        (said("200,2000", "5,70", "100,1000", "3,60"), {"overall": ((200, 2000), (5, 70)),
                                                        "read": ((100, 1000), (3, 60))}),
        ({"x-ratelimit-limit": " 600 , 30000 "}, {"overall": ((600, 30000), None)}),
        (said("200", "5"), {}),
        (said("200,-1", "a,b", "1,2,3", "²,³"), {}),
        ({}, {}),
    ],
)  # fmt: skip
def test_what_headers_say(headers: Mapping[str, str], found: dict[str, object]) -> None:
    read = {meter: (said.limit, said.usage) for meter, said in read_headers(headers).items()}
    assert read == found


# One process


async def test_a_backfill_leaves_the_reserves(budget: ApplicationBudget) -> None:
    assert await fill(budget, "backfill") == 4  # 10 reads, 3 and 3 of them reserved
    assert await fill(budget, "event") == 3
    assert await fill(budget, "interactive") == 3


async def test_what_must_not_wait_may_have_all_but_the_other_s_reserve(
    budget: ApplicationBudget,
) -> None:
    assert await fill(budget, "event") == 7
    assert await fill(budget, "backfill") == 0
    assert await fill(budget, "interactive") == 3


async def test_uploads_are_no_reads(budget: ApplicationBudget) -> None:
    assert await fill(budget, "event") == 7
    for _ in range(7):  # 20 of everything, 6 of them reserved for people who look
        assert await taken(budget, "event", is_read=False) is None
    assert await taken(budget, "event", is_read=False) is not None


async def test_at_the_limit_it_says_how_long(budget: ApplicationBudget, clock: HandClock) -> None:
    await fill(budget, "event")
    refused = await taken(budget, "event")
    assert refused is not None
    least = 13 * 60 + EDGE_S + JITTER_S[0]
    assert least <= (refused.retry_after_s or 0) <= 13 * 60 + EDGE_S + JITTER_S[1]
    # Just before the boundary, and within the edge after it, nothing more goes out.
    clock.move(13 * 60 - 0.001)
    assert await taken(budget, "event") is not None
    clock.move(0.002)
    assert await taken(budget, "event") is not None
    clock.move(refused.retry_after_s or 0)
    assert await fill(budget, "event") == 7


async def test_a_day_that_is_used_up_ends_at_midnight(
    budget: ApplicationBudget, clock: HandClock
) -> None:
    request = await budget.take("event", "anna")
    await budget.settle(request, said("20,100", "20,100", "10,60", "10,60"))
    refused = await taken(budget, "event")
    assert refused is not None
    until = clock.now() + timedelta(seconds=refused.retry_after_s or 0)
    assert datetime(2026, 11, 2, tzinfo=UTC) < until < datetime(2026, 11, 2, 0, 1, tzinfo=UTC)
    clock.move(QUARTER_S)
    assert await taken(budget, "event") is not None
    clock.at = datetime(2026, 11, 2, 0, 1, tzinfo=UTC)
    assert await taken(budget, "event") is None


async def test_headers_put_the_count_and_the_limit_right(budget: ApplicationBudget) -> None:
    request = await budget.take("event", "anna")
    # Somebody else uses the same application, and Strava has raised its limit.
    await budget.settle(request, said("40,400", "15,15", "30,300", "12,12"))
    (read,) = [w for w in await budget.left() if (w.meter, w.period_s) == ("read", QUARTER_S)]
    assert (read.most, read.used) == (30, 12)
    assert await fill(budget, "event") == 9  # of 30 used 12, 9 reserved for who looks
    # An answer that was overtaken does not give back what was counted since.
    request = await budget.take("interactive", "anna")
    await budget.settle(request, said("40,400", "3,3", "30,300", "3,3"))
    (read,) = [w for w in await budget.left() if (w.meter, w.period_s) == ("read", QUARTER_S)]
    assert read.used == 22


async def test_a_refusal_without_a_count_fills_the_window(
    budget: ApplicationBudget, clock: HandClock
) -> None:
    request = await budget.take("interactive", "anna")
    await budget.settle(request, {}, refused=True)
    assert await taken(budget, "event") is not None
    clock.move(QUARTER_S)
    assert await taken(budget, "event") is None


async def test_what_is_under_way_at_the_boundary_counts_in_both_windows(
    budget: ApplicationBudget, clock: HandClock
) -> None:
    clock.at = NOON + timedelta(minutes=15) - timedelta(seconds=1)
    under_way = [await budget.take("event", "anna") for _ in range(5)]
    clock.move(EDGE_S + 2)
    assert await fill(budget, "event") == 2
    # Answered later, they do not count a third time.
    for request in under_way:
        await budget.settle(request)
    clock.move(QUARTER_S)
    assert await fill(budget, "event") == 7


async def test_requests_of_a_process_that_died_are_forgotten(
    budget: ApplicationBudget, clock: HandClock
) -> None:
    for _ in range(5):
        await budget.take("event", "anna")
    clock.move(QUARTER_S)
    assert await fill(budget, "event") == 7


async def test_people_who_want_something_get_equal_parts(
    budget: ApplicationBudget, clock: HandClock
) -> None:
    # Anna alone takes what she wants; Ben comes too late in this window.
    assert await fill(budget, "backfill", "anna") == 4
    assert await fill(budget, "backfill", "ben") == 0
    # In the next both have waited: however fast Anna is, half of it is Ben's.
    clock.at = NOON + timedelta(minutes=15, seconds=20)
    assert await fill(budget, "backfill", "anna") == 2
    refused = await taken(budget, "backfill", "anna")
    assert refused is not None
    # A short wait, because Ben may not want it all.
    assert RECENT_S < (refused.retry_after_s or 0) <= RECENT_S + JITTER_S[1]
    assert await taken(budget, "backfill", "ben") is None
    clock.move(RECENT_S + JITTER_S[1] + 1)
    assert await fill(budget, "backfill", "anna") == 1
    # And what somebody has in one purpose takes nothing from another.
    assert await fill(budget, "interactive", "anna") == 3


@pytest.mark.parametrize("people", [2, 3, 5])
async def test_a_long_backfill_never_starves_the_others(
    database: Database, clock: HandClock, people: int
) -> None:
    budget = ApplicationBudget(database, "strava 1", {"overall": Limit(100, 2000)}, clock=clock)
    got: Counter[str] = Counter()
    for _ in range(40):  # the first asks ten times as often
        for name in ["p0"] * 10 + [f"p{n}" for n in range(people)]:
            got[name] += await taken(budget, "backfill", name) is None
    share = 40 / people
    assert sum(got.values()) == 40
    assert all(count >= share - 10 for count in got.values()), got
    clock.at = NOON + timedelta(minutes=15, seconds=20)
    got.clear()
    for _ in range(40):
        for name in ["p0"] * 10 + [f"p{n}" for n in range(people)]:
            got[name] += await taken(budget, "backfill", name) is None
    assert max(got.values()) - min(got.values()) <= 1


# Through the client


@pytest.fixture(name="w")
async def _runners(database: Database) -> AsyncIterator[Runners]:
    async with runners(database) as opened:
        yield opened


async def test_the_client_stops_before_strava_says_no(w: Runners) -> None:
    w.sandbox.settings.strava_read_limit = (10, 1000)
    anna = await w.credential()
    for _ in range(4):
        await w.strava.activities(anna, purpose="backfill")
    with pytest.raises(RateLimited) as refused:
        await w.strava.activities(anna, purpose="backfill")
    assert 0 < (refused.value.retry_after_s or 0) < 900 + EDGE_S + JITTER_S[1]
    # The limit was learned from the first answer.
    assert w.asked("/strava/api/v3/athlete/activities") == 4
    assert {entry.status for entry in w.sandbox.log() if "/api/" in entry.path} == {200}
    # A webhook's work goes on, and so does an upload.
    await w.strava.activities(anna, purpose="event")
    w.clock.move(refused.value.retry_after_s or 0)
    await w.strava.activities(anna, purpose="backfill")


async def test_every_try_is_counted(w: Runners) -> None:
    anna = await w.credential()
    w.sandbox.fault("strava", "lose_answer", 2)
    await w.strava.activities(anna)
    windows = await w.strava._budget.left()  # pyright: ignore[reportPrivateUsage]
    used = {(x.meter, x.period_s): x.used for x in windows}
    assert set(used.values()) == {3}
    noon = int(NOON.timestamp())
    assert w.sandbox.strava_requests()["read", 900, noon] == 3


async def test_a_refusal_of_strava_holds_everybody_until_the_boundary(w: Runners) -> None:
    anna, ben = await w.credential("anna"), await w.credential("ben")
    w.sandbox.fault("strava", "rate_limit", 1)
    with pytest.raises(RateLimited) as refused:
        await w.strava.activities(anna)
    assert 900 <= (refused.value.retry_after_s or 0) <= 900 + EDGE_S + JITTER_S[1]
    with pytest.raises(RateLimited):
        await w.strava.activities(ben)
    assert w.asked("/strava/api/v3/athlete/activities") == 1


async def test_a_refusal_for_the_day_holds_until_midnight(w: Runners) -> None:
    anna = await w.credential()
    headers = {"X-RateLimit-Limit": "200,2000", "X-RateLimit-Usage": "3,2001"}
    w.sandbox.fault("strava", "rate_limit", 1, headers=headers)
    for _ in range(2):  # said by Strava, then known here
        with pytest.raises(RateLimited) as refused:
            await w.strava.activities(anna)
        assert 12 * 3600 <= (refused.value.retry_after_s or 0) <= 12 * 3600 + EDGE_S + JITTER_S[1]
    assert w.asked("/strava/api/v3/athlete/activities") == 1


async def test_an_outage_gives_nothing_back(w: Runners) -> None:
    anna = await w.credential()
    w.sandbox.fault("strava", "reset")
    with pytest.raises(ProviderUnavailable):
        await w.strava.activities(anna)
    windows = await w.strava._budget.left()  # pyright: ignore[reportPrivateUsage]
    assert {x.used for x in windows} == {3}


# Several processes


async def test_processes_together_never_exceed_the_limit(database: Database) -> None:
    """Four processes ask as fast as they can, window after window; Strava never has to refuse."""
    clock = HandClock(NOON + timedelta(minutes=14, seconds=50))
    settings = SandboxSettings(strava_limit=(60, 400), strava_read_limit=(40, 100))
    async with SandboxServer.start(settings=settings, clock=clock) as sandbox, workers(4) as four:
        for n, worker in enumerate(four):
            scope = "read,activity:read,activity:write"
            sandbox.issue("strava", Pair(f"p{n}", scope, f"token-{n}", None, None))
            await tell(
                worker,
                database=database.url.render_as_string(hide_password=False),
                api_url=sandbox.strava_api_url,
                token=f"token-{n}",
                who=f"p{n}",
                now=clock.now().isoformat(),
            )
        counts: Counter[str] = Counter()
        for minutes in (14.9, 15.05, 31, 46):
            clock.at = NOON + timedelta(minutes=minutes)
            for worker in four:
                await tell(worker, now=clock.at.isoformat())
            for worker in four:
                assert worker.stdout is not None
                counts.update(json.loads(await worker.stdout.readline()))
        most = {
            ("overall", QUARTER_S): 60,
            ("read", QUARTER_S): 40,
            ("overall", DAY_S): 400,
            ("read", DAY_S): 100,
        }
        requests = sandbox.strava_requests()
        for (meter, seconds, _), count in requests.items():
            assert count <= most[meter, seconds]
        assert not any(entry.status == 429 for entry in sandbox.log())
        # And nothing that was allowed was left lying: the first window is full, and the day.
        day = int(NOON.timestamp()) // DAY_S * DAY_S
        assert requests["read", QUARTER_S, int(NOON.timestamp())] == 40
        assert requests["read", DAY_S, day] == 100
        assert counts["ok"] == requests["overall", DAY_S, day]
        assert counts["refused"] > 0


@asynccontextmanager
async def workers(count: int) -> AsyncGenerator[list[asyncio.subprocess.Process]]:
    """Start workers, and end them."""
    program = str(Path(__file__).parents[1] / "strava_process.py")
    pipe = asyncio.subprocess.PIPE
    started = [
        await asyncio.create_subprocess_exec(sys.executable, program, stdin=pipe, stdout=pipe)
        for _ in range(count)
    ]
    try:
        yield started
        for worker in started:
            assert worker.stdin is not None
            worker.stdin.close()
        assert [await worker.wait() for worker in started] == [0] * count
    finally:
        for worker in started:
            if worker.returncode is None:
                worker.kill()
                await worker.wait()


async def tell(worker: asyncio.subprocess.Process, **order: str) -> None:
    assert worker.stdin is not None
    worker.stdin.write(json.dumps(order).encode() + b"\n")
    await worker.stdin.drain()
