"""The one client: limits kept, what may be is repeated, what is unchanged is not sent again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from fastapi import FastAPI, Request, Response
from prometheus_client import REGISTRY
from pydantic import SecretStr
from uvicorn import Config, Server

from causeway.base.errors import (
    ConfigurationError,
    PermanentError,
    ProviderUnavailable,
    RateLimited,
    TransientError,
)
from causeway.connections.client import Manner, ProviderClient
from causeway.connections.credential import Credential
from causeway.connections.errors import CredentialRefused, NoData
from causeway.connections.limits import Rate
from tests.connections import HandClock

ALICE = Credential("other", "oauth", SecretStr("alice-s-token"))
BOB = Credential("other", "oauth", SecretStr("bob-s-token"))


@dataclass
class Other:
    """A provider of which a test says what it answers, in order; the last answer for ever."""

    clock: HandClock
    url: str = ""
    answers: list[Response] = field(default_factory=list[Response])
    asked: list[Request] = field(default_factory=list[Request])
    under_way: int = 0
    most_under_way: int = 0
    delay_s: float = 0

    async def answer(self, request: Request) -> Response:
        self.asked.append(request)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(self.delay_s)
        self.under_way -= 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def client(self, manner: Manner | None = None) -> ProviderClient:
        return ProviderClient("other", self.url, manner=manner, clock=self.clock)


@pytest.fixture(name="other")
async def _other() -> AsyncIterator[Other]:
    async with _serving() as other:
        yield other


@asynccontextmanager
async def _serving() -> AsyncGenerator[Other]:
    other = Other(HandClock())
    app = FastAPI()
    app.add_api_route("/{path:path}", other.answer, methods=["GET", "POST"], response_model=None)
    server = Server(Config(app, port=0, log_config=None, lifespan="off"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    other.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield other
    finally:
        server.should_exit = True
        await serving


def calls(outcome: str) -> float:
    labels = {"provider": "other", "operation": "read", "outcome": outcome}
    return REGISTRY.get_sample_value("causeway_connection_calls_total", labels) or 0.0


@pytest.mark.parametrize(
    ("answer", "error", "outcome"),
    [
        (Response(b"{}"), None, "ok"),
        (Response(status_code=404), NoData, "no_data"),
        (Response(status_code=401), CredentialRefused, "refused"),
        (Response(status_code=403), CredentialRefused, "refused"),
        (Response(status_code=429), RateLimited, "limited"),
        (Response(status_code=500), ProviderUnavailable, "unavailable"),
        (Response(status_code=302, headers={"Location": "http://10.0.0.1/x"}),
         ProviderUnavailable, "unavailable"),
        (Response(status_code=304), None, "ok"),
        (Response(status_code=418), PermanentError, "failed"),
        (Response(bytes(5_000_000)), ProviderUnavailable, "unavailable"),
    ],
)  # fmt: skip
async def test_every_call_is_in_the_metrics(
    other: Other, answer: Response, error: type[Exception] | None, outcome: str
) -> None:
    other.answers = [answer]
    client = other.client(Manner(tries=1))
    before = calls(outcome)
    if error is None:
        await client.request("read", "GET", "/x", credential=ALICE)
    else:
        with pytest.raises(error) as raised:
            await client.request("read", "GET", "/x", credential=ALICE)
        assert type(raised.value) is error
    assert calls(outcome) == before + 1
    assert len(other.asked) == 1
    await client.aclose()


async def test_refusals_without_a_person_are_ours_to_mend(other: Other) -> None:
    other.answers = [Response(status_code=401), Response(status_code=402)]
    client = other.client(Manner(tries=1))
    with pytest.raises(ConfigurationError, match="our own credentials"):
        await client.request("read", "GET", "/x")
    with pytest.raises(ProviderUnavailable, match="used up"):
        await client.request("read", "GET", "/x")
    await client.aclose()


async def test_what_may_be_repeated_is_and_nothing_else(other: Other) -> None:
    away = Response(status_code=503)
    for method, repeatable, times in (
        ("GET", None, 3), ("POST", None, 1), ("POST", True, 3), ("GET", False, 1)
    ):  # fmt: skip
        other.answers, other.asked, other.clock.slept = [away], [], []
        client = other.client()
        with pytest.raises(ProviderUnavailable):
            await client.request("read", method, "/x", json={}, repeatable=repeatable)
        assert len(other.asked) == times
        assert len(other.clock.slept) == times - 1
        assert all(0 < pause <= 1 for pause in other.clock.slept)
        await client.aclose()
    other.answers = [away, away, Response(b'"here"')]
    client = other.client()
    assert (await client.request("read", "GET", "/x")).json() == "here"
    await client.aclose()


async def test_a_short_wait_is_waited_and_a_long_one_is_the_caller_s(other: Other) -> None:
    later = Response(status_code=429, headers={"Retry-After": "3"})
    other.answers = [later, Response(b"1")]
    client = other.client()
    assert (await client.request("read", "GET", "/x", credential=ALICE)).json() == 1
    assert sum(other.clock.slept) == pytest.approx(3)

    other.answers, other.asked = [Response(status_code=429, headers={"Retry-After": "90"})], []
    for _ in range(3):
        with pytest.raises(RateLimited) as limited:
            await client.request("read", "GET", "/y", credential=ALICE)
        assert limited.value.retry_after_s == pytest.approx(90)
    # The second and the third were never sent: the provider had said so.
    assert len(other.asked) == 1
    other.answers = [Response(b"2")]
    assert (await client.request("read", "GET", "/y", credential=BOB)).json() == 2
    other.clock.move(90)
    assert (await client.request("read", "GET", "/y", credential=ALICE)).json() == 2
    await client.aclose()


async def test_a_refusal_that_names_no_time_pauses_for_the_provider_s_usual(other: Other) -> None:
    other.answers = [Response(status_code=429)]
    client = other.client(Manner(pause_s=45))
    with pytest.raises(RateLimited) as limited:
        await client.request("read", "GET", "/x")
    assert limited.value.retry_after_s == 45
    assert len(other.asked) == 1
    await client.aclose()


async def test_headers_of_a_used_up_limit_hold_the_next_call_back(other: Other) -> None:
    reset = str(int(other.clock.now().timestamp()) + 2)
    spent = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": reset}
    other.answers = [Response(b"1", headers=spent), Response(b"2")]
    client = other.client()
    await client.request("read", "GET", "/x", credential=ALICE)
    await client.request("read", "GET", "/x", credential=ALICE)
    assert sum(other.clock.slept) == pytest.approx(2)
    await client.aclose()


async def test_a_documented_rate_is_kept_for_each_person(other: Other) -> None:
    other.answers = [Response(b"1")]
    client = other.client(Manner(rate=Rate(2, 60), wait_s=0))
    for credential in (ALICE, BOB):
        for _ in range(2):
            await client.request("read", "GET", "/x", credential=credential)
        with pytest.raises(RateLimited) as limited:
            await client.request("read", "GET", "/x", credential=credential)
        assert limited.value.retry_after_s == pytest.approx(60)
    assert len(other.asked) == 4
    await client.aclose()


async def test_a_provider_in_trouble_is_left_alone_by_everybody(other: Other) -> None:
    other.answers = [Response(status_code=503, headers={"Retry-After": "99999"})]
    client = other.client()
    for credential in (ALICE, BOB, None):
        with pytest.raises(TransientError):
            await client.request("read", "GET", "/x", credential=credential)
    assert len(other.asked) == 1
    # But not for as long as a mistaken header says.
    other.answers = [Response(b"1")]
    other.clock.move(601)
    await client.request("read", "GET", "/x", credential=BOB)
    await client.aclose()


async def test_what_has_not_changed_is_not_sent_again(other: Other) -> None:
    other.answers = [Response(b"[1]", headers={"ETag": '"one"', "Cache-Control": "max-age=60"})]
    client = other.client()

    async def read(credential: Credential | None = ALICE) -> object:
        return (await client.request("read", "GET", "/x", credential=credential)).json()

    cached, unchanged = calls("cached"), calls("not_modified")
    assert [await read(), await read()] == [[1], [1]]
    assert (len(other.asked), calls("cached")) == (1, cached + 1)

    other.clock.move(61)
    other.answers = [Response(status_code=304, headers={"Cache-Control": "max-age=60"})]
    assert [await read(), await read()] == [[1], [1]]
    assert len(other.asked) == 2
    assert other.asked[1].headers["if-none-match"] == '"one"'
    assert calls("not_modified") == unchanged + 1

    other.clock.move(61)
    other.answers = [Response(b"[2]", headers={"ETag": '"two"'})]
    assert await read() == [2]
    # Nobody is shown what another was answered, nor what an earlier account was.
    again = Credential("other", "oauth", ALICE.token, id=ALICE.id, version=1)
    for credential in (BOB, None, again):
        other.asked = []
        assert await read(credential) == [2]
        assert "if-none-match" not in other.asked[0].headers
    await client.aclose()


@pytest.mark.parametrize(
    "headers",
    [{"Cache-Control": "no-store", "ETag": '"x"'}, {"Cache-Control": "private"}, {}],
)
async def test_what_must_not_be_kept_is_not(other: Other, headers: dict[str, str]) -> None:
    other.answers = [Response(b"1", headers=headers)]
    client = other.client()
    for _ in range(2):
        await client.request("read", "GET", "/x", credential=ALICE)
    assert len(other.asked) == 2
    assert "if-none-match" not in other.asked[1].headers
    await client.aclose()


async def test_the_cache_has_a_size(other: Other) -> None:
    other.answers = [Response(bytes(40_000), headers={"Cache-Control": "max-age=600"})]
    client = other.client(Manner(cache_bytes=100_000))
    for path in ("/1", "/2", "/3", "/3", "/2", "/1"):
        await client.request("read", "GET", path, credential=ALICE)
    assert [r.url.path for r in other.asked] == ["/1", "/2", "/3", "/1"]
    await client.aclose()


async def test_no_more_at_once_than_the_provider_bears(other: Other) -> None:
    other.answers, other.delay_s = [Response(b"1")], 0.02
    client = other.client(Manner(concurrent=3))
    await asyncio.gather(*[client.request("read", "GET", f"/{n}") for n in range(20)])
    assert other.most_under_way == 3
    await client.aclose()


async def test_an_answer_that_does_not_come_is_given_up(other: Other) -> None:
    other.answers, other.delay_s = [Response(b"1")], 0.5
    client = other.client(Manner(timeout_s=0.05, tries=2))
    with pytest.raises(ProviderUnavailable, match="did not answer"):
        await client.request("read", "GET", "/x")
    assert len(other.asked) == 2
    await client.aclose()
