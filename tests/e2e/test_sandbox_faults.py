"""Every fault over real sockets, the controls, and what survives a kill."""

from __future__ import annotations

import asyncio
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from causeway.base.errors import ProviderUnavailable
from causeway.sandbox.process import SandboxProcess
from causeway.sandbox.server import SandboxServer
from causeway.sandbox.settings import SandboxSettings

pytest_plugins = ["tests.sandbox_fixtures"]

FLUX = "/models/black-forest-labs/flux-schnell/predictions"
REPLICATE = {"Authorization": "Bearer r8_sandbox"}
PINATA = {"Authorization": "Bearer sandbox.pinata.jwt"}


async def hello(sandbox: SandboxServer, http: httpx2.AsyncClient) -> httpx2.Response:
    return await http.get(f"{sandbox.pinata_url}/data/testAuthentication", headers=PINATA)


async def generate(url: str, http: httpx2.AsyncClient, **headers: str) -> httpx2.Response:
    body = {"input": {"prompt": "a heron", "seed": 7, "output_format": "png"}}
    return await http.post(url + FLUX, json=body, headers={**REPLICATE, **headers})


async def test_statuses_come_in_the_words_of_the_service(
    sandbox: SandboxServer, http: httpx2.AsyncClient
) -> None:
    for service in ("replicate", "pinata", "gateway", "kubo", "selfhosted", "delivery"):
        sandbox.fault(service, "status", 1)
    sandbox.fault("pinata", "status", 1, status=401)
    sandbox.fault("replicate", "status", 1, status=402)
    unavailable = await generate(sandbox.replicate_url, http)
    assert unavailable.json() == {
        "title": "Service Unavailable",
        "detail": "The service is temporarily unavailable.",
        "status": 503,
    }
    assert (await generate(sandbox.replicate_url, http)).json()["title"] == "Insufficient credit"
    assert (await hello(sandbox, http)).status_code == 503
    assert (await hello(sandbox, http)).json()["error"]["reason"] == "INVALID_CREDENTIALS"
    assert (await http.get(f"{sandbox.gateway_url}/ipfs/x")).status_code == 503
    kubo = await http.post(f"{sandbox.kubo_url}/api/v0/version")
    assert (kubo.status_code, kubo.json()["Type"]) == (503, "error")
    cog = await http.get(f"{sandbox.selfhosted_url}/health-check")
    assert (cog.status_code, cog.json()) == (503, {"detail": "Not ready"})
    assert (await http.get(f"{sandbox.delivery_url}/x/out-0.png")).status_code == 503
    assert sandbox.faults() == []
    assert (await hello(sandbox, http)).status_code == 200
    assert sandbox.counts().paid() == 0


async def test_rate_limits_come_with_the_real_texts(
    sandbox: SandboxServer, http: httpx2.AsyncClient
) -> None:
    sandbox.fault("replicate", "rate_limit", 1)
    sandbox.fault("replicate", "rate_limit", 1, seconds=30)
    sandbox.fault("pinata", "rate_limit", 1, seconds=7)
    texts = [(await generate(sandbox.replicate_url, http)).json() for _ in range(2)]
    assert texts == [
        {"detail": "Request was throttled. Expected available in 1 second."},
        {"detail": "Request was throttled. Your rate limit resets in ~30s."},
    ]
    limited = await hello(sandbox, http)
    assert (limited.status_code, limited.headers["retry-after"]) == (429, "7")


async def test_a_reset_cuts_the_connection_before_anything_is_done(
    sandbox: SandboxServer, http: httpx2.AsyncClient
) -> None:
    sandbox.fault("replicate", "reset", 1)
    with pytest.raises(httpx2.ReadError):
        await generate(sandbox.replicate_url, http)
    counts = sandbox.counts()
    assert counts.paid() == 0
    assert sum(counts.requests["replicate"].values()) == 1
    assert (await generate(sandbox.replicate_url, http)).is_success


async def test_a_reset_is_a_reset_for_the_socket(sandbox: SandboxServer) -> None:
    sandbox.fault("gateway", "reset", 1)
    reader, writer = await asyncio.open_connection("127.0.0.1", sandbox.port)
    writer.write(b"GET /ipfs/x HTTP/1.1\r\nHost: x\r\n\r\n")
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()


async def test_a_lost_answer_leaves_the_work_done(
    sandbox: SandboxServer, http: httpx2.AsyncClient
) -> None:
    sandbox.fault("replicate", "lose_answer", 1)
    with pytest.raises(httpx2.ReadError):
        await generate(sandbox.replicate_url, http, Prefer="wait")
    assert sandbox.counts().paid("a heron", 7) == 1
    assert (sandbox.log()[-1].status, sandbox.log()[-1].lost_status) == (None, 201)
    # It is found by what was asked for, as there is no key to ask by.
    listed = await http.get(f"{sandbox.replicate_url}/predictions", headers=REPLICATE)
    (found,) = listed.json()["results"]
    assert found["input"]["seed"] == 7

    sandbox.fault("pinata", "lose_answer", 1)
    url = f"{sandbox.pinata_url}/pinning/pinFileToIPFS"
    files = {"file": ("a", b"hello world")}
    with pytest.raises(httpx2.ReadError):
        await http.post(url, files=files, headers=PINATA)
    again = await http.post(url, files=files, headers=PINATA)
    assert again.json()["isDuplicate"] is True


async def test_slow_is_slow_and_a_hang_says_nothing(
    sandbox: SandboxServer, http: httpx2.AsyncClient
) -> None:
    sandbox.fault("pinata", "slow", 1, seconds=0.2)
    started = time.monotonic()
    assert (await hello(sandbox, http)).status_code == 200
    assert time.monotonic() - started >= 0.2
    sandbox.fault("pinata", "hang", 1)
    with pytest.raises(httpx2.ReadTimeout):
        await http.get(f"{sandbox.pinata_url}/data/testAuthentication", headers=PINATA, timeout=0.2)
    sandbox.fault("pinata", "hang", 1, seconds=0.1)
    with pytest.raises(httpx2.ReadError):
        await hello(sandbox, http)


async def test_a_proxy_page_is_not_an_answer(
    sandbox: SandboxServer, http: httpx2.AsyncClient
) -> None:
    sandbox.fault("replicate", "html", 1)
    page = await generate(sandbox.replicate_url, http)
    assert (page.status_code, page.headers["content-type"][:9]) == (200, "text/html")
    # Words that mean something elsewhere mean nothing here.
    assert "NSFW" in page.text
    sandbox.fault("replicate", "html", 1, status=502, body="<p>", headers={"Retry-After": "3"})
    other = await generate(sandbox.replicate_url, http)
    assert (other.status_code, other.text, other.headers["retry-after"]) == (502, "<p>", "3")
    sandbox.fault("replicate", "status", 1, status=500, body='{"detail":"x"}')
    assert (await generate(sandbox.replicate_url, http)).json() == {"detail": "x"}


async def picture_url(sandbox: SandboxServer, http: httpx2.AsyncClient) -> str:
    return (await generate(sandbox.replicate_url, http, Prefer="wait")).json()["output"][0]


async def test_a_huge_body_flows_until_the_client_has_enough(
    sandbox: SandboxServer, http: httpx2.AsyncClient
) -> None:
    url = await picture_url(sandbox, http)
    sandbox.fault("delivery", "huge", 1)
    read = 0
    async with http.stream("GET", url) as answer:
        assert "content-length" not in answer.headers
        async for chunk in answer.aiter_bytes():
            read += len(chunk)
            if read > 30 * 1024 * 1024:
                break
    # The sandbox is not still pushing five gigabytes at nobody.
    assert (await http.get(url)).status_code == 200


async def test_a_body_is_cut_dripped_or_damaged(
    sandbox: SandboxServer, http: httpx2.AsyncClient
) -> None:
    url = await picture_url(sandbox, http)
    whole = (await http.get(url)).content
    sandbox.fault("delivery", "truncate", 1)
    with pytest.raises(httpx2.RemoteProtocolError):
        await http.get(url)
    sandbox.fault("delivery", "short", 1)
    short = await http.get(url)
    assert (short.status_code, short.content) == (200, whole[: len(whole) // 2])
    sandbox.fault("delivery", "drip", 1, seconds=0.01)
    received: list[bytes] = []
    async with http.stream("GET", url) as answer:
        async for chunk in answer.aiter_raw(chunk_size=1):
            received.append(chunk)
            if len(received) == 5:
                break
    assert b"".join(received) == whole[:5]
    sandbox.fault("pinata", "drip", 1, seconds=0)
    assert (await hello(sandbox, http)).json()["message"]


async def test_deliveries_redirect_vanish_and_explode(
    sandbox: SandboxServer, http: httpx2.AsyncClient
) -> None:
    url = await picture_url(sandbox, http)
    sandbox.fault("delivery", "redirect", 1)
    redirect = await http.get(url)
    assert redirect.status_code == 302
    assert redirect.headers["location"].startswith("http://169.254.169.254/")
    sandbox.fault("delivery", "drop_output", 1)
    assert (await http.get(url)).status_code == 404
    sandbox.fault("delivery", "bomb", 1)
    bomb = await http.get(url)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(BytesIO(bomb.content))


async def test_the_controls_work_over_http(
    sandbox: SandboxServer, http: httpx2.AsyncClient
) -> None:
    control = sandbox.control_url
    fault = {"service": "pinata", "kind": "status", "status": 500, "count": None, "match": "/data/"}
    added = await http.post(f"{control}/faults", json=fault)
    assert (added.status_code, added.json()["id"]) == (201, 1)
    assert [(await hello(sandbox, http)).status_code for _ in range(2)] == [500, 500]
    elsewhere = f"{sandbox.pinata_url}/pinning/unpin/x"
    assert (await http.delete(elsewhere, headers=PINATA)).status_code == 400
    (listed,) = (await http.get(f"{control}/faults")).json()
    assert (listed["kind"], listed["hits"]) == ("status", 2)
    assert (await http.delete(f"{control}/faults")).status_code == 204
    assert (await hello(sandbox, http)).status_code == 200
    wrong: list[dict[str, Any]] = [
        {"service": "gateway", "kind": "nsfw"},
        {"service": "nobody", "kind": "reset"},
        {**fault, "count": 0},
        {**fault, "typo": 1},
    ]
    for document in wrong:
        assert (await http.post(f"{control}/faults", json=document)).status_code == 422

    counts = (await http.get(f"{control}/counts")).json()
    assert counts["requests"] == {
        "pinata": {
            "GET /pinata/data/testAuthentication": 3,
            "DELETE /pinata/pinning/unpin/{cid}": 1,
        }
    }
    entries = (await http.get(f"{control}/log")).json()
    assert [(entry["status"], entry["fault"]) for entry in entries] == [
        (500, "status"),
        (500, "status"),
        (400, None),
        (200, None),
    ]
    assert entries[0]["headers"]["authorization"] == "[redacted]"

    changed = await http.post(f"{control}/settings", json={"latency_s": 0, "credit": "none"})
    assert changed.json()["credit"] == "none"
    assert (await http.get(f"{control}/settings")).json() == changed.json()
    assert (await generate(sandbox.replicate_url, http)).status_code == 402
    refused = await http.post(f"{control}/settings", json={"credit": "ok", "latency_s": -1})
    assert refused.status_code == 422
    assert sandbox.settings.credit == "none"

    await http.post(f"{control}/settings", json={"credit": "ok"})
    await generate(sandbox.replicate_url, http)
    await http.post(f"{control}/reset", json={"keep_state": True})
    assert ((await http.get(f"{control}/counts")).json()["predictions_total"], sandbox.log()) == (
        1,
        [],
    )
    await http.post(f"{control}/reset")
    assert sandbox.counts().predictions_total == 0


async def test_credentials_never_reach_the_log(
    sandbox: SandboxServer, http: httpx2.AsyncClient
) -> None:
    headers = {"pinata_api_key": "PRIVATE", "pinata_secret_api_key": "PRIVATE", "Cookie": "PRIVATE"}
    url = f"{sandbox.pinata_url}/data/testAuthentication?pinataGatewayToken=PRIVATE"
    await http.get(url, headers={**headers, "Authorization": "Bearer PRIVATE"})
    assert "PRIVATE" not in (await http.get(f"{sandbox.control_url}/log")).text


async def test_the_log_keeps_the_last_thousand(
    sandbox: SandboxServer, http: httpx2.AsyncClient
) -> None:
    sandbox.fault("gateway", "status")
    started = time.monotonic()
    for _ in range(1002):
        await http.get(f"{sandbox.gateway_url}/ipfs/x")
    # Answers that wait for the client's acknowledgement take 40 ms each.
    assert time.monotonic() - started < 20
    assert len(sandbox.log()) == 1000
    assert sandbox.counts().requests["gateway"] == {"GET /ipfs/{cid}": 1002}


async def test_stopping_does_not_wait_for_anybody(http: httpx2.AsyncClient) -> None:
    async with SandboxServer.start(settings=SandboxSettings(latency_s=60)) as sandbox:
        sandbox.fault("pinata", "hang")
        sandbox.fault("gateway", "slow", seconds=60)
        waiting = [
            asyncio.create_task(hello(sandbox, http)),
            asyncio.create_task(http.get(f"{sandbox.gateway_url}/ipfs/x")),
            asyncio.create_task(generate(sandbox.replicate_url, http, Prefer="wait")),
        ]
        deadline = time.monotonic() + 5
        while len(sandbox.log()) < 3:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.005)
        started = time.monotonic()
    assert time.monotonic() - started < 1
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(result, httpx2.TransportError) for result in results)


async def test_a_client_that_leaves_while_sending_is_no_error(
    sandbox: SandboxServer, http: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", sandbox.port)
    writer.write(
        b"POST /pinata/pinning/pinJSONToIPFS HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
        b"Authorization: Bearer sandbox.pinata.jwt\r\n\r\n{"
    )
    await writer.drain()
    deadline = time.monotonic() + 5
    while not sandbox.log():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)
    writer.close()
    assert (await hello(sandbox, http)).status_code == 200
    assert (sandbox.counts().uploads, caplog.records) == (0, [])


async def test_a_taken_port_is_an_error() -> None:
    async with SandboxServer.start() as sandbox:
        with pytest.raises(OSError, match="in use"):
            async with SandboxServer.start(sandbox.port):
                pass


async def test_everything_paid_and_pinned_survives_a_kill(
    tmp_path: Path, http: httpx2.AsyncClient
) -> None:
    settings = SandboxSettings(latency_s=0)
    async with SandboxProcess.start(tmp_path / "state.sqlite3", settings=settings) as sandbox:
        made = (await generate(sandbox.replicate_url, http)).json()
        picture = (await http.get(made["output"][0])).content
        pinned = await http.post(
            f"{sandbox.pinata_url}/pinning/pinFileToIPFS",
            files={"file": ("a", b"hello world")},
            headers=PINATA,
        )
        fault = {"service": "replicate", "kind": "lose_answer", "count": 1}
        await http.post(f"{sandbox.control_url}/faults", json=fault)
        with pytest.raises(httpx2.ReadError):
            await generate(sandbox.replicate_url, http)
        address, first_pid = sandbox.url, sandbox.pid

        await sandbox.kill()
        with pytest.raises(httpx2.ConnectError):
            await http.get(made["urls"]["get"], headers=REPLICATE)

        await sandbox.restart()
        assert (sandbox.url, sandbox.pid != first_pid) == (address, True)
        again = (await http.get(made["urls"]["get"], headers=REPLICATE)).json()
        assert (again["id"], again["status"]) == (made["id"], "succeeded")
        assert (await http.get(made["output"][0])).content == picture
        cid = pinned.json()["IpfsHash"]
        assert (await http.get(f"{sandbox.gateway_url}/ipfs/{cid}")).content == b"hello world"
        counts = (await http.get(f"{sandbox.control_url}/counts")).json()
        assert (counts["predictions"][0]["count"], counts["pins"]) == (2, {cid: 1})


async def test_a_process_that_cannot_start_says_so(tmp_path: Path) -> None:
    async with SandboxServer.start() as sandbox:
        with pytest.raises(ProviderUnavailable):
            async with SandboxProcess.start(tmp_path / "state", port=sandbox.port):
                pass
