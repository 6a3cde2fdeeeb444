"""How far a backfill is: in metrics, and as bars on a terminal with the log above them."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from prometheus_client import REGISTRY
from rich.console import Console

from causeway.chains.protocol import Block
from causeway.cli.backfills import bars
from causeway.indexing.observe import Backfill, Observer, backfills


class StoppedClock:
    """A clock that tests move."""

    at = 1000.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.at, UTC)

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += seconds


def block(number: int) -> Block:
    return Block(number, f"0x{number:064x}", f"0x{number - 1:064x}", datetime.now(UTC))


def metric(name: str, source: str) -> float | None:
    return REGISTRY.get_sample_value(f"causeway_indexing_{name}", {"source": source})


@pytest.fixture
def clock() -> StoppedClock:
    return StoppedClock()


@contextmanager
def observed(source: str, clock: StoppedClock) -> Generator[Observer]:
    """Give what counts for a source; it stops in the end."""
    observer = Observer(source, clock)
    try:
        yield observer
    finally:
        observer.stopped()


def test_rate_and_time_left_are_those_of_the_last_seconds(clock: StoppedClock) -> None:
    with observed("history", clock) as observer:
        head = block(100_000)
        observer.applied(block(1_000), head, {"Put": 5})
        assert backfills() == [Backfill("history", 1_000, 1_000, 100_000, 0.0, None)]
        for second in range(1, 61):  # 10 blocks a second, then 100
            clock.at += 1
            at = 1_000 + 10 * min(second, 30) + 100 * max(0, second - 30)
            observer.applied(block(at), head, {})
        (found,) = backfills()
        assert (found.first, found.applied, found.head) == (1_000, 4_300, 100_000)
        assert found.blocks_per_s == 100
        assert found.seconds_left == 957
        assert metric("blocks_per_second", "history") == 100
        assert metric("seconds_left", "history") == 957
        assert metric("blocks_behind", "history") == 95_700
        observer.applied(block(99_900), head, {})
        assert backfills() == []
        assert metric("blocks_per_second", "history") == metric("seconds_left", "history") == 0


def test_a_source_that_is_not_followed_any_more_is_not_shown(clock: StoppedClock) -> None:
    with observed("given up", clock) as observer:
        observer.applied(block(1), block(1_000), {})
        assert [one.source for one in backfills()] == ["given up"]
        observer.stopped()
        assert backfills() == []


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_bars_stand_below_the_log_until_the_head_is_reached(clock: StoppedClock) -> None:
    written = io.StringIO()
    screen = Console(file=written, force_terminal=True, width=120, color_system=None)
    with bars(screen) as stream, observed("far", clock) as observer:
        stream.write("nothing to show\n")
        observer.applied(block(0), block(10_000), {})
        clock.at += 2
        observer.applied(block(2_500), block(10_000), {})
        until(lambda: "block 2,500 of 10,000, 1,250 blocks/s, 0 min 6 s left" in written.getvalue())
        assert " 25 %" in written.getvalue()
        stream.write("\x1b[32ma line of the log\x1b[0m\n")
        stream.flush()
        before, after = written.getvalue().split("a line of the log", 1)
        assert "nothing to show" in before
        until(lambda: "of 10,000" in after + written.getvalue()[len(before + after) :])
        observer.applied(block(9_900), block(10_000), {})
        shown = written.getvalue
        until(lambda: shown().endswith("\x1b[2K") or "\x1b[?25h" in shown())  # it has gone
    assert "far" in before
