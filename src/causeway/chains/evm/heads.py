"""New heads told by a node over WebSocket (`eth_subscribe`): a hint that there is more to read.

A feed that says nothing, lies or breaks costs time only: whoever follows a chain looks at it at
intervals anyway, and what is read is read through the pool.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import aiohttp
import msgspec
import structlog
from prometheus_client import Counter, Gauge

from causeway.base.clock import SYSTEM_CLOCK, Clock
from causeway.chains.endpoint import SecretUrl

_log = structlog.get_logger(__name__)
_CONNECTED = Gauge("causeway_chains_head_feed_connected", "Whether a head feed is up", ["feed"])
_HEADS = Counter("causeway_chains_head_feed_heads_total", "Heads that a feed told of", ["feed"])

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
#: A connection that does not answer a ping in this time is given up, seconds.
_HEARTBEAT_S = 15.0


class _Head(msgspec.Struct):
    number: str | None = None


class _Params(msgspec.Struct):
    result: _Head | None = None


class _Message(msgspec.Struct):
    method: str = ""
    params: _Params | None = None
    error: object = None


_message = msgspec.json.Decoder(_Message)


class HeadFeed:
    """One node's `newHeads` subscription, connected again whenever it breaks."""

    #: The subscription: method and parameters, and the methods of what is told.
    request: tuple[str, object] = ("eth_subscribe", ["newHeads"])
    told: frozenset[str] = frozenset({"eth_subscription"})

    def __init__(self, url: SecretUrl, name: str, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._url = url
        self.name = name
        self._clock = clock

    def __repr__(self) -> str:
        return f"HeadFeed({self.name}={self._url})"

    async def run(self, seen: Callable[[], None]) -> None:
        """Call `seen` for each new head, until cancelled. Outlives every failure."""
        failures = 0
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
            while True:
                try:
                    await self._follow(session, seen)
                    failures = 0
                except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError) as error:
                    # Only the kind of error is told: its text may hold the URL.
                    failures += 1
                    _log.debug("head feed broke", feed=self.name, reason=type(error).__name__)
                finally:
                    _CONNECTED.labels(self.name).set(0)
                pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(failures, 6))
                await self._clock.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter

    async def _follow(self, session: aiohttp.ClientSession, seen: Callable[[], None]) -> None:
        async with session.ws_connect(
            self._url.reveal(), heartbeat=_HEARTBEAT_S, max_msg_size=1 << 20
        ) as socket:
            method, params = self.request
            await socket.send_json({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
            # What was mined while there was no connection is looked for now.
            seen()
            _CONNECTED.labels(self.name).set(1)
            async for message in socket:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    break
                told = _message.decode(message.data)
                if told.error is not None:
                    raise aiohttp.ClientError("the node does not offer subscriptions")
                if told.method in self.told:
                    _HEADS.labels(self.name).inc()
                    seen()
