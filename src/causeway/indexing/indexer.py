"""The indexer: applies a source's facts in chain order, each exactly once, through reorgs.

A step reads the checkpoint, reads from the chain outside any transaction, and then in one
transaction moves the checkpoint from where it was read, calls the handlers, and commits. Any number
of processes may step at once: who finds the checkpoint moved drops its work and starts over.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from causeway.base.clock import SYSTEM_CLOCK, Clock
from causeway.base.errors import CausewayError, ChainBehind, ConfigurationError, TransientError
from causeway.base.faults import fault_point
from causeway.chains.evm.chain import EvmChain
from causeway.chains.logs import LogChain
from causeway.chains.protocol import Block
from causeway.indexing import checkpoint as checkpoints
from causeway.indexing import outbox, undo
from causeway.indexing.checkpoint import CheckpointMoved
from causeway.indexing.events import EventReading
from causeway.indexing.models import Checkpoint
from causeway.indexing.observe import Observer
from causeway.indexing.reading import BEFORE_GENESIS, ChainMoved, Reading, Stretch
from causeway.indexing.reorg import ReorgTooDeep, Shrinking, find_fork
from causeway.indexing.source import AnySource, BlockSource, Undone
from causeway.indexing.whole import BlockReading
from causeway.store.engine import Database

_log = structlog.get_logger(__name__)

#: How often a step starts over when the checkpoint or the chain moved under it.
_ATTEMPTS = 10
_BACKOFF_FIRST_S = 0.5
_BACKOFF_MAX_S = 30.0
#: How often `catch_up` looks for a block that is not there yet.
_LOOK_AGAIN_S = 0.1
#: Ranges read at once while following.
_READ_AHEAD = 3


@dataclass(frozen=True, slots=True)
class Progress:
    """What a step did, and where the source is now."""

    #: The newest applied block; None while the chain has not reached the start block.
    applied_to: Block | None
    #: The chain's newest block as the step saw it.
    head: Block | None
    facts: int = 0
    #: Blocks taken back by a reorg.
    undone: int = 0

    @property
    def behind(self) -> int:
        """How many blocks the source is behind the head."""
        if self.applied_to is None or self.head is None:
            return 0
        return max(0, self.head.number - self.applied_to.number)


class Indexer:
    """Keeps one source applied.

    `max_range`: blocks asked for at once at most (an Alchemy free plan allows 10); less is learned.
    `finality_depth`: blocks below the head after which nothing is replaced, where the chain offers
    no `finalized` tag. `patience_s` and `patience_polls`: how long a head below the checkpoint is
    taken for a provider that lags before it is believed that the chain became shorter.
    `every_header`: prove of final blocks too that no log is missing, at the price of a header for
    each; without it only blocks that can still be replaced are checked.
    """

    def __init__(
        self,
        database: Database,
        chain: LogChain,
        source: AnySource,
        *,
        clock: Clock = SYSTEM_CLOCK,
        poll_interval_s: float = 2.0,
        max_range: int = 2000,
        finality_depth: int = 128,
        patience_s: float = 3.0,
        patience_polls: int = 3,
        every_header: bool = True,
    ) -> None:
        self.source = source
        self._database = database
        self._chain = chain
        self._clock = clock
        self._poll_interval_s = poll_interval_s
        self._finality_depth = finality_depth
        self._reading: Reading[Any]
        if not isinstance(source, BlockSource):
            self._reading = EventReading(chain, source, max_range, every_header=every_header)
        elif isinstance(chain, EvmChain):
            self._reading = BlockReading(chain, source)
        else:
            raise ConfigurationError(
                f"source {source.name!r}: whole blocks cannot be read of {chain.name}"
            )
        self._here: tuple[int, str] | None = None
        self._shrinking = Shrinking(clock, patience_s, patience_polls)
        self._observer = Observer(source.name, clock)
        self._woken = asyncio.Event()
        self._attached = False
        self._head: Block | None = None

    def wake(self) -> None:
        """Have `run` look at the chain at once: somebody said that there is something."""
        self._woken.set()

    async def step(self) -> Progress:
        """Do one bounded piece of work, a range of blocks or the undo of a reorg, and commit it.

        Raises `TransientError` when the chain cannot be read now, `ReorgTooDeep`,
        `ConfigurationError`, and what a handler raises; nothing is applied then.
        """
        moved: Exception | None = None
        for _ in range(_ATTEMPTS):
            try:
                return await self._step()
            except (CheckpointMoved, ChainMoved) as error:
                moved = error
                await self._reading.rest(forget=True)
            except BaseException:
                self._here = None
                await self._reading.rest(forget=True)
                raise
        if isinstance(moved, ChainMoved):
            raise moved
        # Others were quicker each time: what there was to do is being done.
        here = await self._checkpoint()
        return Progress(None if here is None else here.block, self._head)

    def read_ahead(self) -> None:
        """Read the next ranges while one is applied, from now on and until `rest`."""
        self._reading.read_ahead(_READ_AHEAD)

    async def rest(self) -> None:
        """Stop reading ahead."""
        self._observer.stopped()
        self._reading.read_ahead(1)
        await self._reading.rest()

    async def catch_up(self, to_block: int, deadline_s: float) -> Block:
        """Step until block `to_block` is applied; return the newest applied block.

        Raises `ChainBehind` when that takes more than `deadline_s` seconds.
        """
        self.read_ahead()
        try:
            return await self._catch_up(to_block, deadline_s)
        finally:
            await self.rest()

    async def _catch_up(self, to_block: int, deadline_s: float) -> Block:
        end = self._clock.monotonic() + deadline_s
        why = "the chain has not reached it"
        while True:
            left = end - self._clock.monotonic()
            try:
                progress = await asyncio.wait_for(self.step(), max(left, 0.001))
            except TimeoutError:
                raise ChainBehind(f"block {to_block} is not applied: {why}") from None
            except TransientError as error:
                why = error.message
            else:
                applied = progress.applied_to
                if applied is not None and applied.number >= to_block:
                    return applied
                if progress.behind:
                    why = f"{progress.behind} blocks behind"
                    continue
            if self._clock.monotonic() + _LOOK_AGAIN_S >= end:
                raise ChainBehind(f"block {to_block} is not applied: {why}")
            await self._clock.sleep(_LOOK_AGAIN_S)

    async def run(
        self, stop: asyncio.Event, *, on_facts: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Follow the chain until `stop` is set. Outlives every failure, with growing pauses.

        `on_facts` is called after each commit that applied or undid anything.
        """
        self.read_ahead()
        try:
            await self._follow(stop, on_facts)
        finally:
            await self.rest()

    async def _follow(
        self, stop: asyncio.Event, on_facts: Callable[[], Awaitable[None]] | None
    ) -> None:
        failures = 0
        while not stop.is_set():
            self._woken.clear()
            try:
                progress = await self.step()
                if on_facts is not None and (progress.facts or progress.undone):
                    await on_facts()
            except Exception as error:  # noqa: BLE001 - a reader that ends is a reader nobody has
                failures += 1
                await self._wait(stop, await self._failed(error, failures))
                continue
            failures = 0
            if not progress.behind and not progress.undone:
                await self._wait(stop, self._poll_interval_s)

    async def _step(self) -> Progress:
        here = await self._checkpoint()
        if here is None:
            return Progress(None, await self._chain.head())
        places = ("latest", "finalized", *([here.number] if here.number >= 0 else []))
        head, final, *rest = await self._chain.look(*places)
        there = rest[0] if rest else BEFORE_GENESIS
        if head is None:
            raise ChainBehind(f"{self._chain.name}: the provider has no newest block")
        self._head = head
        applied = here.block
        if there is not None and there.hash == here.hash:
            self._shrinking.over()
            if head.number <= here.number:
                self._observer.behind(applied, head)
                return Progress(applied, head)
            depth_final = head.number - self._finality_depth
            final_number = max(here.final_number, final.number if final else depth_final)
            return await self._forward(here, applied, head, final_number)
        if there is None:
            if head.number >= here.number:
                raise ChainMoved("the provider's answers do not fit together")
            if not await self._replaced(here, head) and not self._shrinking.seen():
                return Progress(applied, head)
        return await self._back(here, head)

    async def _checkpoint(self) -> Checkpoint | None:
        """Return the checkpoint, made on the first call; None while the chain is too short."""
        async with self._database.transaction() as session:
            if not self._attached:
                await undo.require_attached(session, self.source.derived)
                self._attached = True
            found = await checkpoints.load(session, self.source.name)
            if found is not None and self._here != (found.number, found.hash):
                # Somebody else moved it: what is remembered of rows may not be true any more.
                await self._reading.rest(forget=True)
                self._here = (found.number, found.hash)
            await self._reading.prepare(session)
        if found is None:
            before = await self._first_block() - 1
            (block,) = await self._chain.look(before) if before >= 0 else (BEFORE_GENESIS,)
            if block is None:
                return None
            async with self._database.transaction() as session:
                chain_id = self._chain.chain_id
                found = await checkpoints.begin(session, self.source, chain_id, block)
        if found.chain_id != self._chain.chain_id:
            raise ConfigurationError(
                f"source {self.source.name!r} was read from chain {found.chain_id}, "
                f"and is now configured for chain {self._chain.chain_id}"
            )
        return found

    async def _first_block(self) -> int:
        source = self.source
        if isinstance(source, BlockSource) and source.behind_head is not None:
            return max(0, (await self._chain.head()).number - source.behind_head)
        return source.start_block

    async def _forward(
        self, here: Checkpoint, applied: Block, head: Block, final_number: int
    ) -> Progress:
        if here.number < final_number:
            stretch = await self._reading.final(applied, min(final_number, head.number))
        else:
            stretch = await self._reading.tip(applied, head)
        await self._apply(here, stretch, head, final_number)
        self._here = (stretch.last.number, stretch.last.hash)
        fault_point("indexing.after_commit")
        self._observer.applied(stretch.last, head, stretch.counts)
        return Progress(stretch.last, head, facts=sum(stretch.counts.values()))

    async def _apply(
        self, here: Checkpoint, stretch: Stretch[Any], head: Block, final_number: int
    ) -> None:
        name = self.source.name
        async with self._database.transaction() as session:
            if not stretch.replaceable:
                # Should the machine fail, what was lost is read again from the checkpoint that was
                # kept; whoever acts on these rows commits first, and that makes them last.
                await session.execute(text("SET LOCAL synchronous_commit TO off"))
            # First, so that a second process waits here and then finds nothing to do.
            await checkpoints.move(
                session,
                here,
                stretch.last,
                head_number=head.number,
                final_number=final_number,
            )
            fault_point("indexing.moved")
            await checkpoints.keep_blocks(session, name, stretch.blocks)
            await self._reading.apply(session, stretch)
            if self.source.outbox is not None:
                await outbox.release(
                    session,
                    name,
                    self.source.outbox,
                    stretch.last.number,
                    min(final_number, stretch.last.number),
                )
            if final_number > here.final_number or not stretch.replaceable:
                await checkpoints.drop_blocks(
                    session, name, below=min(final_number, stretch.last.number)
                )
                await undo.forget_up_to(session, name, final_number)
            fault_point("indexing.before_commit")

    async def _replaced(self, here: Checkpoint, head: Block) -> bool:
        """Say whether the head, lower than the checkpoint, is of another branch than applied."""
        async with self._database.transaction() as session:
            kept = await checkpoints.kept_blocks(session, self.source.name)
        ours = {block.number: block.hash for block in kept}
        return head.number in ours and ours[head.number] != head.hash

    async def _back(self, here: Checkpoint, head: Block) -> Progress:
        """Undo everything above the newest block that the chain still has, in one transaction."""
        name = self.source.name
        async with self._database.transaction() as session:
            kept = await checkpoints.kept_blocks(session, name)
        if not kept or kept[0].hash != here.hash:
            raise CheckpointMoved(name)
        try:
            fork = await find_fork(self._chain, name, here.start_block, kept)
        except ReorgTooDeep as error:
            await self._tell(error.message)
            raise
        async with self._database.transaction() as session:
            await checkpoints.move(
                session, here, fork, head_number=head.number, final_number=here.final_number
            )
            rows = await undo.undo_above(session, name, fork.number)
            rows += await self._reading.undo(session, fork.number)
            await outbox.take_back(session, name, self.source.outbox, fork.number)
            await checkpoints.drop_blocks(session, name, above=fork.number)
            await checkpoints.keep_blocks(session, name, [fork])
            if self.source.on_undone is not None:
                undone = Undone(name, fork.number + 1, here.number, rows, fork, here.block)
                await self.source.on_undone(session, undone)
            fault_point("indexing.undo.before_commit")
        fault_point("indexing.undo.after_commit")
        self._here = (fork.number, fork.hash)
        await self._reading.rest(forget=True)
        self._shrinking.over()
        self._observer.undone(fork, here.number, rows)
        self._observer.behind(fork, head)
        return Progress(fork, head, undone=here.number - fork.number)

    async def _failed(self, error: Exception, failures: int) -> float:
        """Log and note a failed step; return the seconds to wait."""
        wait_s = min(_BACKOFF_MAX_S, _BACKOFF_FIRST_S * 2 ** min(failures - 1, 10))
        wait_s *= random.uniform(0.5, 1.5)  # noqa: S311 - jitter, not a secret
        known = isinstance(error, (CausewayError, DBAPIError, OSError))
        if isinstance(error, TransientError):
            _log.warning("chain not readable", source=self.source.name, reason=error.message)
            return max(wait_s, error.retry_after_s or 0.0)
        if isinstance(error, (OperationalError, InterfaceError)):
            _log.warning("database not reachable", source=self.source.name)
            return wait_s
        _log.error("indexing failed", source=self.source.name, exc_info=error, expected=known)
        reason = error.message if isinstance(error, CausewayError) else type(error).__name__
        try:
            await self._tell(reason)
        except (DBAPIError, OSError):
            _log.warning("database not reachable", source=self.source.name)
        return wait_s

    async def _tell(self, problem: str) -> None:
        async with self._database.transaction() as session:
            await checkpoints.tell_problem(session, self.source.name, problem)

    async def _wait(self, stop: asyncio.Event, seconds: float) -> None:
        """Wait, but not past `stop` or `wake`."""
        waiting: set[asyncio.Future[Any]] = {
            asyncio.ensure_future(stop.wait()),
            asyncio.ensure_future(self._woken.wait()),
            asyncio.ensure_future(self._clock.sleep(seconds)),
        }
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
