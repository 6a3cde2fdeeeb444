"""Hints by Redis, where an installation has one: behind a pooler LISTEN does not work.

    async with RedisHints.open(url, hub):
        ...  # this process tells of what it commits, and hears of what others do

The extra `redis` of the package brings the client. As with NOTIFY a hint is a channel's name and
nothing else: the messages are in PostgreSQL, and Redis may be away, or restarted empty, without one
being lost. Several installations on one Redis have different prefixes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import event
from sqlalchemy.orm import Session

from causeway.base.clock import SYSTEM_CLOCK
from causeway.live.hub import Hub
from causeway.live.publishing import HINTS, NOTICE

log = structlog.get_logger(__name__)

#: For an answer, seconds.
_TIMEOUT_S = 5.0
#: Pauses between tries to reach it.
_RETRY_S = (0.1, 0.5, 2.0, 5.0)
#: Hints that wait for a Redis that is away; what is over that, a sweep finds.
_WAITING = 10_000


class RedisHints:
    """One process's connection to the hints of all."""

    def __init__(self, url: str, *, prefix: str = "causeway") -> None:
        # Its methods take arguments of unknown types.
        self._redis = cast("Any", Redis).from_url(url, socket_connect_timeout=_TIMEOUT_S)
        self._topic = f"{prefix}:{NOTICE}"
        self._waiting: set[str] = set()
        self._bell = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, url: str, hub: Hub | None = None, *, prefix: str = "causeway"
    ) -> AsyncGenerator[RedisHints]:
        """Tell inside the block, and hear when there is a `hub`; Redis need not be up."""
        hints = cls(url, prefix=prefix)
        tasks = [asyncio.create_task(hints._tell())]
        if hub is not None:
            tasks.append(asyncio.create_task(hints._hear(hub)))
        event.listen(Session, "after_commit", hints._committed)
        try:
            yield hints
        finally:
            event.remove(Session, "after_commit", hints._committed)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await hints._redis.aclose()

    def _committed(self, session: Session) -> None:
        told: set[str] = session.info.get(HINTS, set())
        if told and len(self._waiting) < _WAITING:
            self._waiting |= told
            self._bell.set()

    async def _tell(self) -> None:
        failures = 0
        while True:
            await self._bell.wait()
            self._bell.clear()
            telling, self._waiting = self._waiting, set()
            try:
                async with self._redis.pipeline(transaction=False) as pipeline:
                    for hint in telling:
                        pipeline.publish(self._topic, hint)
                    await pipeline.execute()
                failures = 0
            except (RedisError, OSError) as error:
                log.warning("hints_not_told", error=type(error).__name__, hints=len(telling))
                self._waiting |= telling
                self._bell.set()
                await SYSTEM_CLOCK.sleep(_RETRY_S[min(failures, len(_RETRY_S) - 1)])
                failures += 1

    async def _hear(self, hub: Hub) -> None:
        failures = 0
        while True:
            try:
                async with self._redis.pubsub(ignore_subscribe_messages=True) as listening:
                    await listening.subscribe(self._topic)
                    failures = 0
                    hub.hearing("redis")
                    async for message in listening.listen():
                        hub.heard(message["data"].decode())
            except (RedisError, OSError) as error:
                log.warning("hints_not_heard", error=type(error).__name__)
            finally:
                hub.deaf("redis")
            await hub.clock.sleep(_RETRY_S[min(failures, len(_RETRY_S) - 1)])
            failures += 1
