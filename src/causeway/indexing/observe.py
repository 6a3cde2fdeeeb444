"""What the indexer tells about itself: metrics, and how far a backfill has come."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import structlog
from prometheus_client import Counter, Gauge, Histogram

from causeway.base.clock import Clock
from causeway.chains.protocol import Block

_log = structlog.get_logger(__name__)

_BEHIND = Gauge("causeway_indexing_blocks_behind", "Blocks between head and checkpoint", ["source"])
_APPLIED = Gauge(
    "causeway_indexing_applied_block", "Number of the newest applied block", ["source"]
)
_RATE = Gauge(
    "causeway_indexing_blocks_per_second", "Blocks applied a second while far behind", ["source"]
)
_LEFT = Gauge(
    "causeway_indexing_seconds_left", "Until a source that is far behind is at the head", ["source"]
)
_FACTS = Counter("causeway_indexing_facts_total", "Facts applied", ["source", "event"])
_REORGS = Counter("causeway_indexing_reorgs_total", "Reorganisations undone", ["source"])
_UNDONE = Counter("causeway_indexing_undone_rows_total", "Row changes taken back", ["source"])
_DEPTH = Histogram(
    "causeway_indexing_reorg_depth_blocks",
    "Blocks undone by a reorganisation",
    ["source"],
    buckets=(1, 2, 3, 5, 8, 13, 21, 34, 64, 128, 256),
)

#: A backfill says every so many seconds how far it is.
_SAY_EVERY_S = 10.0
#: Nearer to the head than this is no backfill.
_FAR_BLOCKS = 500
#: How fast it goes is how fast it went lately, seconds.
_LATELY_S = 30.0


@dataclass(frozen=True, slots=True)
class Backfill:
    """How far one source is that reads history in this process. Block numbers."""

    source: str
    #: Where it began, is, and will be through.
    first: int
    applied: int
    head: int
    blocks_per_s: float
    #: None while it is not known.
    seconds_left: float | None


_backfills: dict[str, Backfill] = {}


def backfills() -> list[Backfill]:
    """Return the sources that read history in this process, in the order they began."""
    return list(_backfills.values())


class Observer:
    """Counts and tells for one source."""

    def __init__(self, source: str, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        #: When it was where, and how many facts it had seen: of the last seconds, oldest first.
        self._marks: deque[tuple[float, int, int]] = deque()
        self._first = 0
        self._facts = 0
        self._said_at = 0.0

    def applied(self, to: Block, head: Block, counts: Mapping[str, int]) -> None:
        """Note a committed stretch and how many facts of each event it had."""
        self.behind(to, head)
        for event, count in counts.items():
            _FACTS.labels(self._source, event).inc(count)
        self._facts += sum(counts.values())
        if head.number - to.number < _FAR_BLOCKS:
            self._through()
            return
        now = self._clock.monotonic()
        if not self._marks:
            self._first, self._said_at = to.number, now
        self._marks.append((now, to.number, self._facts))
        while now - self._marks[0][0] > _LATELY_S and len(self._marks) > 2:
            self._marks.popleft()
        self._tell(now, to, head)

    def _tell(self, now: float, to: Block, head: Block) -> None:
        since, number, facts = self._marks[0]
        seconds, left = now - since, head.number - to.number
        rate = (to.number - number) / seconds if seconds > 0 else 0.0
        seconds_left = left / rate if rate > 0 else None
        _RATE.labels(self._source).set(rate)
        if seconds_left is not None:
            _LEFT.labels(self._source).set(seconds_left)
        _backfills[self._source] = Backfill(
            self._source, self._first, to.number, head.number, rate, seconds_left
        )
        if now - self._said_at < _SAY_EVERY_S:
            return
        self._said_at = now
        _log.info(
            "reading history",
            source=self._source,
            block=to.number,
            head=head.number,
            blocks_per_s=round(rate, 1),
            facts_per_s=round((self._facts - facts) / seconds, 1) if seconds > 0 else 0.0,
            seconds_left=None if seconds_left is None else round(seconds_left),
        )

    def _through(self) -> None:
        if _backfills.pop(self._source, None) is not None:
            _RATE.labels(self._source).set(0)
            _LEFT.labels(self._source).set(0)
        self._marks.clear()

    def behind(self, applied: Block, head: Block) -> None:
        """Note where the source and its chain are."""
        _APPLIED.labels(self._source).set(applied.number)
        _BEHIND.labels(self._source).set(max(0, head.number - applied.number))

    def stopped(self) -> None:
        """Note that the source is not followed here any more."""
        self._through()

    def undone(self, fork: Block, last: int, rows: int) -> None:
        """Note a reorg that was undone."""
        _REORGS.labels(self._source).inc()
        _DEPTH.labels(self._source).observe(last - fork.number)
        _UNDONE.labels(self._source).inc(rows)
        _log.warning(
            "reorg undone",
            source=self._source,
            fork=fork.number,
            depth=last - fork.number,
            rows=rows,
        )
