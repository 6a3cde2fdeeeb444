"""One client over a WebSocket: who it is, which channels it follows, how far it is in each.

The client sends JSON text frames: `auth {token}`, `subscribe {channel, since?}`, `unsubscribe
{channel}`, `ping`. It is sent `hello`, `subscribed {channel, seq}`, messages `{type, channel, seq,
ts, data}`, `gap {channel, from, to}` for messages that are gone, `auth_expiring {expires_at}`,
`error {code, field?, message}`, `pong`.

Nothing is queued for a client but answers to itself: it has a number in each channel and is sent
what comes after, as fast as it takes it. Who does not keep up is closed with 1013 and may resume.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import orjson
import structlog
from sqlalchemy.exc import SQLAlchemyError
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from causeway.base.clock import iso
from causeway.base.errors import CausewayError, NotAuthenticated
from causeway.live import tickets
from causeway.live.hub import CONNECTIONS, Feed, Hub
from causeway.live.publishing import is_name
from causeway.live.tickets import Viewer

log = structlog.get_logger(__name__)

#: Close codes: those of RFC 6455 and, from 4400, the HTTP status they stand for.
UNSUPPORTED, FAULT, RESTART, SLOW = 1003, 1011, 1012, 1013
UNAUTHENTICATED, NOT_ALLOWED, TOO_LARGE, TOO_FAST = 4401, 4403, 4413, 4429

_TICKET = "ticket."
#: Messages sent before the client's own answers are looked at again.
_TURN = 64


@dataclass(frozen=True)
class Limits:
    """What a client may do, and how long we wait for it; seconds."""

    connections_per_person: int = 10
    channels: int = 50
    frames_per_s: int = 20
    frame_bytes: int = 64 * 1024
    #: Answers not sent yet.
    queue: int = 64
    #: For the first frame `auth`.
    auth_s: float = 5.0
    #: How long a client may be behind before it is closed.
    stalled_s: float = 15.0
    #: For the closing frame itself to get through.
    closing_s: float = 5.0
    #: How often it is asked again whether it may follow.
    recheck_s: float = 60.0
    #: `auth_expiring` is sent so long before the token ends.
    warning_s: float = 60.0
    #: How long after its end a connection goes on; None: it is never cut for that.
    expired_s: float | None = 0.0


@dataclass(frozen=True)
class Rules:
    """What an app decides about its channels."""

    #: Whose token this is; raises `CausewayError`.
    authenticate: Callable[[str], Awaitable[Viewer]]
    #: Whether somebody (None: nobody in particular) may follow a channel.
    may_follow: Callable[[Viewer | None, str], Awaitable[bool]]
    #: Whether one must say who one is before anything else.
    must_authenticate: bool = True
    subprotocol: str = "causeway.v1"
    limits: Limits = Limits()


class _End(Exception):
    """The connection is to be closed, with a code of RFC 6455 and a reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def _away(error: SQLAlchemyError) -> _End:
    log.warning("channel_not_served", error=error)
    return _End(RESTART, "the database does not answer: come back in a moment")


class _Subscription:
    def __init__(self, feed: Feed, seq: int) -> None:
        self.feed = feed
        self.seq = seq
        #: Since when there has been more than it has; None: it has everything.
        self.behind_since: float | None = None


class Connection:
    """A client, from its first frame to its last."""

    def __init__(self, websocket: WebSocket, hub: Hub, rules: Rules) -> None:
        self._socket = websocket
        self._hub = hub
        self._rules = rules
        self._limits = rules.limits
        self._clock = hub.clock
        self._viewer: Viewer | None = None
        self._subscriptions: dict[str, _Subscription] = {}
        self._answers: deque[dict[str, Any]] = deque()
        self._awake = asyncio.Event()
        self._doubts: set[str] = set()
        self._is_warned = False
        self._end: _End | None = None
        self._counted: str | None = None
        self._frames: deque[float] = deque(maxlen=rules.limits.frames_per_s)

    def wake(self) -> None:
        """Something may have come."""
        self._awake.set()

    def doubt(self, channel: str) -> None:
        """Ask again whether this client may follow that channel."""
        self._doubts.add(channel)
        self._awake.set()

    async def run(self) -> None:
        """Serve the client until it goes or is sent away."""
        offered = self._socket.scope.get("subprotocols", [])
        chosen = self._rules.subprotocol if self._rules.subprotocol in offered else None
        await self._socket.accept(subprotocol=chosen)
        CONNECTIONS.inc()
        self._opened_at = self._checked_at = self._clock.monotonic()
        reading: asyncio.Task[None] | None = None
        try:
            ticket = next((word for word in offered if word.startswith(_TICKET)), None)
            if ticket is not None:
                value = ticket.removeprefix(_TICKET)
                await self._admit(lambda: tickets.redeem(self._hub.database, value))
            self._answer({"type": "hello"})
            # Not before it is known who is speaking.
            reading = asyncio.create_task(self._read())
            await self._write()
        except _End as end:
            await self._close(end)
        except SQLAlchemyError as error:
            await self._close(_away(error))
        except (WebSocketDisconnect, RuntimeError, OSError):
            if self._socket.client_state is WebSocketState.CONNECTED and self._end is None:
                raise
        finally:
            CONNECTIONS.dec()
            self._count(None)
            for subscription in self._subscriptions.values():
                self._hub.leave(subscription.feed, self)
            if reading is not None:
                reading.cancel()
                for fault in await asyncio.gather(reading, return_exceptions=True):
                    if isinstance(fault, Exception):
                        log.error("unhandled_error", exc_info=fault)

    async def _close(self, end: _End) -> None:
        with suppress(WebSocketDisconnect, RuntimeError, OSError, TimeoutError):
            async with asyncio.timeout(self._limits.closing_s):
                await self._socket.close(end.code, end.reason)

    # What the client says.

    async def _read(self) -> None:
        """Take frames until there are no more; what is wrong is kept for the writer to say."""
        try:
            while True:
                said = await self._socket.receive()
                if said["type"] == "websocket.disconnect":
                    self._end = _End(1000, "")
                    return
                if said.get("text") is None:
                    raise _End(UNSUPPORTED, "frames are text")
                await self._take(said["text"])
        except _End as end:
            self._end = end
        except SQLAlchemyError as error:
            self._end = _away(error)
        finally:
            # Whatever else happened: nobody listens to the client any more.
            self._end = self._end or _End(FAULT, "an error of ours")
            self._awake.set()

    async def _take(self, frame: str) -> None:
        if len(frame.encode()) > self._limits.frame_bytes:
            raise _End(TOO_LARGE, f"a frame has at most {self._limits.frame_bytes} bytes")
        now = self._clock.monotonic()
        if len(self._frames) == self._frames.maxlen and now - self._frames[0] < 1:
            raise _End(TOO_FAST, f"at most {self._limits.frames_per_s} frames a second")
        self._frames.append(now)
        try:
            said = orjson.loads(frame)
        except orjson.JSONDecodeError:
            said = None
        if not isinstance(said, dict):
            self._refuse("BAD_FRAME", None, "a frame is a JSON object")
            return
        words = cast("dict[str, Any]", said)
        kind = words.get("type")
        if kind == "ping":
            self._answer({"type": "pong"})
        elif kind == "auth":
            await self._authenticate(words.get("token"))
        elif kind in ("subscribe", "unsubscribe"):
            channel = words.get("channel")
            if not isinstance(channel, str) or not is_name(channel):
                self._refuse("BAD_CHANNEL", "channel", "a channel has a name")
            elif kind == "subscribe":
                await self._subscribe(channel, words.get("since"))
            else:
                self._unsubscribe(channel)
                self._answer({"type": "unsubscribed", "channel": channel})
        else:
            self._refuse("UNKNOWN_TYPE", "type", "auth, subscribe, unsubscribe and ping are known")

    async def _authenticate(self, token: object) -> None:
        if not isinstance(token, str):
            self._refuse("MALFORMED_TOKEN", "token", "the token is missing")
            return
        await self._admit(lambda: self._rules.authenticate(token))
        until = None if self._viewer is None else self._viewer.until
        self._answer({"type": "authenticated", "expires_at": None if until is None else iso(until)})

    async def _admit(self, who: Callable[[], Awaitable[Viewer]]) -> None:
        try:
            viewer = await who()
        except NotAuthenticated as error:
            raise _End(UNAUTHENTICATED, error.problem_code or "BAD_TICKET") from None
        except CausewayError as error:
            raise _End(NOT_ALLOWED, error.problem_code or type(error).__name__) from None
        if self._viewer is not None and viewer.subject != self._viewer.subject:
            raise _End(NOT_ALLOWED, "this connection is somebody else's")
        self._viewer = viewer
        self._is_warned = False
        self._count(viewer.subject)
        self._awake.set()

    def _count(self, subject: str | None) -> None:
        """Count this connection as that person's, and no longer as whose it was."""
        if subject == self._counted:
            return
        counts = self._hub.connections
        if self._counted is not None:
            counts[self._counted] -= 1
            if not counts[self._counted]:
                del counts[self._counted]
        self._counted = None
        if subject is None:
            return
        if counts.get(subject, 0) >= self._limits.connections_per_person:
            raise _End(TOO_FAST, f"at most {self._limits.connections_per_person} connections")
        counts[subject] = counts.get(subject, 0) + 1
        self._counted = subject

    async def _subscribe(self, channel: str, since: object) -> None:
        if since is not None and (isinstance(since, bool) or not isinstance(since, int)):
            self._refuse("BAD_SINCE", "since", "the number of the last message you have, or none")
            return
        if self._viewer is None and self._rules.must_authenticate:
            self._refuse("UNAUTHORIZED", None, "send auth first")
            return
        if channel not in self._subscriptions:
            if len(self._subscriptions) >= self._limits.channels:
                self._refuse("TOO_MANY", "channel", f"at most {self._limits.channels} channels")
                return
            if not await self._rules.may_follow(self._viewer, channel):
                # The same for what there is not: nobody learns what exists.
                self._refuse("NOT_ALLOWED", "channel", "there is no such channel for you")
                return
        self._unsubscribe(channel)
        feed = await self._hub.follow(channel, self)
        newest = feed.seq
        self._answer({"type": "subscribed", "channel": channel, "seq": newest})
        start = newest if since is None else since
        if start > newest:  # numbers of another history: what they have may never have been
            self._answer({"type": "gap", "channel": channel, "from": 1, "to": newest})
            start = newest
        self._subscriptions[channel] = _Subscription(feed, max(0, start))
        self._awake.set()

    def _unsubscribe(self, channel: str) -> None:
        subscription = self._subscriptions.pop(channel, None)
        if subscription is not None:
            self._hub.leave(subscription.feed, self)

    # What the client is told.

    def _refuse(self, code: str, field: str | None, message: str) -> None:
        about = {} if field is None else {"field": field}
        self._answer({"type": "error", "code": code, **about, "message": message})

    def _answer(self, frame: dict[str, Any]) -> None:
        if len(self._answers) >= self._limits.queue:
            raise _End(SLOW, "answers are not read")
        self._answers.append(frame)
        self._awake.set()

    async def _write(self) -> None:
        """Send what there is, for as long as the client is there."""
        while True:
            self._awake.clear()
            await self._look_at_the_time()
            while self._answers:
                await self._send(orjson.dumps(self._answers.popleft()).decode())
            if self._end is not None:
                raise self._end
            behind = [await self._send_some(s) for s in list(self._subscriptions.values())]
            if any(behind):
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(self._until_next_look_s()):
                    await self._awake.wait()

    async def _send_some(self, subscription: _Subscription) -> bool:
        """Send up to a turn's messages of one channel; say whether there are more."""
        feed = subscription.feed
        if subscription.seq >= feed.seq:
            subscription.behind_since = None
            return False
        now = self._clock.monotonic()
        if subscription.behind_since is None:
            subscription.behind_since = now
        elif now - subscription.behind_since > self._limits.stalled_s:
            raise _End(SLOW, "too slow: resume from the last number you have")
        newest = feed.seq
        messages = await self._hub.missed(feed, subscription.seq, _TURN)
        for message in messages:
            if self._subscriptions.get(feed.name) is not subscription:
                return False  # left, or not allowed any more
            if message.seq > subscription.seq + 1:
                await self._tell_gap(subscription, message.seq - 1)
            await self._send(message.frame)
            subscription.seq = message.seq
        if not messages:
            await self._tell_gap(subscription, newest)
        if subscription.seq >= feed.seq:
            subscription.behind_since = None
        return subscription.seq < feed.seq

    async def _tell_gap(self, subscription: _Subscription, to: int) -> None:
        gap = {
            "type": "gap",
            "channel": subscription.feed.name,
            "from": subscription.seq + 1,
            "to": to,
        }
        await self._send(orjson.dumps(gap).decode())
        subscription.seq = to

    async def _send(self, frame: str) -> None:
        try:
            async with asyncio.timeout(self._limits.stalled_s):
                await self._socket.send_text(frame)
        except TimeoutError:
            raise _End(SLOW, "too slow: resume from the last number you have") from None

    async def _look_at_the_time(self) -> None:
        if self._hub.stopping.is_set():
            raise _End(RESTART, "restarting: come back in a moment")
        now = self._clock.monotonic()
        if self._viewer is None and self._rules.must_authenticate:
            if now - self._opened_at >= self._limits.auth_s:
                raise _End(UNAUTHENTICATED, "MISSING_TOKEN")
        left_s = self._left_s()
        if left_s is not None and self._viewer is not None and self._viewer.until is not None:
            if self._limits.expired_s is not None and left_s <= -self._limits.expired_s:
                raise _End(UNAUTHENTICATED, "EXPIRED")
            if left_s <= self._limits.warning_s and not self._is_warned:
                self._is_warned = True
                self._answer({"type": "auth_expiring", "expires_at": iso(self._viewer.until)})
        if now - self._checked_at >= self._limits.recheck_s:
            self._checked_at = now
            self._doubts.update(self._subscriptions)
        while self._doubts:
            channel = self._doubts.pop()
            if channel not in self._subscriptions:
                continue
            if not await self._rules.may_follow(self._viewer, channel):
                raise _End(NOT_ALLOWED, "you may not follow this any more")

    def _left_s(self) -> float | None:
        if self._viewer is None or self._viewer.until is None:
            return None
        return (self._viewer.until - self._clock.now()).total_seconds()

    def _until_next_look_s(self) -> float:
        now = self._clock.monotonic()
        waits = [self._checked_at + self._limits.recheck_s - now]
        if self._viewer is None and self._rules.must_authenticate:
            waits.append(self._opened_at + self._limits.auth_s - now)
        if (left_s := self._left_s()) is not None:
            if not self._is_warned:
                waits.append(left_s - self._limits.warning_s)
            if self._limits.expired_s is not None:
                waits.append(left_s + self._limits.expired_s)
        return max(0.01, min(waits))


async def serve(websocket: WebSocket, hub: Hub, rules: Rules) -> None:
    """Serve one client; an app's WebSocket route calls this with its own rules."""
    await Connection(websocket, hub, rules).run()
