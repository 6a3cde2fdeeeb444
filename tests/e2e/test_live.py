"""Channels over real sockets: one process, or two of which one is killed."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import ProgrammingError
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from causeway.base.errors import Bug
from causeway.live import tickets
from causeway.live.connection import Limits
from causeway.live.publishing import allow_publishing, publish, publish_all, recheck, trim
from causeway.live.tickets import Viewer
from causeway.store.engine import Database
from causeway.store.row_security import RowSecurity, claims_of
from tests.live_server import live_server
from tests.postgres_fixtures import PostgresServer, migrated_template

Frame = dict[str, Any]
ANN = "ann:3600"


class Client:
    """A client that remembers how far it is in each channel."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.frames: list[Frame] = []
        #: What nobody has asked for yet.
        self._kept: list[Frame] = []

    async def say(self, kind: str, **members: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **members}))

    async def hear(self, kind: str, within_s: float = 20) -> Frame:
        """Wait for a frame of that type; others are kept until they are asked for."""
        async with asyncio.timeout(within_s):
            while True:
                for place, frame in enumerate(self._kept):
                    if frame["type"] == kind:
                        return self._kept.pop(place)
                self._kept.append(await self._next())

    async def _next(self) -> Frame:
        frame: Frame = json.loads(await self.socket.recv())
        self.frames.append(frame)
        return frame

    async def _drain(self) -> None:
        while True:
            await self._next()

    async def numbers(self, until: int) -> list[int]:
        """Take messages until that number; return all the numbers that came."""
        came: list[int] = []
        while not came or came[-1] < until:
            came.append((await self.hear("told"))["seq"])
        return came

    async def closed(self, within_s: float = 20) -> tuple[int, str]:
        """Take what comes until the server closes; return its code and reason."""
        async with asyncio.timeout(within_s):
            with pytest.raises(ConnectionClosed) as ended:
                await self._drain()
        assert ended.value.rcvd is not None
        return ended.value.rcvd.code, ended.value.rcvd.reason


@asynccontextmanager
async def client(
    address: str, token: str | None = ANN, *channels: str, **more: Any
) -> AsyncGenerator[Client]:
    async with connect(address, **more) as socket:
        made = Client(socket)
        if token is not None:
            await made.say("auth", token=token)
            await made.hear("authenticated")
        for channel in channels:
            await made.say("subscribe", channel=channel)
            await made.hear("subscribed")
        yield made


async def tell(database: Database, channel: str, count: int = 1, **data: Any) -> int:
    """Publish, one transaction each; return the last number."""
    number = 0
    for _ in range(count):
        async with database.transaction() as session:
            number = await publish(session, channel, "told", data)
    return number


async def test_a_client_is_told_in_order_and_only_what_was_committed(
    database: Database, database_url: str
) -> None:
    async with live_server(database_url) as (address, _), client(address, "ann:60", "a") as ann:
        async with database.transaction() as session:
            assert await publish(session, "a", "told", {"n": 1}) == 1
            assert await publish(session, "a", "told", {"n": 2}) == 2
        with pytest.raises(RuntimeError, match="rolled back"):  # noqa: PT012
            async with database.transaction() as session:
                await publish(session, "a", "told", {"n": "never"})
                raise RuntimeError("rolled back")
        await tell(database, "other")
        await tell(database, "a", n=3)
        assert await ann.numbers(3) == [1, 2, 3]
        told = [frame for frame in ann.frames if frame["type"] == "told"]
        assert [frame["data"]["n"] for frame in told] == [1, 2, 3]
        assert told[0]["channel"] == "a"
        assert told[0]["ts"].endswith("Z")


async def test_numbers_have_no_gaps_whoever_publishes_and_whoever_fails(
    database: Database, database_url: str
) -> None:
    async def publisher(fails: bool) -> None:
        for _ in range(10):
            try:
                async with database.transaction() as session:
                    await publish_all(session, [("b", "told", {}), ("a", "told", {})])
                    if fails:
                        raise Bug("rolled back")
            except Bug:
                pass

    async with live_server(database_url) as (address, _), client(address, "ann:60", "a") as ann:
        await asyncio.gather(*(publisher(number % 2 == 1) for number in range(8)))
        assert await ann.numbers(40) == list(range(1, 41))


async def test_a_lost_connection_is_resumed_where_it_was(
    database: Database, database_url: str
) -> None:
    async with live_server(database_url) as (address, _):
        async with client(address, "ann:60", "a") as ann:
            await tell(database, "a", 3)
            assert await ann.numbers(3) == [1, 2, 3]
        await tell(database, "a", 300)
        async with client(address) as ann:
            await ann.say("subscribe", channel="a", since=3)
            await tell(database, "a", 5)
            assert await ann.numbers(308) == list(range(4, 309))
            assert not [frame for frame in ann.frames if frame["type"] == "gap"]


async def test_what_is_gone_is_said(database: Database, database_url: str) -> None:
    async with database.transaction() as session:
        for _ in range(20):
            await publish(session, "a", "told", {}, keep=5)
    async with live_server(database_url) as (address, _), client(address) as ann:
        await ann.say("subscribe", channel="a", since=3)
        assert await ann.numbers(20) == [16, 17, 18, 19, 20]
        gap = await ann.hear("gap")
        assert (gap["from"], gap["to"]) == (4, 15)
        assert [f["type"] for f in ann.frames[-6:]] == ["gap"] + ["told"] * 5
        async with database.transaction() as session:
            assert await trim(session, 0) == 5
        await ann.say("subscribe", channel="a", since=19)
        gap = await ann.hear("gap")
        assert (gap["from"], gap["to"]) == (20, 20)
        await ann.say("subscribe", channel="a", since=10_000)
        gap = await ann.hear("gap")
        assert (gap["from"], gap["to"]) == (1, 20)
        assert await tell(database, "a") == 21
        assert await ann.numbers(21) == [21]


async def test_two_processes_tell_the_same_and_one_is_killed(
    database: Database, database_url: str
) -> None:
    processes = [await start(database_url) for _ in range(2)]
    try:
        (first, near), (_, far) = processes
        async with client(near, "ann:60", "a") as ann, client(far, "bob:60", "a") as bob:
            await tell(database, "a", 10)
            assert await ann.numbers(10) == list(range(1, 11))
            first.kill()
            with pytest.raises(ConnectionClosed):
                await ann.hear("told")
            await tell(database, "a", 10)
            async with client(far) as again:
                await again.say("subscribe", channel="a", since=10)
                assert await again.numbers(20) == list(range(11, 21))
            assert await bob.numbers(20) == list(range(1, 21))
    finally:
        for process, _ in processes:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def start(url: str) -> tuple[Process, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.live_server", url, stdout=PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(60):
        return process, (await process.stdout.readline()).decode().strip()


# A quick machine may have sent everything before anybody is a second behind.
@pytest.mark.long
async def test_a_slow_client_is_told_and_dropped_and_holds_nobody_up(
    database: Database, database_url: str
) -> None:
    limits = Limits(stalled_s=1.0, closing_s=30)
    async with (
        live_server(database_url, limits) as (address, _),
        client(address, "ann:60", "a") as ann,
        client(address, "bob:60", "a", max_queue=1, compression=None) as bob,
    ):
        loop = asyncio.get_running_loop()
        worst = 0.0
        # More than all buffers between us hold; bob reads nothing of it.
        for number in range(1, 201):
            await tell(database, "a", text="x" * 100_000)
            published = loop.time()
            await ann.numbers(number)
            worst = max(worst, loop.time() - published)
        assert worst < 1.0
        code, reason = await bob.closed(90)
        assert (code, "resume" in reason) == (1013, True)
        had = [frame["seq"] for frame in bob.frames if frame["type"] == "told"]
        assert had == list(range(1, len(had) + 1))
        assert len(had) < 200
        async with client(address, "bob:60") as again:
            await again.say("subscribe", channel="a", since=len(had))
            assert await again.numbers(200) == list(range(len(had) + 1, 201))


@pytest.mark.parametrize("ending", ["", "?pgbouncer=true"])
async def test_lost_hints_cost_a_moment_never_a_message(
    database: Database, database_url: str, ending: str
) -> None:
    """Without LISTEN, and with one whose connection is cut."""
    url = make_url(database_url)
    if ending:
        url = url.update_query_dict({"pgbouncer": "true"})
    shown = url.render_as_string(hide_password=False)
    async with live_server(shown) as (address, _), client(address, "ann:60", "a") as ann:
        for number in range(1, 4):
            async with database.transaction() as session:
                await session.execute(
                    text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE query LIKE 'LISTEN%' AND datname = current_database()"
                    )
                )
            await tell(database, "a")
            assert await ann.numbers(number) == [number]


async def test_a_database_that_goes_away_ends_no_channel(postgres_server: PostgresServer) -> None:
    url = postgres_server.create(
        "live", await asyncio.to_thread(migrated_template, postgres_server)
    )
    database = Database(url)
    async with live_server(url) as (address, _), client(address, "ann:60", "a") as ann:
        await tell(database, "a")
        await ann.numbers(1)
        await asyncio.to_thread(postgres_server.stop)
        await ann.say("subscribe", channel="b")
        assert (await ann.closed())[0] == 1012
        async with client(address) as bob:
            await asyncio.to_thread(postgres_server.start)
            await bob.say("subscribe", channel="a", since=0)
            assert await bob.numbers(1) == [1]
            await database.close()
            await tell(database, "a")
            assert await bob.numbers(2) == [2]
    await database.close()


async def test_who_does_not_say_who_they_are_is_closed(database_url: str) -> None:
    async with live_server(database_url, Limits(auth_s=0.5)) as (address, _):
        async with client(address, None) as nobody:
            await nobody.say("subscribe", channel="a")
            assert (await nobody.hear("error"))["code"] == "UNAUTHORIZED"
            assert await nobody.closed() == (4401, "MISSING_TOKEN")
        async with client(address, None) as liar:
            await liar.say("auth", token="nonsense")
            assert await liar.closed() == (4401, "BAD_SIGNATURE")


async def test_a_token_that_ends_is_announced_and_renewed_or_the_end(database_url: str) -> None:
    limits = Limits(warning_s=1.5)
    async with live_server(database_url, limits) as (address, _):
        async with client(address, "ann:2", "a") as ann:
            await ann.hear("auth_expiring")
            await ann.say("auth", token="ann:3600")
            await ann.hear("authenticated")
            await asyncio.wait_for(client_left_alone(ann), 2.5)
            await ann.say("auth", token="bob:3600")
            assert (await ann.closed())[0] == 4403
        async with client(address, "ann:1", "a") as ann:
            assert await ann.closed() == (4401, "EXPIRED")
    async with live_server(database_url, replace(limits, expired_s=None)) as (address, _):
        async with client(address, "ann:0.5", "a") as ann:
            await ann.hear("auth_expiring")
            await client_left_alone(ann)


async def client_left_alone(ann: Client) -> None:
    """The server still answers when the first token would have ended."""
    loop = asyncio.get_running_loop()
    until = loop.time() + 1.5
    while loop.time() < until:
        await ann.say("ping")
        await ann.hear("pong")
        await asyncio.sleep(0.1)


async def test_a_ticket_opens_one_connection_once(database: Database, database_url: str) -> None:
    async with database.transaction() as session:
        good = await tickets.issue(session, Viewer("boss", claims={"sub": "boss"}))
        late = await tickets.issue(session, Viewer("boss"), lifetime_s=-1)
        kept = await session.execute(text("SELECT * FROM causeway.live_tickets"))
        assert good not in str(kept.all())

    def words(ticket: str) -> Any:
        return ["causeway.v1", f"ticket.{ticket}"]

    async with live_server(database_url) as (address, _):
        async with client(address, None, "secret:1", subprotocols=words(good)) as boss:
            assert boss.socket.subprotocol == "causeway.v1"
        for ticket in (good, late, "invented"):
            async with client(address, None, subprotocols=words(ticket)) as nobody:
                assert await nobody.closed() == (4401, "BAD_TICKET")


async def test_nobody_follows_what_is_not_for_them(database: Database, database_url: str) -> None:
    async with live_server(database_url) as (address, _), client(address, "ann:60", "a") as ann:
        await ann.say("subscribe", channel="secret:1")
        assert (await ann.hear("error"))["code"] == "NOT_ALLOWED"
        await tell(database, "secret:1")
        await tell(database, "a")
        await ann.numbers(1)
        assert {frame.get("channel") for frame in ann.frames if "seq" in frame} == {"a"}
        async with database.transaction() as session:
            await session.execute(
                text("CREATE TABLE public.live_test_denied AS SELECT 'a' channel")
            )
            await recheck(session, "a")
        assert (await ann.closed(5))[0] == 4403


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("nonsense", "BAD_FRAME"),
        ("[]", "BAD_FRAME"),
        ("{}", "UNKNOWN_TYPE"),
        ('{"type":"subscribe"}', "BAD_CHANNEL"),
        ('{"type":"subscribe","channel":"a b"}', "BAD_CHANNEL"),
        ('{"type":"subscribe","channel":"a","since":"1"}', "BAD_SINCE"),
        ('{"type":"subscribe","channel":"a","since":true}', "BAD_SINCE"),
    ],
)
async def test_a_bad_frame_is_named_and_the_connection_kept(
    database_url: str, frame: str, code: str
) -> None:
    async with live_server(database_url) as (address, _), client(address) as ann:
        await ann.socket.send(frame)
        assert (await ann.hear("error"))["code"] == code
        await ann.say("ping")
        await ann.hear("pong")


async def test_frames_are_text(database_url: str) -> None:
    async with live_server(database_url) as (address, _), client(address) as ann:
        await ann.socket.send(b"{}")
        assert (await ann.closed())[0] == 1003


async def test_a_client_has_limits(database_url: str) -> None:
    limits = Limits(connections_per_person=2, channels=3, frames_per_s=20)
    async with live_server(database_url, limits) as (address, hub):
        async with client(address, "ann:60", "a", "b", "c") as ann, client(address):
            await ann.say("subscribe", channel="d")
            assert (await ann.hear("error"))["code"] == "TOO_MANY"
            async with client(address, "bob:60"), client(address, None) as third:
                await third.say("auth", token="ann:60")
                assert (await third.closed())[0] == 4429
            await ann.socket.send("x" * 65_537)
            assert (await ann.closed())[0] == 4413
        async with client(address) as ann:
            for _ in range(30):
                await ann.say("ping")
            assert (await ann.closed())[0] == 4429
        async with asyncio.timeout(10):
            while hub.connections:
                await asyncio.sleep(0.01)


async def test_a_stop_says_so_and_the_client_comes_back(
    database: Database, database_url: str
) -> None:
    async with live_server(database_url) as (address, hub), client(address, "a:9", "a") as ann:
        hub.stop()
        assert (await ann.closed())[0] == 1012


async def test_a_person_s_own_transaction_may_be_allowed_to_publish(
    database: Database, shared_server: PostgresServer
) -> None:
    requests = Database(shared_server.requests_url(str(database.url.database)))
    people = RowSecurity(requests)
    person = claims_of(UUID("0197a2b0-0000-7000-8000-000000000001"))
    with pytest.raises(ProgrammingError, match="permission denied"):
        async with people.transaction(person) as session:
            await publish(session, "a", "told", {})
    async with database.transaction() as session:
        for statement in allow_publishing("authenticated"):
            await session.execute(text(statement))
    async with people.transaction(person) as session:
        assert await publish(session, "a", "told", {}) == 1
    with pytest.raises(ProgrammingError, match="permission denied"):
        async with people.transaction(person) as session:
            await session.execute(text("SELECT * FROM causeway.live_messages"))
    await requests.close()


async def test_a_channel_has_a_name(database: Database) -> None:
    for name in ("", "a b", "?a", "a" * 201, "a\n"):
        with pytest.raises(Bug, match="no name of a channel"):
            await tell(database, name)
