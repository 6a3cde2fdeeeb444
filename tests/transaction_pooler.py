"""A pooler in transaction mode, as PgBouncer and Supabase's: many clients, a few server sessions.

A server session is a client's from the first message of a transaction until the server says that
none is open any more; the next transaction may be on another. Nothing is reset in between. Only
plain clients are served: no TLS, no password, no COPY, no pipelines.
"""

from __future__ import annotations

import asyncio
import struct
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

_ENCRYPTION = {80877103, 80877104}  # SSLRequest, GSSENCRequest


class TransactionPooler:
    """The server sessions, and the port clients come to."""

    def __init__(self, socket_dir: Path, user: str, database: str) -> None:
        self._socket = str(socket_dir / ".s.PGSQL.5432")
        words = f"user\0{user}\0database\0{database}\0\0".encode()
        self._startup = struct.pack("!ii", len(words) + 8, 196608) + words
        self._free: asyncio.Queue[tuple[StreamReader, StreamWriter]] = asyncio.Queue()
        self._writers: list[StreamWriter] = []
        #: What the server said when a session was opened, up to ReadyForQuery.
        self._greeting = b""
        self.transactions = 0
        self.port = 0

    async def connect(self) -> None:
        """Open one more session on the server."""
        reader, writer = await asyncio.open_unix_connection(self._socket)
        self._writers.append(writer)
        writer.write(self._startup)
        self._greeting = b""
        while not self._greeting.endswith(b"Z\0\0\0\5I"):
            kind, body = await _message(reader)
            assert kind != b"E", body
            self._greeting += kind + body
        self._free.put_nowait((reader, writer))

    async def serve(self, client: StreamReader, answer: StreamWriter) -> None:
        """Serve one client until it goes."""
        self._writers.append(answer)
        held: tuple[StreamReader, StreamWriter] | None = None
        try:
            while True:
                (size,) = struct.unpack("!i", await client.readexactly(4))
                (word,) = struct.unpack("!i", (await client.readexactly(size - 4))[:4])
                if word not in _ENCRYPTION:
                    break
                answer.write(b"N")
            answer.write(self._greeting)
            while True:
                kind, body = await _message(client)
                if kind == b"X":
                    return
                if held is None:
                    held = await self._free.get()
                    self.transactions += 1
                held[1].write(kind + body)
                if kind in b"QS" and await self._relay(held[0], answer) == b"I":
                    self._free.put_nowait(held)
                    held = None
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            answer.close()

    async def _relay(self, server: StreamReader, answer: StreamWriter) -> bytes:
        """Pass on what the server says; return whether a transaction is open (I, T or E)."""
        while True:
            kind, body = await _message(server)
            answer.write(kind + body)
            if kind == b"Z":
                await answer.drain()
                return body[4:]

    def close(self) -> None:
        """Close every connection."""
        for writer in self._writers:
            writer.close()


async def _message(reader: StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readexactly(5)
    (size,) = struct.unpack("!i", head[1:])
    return head[:1], head[1:] + await reader.readexactly(size - 4)


@asynccontextmanager
async def transaction_pooler(
    socket_dir: Path, user: str, database: str, sessions: int = 1
) -> AsyncGenerator[TransactionPooler]:
    """Pool until the block is left."""
    pooler = TransactionPooler(socket_dir, user, database)
    for _ in range(sessions):
        await pooler.connect()
    server = await asyncio.start_server(pooler.serve, "127.0.0.1", 0)
    pooler.port = server.sockets[0].getsockname()[1]
    try:
        yield pooler
    finally:
        server.close()
        pooler.close()
        await server.wait_closed()
