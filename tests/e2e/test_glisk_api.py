"""GLISK over HTTP: what its specification promises, path by path."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import orjson
import pytest
import pytest_asyncio

from causeway.sandbox.anvil import AnvilNode
from causeway.sandbox.glisk_chain import GliskContract
from tests.glisk_app import Glisk, delivery_of, personal_sign, running_glisk, until

ADMIN = "a-long-admin-token"


@pytest_asyncio.fixture
async def glisk(
    database_url: str,
    anvil: AnvilNode,
    glisk_contract: GliskContract,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncGenerator[Glisk]:
    """GLISK serving and working."""
    async with running_glisk(database_url, anvil, glisk_contract, monkeypatch) as running:
        yield running


@pytest_asyncio.fixture
async def idle(
    database_url: str,
    anvil: AnvilNode,
    glisk_contract: GliskContract,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncGenerator[Glisk]:
    """GLISK serving, with nobody working."""
    async with running_glisk(
        database_url, anvil, glisk_contract, monkeypatch, worker=False
    ) as running:
        yield running


async def test_a_mint_becomes_a_revealed_picture_with_its_whole_story(glisk: Glisk) -> None:
    author = glisk.node.accounts[5]
    answer = await glisk.sign_in(author, "Neon koi")
    assert answer.status_code == 200
    assert answer.json() == {"success": True, "has_prompt": True}
    await glisk.mint(author.address, 2)
    await glisk.until_status(1, "revealed")
    await glisk.until_status(2, "revealed")

    async def settled() -> bool:
        # The event may be read before the receipt of its transaction, and the new URI after both.
        found = (await glisk.http.get("/admin/token/1")).json()
        sent = [one["status"] for one in found["history"]["reveal_transactions"]]
        return sent == ["confirmed"] and found["revealed_uri"] == found["metadata_uri"]

    await until(settled, 60)
    token = (await glisk.http.get("/admin/token/1")).json()
    assert token["author"]["wallet_address"] == author.address
    assert token["prompt_text"] == "Neon koi"
    assert await glisk.contract.token_uri(1) == token["metadata_uri"]
    history = token["history"]
    assert history["mint_event"]["token_ids"] == [1, 2]
    assert [job["status"] for job in history["generation_jobs"]] == ["succeeded"]
    assert {u["upload_type"]: u["status"] for u in history["ipfs_uploads"]} == {
        "image": "completed",
        "metadata": "completed",
    }
    assert [t["tx_hash"] for t in history["reveal_transactions"]] == [token["reveal_tx_hash"]]
    assert [t["status"] for t in history["reveal_transactions"]] == ["confirmed"]
    assert [row["to_status"] for row in history["transitions"]] == [
        "detected",
        "generating",
        "uploading",
        "ready",
        "revealed",
    ]

    metrics = await glisk.page("/health/metrics")
    assert (metrics["total_mints"], metrics["total_tokens"], metrics["total_revealed"]) == (1, 2, 2)
    assert metrics["error_rate_24h"] == 0.0
    assert 0 < metrics["median_seconds_to_reveal_24h"] < 180
    leaders = (await glisk.http.get("/api/authors/leaderboard")).json()
    assert leaders == [{"author_address": author.address, "total_tokens": 2}]
    mine = (await glisk.http.get(f"/api/authors/{author.address.lower()}/tokens")).json()
    assert [t["token_id"] for t in mine["tokens"]] == [2, 1]
    assert (mine["total"], mine["offset"], mine["limit"]) == (2, 0, 20)


async def test_health_pages_say_how_things_stand(glisk: Glisk) -> None:
    async def healthy() -> bool:
        return (await glisk.http.get("/health")).json() == {"status": "healthy"}

    async def read() -> bool:
        found = await glisk.page("/health/blockchain")
        return found["blocks_behind"] == 0 and found["keeper"]["has_role"] is True

    await until(healthy, 60)
    await until(read, 60)
    chain = await glisk.page("/health/blockchain")
    assert chain["chain_id"] == glisk.node.chain_id
    assert chain["contract"] == glisk.contract.address
    assert chain["keeper"]["address"] == glisk.node.accounts[1].address
    workers = (await glisk.page("/health/workers"))["workers"]
    assert [(w["name"], w["enabled"], w["paused"]) for w in workers] == [
        ("image", True, None),
        ("ipfs", True, None),
        ("reveal", True, None),
    ]
    await glisk.http.post("/admin/stages/image/pause", params={"reason": "for a while"})
    degraded = await glisk.page("/health")
    assert degraded["status"] == "degraded"
    assert degraded["problems"] == ["image is paused: for a while"]
    await glisk.http.post("/admin/stages/image/resume")
    await until(healthy, 60)
    assert (await glisk.http.get("/livez")).status_code == 200
    assert (await glisk.http.get("/readyz")).status_code == 200
    text = (await glisk.http.get("/metrics")).text
    assert 'causeway_http_requests_total{method="GET",route="/health"' in text


async def test_a_webhook_brings_its_mint_at_once_and_a_repeat_is_a_duplicate(idle: Glisk) -> None:
    author = idle.node.accounts[5].address
    receipt = await idle.mint(author, 2)
    answer = await idle.deliver_and_read(delivery_of(receipt))
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["status"] == "success"
    assert body["duplicates"] == 0
    (event,) = body["events"]
    assert event["tx_hash"] == receipt["transactionHash"]
    assert (event["token_count"], event["token_ids"]) == (2, [1, 2])
    again = await idle.deliver_and_read(delivery_of(receipt))
    assert again.status_code == 409
    assert again.json() == {
        "status": "duplicate",
        "tx_hash": receipt["transactionHash"],
        "log_index": event["log_index"],
    }
    token = (await idle.http.get("/admin/token/2")).json()
    assert token["history"]["mint_event"]["via"] == "webhook"


async def test_a_webhook_with_an_old_and_a_new_event_records_the_new_one(idle: Glisk) -> None:
    author = idle.node.accounts[5].address
    first = await idle.mint(author, 1)
    await idle.deliver_and_read(delivery_of(first))
    second = await idle.mint(author, 1)
    both = delivery_of(second, name="whevt_2")
    both["event"]["data"]["block"]["logs"] = [
        *delivery_of(first)["event"]["data"]["block"]["logs"],
        *both["event"]["data"]["block"]["logs"],
    ]
    answer = await idle.deliver_and_read(both)
    assert answer.status_code == 200
    assert [e["token_ids"] for e in answer.json()["events"]] == [[2]]
    assert answer.json()["duplicates"] == 1


async def test_webhooks_that_must_not_count(idle: Glisk) -> None:
    receipt = await idle.mint(idle.node.accounts[5].address, 1)
    good = delivery_of(receipt)
    forged = await idle.deliver(good, secret="another secret")
    assert forged.status_code == 401
    assert forged.headers["content-type"] == "application/problem+json"
    large = await idle.deliver(b'{"id":"' + b"x" * (1024 * 1024) + b'"}')
    assert large.status_code == 413
    broken = await idle.deliver(b"{not json")
    assert broken.status_code == 400
    missing = delivery_of(receipt)
    del missing["event"]["data"]["block"]["logs"][0]["topics"]
    answer = await idle.deliver(missing)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["path"] == "event.data.block.logs[0].topics"
    stranger = delivery_of(receipt)
    for log in stranger["event"]["data"]["block"]["logs"]:
        log["account"]["address"] = "0x" + "11" * 20
    ignored = await idle.deliver_and_read(stranger)
    assert (ignored.status_code, ignored.json()["events"]) == (200, [])
    invented = delivery_of(receipt, name="whevt_9")
    for log in invented["event"]["data"]["block"]["logs"]:
        log["transaction"]["hash"] = "0x" + "ab" * 32
    lie = await idle.deliver_and_read(invented)
    assert (lie.status_code, lie.json()["events"]) == (200, [])
    early = await idle.deliver(delivery_of(receipt, name="whevt_10", number=10_000))
    assert early.status_code in (202, 409)
    heartbeat = await idle.deliver(delivery_of(receipt, name="whevt_11", logs=[]))
    assert heartbeat.json()["message"] == "no matching events"
    assert (await idle.http.get("/admin/tokens")).json()["total"] <= 1


async def test_admin_lists_pages_and_refuses_nonsense_by_name(idle: Glisk) -> None:
    receipt = await idle.mint(idle.node.accounts[5].address, 5)
    await idle.deliver_and_read(delivery_of(receipt))
    page = (await idle.http.get("/admin/tokens", params={"limit": 2})).json()
    assert [t["token_id"] for t in page["items"]] == [1, 2]
    assert (page["total"], page["next_cursor"]) == (5, "2")
    rest = (await idle.http.get("/admin/tokens", params={"limit": 200, "cursor": "2"})).json()
    assert [t["token_id"] for t in rest["items"]] == [3, 4, 5]
    assert rest["next_cursor"] is None
    wrong = await idle.http.get("/admin/tokens", params={"status": "shiny"})
    assert wrong.status_code == 422
    assert all(
        status in wrong.text
        for status in ("detected", "generating", "uploading", "ready", "revealed", "failed")
    )
    for path, status in (
        ("/admin/tokens?limit=201", 422),
        ("/admin/tokens?cursor=x", 422),
        ("/admin/token/abc", 422),
        (f"/admin/token/{2**53}", 422),
        ("/admin/token/99", 404),
        ("/nowhere", 404),
    ):
        answer = await idle.http.get(path)
        assert answer.status_code == status, path
        assert answer.headers["content-type"] == "application/problem+json", path
    lists: list[list[int]] = [[], [1, 1], list(range(1, 52)), [-1]]
    for ids in lists:
        answer = await idle.http.post("/admin/reveal", json={"token_ids": ids})
        assert answer.status_code == 422, ids
    refused = await idle.http.post("/admin/reveal", json={"token_ids": [1]})
    assert refused.status_code == 409
    assert "its picture is not made yet" in refused.json()["detail"]
    assert (await idle.http.post("/admin/token/1/retry")).status_code == 409
    state = (await idle.http.get("/admin/system/state")).json()
    assert state["state"]["last_processed_block"]["value"]["number"] >= 1
    assert state["configuration"]["KEEPER_PRIVATE_KEY"] == "set, hidden"
    assert idle.node.accounts[1].private_key[2:] not in str(state)


async def test_a_reveal_by_hand_is_filed_once_for_its_idempotency_key(
    database_url: str,
    anvil: AnvilNode,
    glisk_contract: GliskContract,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running_glisk(
        database_url, anvil, glisk_contract, monkeypatch, BATCH_REVEAL_WAIT_SECONDS="60"
    ) as glisk:
        await glisk.mint(anvil.accounts[5].address, 2)
        await glisk.until_status(1, "ready")
        await glisk.until_status(2, "ready")
        key = {"Idempotency-Key": "once"}
        wish = {"token_ids": [1, 7]}
        first = await glisk.http.post("/admin/reveal", json=wish, headers=key)
        assert first.status_code == 202
        assert first.json()["accepted"] == [1]
        assert first.json()["rejected"][0]["token_id"] == 7
        second = await glisk.http.post("/admin/reveal", json=wish, headers=key)
        assert second.json() == first.json()
        other = await glisk.http.post("/admin/reveal", json={"token_ids": [2]}, headers=key)
        assert other.status_code == 409
        await glisk.until_status(1, "revealed")
        assert await glisk.status_of(2) == "ready"


async def test_admin_is_for_this_machine_or_for_the_token(
    database_url: str,
    anvil: AnvilNode,
    glisk_contract: GliskContract,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running_glisk(
        database_url, anvil, glisk_contract, monkeypatch, worker=False, ADMIN_TOKEN=ADMIN
    ) as glisk:
        assert (await glisk.http.get("/admin/tokens")).status_code == 401
        wrong = await glisk.http.get("/admin/tokens", headers={"Authorization": "Bearer x"})
        assert wrong.status_code == 403
        right = await glisk.http.get("/admin/tokens", headers={"Authorization": f"Bearer {ADMIN}"})
        assert right.status_code == 200


async def test_prompts_are_bound_single_use_and_limited(idle: Glisk) -> None:
    author, other = idle.node.accounts[5], idle.node.accounts[6]
    nobody = (await idle.http.get("/api/authors/not-a-wallet")).json()
    assert nobody == {"has_prompt": False, "twitter_handle": None, "farcaster_handle": None}
    long = await idle.sign_in(author, "x" * 10_000)
    assert long.status_code == 422
    assert long.json()["errors"][0]["path"] == "body.prompt_text"
    asked = await idle.http.get(
        "/api/authors/challenge", params={"wallet": author.address, "action": "prompt"}
    )
    message = asked.json()["message"]
    unbound = await idle.http.post(
        "/api/authors/prompt",
        json={
            "wallet_address": author.address,
            "prompt_text": "never signed for",
            "message": message,
            "signature": personal_sign(author, message),
        },
    )
    assert unbound.status_code == 400
    ok = await idle.sign_in(author, "A prompt of mine")
    assert ok.status_code == 200
    sent = orjson.loads(ok.request.content)
    assert (await idle.http.post("/api/authors/prompt", json=sent)).status_code == 400
    stolen = dict(sent) | {"wallet_address": other.address}
    assert (await idle.http.post("/api/authors/prompt", json=stolen)).status_code == 400
    shown = (await idle.http.get(f"/api/authors/{author.address.lower()}")).json()
    assert shown["has_prompt"] is True
    assert "A prompt of mine" not in str(shown)


async def test_request_ids_come_back(idle: Glisk) -> None:
    answer = await idle.http.get("/livez", headers={"X-Request-ID": "mine-1"})
    assert answer.headers["X-Request-ID"] == "mine-1"
    assert (await idle.http.get("/livez")).headers["X-Request-ID"]
