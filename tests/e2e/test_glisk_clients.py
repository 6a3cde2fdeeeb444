"""The clients of other services against stand-ins that speak their wire, errors included."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from pydantic import SecretStr

from causeway.apps.glisk.generators import (
    ContentRefused,
    Finished,
    GenerationLost,
    GenerationRequest,
    Generators,
    Started,
)
from causeway.apps.glisk.generators.builtin import BuiltinGenerator
from causeway.apps.glisk.generators.protocol import ImageSource
from causeway.apps.glisk.generators.replicate import ReplicateGenerator
from causeway.apps.glisk.generators.selfhosted import Automatic1111Generator, CogGenerator
from causeway.apps.glisk.pinning import CidMismatch
from causeway.apps.glisk.pinning.kubo import KuboPinner
from causeway.apps.glisk.pinning.pinata import PinataPinner
from causeway.apps.glisk.settings import GliskSettings
from causeway.base.errors import (
    ConfigurationError,
    PermanentError,
    ProviderUnavailable,
    RateLimited,
)
from causeway.base.fetch import Gone, Refused, fetch_public, is_public
from causeway.base.http import HttpClient, retry_after_s
from causeway.sandbox.models import MODELS
from causeway.sandbox.server import SandboxServer
from causeway.sandbox.settings import SandboxSettings

REQUEST = GenerationRequest(prompt="Neon koi", seed=7, token_id=1)
HERE = ImageSource(("127.0.0.1",), allow_insecure=True)
KEYS = {"season": "0"}


@pytest_asyncio.fixture
async def sandbox() -> AsyncGenerator[SandboxServer]:
    """The stand-ins; a prediction is over at once, or its picture could be taken before its end."""
    settings = SandboxSettings(latency_s=0, picture_px=64)
    async with SandboxServer.start(settings=settings) as server:
        yield server


def replicate(sandbox: SandboxServer, **changes: Any) -> ReplicateGenerator:
    """Return a Replicate client."""
    options: dict[str, Any] = {
        "token": SandboxSettings().replicate_token,
        "base_url": sandbox.replicate_url,
        "model": "black-forest-labs/flux-schnell",
        "images": HERE,
        **changes,
    }
    return ReplicateGenerator(**options)


async def made(generator: ReplicateGenerator) -> Finished:
    """Have a picture made from beginning to end."""
    started = await generator.start(REQUEST)
    assert isinstance(started, Started)
    return await generator.wait(started.external_id)


@pytest.mark.parametrize(
    "model",
    [
        "black-forest-labs/flux-schnell",
        MODELS["black-forest-labs/flux-schnell"].version,
        "sandbox/prompt-only",
        "sandbox/data-uri",
    ],
)
async def test_replicate_makes_pictures_whatever_the_model_takes(
    sandbox: SandboxServer, model: str
) -> None:
    generator = replicate(sandbox, model=model)
    finished = await made(generator)
    assert finished.facts.mime in ("image/png", "image/webp")
    assert finished.predict_time_s is not None
    await generator.aclose()


async def test_an_answer_that_was_lost_is_found_by_prompt_and_seed(
    sandbox: SandboxServer,
) -> None:
    generator = replicate(sandbox)
    since = datetime.now(UTC) - timedelta(seconds=1)
    sandbox.fault("replicate", "lose_answer", 1, method="POST")
    with pytest.raises(ProviderUnavailable):
        await generator.start(REQUEST)
    found = await generator.find_orphan(REQUEST, since=since)
    assert found is not None
    other = GenerationRequest(prompt="Neon koi", seed=8, token_id=1)
    assert await generator.find_orphan(other, since=since) is None
    await generator.wait(found)
    assert sandbox.counts().paid() == 1
    await generator.aclose()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("nsfw", ContentRefused),
        ("fail", GenerationLost),
        ("canceled", GenerationLost),
        ("drop_output", GenerationLost),
    ],
)
async def test_predictions_that_end_without_a_picture(
    sandbox: SandboxServer, kind: Any, expected: type[Exception]
) -> None:
    sandbox.fault("replicate", kind)
    generator = replicate(sandbox)
    with pytest.raises(expected):
        await made(generator)
    await generator.aclose()


async def test_a_prediction_that_takes_too_long_is_cancelled(sandbox: SandboxServer) -> None:
    sandbox.fault("replicate", "stuck")
    generator = replicate(sandbox, timeout_s=0.4)
    with pytest.raises(GenerationLost, match="cancelled"):
        await made(generator)
    await generator.aclose()


@pytest.mark.parametrize("kind", ["html", "short", "bomb"])
async def test_files_that_are_no_whole_picture_are_refused(
    sandbox: SandboxServer, kind: Any
) -> None:
    sandbox.fault("delivery", kind)
    generator = replicate(sandbox)
    with pytest.raises(PermanentError):
        await made(generator)
    await generator.aclose()


async def test_replicates_refusals_are_ours_to_mend_or_to_wait_for(
    sandbox: SandboxServer,
) -> None:
    wrong = replicate(sandbox, token="r8_wrong")
    with pytest.raises(ConfigurationError, match="401") as refused:
        await wrong.start(REQUEST)
    assert "r8_wrong" not in str(refused.value) + repr(wrong)
    await wrong.aclose()
    sandbox.settings.credit = "none"
    generator = replicate(sandbox)
    with pytest.raises(ConfigurationError, match="402"):
        await generator.start(REQUEST)
    sandbox.settings.credit = "ok"
    sandbox.fault("replicate", "rate_limit", 1, seconds=3)
    with pytest.raises(RateLimited) as slow:
        await generator.start(REQUEST)
    assert slow.value.retry_after_s is not None
    assert 1 <= slow.value.retry_after_s <= 10
    await generator.aclose()


async def test_generators_of_ones_own(sandbox: SandboxServer) -> None:
    for generator in (
        CogGenerator(sandbox.selfhosted_url, HERE),
        Automatic1111Generator(sandbox.automatic1111_url, HERE),
    ):
        finished = await generator.start(REQUEST)
        assert isinstance(finished, Finished)
        assert finished.facts.mime == "image/png"
        await generator.aclose()


async def test_the_fallback_is_asked_while_the_first_is_away(sandbox: SandboxServer) -> None:
    first = replicate(sandbox)
    generators = Generators(first, BuiltinGenerator())
    for _ in range(5):
        assert generators.choose() is first
        generators.report(first, well=False)
    assert generators.choose().name == "builtin"
    generators.report(first, well=True)
    assert generators.choose() is first
    await generators.aclose()


def pinata(sandbox: SandboxServer, **changes: Any) -> PinataPinner:
    """Return a Pinata client."""
    values: dict[str, Any] = {
        "pinata_jwt": SecretStr(SandboxSettings().pinata_jwt),
        "pinata_base_url": sandbox.pinata_url,
        "pinata_gateway": sandbox.gateway_url,
        **changes,
    }
    return PinataPinner(GliskSettings(**values))


@pytest.mark.parametrize("size", [11, 300_000])
async def test_pins_are_proved_from_the_bytes(sandbox: SandboxServer, size: int) -> None:
    content = bytes(i % 251 for i in range(size))
    for pinner in (pinata(sandbox), KuboPinner(sandbox.kubo_url, sandbox.gateway_url)):
        result = await pinner.pin_file(
            content, name="x.bin", content_type="application/octet-stream", keyvalues=KEYS
        )
        assert await pinner.prove(result, content) == "kubo-v1"
        await pinner.check()
        await pinner.aclose()
    twice = pinata(sandbox)
    again = await twice.pin_file(content, name="x", content_type="a/b", keyvalues=KEYS)
    assert again.duplicate
    await twice.aclose()


async def test_json_is_pinned_as_our_very_bytes(sandbox: SandboxServer) -> None:
    content = '{"name":"GLISK S0 #1","description":"ä","image":"ipfs://x","attributes":[]}'.encode()
    pinner = pinata(sandbox)
    result = await pinner.pin_json(content, name="m.json", keyvalues=KEYS)
    assert await pinner.prove(result, content) == "kubo-v1"
    await pinner.aclose()


async def test_a_cid_of_other_bytes_is_never_believed(sandbox: SandboxServer) -> None:
    content = b"our bytes" * 40_000
    pinner = pinata(sandbox)
    sandbox.fault("pinata", "other_cid", 1)
    result = await pinner.pin_file(content, name="x", content_type="a/b", keyvalues=KEYS)
    assert await pinner.prove(result, content) == "car"
    sandbox.fault("pinata", "wrong_cid", 1)
    result = await pinner.pin_file(content + b"!", name="x", content_type="a/b", keyvalues=KEYS)
    with pytest.raises(CidMismatch):
        await pinner.prove(result, content + b"!")
    await pinner.aclose()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"pinata_jwt": SecretStr("wrong")}, ConfigurationError),
        ({"pinata_jwt": SecretStr("sandbox.pinata.no-scopes")}, ConfigurationError),
    ],
)
async def test_pinatas_refusals_are_ours_to_mend(
    sandbox: SandboxServer, changes: dict[str, Any], expected: type[Exception]
) -> None:
    pinner = pinata(sandbox, **changes)
    with pytest.raises(expected) as refused:
        await pinner.pin_file(b"x", name="x", content_type="a/b", keyvalues=KEYS)
    assert "wrong" not in str(refused.value)
    await pinner.aclose()


async def test_pinata_opens_with_a_key_and_its_secret(sandbox: SandboxServer) -> None:
    pinner = pinata(
        sandbox,
        pinata_jwt=None,
        pinata_api_key=SecretStr("sandbox-key"),
        pinata_api_secret=SecretStr("sandbox-secret"),
    )
    await pinner.check()
    await pinner.aclose()


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
        *("0.0.0.1", "224.0.0.1", "240.0.0.1", "::1", "fe80::1", "fc00::1", "::ffff:10.0.0.1"),
        *("64:ff9b::7f00:1", "2002:7f00:1::", "not an address"),
    ],
)
async def test_only_public_addresses_are_fetched_from(address: str) -> None:
    assert not is_public(address)

    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return [address]

    with pytest.raises(Refused):
        await fetch_public("https://ok.example/x", allowed_hosts=["ok.example"], resolve=resolve)


@pytest.mark.parametrize(
    "url",
    [
        "http://ok.example/x",
        "https://evil.example/x",
        "https://ok.example.evil.example/x",
        "https://user@ok.example/x",
        "ftp://ok.example/x",
        "https:///x",
        "https://[::1",
    ],
)
async def test_addresses_that_are_not_allowed_are_refused(url: str) -> None:
    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return ["8.8.8.8"]

    with pytest.raises(Refused):
        await fetch_public(
            url, allowed_hosts=["ok.example", "*.ok.example"], resolve=resolve, timeout_s=2
        )
    assert is_public("8.8.8.8")


async def serve(answer: bytes) -> tuple[asyncio.Server, str]:
    """Serve the same bytes to whoever connects; return the server and its address."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_redirects_are_checked_and_counted() -> None:
    server, url = await serve(
        b"HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/x\r\nContent-Length: 0\r\n\r\n"
    )
    async with server:
        with pytest.raises(Refused, match="not one of the hosts"):
            await fetch_public(url, allowed_hosts=["127.0.0.1"], allow_insecure=True)
    server, url = await serve(
        b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n"
    )
    async with server:
        with pytest.raises(Refused, match="redirects"):
            await fetch_public(url, allowed_hosts=["127.0.0.1"], allow_insecure=True)


async def test_files_are_limited_gone_or_inside_their_address() -> None:
    server, url = await serve(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 5000)
    async with server:
        with pytest.raises(PermanentError, match="larger"):
            await fetch_public(
                url, allowed_hosts=["127.0.0.1"], allow_insecure=True, max_bytes=1000
            )
    server, url = await serve(b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n")
    async with server:
        with pytest.raises(Gone):
            await fetch_public(url, allowed_hosts=["127.0.0.1"], allow_insecure=True)
    inside = await fetch_public("data:image/png;base64,aGVsbG8=", allowed_hosts=[])
    assert (inside.body, inside.content_type) == (b"hello", "image/png")
    with pytest.raises(PermanentError):
        await fetch_public("data:image/png;base64,%%%", allowed_hosts=[])


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n", ProviderUnavailable),
        (b"HTTP/1.1 429 x\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n", RateLimited),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", ProviderUnavailable),
        (b"nonsense", ProviderUnavailable),
    ],
)
async def test_what_may_pass_is_transient(answer: bytes, expected: type[Exception]) -> None:
    server, url = await serve(answer)
    client = HttpClient(name="x", base_url=url, timeout_s=2, headers={"Authorization": "secret"})
    async with server:
        with pytest.raises(expected) as failure:
            await client.request("GET", "/")
    assert "secret" not in str(failure.value) + repr(client)
    if isinstance(failure.value, RateLimited):
        assert failure.value.retry_after_s == 7
    await client.aclose()


async def test_nobody_there_and_html_are_clear_errors() -> None:
    server, url = await serve(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>")
    client = HttpClient(name="x", base_url=url)
    async with server:
        answer = await client.request("GET", "/")
        with pytest.raises(ProviderUnavailable, match="not JSON"):
            answer.json()
    with pytest.raises(ProviderUnavailable, match="does not accept connections"):
        await client.request("GET", "/")
    await client.aclose()


def test_retry_after_is_a_number_or_a_date() -> None:
    later = datetime.now(UTC) + timedelta(seconds=60)
    assert retry_after_s({"Retry-After": "12"}) == 12
    found = retry_after_s({"retry-after": later.strftime("%a, %d %b %Y %H:%M:%S GMT")})
    assert found is not None
    assert 50 < found <= 60
    assert retry_after_s({"Retry-After": "soon"}) is None
    assert retry_after_s({}) is None
