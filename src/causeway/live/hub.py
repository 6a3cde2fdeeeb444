"""One process's view of the channels its clients follow: read once, for however many clients.

NOTIFY only says that there may be something; what is there is read from the log, by one task, in
one query for all channels that were rung for. A process behind a pooler in transaction mode, or
whose listening connection broke, looks at intervals instead. Clients take what they have not had
from here at their own pace: nobody waits for anybody.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import Protocol

import psycopg
import structlog
from prometheus_client import Counter, Gauge
from sqlalchemy.exc import SQLAlchemyError

from causeway.base.clock import SYSTEM_CLOCK, Clock
from causeway.live.log import Message, last_seq, read_after
from causeway.live.publishing import NOTICE, RECHECK
from causeway.store.engine import Database

log = structlog.get_logger(__name__)

CONNECTIONS = Gauge("causeway_live_connections", "WebSocket connections that follow channels")
MESSAGES = Counter("causeway_live_messages_total", "Messages read for this process's clients")

#: Between two looks at every channel, seconds: with NOTIFY only against lost hints.
SWEEP_S = 5.0
POLL_S = 0.5

#: Messages of a channel kept in memory; who is further behind is served from the log.
RING = 512
#: Clients of a process that are served from the log at the same time.
_CATCHING_UP = 4
_RETRY_S = (0.1, 0.5, 2.0, 5.0)


class Follower(Protocol):
    """A client's connection, as its channels see it."""

    def wake(self) -> None:
        """Something may have come."""
        ...

    def doubt(self, channel: str) -> None:
        """Whether it may follow that channel is to be asked again."""
        ...


class Feed:
    """One channel: how far it was read, and its last messages."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seq = 0
        self.followers: set[Follower] = set()
        self.is_ready = asyncio.Event()
        self._ring: deque[Message] = deque(maxlen=RING)

    def take(self, messages: Sequence[Message]) -> None:
        """Add what was read, and wake everybody who follows."""
        for message in messages:
            if self._ring and message.seq != self._ring[-1].seq + 1:
                self._ring.clear()  # what is missing is not in the log any more
            self._ring.append(message)
            self.seq = message.seq
        for follower in self.followers:
            follower.wake()

    def after(self, seq: int, most: int) -> list[Message] | None:
        """Return what came first after a number; None when that is not in memory."""
        if seq >= self.seq:
            return []
        if not self._ring or seq + 1 < self._ring[0].seq:
            return None
        first = seq + 1 - self._ring[0].seq
        return list(islice(self._ring, first, first + most))


class Hub:
    """The channels that clients of this process follow."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Clock = SYSTEM_CLOCK,
        sweep_s: float = SWEEP_S,
        poll_s: float = POLL_S,
    ) -> None:
        self.database = database
        self.clock = clock
        self._sweep_s = sweep_s
        self._poll_s = poll_s
        self._feeds: dict[str, Feed] = {}
        self._rung: set[str] = set()
        self._bell = asyncio.Event()
        #: Through what hints come at the moment: `notify`, `redis`.
        self._hints_by: set[str] = set()
        self._catching_up = asyncio.Semaphore(_CATCHING_UP)
        #: Connections of each person, of this process.
        self.connections: dict[str, int] = {}
        #: Set when the process stops: every connection ends, saying so.
        self.stopping = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, database: Database, *, sweep_s: float = SWEEP_S, poll_s: float = POLL_S
    ) -> AsyncGenerator[Hub]:
        """Follow channels inside the block."""
        hub = cls(database, sweep_s=sweep_s, poll_s=poll_s)
        tasks = [asyncio.create_task(hub._read_on())]
        if database.has_own_session:
            tasks.append(asyncio.create_task(hub._listen()))
        try:
            yield hub
        finally:
            hub.stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def stop(self) -> None:
        """End every connection, telling clients to come back."""
        self.stopping.set()
        for feed in self._feeds.values():
            for follower in feed.followers:
                follower.wake()

    async def follow(self, channel: str, follower: Follower) -> Feed:
        """Have a client woken when something comes; return the channel, read up to now."""
        while (feed := self._feeds.get(channel)) is not None:
            feed.followers.add(follower)
            await feed.is_ready.wait()
            if self._feeds.get(channel) is feed:
                return feed  # otherwise whoever opened it could not read it
        # Among the channels before it is read: what is published meanwhile rings for it.
        feed = self._feeds[channel] = Feed(channel)
        feed.followers.add(follower)
        try:
            feed.seq = await last_seq(self.database, channel)
        except BaseException:
            del self._feeds[channel]
            raise
        finally:
            feed.is_ready.set()
        self.ring(channel)
        return feed

    def leave(self, feed: Feed, follower: Follower) -> None:
        """Wake that client no more; a channel without clients is forgotten."""
        feed.followers.discard(follower)
        if not feed.followers and self._feeds.get(feed.name) is feed:
            del self._feeds[feed.name]

    def ring(self, channel: str) -> None:
        """Something may have come on a channel."""
        if channel in self._feeds:
            self._rung.add(channel)
            self._bell.set()

    async def missed(self, feed: Feed, seq: int, most: int) -> Sequence[Message]:
        """Return what came first after a number, from memory or from the log."""
        found = feed.after(seq, most)
        if found is None:
            async with self._catching_up:
                found = (await read_after(self.database, {feed.name: seq}, most))[feed.name]
        return found

    async def _read_on(self) -> None:
        """Read what was rung for, and now and then everything; never ends by an error."""
        failures = 0
        while True:
            wait_s = self._sweep_s if self._hints_by else self._poll_s
            try:
                async with asyncio.timeout(wait_s):
                    await self._bell.wait()
            except TimeoutError:
                self._rung.update(self._feeds)
            self._bell.clear()
            rung, self._rung = self._rung, set()
            try:
                await self._read(rung)
                failures = 0
            except Exception as error:  # noqa: BLE001 - without this task nobody is told anything
                self._rung |= rung
                self._bell.set()
                expected = isinstance(error, SQLAlchemyError | OSError)
                tell = log.warning if expected else log.exception
                tell("channels_not_read", error=error, channels=len(rung))
                await self.clock.sleep(_RETRY_S[min(failures, len(_RETRY_S) - 1)])
                failures += 1

    async def _read(self, names: Iterable[str]) -> None:
        feeds = [f for name in names if (f := self._feeds.get(name)) and f.is_ready.is_set()]
        while feeds:
            found = await read_after(self.database, {feed.name: feed.seq for feed in feeds})
            feeds = [feed for feed in feeds if found[feed.name]]
            for feed in feeds:
                MESSAGES.inc(len(found[feed.name]))
                feed.take(found[feed.name])

    async def _listen(self) -> None:
        failures = 0
        while True:
            try:
                connection = await self.database.raw_connection()
                async with connection:
                    await connection.execute(f"LISTEN {NOTICE}")
                    failures = 0
                    self.hearing("notify")
                    async for notice in connection.notifies():
                        self.heard(notice.payload)
            except (psycopg.Error, OSError) as error:
                log.warning("not_listening", error=error)
            self.deaf("notify")
            await self.clock.sleep(_RETRY_S[min(failures, len(_RETRY_S) - 1)])
            failures += 1

    def hearing(self, by: str) -> None:
        """Hints come from now on; what came while nobody listened is looked for."""
        self._hints_by.add(by)
        self._rung.update(self._feeds)
        self._bell.set()
        for name in list(self._feeds):
            self.heard(RECHECK + name)  # somebody's right may have been withdrawn meanwhile

    def deaf(self, by: str) -> None:
        """No hint comes that way until further notice: without any, look more often."""
        self._hints_by.discard(by)
        self._bell.set()

    def heard(self, payload: str) -> None:
        """Take a hint: a channel's name, or one whose followers are to be asked about again."""
        if not payload.startswith(RECHECK):
            self.ring(payload)
            return
        channel = payload[len(RECHECK) :]
        if (feed := self._feeds.get(channel)) is not None:
            for follower in feed.followers:
                follower.doubt(channel)
