"""Motify's HTTP beside GitHub: health, statistics, jobs, keys of WakaTime, frontends, secrets."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from io import StringIO
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from causeway.base import logging
from causeway.base.errors import ConfigurationError
from causeway.sandbox.anvil import AnvilNode
from causeway.sandbox.motify_chain import USDC, MotifyContract, people
from tests.motify_app import (
    CRON_SECRET,
    WAKA_KEY,
    Served,
    connecting,
    disconnecting,
    served_motify,
)
from tests.postgres_fixtures import PostgresServer

pytestmark = [pytest.mark.asyncio(loop_scope="module")]

ANN, BOB = people(2)

#: Serves Motify with these settings.
Serve = Callable[..., AbstractAsyncContextManager[Served]]


@pytest_asyncio.fixture(name="contract", scope="module", loop_scope="module")
async def _contract() -> AsyncGenerator[MotifyContract]:
    async with AnvilNode.start() as node:
        yield await MotifyContract.deploy(node)


@pytest.fixture(name="serve")
def _serve(database_url: str, contract: MotifyContract, monkeypatch: pytest.MonkeyPatch) -> Serve:
    return partial(served_motify, database_url, contract.node, contract, monkeypatch)


@pytest_asyncio.fixture(name="m", loop_scope="module")
async def _served(serve: Serve) -> AsyncGenerator[Served]:
    async with serve() as served:
        yield served


def told(answer: httpx2.Response) -> tuple[int, str]:
    """Return status and detail of a refusal."""
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["detail"]


def job_error(answer: httpx2.Response) -> tuple[int, str]:
    """Return status and error of a refused job, which has a shape of its own."""
    body = answer.json()
    assert set(body) == {"ok", "error"}
    assert body["ok"] is False
    return answer.status_code, body["error"]


async def test_health_says_whether_the_database_answers(
    postgres_server: PostgresServer, contract: MotifyContract, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres_server.create("motify_health")
    async with served_motify(url, contract.node, contract, monkeypatch) as m:
        assert (await m.get("/health")).json() == {"ok": True, "db": True}
        postgres_server.stop()
        answer = await m.get("/health")
        assert (answer.status_code, answer.json()) == (200, {"ok": True, "db": False})
        postgres_server.start()


# Statistics


async def finished(m: Served, wallet: str, stake: int, ppm: int, **changes: Any) -> None:
    """Put one finished challenge of somebody into the archive."""
    settings = m.world.ctx.settings
    place: dict[str, Any] = {
        "chain": settings.chain_id, "contract": settings.contract, "id": 0, **changes,
    }  # fmt: skip
    await m.execute(
        "INSERT INTO motify.finished_participants (chain_id, contract_address, challenge_id, "
        "participant_address, stake_minor_units, percent_ppm) "
        "VALUES (:chain, :contract, :id, :wallet, :stake, :ppm)",
        wallet=wallet.lower(),
        stake=stake,
        ppm=ppm,
        **place,
    )


async def test_statistics_are_the_archives_sums(m: Served) -> None:
    for number, (stake, ppm) in enumerate([(100 * USDC, 1_000_000), (50 * USDC, 800_000)]):
        await finished(m, ANN.address, stake, ppm, id=number)
    await finished(m, ANN.address, 25 * USDC, 0, id=10**30)
    await finished(m, BOB.address, 9, 333_300)
    # Of another contract, and of another chain.
    await finished(m, ANN.address, 9 * USDC, 0, id=5, contract="0x" + "12" * 20)
    await finished(m, ANN.address, 9 * USDC, 0, id=5, chain=1)
    for spelled in (ANN.address, ANN.address.lower(), "0x" + ANN.address[2:].upper()):
        assert (await m.get("/stats/user", wallet=spelled)).json() == {
            "wallet": spelled,
            "challenges_completed": 3,
            "success_percentage_overall": 60.0,
            "total_wagered": 175.0,
            "total_donations": 35.0,
        }
    # 9 − floor(9 × 3333 / 10000) = 7, as the contract rounds.
    assert (await m.get("/stats/user", wallet=BOB.address)).json() == {
        "wallet": BOB.address,
        "challenges_completed": 1,
        "success_percentage_overall": 33.33,
        "total_wagered": 9e-06,
        "total_donations": 7e-06,
    }


async def test_a_wildcard_is_nobodys_wallet(m: Served) -> None:
    await finished(m, ANN.address, 100 * USDC, 0)
    for wallet in ("%", "_" * 42, "0x" + "_" * 40, ANN.address[:-1] + "%", "0x", "nobody"):
        answer = await m.get("/stats/user", wallet=wallet)
        assert answer.status_code == 422, wallet
        assert answer.json()["errors"][0]["field"] == "query.wallet"
    assert (await m.get("/stats/user")).status_code == 422
    for wallet in ("", " "):
        assert told(await m.get("/stats/user", wallet=wallet)) == (400, "wallet is required")
    assert (await m.get("/stats/user", wallet=BOB.address)).text == (
        f'{{"wallet":"{BOB.address}","challenges_completed":0,"success_percentage_overall":0.0,'
        '"total_wagered":0.0,"total_donations":0.0}'
    )


async def test_every_share_is_given_away_as_the_contract_does(m: Served) -> None:
    stakes = [1, 3, 9, 9_999, 10_001, 123_456_789]
    shares = [0, 1, 313, 3_333, 6_667, 9_999, 10_000]
    rows = [(stake, bps) for stake in stakes for bps in shares]
    for number, (stake, bps) in enumerate(rows):
        await finished(m, ANN.address, stake, bps * 100, id=number)
    given_away = sum(stake - stake * bps // 10_000 for stake, bps in rows)
    found = (await m.get("/stats/user", wallet=ANN.address)).json()
    assert found["total_donations"] == given_away / USDC
    assert found["challenges_completed"] == len(rows)
    # As large as the contract's numbers can be.
    await finished(m, BOB.address, 2**256 - 1, 0)
    huge = (await m.get("/stats/user", wallet=BOB.address)).json()
    assert huge["total_wagered"] == huge["total_donations"] == float(2**256 - 1) / USDC


# WakaTime's keys


async def has_key(m: Served, wallet: str) -> bool:
    answer = await m.get(f"/oauth/wakatime/api-key/{wallet}")
    assert answer.json() == {
        "has_api_key": answer.json()["has_api_key"],
        "provider": "wakatime",
        "wallet_address": wallet.lower(),
    }
    return bool(answer.json()["has_api_key"])


async def test_a_key_is_tried_kept_and_let_go(m: Served) -> None:
    m.world.sandbox.settings.wakatime_keys[WAKA_KEY] = "ann"
    done = {"success": True, "provider": "wakatime", "wallet_address": ANN.address.lower()}
    assert not await has_key(m, ANN.address)
    answer = await m.save_key(ANN, WAKA_KEY)
    assert (answer.status_code, answer.json()) == (200, done)
    assert await has_key(m, ANN.address)
    assert WAKA_KEY not in await m.tables()
    path = f"/oauth/wakatime/api-key/{ANN.address}"
    for query in ({}, {"signature": "0x12"}, connecting(ANN, "wakatime")):
        query.pop("wallet_address", None)
        refused = await m.http.delete(path, params=query)
        assert refused.status_code == 401
    assert (await m.http.delete(path, params=disconnecting(BOB, "wakatime"))).status_code == 401
    assert await has_key(m, ANN.address)
    gone = await m.http.delete(path, params=disconnecting(ANN, "wakatime"))
    assert (gone.status_code, gone.json()) == (200, done)
    assert not await has_key(m, ANN.address)
    assert (await m.http.delete(path, params=disconnecting(ANN, "wakatime"))).status_code == 200


async def test_keys_that_are_none_are_refused(m: Served) -> None:
    required = (400, "wallet_address and api_key are required")
    form = (400, "Invalid WakaTime API key format")
    for key, expected in (
        ("", required),
        (None, required),
        ([WAKA_KEY], required),
        ("waka_short", form),
        ("sk-" + "a" * 30, form),
        ("waka_" + "ä" * 30, form),
        ("waka_" + "a" * 20 + "\n" + "b", form),
        (WAKA_KEY, (400, "WakaTime rejected this API key")),
        ("waka_" + "A-_9" * 5, (400, "WakaTime rejected this API key")),
    ):
        answer = await m.save_key(ANN, "", api_key=key)
        assert told(answer) == expected, key
        assert WAKA_KEY not in answer.text
    empty = await m.http.post("/oauth/wakatime/api-key", json={})
    assert told(empty) == required
    wallet = await m.save_key(ANN, WAKA_KEY, wallet_address="0x12")
    assert wallet.status_code == 422
    assert not await has_key(m, ANN.address)


async def test_a_large_body_is_not_read(m: Served) -> None:
    async def endless() -> AsyncGenerator[bytes]:
        yield b'{"api_key": "'
        for _ in range(1000):
            yield b"a" * 1000
        yield b'"}'

    for content in (endless(), b" " * 100_000):
        headers = {"content-type": "application/json"}
        answer = await m.http.post("/oauth/wakatime/api-key", content=content, headers=headers)
        assert told(answer) == (413, "the body is larger than 65536 bytes")


async def test_a_wakatime_that_is_away_is_no_verdict_on_a_key(m: Served) -> None:
    m.world.sandbox.settings.wakatime_keys[WAKA_KEY] = "ann"
    for status in (500, 503):
        m.world.sandbox.fault("wakatime", "status", status=status)
        answer = await m.save_key(ANN, WAKA_KEY)
        assert answer.status_code == 503
        assert isinstance(answer.json()["detail"], str)
        m.world.sandbox.clear_faults()
    assert not await has_key(m, ANN.address)


async def test_a_key_needs_a_signature_of_its_wallet_once(m: Served) -> None:
    m.world.sandbox.settings.wakatime_keys[WAKA_KEY] = "ann"
    unsigned = {"wallet_address": ANN.address, "api_key": WAKA_KEY}
    assert (await m.http.post("/oauth/wakatime/api-key", json=unsigned)).status_code == 401
    body = connecting(ANN, "wakatime") | {"api_key": WAKA_KEY}
    others = body | {"wallet_address": BOB.address}
    refused = await m.http.post("/oauth/wakatime/api-key", json=others)
    assert told(refused) == (401, "Signature does not match wallet address")
    assert (await m.http.post("/oauth/wakatime/api-key", json=body)).status_code == 200
    again = await m.http.post("/oauth/wakatime/api-key", json=body)
    assert told(again) == (401, "Signature was already used")


async def test_one_wakatime_account_serves_one_wallet(m: Served) -> None:
    m.world.sandbox.settings.wakatime_keys[WAKA_KEY] = "ann"
    assert (await m.save_key(ANN, WAKA_KEY)).status_code == 200
    taken = await m.save_key(BOB, WAKA_KEY)
    assert told(taken) == (409, "This WakaTime account is connected to another wallet")
    assert not await has_key(m, BOB.address)


async def test_a_key_that_wakatime_refuses_later_is_none(m: Served) -> None:
    m.world.sandbox.settings.wakatime_keys[WAKA_KEY] = "ann"
    assert (await m.save_key(ANN, WAKA_KEY)).status_code == 200
    await m.execute("UPDATE causeway.connections SET rejected_at = now(), rejected_why = 'no'")
    assert not await has_key(m, ANN.address)
    assert (await m.save_key(ANN, WAKA_KEY)).status_code == 200
    assert await has_key(m, ANN.address)


async def test_unsigned_keys_are_admitted_only_where_it_is_set(serve: Serve) -> None:
    async with serve(MOTIFY_ALLOW_UNSIGNED_WAKATIME="true") as m:
        m.world.sandbox.settings.wakatime_keys[WAKA_KEY] = "ann"
        unsigned = {"wallet_address": ANN.address, "api_key": WAKA_KEY}
        path = "/oauth/wakatime/api-key"
        assert (await m.http.post(path, json=unsigned)).status_code == 200
        assert await has_key(m, ANN.address)
        # What is signed is checked all the same.
        wrong = connecting(BOB, "wakatime") | unsigned
        half = unsigned | {"timestamp": wrong["timestamp"]}
        for body in (wrong, half):
            assert (await m.http.post(path, json=body)).status_code == 401
        assert (await m.http.delete(f"{path}/{ANN.address}")).status_code == 200
        # GitHub is not part of it.
        assert (await m.http.delete(f"/oauth/disconnect/github/{ANN.address}")).status_code == 422
        (warning,) = (await m.get("/health")).json()["warnings"]
        assert warning.startswith("MOTIFY_ALLOW_UNSIGNED_WAKATIME")


# Jobs

JOBS = [
    ("POST", "/jobs/index-and-cache"),
    ("POST", "/jobs/declare-preview/0"),
    ("POST", "/jobs/declare-preview/x"),
    ("GET", "/jobs/debug-config"),
]


async def test_jobs_need_the_secret(m: Served) -> None:
    for method, path in JOBS:
        for secret in ("", "wrong", CRON_SECRET + "x", CRON_SECRET[:-1], "ü"):
            headers = {b"x-cron-secret": secret.encode()}
            answer = await m.http.request(method, path, headers=headers)
            assert job_error(answer) == (401, "unauthorized")
        assert job_error(await m.http.request(method, path)) == (401, "unauthorized")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ENV": "staging"},
        {"ENV": "development", "CAUSEWAY_HOST": "192.0.2.1"},
        {"ENV": "development", "headers": "x-forwarded-for: 1.2.3.4"},
        {"ENV": "development", "headers": "sec-fetch-site: cross-site"},
        {"ENV": "development", "headers": "host: evil.example"},
    ],
)
async def test_without_a_secret_jobs_are_closed(serve: Serve, changes: dict[str, str]) -> None:
    name, _, value = changes.pop("headers", "x: y").partition(": ")
    async with serve(CRON_SECRET="", **changes) as m:
        for method, path in JOBS:
            answer = await m.http.request(method, path, headers={name: value})
            status, error = job_error(answer)
            assert status == 503
            assert "CRON_SECRET" in error


async def test_development_on_this_machine_needs_no_secret(serve: Serve) -> None:
    async with serve(CRON_SECRET="", ENV="development") as m:
        assert (await m.http.get("/jobs/debug-config")).status_code == 200


@pytest.mark.parametrize(
    ("name", "written", "sends"),
    [
        ("SEND_TX", "true", True),
        ("SEND_TX", "1", True),
        ("TX_SEND", "YES", True),
        ("SEND_TX", "on", False),
        ("SEND_TX", "0", False),
    ],
)
async def test_the_configuration_is_shown_as_the_job_reads_it(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, name: str, written: str, sends: bool
) -> None:
    both = {"SEND_TX": "", "TX_SEND": ""} | {name: written}
    async with serve(**both, DEFAULT_PERCENT_PPM="2000000") as m:
        answer = await m.job("GET", "/jobs/debug-config")
        assert answer.json() == {
            "ok": True,
            "env": {"SEND_TX": None, "TX_SEND": None} | {name: written},
            "send_eval": sends,
            "default_percent_ppm": 1_000_000,
        }
        assert m.world.ctx.settings.send_tx is sends


async def test_a_key_in_the_wrong_place_is_not_shown(serve: Serve) -> None:
    key = "0x" + "ab" * 32
    async with serve(SEND_TX=key) as m:
        answer = await m.job("GET", "/jobs/debug-config")
        assert answer.json()["send_eval"] is False
        assert key[2:12] not in answer.text


async def test_jobs_say_what_is_wrong_in_their_own_shape(m: Served) -> None:
    unknown = await m.job("POST", "/jobs/declare-preview/99")
    assert job_error(unknown) == (404, "challenge 99 does not exist")
    assert (await m.job("POST", f"/jobs/declare-preview/{10**80}")).status_code == 422
    status, error = job_error(await m.job("POST", "/jobs/declare-preview/x"))
    assert (status, error.partition(":")[0]) == (422, "challenge_id")
    await m.execute("ALTER TABLE motify.settlements RENAME TO elsewhere")
    status, error = job_error(await m.job("POST", "/jobs/index-and-cache"))
    assert status == 500
    assert "settlements" not in error


# Frontends


async def preflight(m: Served, origin: str, method: str = "DELETE") -> httpx2.Response:
    return await m.http.options(
        "/oauth/disconnect/github/0x12",
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": "content-type",
        },
    )


async def test_the_frontends_may_call(m: Served) -> None:
    for origin in (
        "http://localhost:3000", "http://localhost:5173", "http://localhost:8080",
        "http://127.0.0.1:3000", "http://127.0.0.1:8080",
        "https://motify.live", "https://www.motify.live",
    ):  # fmt: skip
        for method in ("GET", "POST", "DELETE"):
            answer = await preflight(m, origin, method)
            assert answer.status_code == 200
            assert answer.headers["access-control-allow-origin"] == origin
            assert method in answer.headers["access-control-allow-methods"].split(", ")
            assert "content-type" in answer.headers["access-control-allow-headers"].lower()
            assert "access-control-allow-credentials" not in answer.headers
    answer = await m.http.get("/health", headers={"Origin": "https://motify.live"})
    assert answer.headers["access-control-allow-origin"] == "https://motify.live"
    refused = await m.http.get("/stats/user", headers={"Origin": "https://motify.live"})
    assert refused.headers["access-control-allow-origin"] == "https://motify.live"


async def test_others_may_not(m: Served) -> None:
    for origin in (
        "https://evil.example", "https://motify.vercel.app", "http://localhost:3001",
        "https://motify.live.evil.example", "http://motify.live", "null",
    ):  # fmt: skip
        answer = await preflight(m, origin)
        assert "access-control-allow-origin" not in answer.headers
    assert (await preflight(m, "https://motify.live", "PUT")).status_code == 400


async def test_previews_may_call_by_a_pattern_that_fits_the_whole_origin(serve: Serve) -> None:
    pattern = r"https://motify-[a-z0-9]+\.vercel\.app|https://pr\d\.example"
    async with serve(CORS_ORIGIN_PATTERN=pattern, CORS_ORIGINS="https://one.example") as m:
        for origin in ("https://motify-abc1.vercel.app", "https://pr1.example"):
            answer = await preflight(m, origin)
            assert answer.headers["access-control-allow-origin"] == origin
            assert "access-control-allow-credentials" not in answer.headers
        assert (await preflight(m, "https://one.example")).status_code == 200
        for origin in (
            "https://motify-abc1.vercel.app.evil.example",
            "https://evil.example/https://pr1.example",
            "https://pr1.example.evil.example",
            "https://motify-abc1xvercel.app",
            "https://motify.live",
        ):
            assert "access-control-allow-origin" not in (await preflight(m, origin)).headers


async def test_a_pattern_that_is_none_stops_the_start(serve: Serve) -> None:
    with pytest.raises(ConfigurationError, match="CORS_ORIGIN_PATTERN"):
        async with serve(CORS_ORIGIN_PATTERN="https://(*"):
            pass


# Secrets


async def test_a_run_writes_no_secret(serve: Serve) -> None:
    log = StringIO()
    logging.configure("DEBUG", "json", log)
    async with serve() as m:
        sandbox = m.world.sandbox
        sandbox.settings.wakatime_keys[WAKA_KEY] = "ann"
        signed = [
            connecting(ANN, "github"),
            connecting(BOB, "github"),
            disconnecting(ANN, "github"),
        ]
        begun = await m.get("/oauth/connect/github", **signed[0])
        back = await m.visited(begun.json()["auth_url"])
        await m.http.get(back)
        tokens = list(sandbox.tokens("github"))
        await m.save_key(ANN, WAKA_KEY)
        sandbox.fault("wakatime", "status", status=500)
        await m.save_key(BOB, WAKA_KEY)
        sandbox.fault("github", "status", status=500, match="/access_token")
        begun = await m.get("/oauth/connect/github", **signed[1])
        await m.http.get(await m.visited(begun.json()["auth_url"]))
        await m.http.delete(f"/oauth/disconnect/github/{ANN.address}", params=signed[2])
        await m.job("GET", "/jobs/debug-config")
        code = back.partition("code=")[2].partition("&")[0]
        keys = m.world.ctx.kernel.encryption_keys
        secrets = [
            WAKA_KEY, code, begun.json()["state"], CRON_SECRET, *tokens,
            *(one["signature"] for one in signed),
            sandbox.settings.github_client_secret,
            m.world.contract.owner.private_key[2:],
            *(key.get_secret_value() for key in keys),
        ]  # fmt: skip
        stored = await m.tables()
    written = log.getvalue()
    assert "authorization_failed" in written
    assert len(tokens) == 1
    for secret in secrets:
        assert len(secret) > 10
        assert secret not in written
        assert secret not in stored
