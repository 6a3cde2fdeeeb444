"""The logs of a range of blocks, with the proof that none is missing.

One JSON-RPC batch asks one endpoint for the logs and for the headers of the range, so that what
comes back is one node's view. It counts only if it fits together: the headers follow one another,
each log names a block of the range by its hash, and the `logsBloom` of a block (yellow paper,
M3:2048) allows every log that came. What a bloom promises and the answer lacks is settled by the
block's receipts, whose own bloom has to be the header's, bit for bit: that is a proof.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar, cast

import structlog
from prometheus_client import Counter

from causeway.base.errors import CausewayError, ChainBehind
from causeway.chains.errors import BlockUnknown, RpcError, WrongAnswer
from causeway.chains.evm.bloom import bloom_bits, bloom_of, denied, places_in
from causeway.chains.evm.wire import WireBlock, WireLog, WireReceipt
from causeway.chains.logs import WireLog as AnyWireLog
from causeway.chains.protocol import Block, LogFilter

if TYPE_CHECKING:
    from causeway.chains.pool import ProviderPool
    from causeway.chains.rpc import Call

_log = structlog.get_logger(__name__)
_WRONG = Counter(
    "causeway_chains_wrong_answers_total", "Answers about logs that did not fit together", ["kind"]
)
_DOUBTS = Counter(
    "causeway_chains_bloom_doubts_total",
    "Blocks whose bloom promised a log that the answer lacked, by how that was settled",
    ["outcome"],
)

#: A bloom so full that it would promise anything with this probability says nothing.
_TELLING = 0.02
_BLOOM_BITS = 2048


@dataclass(frozen=True, slots=True)
class LogRange:
    """Consecutive blocks and the wanted logs in them, checked against one another."""

    #: All headers of the range; only those that were asked for, without `every_header`.
    headers: Mapping[int, Block]
    #: By block, those that have any, in chain order; each list in the order of the block.
    logs: Mapping[int, list[WireLog]]
    #: Whether every block's header was read and its bloom compared with its logs.
    proved: bool = False


async def read_range(
    pool: ProviderPool,
    wanted: Sequence[LogFilter],
    first: int,
    last: int,
    *,
    last_hash: str | None = None,
    every_header: bool = True,
) -> LogRange:
    """Return the logs of blocks `first` to `last` that any of the filters wants.

    All filters are asked of the same endpoint. With `last_hash` the last block must be that one.
    Without `every_header` only the last block's header is read and nothing is proved about missing
    logs. Raises `ChainBehind` when no endpoint has the range or gave an answer that fits together,
    `RangeTooLarge` when it is refused.
    """
    numbers = list(range(first, last + 1)) if every_header else [last]
    calls: list[Call] = [("eth_getLogs", (query(one, first, last),)) for one in wanted]
    calls += [("eth_getBlockByNumber", (hex(number), False)) for number in numbers]
    kinds: list[object] = [list[WireLog] | None] * len(wanted)
    kinds += [WireBlock | None] * len(numbers)
    checked: list[LogRange] = []

    def fits(found: list[object]) -> None:
        checked[:] = [_check(found, wanted, numbers, first, last, last_hash)]

    found = await pool.batch(calls, replies=kinds, accept=fits, log_span=last - first + 1)
    for one in found[: len(wanted)]:
        if isinstance(one, CausewayError):
            raise one
    answer = checked[0]
    return await _proved(pool, answer, wanted) if every_header else answer


async def _proved(pool: ProviderPool, answer: LogRange, wanted: Sequence[LogFilter]) -> LogRange:
    doubtful = doubts(answer, wanted)
    if doubtful:
        answer = await _settle(pool, answer, wanted, doubtful)
    return LogRange(answer.headers, answer.logs, proved=True)


async def read_block(pool: ProviderPool, wanted: Sequence[LogFilter], block: Block) -> LogRange:
    """Return the logs of one block whose header is known, asked for by its hash.

    Raises `ChainBehind` when no endpoint has the block or an answer that fits it.
    """
    calls = _by_hash(wanted, block)
    checked: list[LogRange] = []

    def fits(found: list[object]) -> None:
        logs: dict[int, list[WireLog]] = {}
        for one in found:
            if isinstance(one, CausewayError):
                raise one
            _sort_in(
                cast("list[WireLog] | None", one),
                logs,
                {block.number: block},
                block.number,
                block.number,
            )
        _settled(logs, {block.number: block}, several=len(wanted) > 1)
        checked[:] = [LogRange({block.number: block}, logs)]

    await pool.batch(calls, replies=[list[WireLog] | None] * len(calls), accept=fits)
    return await _proved(pool, checked[0], wanted)


def _by_hash(wanted: Sequence[LogFilter], block: Block) -> list[Call]:
    calls: list[Call] = []
    for one in wanted:
        made = query(one, 0, 0)
        del made["fromBlock"], made["toBlock"]
        calls.append(("eth_getLogs", ({"blockHash": block.hash, **made},)))
    return calls


def query(wanted: LogFilter, first: int, last: int) -> dict[str, object]:
    """Return the filter object of `eth_getLogs`."""
    made: dict[str, object] = {"fromBlock": hex(first), "toBlock": hex(last)}
    if wanted.addresses:
        made["address"] = list(wanted.addresses)
    if wanted.topics:
        made["topics"] = [list(wanted.topics)]
    return made


def _check(
    found: list[object],
    wanted: Sequence[LogFilter],
    numbers: list[int],
    first: int,
    last: int,
    last_hash: str | None,
) -> LogRange:
    """Return what an endpoint answered, or raise why it cannot be true."""
    headers: dict[int, Block] = {}
    parent: str | None = None
    for number, one in zip(numbers, found[len(wanted) :], strict=True):
        if one is None or isinstance(one, BlockUnknown):
            raise ChainBehind(f"block {number} is not there")
        if isinstance(one, CausewayError):
            raise one
        header = cast("WireBlock", one).block()
        if header.number != number:
            raise WrongAnswer("another_block", f"asked for block {number}, given another")
        if parent is not None and header.parent_hash != parent:
            raise WrongAnswer("broken_chain", f"block {number} does not follow the one before")
        parent = header.hash
        headers[number] = header
    if last_hash is not None and headers[last].hash != last_hash:
        raise ChainBehind(f"block {last} is another one at this provider")
    logs: dict[int, list[WireLog]] = {}
    for one in found[: len(wanted)]:
        if isinstance(one, CausewayError):
            return LogRange(headers, logs)  # raised by the caller, who may ask for less
        _sort_in(cast("list[WireLog] | None", one), logs, headers, first, last)
    _settled(logs, headers, several=len(wanted) > 1)
    return LogRange(dict(headers), {number: logs[number] for number in sorted(logs)})


def _sort_in(
    wires: list[WireLog] | None,
    logs: dict[int, list[WireLog]],
    headers: Mapping[int, Block],
    first: int,
    last: int,
) -> None:
    if wires is None:
        raise ChainBehind("the logs of a range are not there")
    here: list[WireLog] = []
    of_hash: str | None = None
    for wire in wires:
        if wire.block_hash != of_hash:
            if wire.removed:
                continue
            number = int(wire.block_number, 16)
            if not first <= number <= last:
                _WRONG.labels("another_range").inc()  # more than was asked for hides nothing
                of_hash, here = wire.block_hash, []
                continue
            header = headers.get(number)
            if header is not None and header.hash != wire.block_hash:
                raise WrongAnswer("another_fork", f"a log of block {number} is of another block")
            of_hash = wire.block_hash
            here = logs.setdefault(number, [])
        elif wire.removed:
            continue
        here.append(wire)


W = TypeVar("W", bound=AnyWireLog)


def in_order(number: int, wires: list[W], *, several: bool = False) -> list[W]:
    """Return the logs of one block by their index, each once.

    Raises `WrongAnswer` when two different logs claim one place. `several`: they come from several
    questions, which may have found the same.
    """
    places = [int(wire.log_index, 16) for wire in wires]
    if not several and places == sorted(set(places)):
        return wires
    by_place: dict[int, W] = {}
    for place, wire in zip(places, wires, strict=True):
        other = by_place.setdefault(place, wire)
        if other is not wire and (other.topics, other.data) != (wire.topics, wire.data):
            raise WrongAnswer("two_logs", f"block {number} has two logs with index {place}")
    return [by_place[place] for place in sorted(by_place)]


def _settled(
    logs: dict[int, list[WireLog]], headers: Mapping[int, Block], *, several: bool
) -> None:
    """Put the logs of each block in order; raise `WrongAnswer` when its bloom denies one.

    `several`: as `in_order` has it.
    """
    known = _remembered.__getitem__
    blooms: list[Block] = []
    items: list[list[bytes]] = []
    for number, wires in logs.items():
        wires = logs[number] = in_order(number, wires, several=several)
        header = headers.get(number)
        if header is None or header.logs_bloom is None:
            continue
        of_block = [known(address) for address in {wire.address for wire in wires}]
        of_block += [known(topic) for wire in wires for topic in wire.topics]
        blooms.append(header)
        items.append(of_block)
    at = denied([header.logs_bloom or 0 for header in blooms], items)
    if at is not None:
        raise WrongAnswer(
            "bloom_denies", f"block {blooms[at].number} cannot have one of the logs given"
        )


#: More items than these are not remembered.
_REMEMBERED = 200_000


class _Places(dict[str, bytes]):
    """Places in a bloom, by the address or topic as it comes over the wire."""

    def __missing__(self, item: str) -> bytes:
        if len(self) >= _REMEMBERED:
            self.clear()
        made = self[item] = places_in(bytes.fromhex(item[2:]))
        return made


_remembered = _Places()


@lru_cache(maxsize=1 << 16)
def bits(item: str) -> int:
    """Return the bloom bits of an address or a topic as it comes over the wire."""
    return bloom_bits(bytes.fromhex(item[2:]))


def doubts(answer: LogRange, wanted: Sequence[LogFilter]) -> list[int]:
    """Return the blocks whose bloom promises a wanted log where there is none.

    A bloom so full that it promises nearly everything is no reason to doubt.
    """
    pairs: list[tuple[str, str, int]] = []
    for one in wanted:
        for address in one.addresses or ("",):
            for topic in one.topics or ("",):
                mask = (bits(address) if address else 0) | (bits(topic) if topic else 0)
                pairs.append((address, topic, mask))
    if len(pairs) > _MAX_PAIRS:  # thousands of contracts: any bloom promises one of them
        return []
    found: list[int] = []
    for number, header in answer.headers.items():
        bloom = header.logs_bloom
        if not bloom:
            continue
        promised = [pair for pair in pairs if bloom & pair[2] == pair[2]]
        if not promised:
            continue
        have = answer.logs.get(number, [])
        fill = bloom.bit_count() / _BLOOM_BITS
        for address, topic, mask in promised:
            if fill ** mask.bit_count() > _TELLING:
                continue
            if not any(
                (not address or w.address == address)
                and (not topic or (w.topics and w.topics[0] == topic))
                for w in have
            ):
                found.append(number)
                break
    return found


#: More pairs of contract and event than these are not looked for in blooms.
_MAX_PAIRS = 64


async def _settle(
    pool: ProviderPool, answer: LogRange, wanted: Sequence[LogFilter], doubtful: Sequence[int]
) -> LogRange:
    """Return the range with the logs of the doubtful blocks as their receipts prove them."""
    logs = dict(answer.logs)
    for number in doubtful:
        header = answer.headers[number]
        try:
            proved = await logs_by_receipts(pool, header)
        except RpcError:
            proved = None  # not offered
        if proved is None:
            proved = await _second_opinion(pool, header, wanted)
        proved = [wire for wire in proved if matches(wire, wanted)]
        if len(proved) > len(logs.get(number, ())):
            _DOUBTS.labels("was_missing").inc()
            _log.warning("a provider left logs out", block=number, missing=len(proved))
        else:
            _DOUBTS.labels("complete").inc()
        if proved:
            logs[number] = proved
    return LogRange(answer.headers, {number: logs[number] for number in sorted(logs)})


def matches(wire: WireLog, wanted: Sequence[LogFilter]) -> bool:
    """Say whether any of the filters wants this log."""
    topic = wire.topics[0] if wire.topics else ""
    return any(
        (not one.addresses or wire.address in one.addresses)
        and (not one.topics or topic in one.topics)
        for one in wanted
    )


async def logs_by_receipts(pool: ProviderPool, header: Block) -> list[WireLog]:
    """Return all logs of a block, proved by its bloom: taken from receipts that give it exactly.

    Raises `ChainBehind` when no endpoint has receipts that do, `RpcError` where the method is not
    offered.
    """

    def exact(found: list[object]) -> None:
        if isinstance(found[0], CausewayError):
            return
        receipts = cast("list[WireReceipt] | None", found[0])
        if receipts is None:
            raise ChainBehind(f"the receipts of block {header.number} are not there")
        bloom = bloom_of(
            (bytes.fromhex(w.address[2:]), [bytes.fromhex(t[2:]) for t in w.topics])
            for r in receipts
            for w in r.logs
        )
        if header.logs_bloom is not None and bloom != header.logs_bloom:
            raise WrongAnswer("receipts", f"the receipts of block {header.number} are incomplete")

    (found,) = await pool.batch(
        [("eth_getBlockReceipts", (header.hash,))],
        replies=[list[WireReceipt] | None],
        accept=exact,
    )
    if isinstance(found, CausewayError):
        raise found
    return [wire for receipt in cast("list[WireReceipt]", found) for wire in receipt.logs]


async def _second_opinion(
    pool: ProviderPool, header: Block, wanted: Sequence[LogFilter]
) -> list[WireLog]:
    """Return what endpoints say when asked for this block alone; empty when all say so."""
    calls = _by_hash(wanted, header)

    def any_log(found: list[object]) -> None:
        if not any(found):
            raise _Nothing

    try:
        found = await pool.batch(calls, replies=[list[WireLog] | None] * len(calls), accept=any_log)
    except _Nothing:
        return []
    wires = [w for one in found if isinstance(one, list) for w in cast("list[WireLog]", one)]
    return in_order(header.number, wires, several=True)


class _Nothing(ChainBehind):
    """An endpoint has no logs for the block either."""
