"""The events of a range of blocks, page by page from one node, checked against the blocks.

A node gives events in pages with a token between them, and may reorganise while they are turned.
What counts is what one node says from the first page to the last while its last block of the range
stays the same one: since each block names its parent, nothing below can have changed then. Every
event names its block, the headers follow one another, and none holds more events of ours than the
header says it has at all. A page that takes too many turns is a range to be asked for in parts.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from prometheus_client import Counter

from causeway.base.errors import (
    CausewayError,
    ChainBehind,
    ProviderUnavailable,
    TransientError,
)
from causeway.chains.errors import BlockUnknown, MethodUnsupported, RangeTooLarge, WrongAnswer
from causeway.chains.protocol import Block, LogFilter
from causeway.chains.routing import Question
from causeway.chains.starknet import felts
from causeway.chains.starknet.wire import WireBlock, WireEvent, WireLog, WirePage, full

if TYPE_CHECKING:
    from causeway.chains.endpoint import Endpoint
    from causeway.chains.pool import ProviderPool
    from causeway.chains.rpc import Call

_PAGES = Counter("causeway_chains_event_pages_total", "Pages of events that were read")

#: Events asked for in a page; what nodes allow at most, as a rule.
PAGE = 1000
#: More pages than these are a range that should be asked for in parts.
_MOST_PAGES = 200
#: The place of an event in its block: its transaction's place, then its own.
PLACE_SHIFT = 16

HEADER = "starknet_getBlockWithTxHashes"


@dataclass(frozen=True, slots=True)
class LogRange:
    """Consecutive blocks and the wanted events in them, checked against one another."""

    #: All headers of the range; only those that were asked for, without `every_header`.
    headers: Mapping[int, Block]
    #: By block, those that have any, in chain order; each list in the order of the block.
    logs: Mapping[int, list[WireLog]]
    #: Whether every block's header was read and compared with its events.
    proved: bool = False


def at_number(number: int) -> dict[str, object]:
    """Return how a block is named by its number."""
    return {"block_number": number}


def header_call(place: int | str) -> Call:
    """Return the call for a header: by number, by hash, or by tag."""
    if isinstance(place, int):
        return HEADER, (at_number(place),)
    if place.startswith("0x"):
        return HEADER, ({"block_hash": felts.wire(place)},)
    # What Ethereum's tags come closest to: a block whose proof is on layer 1.
    tag = "l1_accepted" if place in ("finalized", "safe") else place
    return HEADER, (tag,)


class _Conversation:
    """The pages of one range from one endpoint."""

    def __init__(self, pool: ProviderPool, endpoint: Endpoint) -> None:
        self._pool = pool
        self._endpoint = endpoint
        self._page = PAGE

    async def events(
        self, filters: Sequence[dict[str, object]], others: Sequence[Call]
    ) -> tuple[list[WireEvent], list[object], bool]:
        """Return all events, the answers to other calls made at the start, and if pages turned."""
        while True:
            try:
                return await self._events(filters, others)
            except RangeTooLarge as error:
                if error.code != 31 or self._page <= 1:  # the page is too large, not the range
                    raise
                self._page = max(1, self._page // 2)

    async def _events(
        self, filters: Sequence[dict[str, object]], others: Sequence[Call]
    ) -> tuple[list[WireEvent], list[object], bool]:
        calls = [*[self._call(one) for one in filters], *others]
        kinds: list[Any] = [WirePage] * len(filters) + [WireBlock] * len(others)
        said = await self._pool.of_one(self._endpoint, calls, kinds)
        events: list[WireEvent] = []
        turned = False
        for asked, first in zip(filters, said, strict=False):
            page = _page(first)
            _PAGES.inc()
            events += page.events
            for _ in range(_MOST_PAGES):
                if page.continuation_token is None:
                    break
                turned = True
                call = self._call(asked, page.continuation_token)
                page = _page((await self._pool.of_one(self._endpoint, [call], [WirePage]))[0])
                _PAGES.inc()
                events += page.events
            else:
                raise RangeTooLarge("too many pages of events", code=0)
        return events, said[len(filters) :], turned

    def _call(self, asked: dict[str, object], token: str | None = None) -> Call:
        made = {**asked, "chunk_size": self._page}
        if token is not None:
            made["continuation_token"] = token
        return "starknet_getEvents", (made,)


def _page(said: object) -> WirePage:
    if isinstance(said, CausewayError):
        raise said
    return cast("WirePage", said)


async def read_range(
    pool: ProviderPool,
    wanted: Sequence[LogFilter],
    first: int,
    last: int,
    *,
    last_hash: str | None = None,
    every_header: bool = True,
) -> LogRange:
    """Return the events of blocks `first` to `last` that any of the filters wants.

    Each endpoint is asked as a whole; with `last_hash` the last block must be that one. Without
    `every_header` only the last block's header is read. Raises `ChainBehind` when no endpoint has
    the range or gave an answer that fits together, `RangeTooLarge` when it is refused.
    """
    span = last - first + 1
    numbers = list(range(first, last + 1)) if every_header else [last]
    filters = [query(one, at_number(first), at_number(last)) for one in wanted]

    async def talk(endpoint: Endpoint) -> LogRange:
        talking = _Conversation(pool, endpoint)
        events, said, turned = await talking.events(
            filters, [header_call(number) for number in numbers]
        )
        headers = _headers(numbers, said)
        if last_hash is not None and headers[last].block().hash != last_hash:
            raise ChainBehind(f"block {last} is another one at this provider")
        if turned:
            again = await pool.of_one(endpoint, [header_call(last)], [WireBlock])
            if _headers([last], again)[last].block_hash != headers[last].block_hash:
                raise ChainBehind(f"block {last} was replaced while pages were turned")
        return _checked(events, headers, first, last, every_header=every_header)

    return await _first_good(pool, filters, span, last, talk)


async def read_block(pool: ProviderPool, wanted: Sequence[LogFilter], block: Block) -> LogRange:
    """Return the events of one block whose header is known, asked for by its hash.

    Raises `ChainBehind` when no endpoint has the block or an answer that fits it.
    """
    place: dict[str, object] = {"block_hash": felts.wire(block.hash)}
    filters = [query(one, place, place) for one in wanted]

    async def talk(endpoint: Endpoint) -> LogRange:
        events, _, _ = await _Conversation(pool, endpoint).events(filters, [])
        logs = _sorted(events, {block.number: block.hash}, block.number, block.number)
        return LogRange({block.number: block}, logs, proved=True)

    return await _first_good(pool, filters, 1, block.number, talk)


async def _first_good(
    pool: ProviderPool,
    filters: Sequence[dict[str, object]],
    span: int,
    last: int,
    talk: Any,
) -> LogRange:
    """Return what the first endpoint says that has the whole range, the best asked first."""
    calls: list[Call] = [("starknet_getEvents", (one,)) for one in filters]
    asked = Question.of([*calls, header_call(last)], span)
    refused: CausewayError | None = None
    for endpoint in pool.router.order(pool.endpoints, asked, pool.clock.monotonic()):
        try:
            return await talk(endpoint)
        except RangeTooLarge as error:
            endpoint.max_log_range = max(1, span // 2)
            refused = error
        except WrongAnswer as error:
            pool.wrong(endpoint, calls, error)
            refused = refused or error
        except (TransientError, MethodUnsupported, BlockUnknown) as error:
            if not isinstance(refused, RangeTooLarge):
                refused = error
    if isinstance(refused, BlockUnknown):
        raise ChainBehind(f"block {last} is not there")
    raise refused or ProviderUnavailable("every endpoint serves another chain")


def query(
    wanted: LogFilter, first: dict[str, object], last: dict[str, object]
) -> dict[str, object]:
    """Return the filter of `starknet_getEvents`, without the size of its pages."""
    made: dict[str, object] = {"from_block": first, "to_block": last}
    addresses = [felts.wire(one) for one in wanted.addresses]
    if addresses:
        made["address"] = addresses[0] if len(addresses) == 1 else addresses
    if wanted.topics:
        made["keys"] = [list(wanted.topics)]
    return made


def _headers(numbers: Sequence[int], said: Sequence[object]) -> dict[int, WireBlock]:
    """Return the headers that were asked for; raises why they cannot be true."""
    headers: dict[int, WireBlock] = {}
    parent: str | None = None
    for number, one in zip(numbers, said, strict=True):
        if isinstance(one, BlockUnknown):
            raise ChainBehind(f"block {number} is not there")
        if isinstance(one, CausewayError):
            raise one
        header = cast("WireBlock", one)
        if header.block_hash is None or header.parent_hash is None:
            raise ChainBehind(f"block {number} is still being made")
        if header.block_number != number:
            raise WrongAnswer("another_block", f"asked for block {number}, given another")
        if parent is not None and int(header.parent_hash, 16) != int(parent, 16):
            raise WrongAnswer("broken_chain", f"block {number} does not follow the one before")
        parent = header.block_hash
        headers[number] = header
    return headers


def _checked(
    events: Sequence[WireEvent],
    wires: Mapping[int, WireBlock],
    first: int,
    last: int,
    *,
    every_header: bool,
) -> LogRange:
    headers = {number: wire.block() for number, wire in wires.items()}
    logs = _sorted(events, {n: block.hash for n, block in headers.items()}, first, last)
    for number, of_block in logs.items():
        wire = wires.get(number)
        count = None if wire is None else wire.event_count
        if count is not None and len(of_block) > count:
            raise WrongAnswer("too_many", f"block {number} has {count} events, not as many")
    return LogRange(headers, logs, proved=every_header)


def _sorted(
    events: Sequence[WireEvent], hashes: Mapping[int, str], first: int, last: int
) -> dict[int, list[WireLog]]:
    """Return events by block, each once, in the order of the block.

    Those of the block that is being made are left out: they have neither number nor hash.
    """
    found: dict[int, dict[int, WireLog]] = {}
    missing = itertools.count()
    for one in events:
        if one.block_number is None or one.block_hash is None:
            continue
        number = one.block_number
        if not first <= number <= last:
            raise WrongAnswer("another_range", f"an event of block {number} was not asked for")
        block_hash = full(one.block_hash)
        expected = hashes.get(number, block_hash)
        if block_hash != expected:
            raise WrongAnswer("another_fork", f"an event of block {number} is of another block")
        if one.transaction_index is None or one.event_index is None:
            # Nodes before RPC 0.10 tell no places; they give events in their order.
            at, tx = next(missing), 0
        else:
            at, tx = one.event_index, one.transaction_index
        place = tx << PLACE_SHIFT | at
        of_block = found.setdefault(number, {})
        log = WireLog(
            full(one.from_address),
            one.keys,
            one.data,
            number,
            block_hash,
            full(one.transaction_hash),
            hex(tx),
            hex(place),
        )
        other = of_block.setdefault(place, log)
        if other is not log and (other.topics, other.data) != (log.topics, log.data):
            raise WrongAnswer("two_logs", f"block {number} has two events in one place")
    return {
        number: [of_block[place] for place in sorted(of_block)]
        for number, of_block in sorted(found.items())
    }
