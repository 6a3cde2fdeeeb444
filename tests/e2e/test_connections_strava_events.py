"""Strava's events: the check of our address, each event once, whatever order they come in."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx2
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from causeway.base.errors import (
    ConfigurationError,
    Conflict,
    InvalidInput,
    NotAllowed,
    PermanentError,
)
from causeway.connections import strava_events
from causeway.connections.errors import CredentialRefused, NoData
from causeway.connections.strava_events import Event, answer_challenge, parse, standing
from causeway.sandbox.strava_activities import athlete_id
from causeway.store.engine import Database
from tests.strava import ANNA, GPX, Runners, runners

TOKEN = SecretStr("verify-token-of-ours")
EVENT: dict[str, Any] = {
    "object_type": "activity",
    "object_id": 17_000_000_001,
    "aspect_type": "update",
    "updates": {"title": "Dawn"},
    "owner_id": 134815,
    "subscription_id": 120475,
    "event_time": 1516126040,
}


@dataclass
class Listener:
    """An address of ours, as an app would serve it."""

    database: Database
    url: str = ""
    subscription_id: int | None = None
    #: Requests that are answered with 500 before any is taken.
    failures: int = 0
    #: Whether the challenge is not answered at all.
    is_silent: bool = False
    heard: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    new: list[bool] = field(default_factory=list[bool])

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, target, _ = head.split(" ", 2)
        if method == "GET":
            if self.is_silent:
                await reader.read()  # until the other side has had enough
            status, body = self._challenged(dict(httpx2.URL(target).params))
        else:
            length = next(
                int(line.split(":")[1])
                for line in head.splitlines()
                if line.lower().startswith("content-length")
            )
            status, body = await self._told(await reader.readexactly(length))
        writer.write(
            f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n".encode()
            + b"connection: close\r\n\r\n"
            + body
        )
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    def _challenged(self, query: dict[str, str]) -> tuple[int, bytes]:
        try:
            return 200, orjson.dumps(answer_challenge(query, TOKEN))
        except NotAllowed:
            return 403, b""

    async def _told(self, body: bytes) -> tuple[int, bytes]:
        self.heard.append(orjson.loads(body))
        if self.failures:
            self.failures -= 1
            return 500, b""
        event = parse(body, self.subscription_id)
        async with self.database.transaction() as session:
            self.new.append(await strava_events.keep(session, event))
        return 200, b""


@asynccontextmanager
async def listening(database: Database) -> AsyncGenerator[Listener]:
    listener = Listener(database)
    server = await asyncio.start_server(listener.serve, "127.0.0.1", 0)
    listener.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/strava/webhook/s3cret"
    try:
        yield listener
    finally:
        server.close()
        await server.wait_closed()


@pytest.fixture(name="w")
async def _runners(database: Database) -> AsyncIterator[Runners]:
    async with runners(database) as opened:
        yield opened


@pytest.fixture
async def listener(database: Database) -> AsyncIterator[Listener]:
    async with listening(database) as opened:
        yield opened


# Subscriptions


async def test_a_subscription_from_its_beginning_to_its_end(w: Runners, listener: Listener) -> None:
    assert await w.strava.subscriptions() == []
    number = await w.strava.subscribe(listener.url, TOKEN)
    (only,) = await w.strava.subscriptions()
    assert (only.id, only.callback_url) == (number, listener.url)
    with pytest.raises(Conflict):
        await w.strava.subscribe(listener.url, TOKEN)
    with pytest.raises(NoData):
        await w.strava.unsubscribe(number + 1)
    await w.strava.unsubscribe(number)
    assert await w.strava.subscriptions() == []


async def test_an_address_that_does_not_answer_the_challenge(
    w: Runners, listener: Listener
) -> None:
    with pytest.raises(PermanentError, match="does not return 200"):
        await w.strava.subscribe(listener.url, SecretStr("another"))
    with pytest.raises(PermanentError, match="not verifiable"):
        await w.strava.subscribe("http://127.0.0.1:1/nobody", TOKEN)
    w.sandbox.settings.strava_callback_s = 0.05
    listener.is_silent = True
    with pytest.raises(PermanentError, match="not verifiable"):
        await w.strava.subscribe(listener.url, TOKEN)
    with pytest.raises(InvalidInput, match="255"):
        await w.strava.subscribe("https://wisp.example/" + "x" * 240, TOKEN)
    assert await w.strava.subscriptions() == []


async def test_a_wrong_secret_is_ours_to_repair(w: Runners, listener: Listener) -> None:
    w.sandbox.settings.strava_client_secret = "another"
    for ask in (w.strava.subscriptions(), w.strava.subscribe(listener.url, TOKEN)):
        with pytest.raises(ConfigurationError) as wrong:
            await ask
        assert "sandbox-strava-secret" not in str(wrong.value)


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ({"hub.mode": "subscribe", "hub.challenge": "c", "hub.verify_token": "no"}, NotAllowed),
        ({"hub.mode": "subscribe", "hub.challenge": "c"}, NotAllowed),
        ({"hub.challenge": "c", "hub.verify_token": TOKEN.get_secret_value()}, InvalidInput),
        ({"hub.mode": "subscribe", "hub.verify_token": TOKEN.get_secret_value()}, InvalidInput),
    ],
)
def test_a_challenge_that_is_not_answered(query: dict[str, str], error: type[Exception]) -> None:
    with pytest.raises(error):
        answer_challenge(query, TOKEN)


def test_without_a_token_of_ours_no_challenge_is_answered() -> None:
    query = {"hub.mode": "subscribe", "hub.challenge": "c", "hub.verify_token": ""}
    with pytest.raises(NotAllowed):
        answer_challenge(query, SecretStr(""))


# Events


async def test_events_come_and_each_counts_once(w: Runners, listener: Listener) -> None:
    listener.subscription_id = await w.strava.subscribe(listener.url, TOKEN)
    anna = await w.credential()
    upload = await w.strava.upload(anna, GPX, "gpx", external_id="wisp-7")
    number = await w.strava.uploaded(anna, upload)
    await w.sandbox.strava.events.delivered()
    listener.failures = 1  # told again, because the first time went wrong
    await w.strava.update(anna, number, name="Dusk")
    await w.sandbox.strava.events.delivered()
    w.sandbox.strava.events.send(
        times=3,
        object_type="activity",
        object_id=number,
        aspect_type="delete",
        owner_id=athlete_id("anna"),
    )
    await w.sandbox.strava.events.delivered()
    assert len(listener.heard) == 6
    assert sorted(listener.new) == [False, False, True, True, True]
    async with w.vault.database.transaction() as session:
        events = await strava_events.undone(session)
        assert [e.aspect_type for e in events] == ["create", "update", "delete"]
        assert events[1].updates == {"title": "Dusk"}
        await strava_events.done(session, events[0])
    async with w.vault.database.transaction() as session:
        assert await strava_events.undone(session) == events[1:]
        # Done is done: told once more, it is not undone again.
        assert not await strava_events.keep(session, events[0])
        assert await strava_events.undone(session) == events[1:]


async def test_two_workers_take_different_events(database: Database) -> None:
    async with database.transaction() as session:
        for n in range(4):
            event = Event.model_validate({**EVENT, "event_time": n})
            assert await strava_events.keep(session, event)
    async with database.transaction() as one, database.transaction() as other:
        first = await strava_events.undone(one, 3)
        second = await strava_events.undone(other, 3)
    assert (len(first), len(second)) == (3, 1)
    assert not {e.key for e in first} & {e.key for e in second}


async def test_who_takes_back_is_told_of_and_it_is_true_only_when_the_token_is_dead(
    w: Runners, listener: Listener
) -> None:
    listener.subscription_id = await w.strava.subscribe(listener.url, TOKEN)
    await w.connect()
    lie = parse(
        orjson.dumps(
            {
                **EVENT,
                "object_type": "athlete",
                "object_id": athlete_id("anna"),
                "subscription_id": listener.subscription_id,
                "updates": {"authorized": "false"},
            }
        ),
        listener.subscription_id,
    )
    assert lie.says_deauthorized
    assert (await w.connections.call("strava", ANNA, w.strava.account)).id
    w.sandbox.strava.deauthorize("anna")
    await w.sandbox.strava.events.delivered()
    async with w.vault.database.transaction() as session:
        (told,) = await strava_events.undone(session)
    assert told.says_deauthorized
    assert told.owner_id == athlete_id("anna")
    with pytest.raises(CredentialRefused):
        await w.connections.call("strava", ANNA, w.strava.account)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"subscription_id": 1}, NotAllowed),
        ({"object_type": "segment"}, InvalidInput),
        ({"aspect_type": "share"}, InvalidInput),
        ({"object_id": -1}, InvalidInput),
        ({"object_id": 2**63}, InvalidInput),
        ({"event_time": "soon"}, InvalidInput),
        ({"updates": {"title": "\0"}}, InvalidInput),
        ({"updates": "none"}, InvalidInput),
        ({"updates": {"title": "x" * 20_000}}, InvalidInput),
    ],
)
def test_what_is_no_event_of_ours(change: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        parse(orjson.dumps({**EVENT, **change}), 120475)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b'{"a":', b"\xff", b'{"updates":{"a":1e999}}']
)
def test_what_is_no_event_at_all(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        parse(body, 120475)


def test_without_a_subscription_nothing_is_an_event() -> None:
    with pytest.raises(NotAllowed):
        parse(orjson.dumps(EVENT), None)


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(repr).map(str.encode)
)
def test_no_body_is_an_error_of_ours(body: bytes) -> None:
    with pytest.raises((InvalidInput, NotAllowed)):
        parse(body, 120475)


def test_what_makes_two_deliveries_the_same_event() -> None:
    event = Event.model_validate(EVENT)
    # The order of members and what Strava may add are no difference; whose it is follows from it.
    same = {**dict(reversed(EVENT.items())), "new": 1, "owner_id": 5}
    assert Event.model_validate(same).key == event.key
    both = {"title": "a", "private": "true"}
    turned = Event.model_validate({**EVENT, "updates": both}).key
    assert turned == Event.model_validate({**EVENT, "updates": dict(reversed(both.items()))}).key
    different: list[dict[str, Any]] = [
        {"subscription_id": 2},
        {"object_type": "athlete"},
        {"object_id": 2},
        {"aspect_type": "create"},
        {"event_time": 2},
        {"updates": {"title": "Dusk"}},
    ]
    keys = {Event.model_validate({**EVENT, **change}).key for change in different}
    assert len(keys | {event.key}) == len(different) + 1


def test_a_late_create_does_not_bring_back_what_was_deleted() -> None:
    at: list[dict[str, Any]] = [
        {"aspect_type": "create", "event_time": 1, "updates": {}},
        {"aspect_type": "update", "event_time": 2, "updates": {"title": "a"}},
        {"aspect_type": "update", "event_time": 3, "updates": {"title": "b", "type": "Run"}},
        {"aspect_type": "delete", "event_time": 4, "updates": {}},
        {"aspect_type": "update", "event_time": 5, "updates": {}},
    ]
    events = [Event.model_validate({**EVENT, **change}) for change in at]
    for order in itertools.permutations([*events, events[0]]):
        (one,) = standing(order).values()
        assert one.deleted
        assert one.updates == {"title": "b", "type": "Run"}
    assert not standing(events[:3])[EVENT["object_id"]].deleted


def test_what_was_hidden_and_is_shown_again_is_there() -> None:
    told = ((1, "create"), (2, "delete"), (3, "create"))
    events = [
        Event.model_validate({**EVENT, "event_time": at, "aspect_type": aspect, "updates": {}})
        for at, aspect in told
    ]
    for order in itertools.permutations(events):
        assert not standing(order)[EVENT["object_id"]].deleted
    assert standing(events[:2])[EVENT["object_id"]].deleted
