"""The door in front of the stand-ins: writes down who came, and misbehaves when told to.

It sits between uvicorn's HTTP protocol and the application, so that it can hold answers back,
cut them short and cut the TCP connection itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Response
from starlette.requests import ClientDisconnect, Request
from starlette.routing import Match, Route
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from causeway.sandbox.control import Entry, Journal
from causeway.sandbox.faults import Fault
from causeway.sandbox.world import World, service_of

#: The answer of a service to "answer this status, to be over in so many seconds".
Refusal = Callable[[int, float], Response]

_HUGE_BYTES = 5 * 1024**3
_PAGE = (
    "<!DOCTYPE html><html><head><title>Just a moment...</title></head><body>"
    "<h1>Checking your browser</h1><p>For your safety this request was flagged as sensitive; "
    "content policy and NSFW filters of this network apply.</p></body></html>"
)


class Connections:
    """The open TCP connections, by the address of the client."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, int], asyncio.Transport] = {}

    def opened(self, client: tuple[str, int] | None, transport: asyncio.Transport) -> None:
        """Note a new connection."""
        if client is not None:
            self._open[client] = transport

    def closed(self, client: tuple[str, int] | None) -> None:
        """Note the end of a connection."""
        if client is not None:
            self._open.pop(client, None)

    def of(self, scope: Scope) -> asyncio.Transport | None:
        """Return the connection a request came by, None when it is closed."""
        host, port = scope["client"]
        transport = self._open.get((host, port))
        return None if transport is None or transport.is_closing() else transport

    def abort_all(self) -> None:
        """Cut all of them."""
        for transport in list(self._open.values()):
            transport.abort()


class TrackedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 over a connection that others can find and cut."""

    def __init__(self, tracked_by: Connections, **options: Any) -> None:
        super().__init__(**options)
        self._tracked_by = tracked_by

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] - as in uvicorn
        """Begin, and be found."""
        super().connection_made(transport)
        self._tracked_by.opened(self.client, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._tracked_by.closed(self.client)
        super().connection_lost(exc)


class Gate:
    """The ASGI application uvicorn sees."""

    def __init__(
        self,
        app: FastAPI,
        world: World,
        journal: Journal,
        connections: Connections,
        refusals: dict[str, Refusal],
    ) -> None:
        self._app = app
        self._world = world
        self._journal = journal
        self._connections = connections
        self._refusals = refusals

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        service = service_of(scope["path"])
        if service is None:
            await self._app(scope, receive, send)
            return
        entry = self._journal.arrived(service, self._template(scope), Request(scope))

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._journal.answered(entry, message["status"])
            await send(message)

        fault = self._world.faults.take(service, scope["method"], scope["path"], wire=True)
        # A client that leaves in the middle of its upload is nobody's error here.
        with contextlib.suppress(ClientDisconnect):
            if fault is None:
                await self._app(scope, receive, noting)
            else:
                entry.fault = fault.kind
                await self._misbehave(fault, entry, scope, receive, noting)

    async def _misbehave(
        self, fault: Fault, entry: Entry, scope: Scope, receive: Receive, send: Send
    ) -> None:
        match fault.kind:
            case "reset":
                await self._cut(scope, receive)
            case "hang":
                await self._stay(receive, fault.seconds)
                await self._cut(scope, receive)
            case "slow":
                await self._world.pause(1.0 if fault.seconds is None else fault.seconds)
                await self._app(scope, receive, send)
            case "lose_answer":
                start, _ = await self._answer(scope, receive)
                entry.lost_status = start.get("status")
                await self._cut(scope, receive)
            case "huge":
                await self._huge(scope, send)
            case "truncate":
                start, body = await self._answer(scope, receive)
                await send(start)
                await send(_body(body[: len(body) // 2], more=True))
                await self._close(scope, receive)
            case "short":
                start, body = await self._answer(scope, receive)
                body = body[: len(body) // 2]
                headers = [h for h in start["headers"] if h[0].lower() != b"content-length"]
                headers.append((b"content-length", str(len(body)).encode()))
                await send({**start, "headers": headers})
                await send(_body(body))
            case "drip":
                await self._drip(
                    0.05 if fault.seconds is None else fault.seconds, scope, receive, send
                )
            case _:
                await self._refusal(fault)(scope, receive, send)

    def _refusal(self, fault: Fault) -> Response:
        seconds = 1.0 if fault.seconds is None else fault.seconds
        if fault.kind == "redirect":
            return Response(status_code=302, headers={"Location": fault.location})
        if fault.kind == "html":
            response = Response(fault.body or _PAGE, fault.status or 200, media_type="text/html")
        elif fault.body is not None:
            response = Response(fault.body, fault.status or 503, media_type="application/json")
        else:
            status = 429 if fault.kind == "rate_limit" else fault.status or 503
            response = self._refusals[fault.service](status, seconds)
        response.headers.update(fault.headers)
        return response

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[dict[str, Any], bytes]:
        """Let the service do its work and return what it would have said."""
        start: dict[str, Any] = {}
        body = bytearray()

        async def keep(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            elif message["type"] == "http.response.body":
                body.extend(message.get("body", b""))

        await self._app(scope, receive, keep)
        return start, bytes(body)

    async def _drip(self, seconds: float, scope: Scope, receive: Receive, send: Send) -> None:
        start, body = await self._answer(scope, receive)
        await send(start)
        for at in range(len(body)):
            if self._connections.of(scope) is None or await self._world.pause(seconds):
                return
            await send(_body(body[at : at + 1], more=True))
        await send(_body(b""))

    async def _huge(self, scope: Scope, send: Send) -> None:
        headers = [(b"content-type", b"image/png")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        chunk = b"\x89PNG\r\n\x1a\n" + bytes(256 * 1024)
        for _ in range(_HUGE_BYTES // len(chunk)):
            # A client that has read enough hangs up; writing on would only heat the room.
            if self._connections.of(scope) is None:
                return
            await send(_body(chunk, more=True))
            await asyncio.sleep(0)
        await send(_body(b""))

    async def _cut(self, scope: Scope, receive: Receive) -> None:
        """Cut the connection: the client reads a reset, not an orderly end."""
        transport = self._connections.of(scope)
        if transport is not None:
            raw = transport.get_extra_info("socket")
            with contextlib.suppress(OSError):
                # Lingering for zero seconds makes the kernel send RST instead of FIN.
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        await self._stay(receive, None)

    async def _close(self, scope: Scope, receive: Receive) -> None:
        """End the connection after what was written so far."""
        transport = self._connections.of(scope)
        if transport is not None:
            transport.close()
        await self._stay(receive, None)

    async def _stay(self, receive: Receive, seconds: float | None) -> None:
        """Keep quiet until the client has left, at most `seconds`."""

        async def left() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(left(), seconds)

    def _template(self, scope: Scope) -> str:
        for candidate in self._app.routes:
            if isinstance(candidate, Route) and candidate.matches(scope)[0] is Match.FULL:
                return candidate.path
        return "(unknown)"


def _body(body: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}
