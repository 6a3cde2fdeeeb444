"""Reading what lies ahead of a checkpoint, and checking that it hangs together. No database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from causeway.base.errors import ChainBehind
from causeway.chains.errors import RangeTooLarge, RpcError
from causeway.chains.evm.abi import UndecodableLog
from causeway.chains.protocol import Block, Chain, Log
from causeway.indexing.source import Fact, Source
from causeway.indexing.span import Span

_log = structlog.get_logger(__name__)

#: Below genesis: what the genesis block names as its parent.
BEFORE_GENESIS = Block(-1, "0x" + "0" * 64, "0x" + "0" * 64, datetime.fromtimestamp(0, UTC))

#: So few blocks at the tip are asked for by hash, one call each in one batch.
_BY_HASH_UP_TO = 16


class ChainMoved(ChainBehind):
    """The chain was reorganised, or another provider answered, while it was being read."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive blocks that were read: their facts, in chain order."""

    last: Block
    #: The headers of all of them, above finality; the last one only, below.
    blocks: tuple[Block, ...]
    facts: tuple[Fact, ...]
    #: Whether the blocks may still be replaced.
    replaceable: bool


class Reader:
    """Reads a source's facts from its chain, in ranges that fit the provider."""

    def __init__(self, chain: Chain, source: Source, max_range: int) -> None:
        self._chain = chain
        self._source = source
        self._wanted = source.filter()
        self._topics = frozenset(self._wanted.topics)
        self._addresses = frozenset(self._wanted.addresses)
        self._by_hash = True
        self.span = Span(max_range)

    async def final(self, after: int, up_to: int) -> Stretch:
        """Read blocks above `after` up to `up_to` or fewer, all of them final."""
        while True:
            last_number = min(after + self.span.blocks, up_to)
            (last,) = await self._chain.look(last_number)
            if last is None:
                raise ChainBehind(f"block {last_number} is final but not there")
            logs = await self._logs(after + 1, last)
            if logs is not None:
                break
        headers = await self._headers_of(logs, last)
        facts = self._facts(logs, headers)
        return Stretch(last, (last,), facts, replaceable=False)

    async def tip(self, checkpoint: Block, head: Block) -> Stretch:
        """Read blocks above the checkpoint up to the head or fewer; they may still be replaced.

        Raises `ChainMoved` when they do not follow from the checkpoint.
        """
        first = checkpoint.number + 1
        while True:
            last_number = min(checkpoint.number + self.span.blocks, head.number)
            blocks = await self._chain.blocks(first, last_number)
            parent = checkpoint.hash
            for block in blocks:
                if block.parent_hash != parent:
                    raise ChainMoved(f"block {block.number} does not follow block {parent}")
                parent = block.hash
            logs = await self._logs_of(blocks)
            if logs is not None:
                break
        headers = {block.number: block for block in blocks}
        facts = self._facts(logs, headers)
        return Stretch(blocks[-1], tuple(blocks), facts, replaceable=True)

    async def _logs_of(self, blocks: list[Block]) -> list[Log] | None:
        if self._by_hash and len(blocks) <= _BY_HASH_UP_TO:
            try:
                return await self._chain.logs_of(self._wanted, [block.hash for block in blocks])
            except RpcError:
                self._by_hash = False  # not offered there: by range then, checked the same way
        return await self._logs(blocks[0].number, blocks[-1])

    async def _logs(self, first: int, last: Block) -> list[Log] | None:
        """Return the logs of a range that ends in this block, None when it is to be smaller."""
        blocks = last.number - first + 1
        try:
            logs = await self._chain.logs(self._wanted, first, last.number, last_hash=last.hash)
        except RangeTooLarge:
            if blocks == 1:
                raise
            self.span.refused(blocks)
            return None
        except ChainBehind:
            raise
        except Exception:
            # A provider may well answer too large a question by failing.
            self.span.failed(blocks)
            raise
        self.span.answered(blocks)
        if any(not first <= log.block_number <= last.number for log in logs):
            raise ChainMoved("the provider sent logs of blocks that were not asked for")
        return logs

    async def _headers_of(self, logs: list[Log], last: Block) -> dict[int, Block]:
        """Return the blocks of these logs, asking only for those whose time is not known."""
        headers = {last.number: last}
        unknown: set[int] = set()
        for log in logs:
            if log.block_number in headers:
                continue
            if log.block_timestamp is None:
                unknown.add(log.block_number)
            else:
                headers[log.block_number] = Block(
                    log.block_number, log.block_hash, "", log.block_timestamp
                )
        numbers = sorted(unknown)
        for number, block in zip(numbers, await self._chain.look(*numbers), strict=True):
            if block is None:
                raise ChainBehind(f"block {number} has logs but is not there")
            headers[number] = block
        return headers

    def _facts(self, logs: list[Log], headers: dict[int, Block]) -> tuple[Fact, ...]:
        facts: list[Fact] = []
        place = (-1, -1)
        for log in logs:
            block = headers[log.block_number]
            if log.block_hash != block.hash:
                raise ChainMoved(f"a log of block {log.block_number} is of another block")
            if (log.block_number, log.log_index) == place:
                continue  # a provider that says things twice; logs come sorted
            place = (log.block_number, log.log_index)
            if log.topics[:1] and log.topics[0] not in self._topics:
                continue  # a provider that ignores the filter
            if self._addresses and log.address not in self._addresses:
                continue
            fact = self._fact(log, block)
            if fact is not None:
                facts.append(fact)
        return tuple(facts)

    def _fact(self, log: Log, block: Block) -> Fact | None:
        try:
            event = self._source.abi.decode_log(log)
        except UndecodableLog as error:
            if self._addresses:
                raise  # our own contracts do not lie: the ABI is wrong, and no fact is skipped
            _log.debug("a log of another shape is skipped", error=str(error), address=log.address)
            return None
        if event is None:
            return None
        return Fact(self._chain.chain_id, event.name, event.args, log, block)
