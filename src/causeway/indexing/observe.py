"""What the indexer tells about itself: metrics, and how far a backfill has come."""

from __future__ import annotations

from collections.abc import Mapping

import structlog
from prometheus_client import Counter, Gauge, Histogram

from causeway.base.clock import Clock
from causeway.chains.protocol import Block

_log = structlog.get_logger(__name__)

_BEHIND = Gauge("causeway_indexing_blocks_behind", "Blocks between head and checkpoint", ["source"])
_APPLIED = Gauge(
    "causeway_indexing_applied_block", "Number of the newest applied block", ["source"]
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


class Observer:
    """Counts and tells for one source."""

    def __init__(self, source: str, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._mark: tuple[float, int] | None = None
        self._facts = 0

    def applied(self, to: Block, head: Block, counts: Mapping[str, int]) -> None:
        """Note a committed stretch and how many facts of each event it had."""
        self.behind(to, head)
        for event, count in counts.items():
            _FACTS.labels(self._source, event).inc(count)
        self._facts += sum(counts.values())
        now = self._clock.monotonic()
        left = head.number - to.number
        if self._mark is None or left < _FAR_BLOCKS:
            self._mark = (now, to.number)
            self._facts = 0
            return
        since, number = self._mark
        if now - since < _SAY_EVERY_S:
            return
        rate = (to.number - number) / (now - since)
        _log.info(
            "reading history",
            source=self._source,
            block=to.number,
            head=head.number,
            blocks_per_s=round(rate, 1),
            facts_per_s=round(self._facts / (now - since), 1),
            seconds_left=round(left / rate) if rate > 0 else None,
        )
        self._mark = (now, to.number)
        self._facts = 0

    def behind(self, applied: Block, head: Block) -> None:
        """Note where the source and its chain are."""
        _APPLIED.labels(self._source).set(applied.number)
        _BEHIND.labels(self._source).set(max(0, head.number - applied.number))

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
