"""GLISK through killed workers, outages and reorganisations.

In every case: no token lost, none revealed twice, none with wrong content, and no picture paid for
twice when the first could still be fetched. Counted where it counts: on the chain and at the
stand-ins, never by our own word.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio
from sqlalchemy import text

from causeway.pipelines import control
from causeway.runtime.process import working
from causeway.sandbox import dag
from causeway.sandbox.anvil import AnvilNode
from causeway.sandbox.glisk_chain import GliskContract, receipt_of
from tests.glisk_app import Glisk, delivery_of, running_glisk, until
from tests.postgres_fixtures import PostgresServer, migrated_template

SOURCE = Path(__file__).parents[2] / "src" / "causeway"
REVEALED = "0x5f36dfedf769ad12bf71aec843edc397276a255b70d51016d99f5fb020dfd902"

#: Every named place of the app and the rooms that move its tokens; a new one is found by itself.
POINTS = sorted(
    {
        name
        for room in ("apps/glisk", "pipelines", "indexing")
        for file in (SOURCE / room).rglob("*.py")
        for name in re.findall(r'fault_point\("([a-z_.]+)"\)', file.read_text())
        if ".undo." not in name  # those need a reorganisation: tests/chain has them
    }
)
SOME = ("glisk.prediction_created", "glisk.image_kept", "glisk.filed", "indexing.before_commit")


@asynccontextmanager
async def worker(fault: str = "") -> AsyncGenerator[asyncio.subprocess.Process]:
    """Run `causeway work glisk` as a process of its own, with the environment of the test."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from causeway.cli import main; main()", "work", "glisk"),
        env={**os.environ, "CAUSEWAY_FAULT": fault, "GLISK_LEASE_SECONDS": "2"},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@pytest_asyncio.fixture
async def idle(
    database_url: str,
    anvil: AnvilNode,
    glisk_contract: GliskContract,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncGenerator[Glisk]:
    """GLISK served, with nobody working yet."""
    async with running_glisk(
        database_url, anvil, glisk_contract, monkeypatch, worker=False
    ) as running:
        yield running


async def reveals(glisk: Glisk) -> Counter[int]:
    """Return how often each token was revealed, from the chain's logs."""
    logs: list[dict[str, Any]] = await glisk.node.rpc(
        "eth_getLogs",
        {"address": glisk.contract.address, "topics": [REVEALED], "fromBlock": "0x0"},
    )
    seen: Counter[int] = Counter()
    for log in logs:
        words = bytes.fromhex(log["data"][2:])
        for i in range(int.from_bytes(words[32:64], "big")):
            seen[int.from_bytes(words[64 + 32 * i : 96 + 32 * i], "big")] += 1
    return seen


async def check(glisk: Glisk, tokens: int) -> None:
    """Check every token on the chain and on IPFS, and that nothing was paid for twice."""
    assert await reveals(glisk) == Counter(range(1, tokens + 1))
    for token_id in range(1, tokens + 1):
        cid = (await glisk.contract.token_uri(token_id)).removeprefix("ipfs://")
        metadata = (await glisk.http.get(f"{glisk.sandbox.gateway_url}/ipfs/{cid}")).content
        assert str(dag.build(metadata, dag.KUBO_V1).root) == cid
        document = orjson.loads(metadata)
        assert document["name"] == f"GLISK S0 #{token_id}"
        image_cid = document["image"].removeprefix("ipfs://")
        image = (await glisk.http.get(f"{glisk.sandbox.gateway_url}/ipfs/{image_cid}")).content
        assert str(dag.build(image, dag.KUBO_V1).root) == image_cid
        known = (await glisk.http.get(f"/admin/token/{token_id}")).json()
        assert known["metadata_cid"] == cid
    paid = Counter[tuple[str, int | None]]()
    for made in glisk.sandbox.counts().predictions:
        paid[made.prompt, made.seed] += made.count
    assert set(paid.values()) <= {1}, paid
    assert sum(paid.values()) == tokens


async def all_revealed(glisk: Glisk, tokens: int, seconds: float = 60) -> None:
    """Wait until that many tokens are revealed."""

    async def condition() -> bool:
        page = (await glisk.http.get("/admin/tokens", params={"status": "revealed"})).json()
        return page["total"] == tokens

    await until(condition, seconds)


@pytest.mark.parametrize(
    "point",
    [p if p in SOME else pytest.param(p, marks=pytest.mark.long) for p in POINTS],
)
async def test_a_worker_killed_at_any_step_costs_nothing(idle: Glisk, point: str) -> None:
    await idle.mint(idle.node.accounts[5].address, 3)
    async with worker(point) as victim:
        await asyncio.wait_for(victim.wait(), 60)
        assert victim.returncode == -signal.SIGKILL
    async with worker():
        await all_revealed(idle, 3)
    await check(idle, 3)


def test_every_step_of_the_app_has_a_place_where_it_can_be_killed() -> None:
    assert set(SOME) <= set(POINTS)
    assert len(POINTS) >= 14


@pytest.mark.parametrize(
    ("workers", "tokens"), [(2, 40), pytest.param(4, 500, marks=pytest.mark.long)]
)
@pytest.mark.timeout(600)
async def test_several_workers_process_no_token_twice(
    idle: Glisk, workers: int, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    idle.sandbox.settings.creations_per_minute = 100_000
    idle.sandbox.settings.reads_per_minute = 100_000
    idle.sandbox.settings.pinata_per_minute = 100_000
    monkeypatch.setenv("PINATA_RATE_PER_MINUTE", "100000")
    author = idle.node.accounts[5].address
    for _ in range(tokens // 20):
        await idle.mint(author, 20)
    async with AsyncExitStack() as stack:
        for _ in range(workers):
            await stack.enter_async_context(worker())
        await all_revealed(idle, tokens, 400)
    await check(idle, tokens)
    async with idle.installation.database.sessions() as session:
        took_part = await session.scalar(
            text(
                "SELECT count(DISTINCT split_part(worker, ':', 2)) FROM causeway.transitions "
                "WHERE to_status = 'generating'"
            )
        )
    assert took_part == workers


OUTAGE_S = (2.0, pytest.param(60.0, marks=[pytest.mark.long, pytest.mark.timeout(240)]))


@pytest.mark.parametrize("seconds", OUTAGE_S)
@pytest.mark.parametrize("service", ["replicate", "pinata"])
async def test_an_outage_of_a_service_is_waited_out(
    idle: Glisk, service: Any, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "PROBE_EVERY_S", 1.0)
    idle.sandbox.fault(service, "status", status=503)
    await idle.mint(idle.node.accounts[5].address, 6)
    async with working(idle.installation):

        async def suffering() -> bool:
            page = (await idle.http.get("/admin/tokens")).json()
            return any(token["generation_error"] for token in page["items"])

        await until(suffering)
        await asyncio.sleep(seconds)  # the outage itself, not a way to synchronise
        assert (await idle.http.get("/admin/tokens?status=failed")).json()["total"] == 0
        idle.sandbox.clear_faults()
        await all_revealed(idle, 6, 90)
    await check(idle, 6)


@pytest.mark.parametrize("seconds", OUTAGE_S)
async def test_an_outage_of_the_chain_is_waited_out(idle: Glisk, seconds: float) -> None:
    await idle.mint(idle.node.accounts[5].address, 2)
    async with working(idle.installation):
        idle.node.pause()
        try:
            await asyncio.sleep(seconds)  # the outage itself
            health = (await idle.http.get("/health")).json()
            assert health["status"] in ("healthy", "degraded")
        finally:
            idle.node.resume()
        await all_revealed(idle, 2, 90)
    await check(idle, 2)


async def test_the_same_webhook_a_hundred_times_brings_its_mint_once(idle: Glisk) -> None:
    receipt = await idle.mint(idle.node.accounts[5].address, 2)
    answers = await asyncio.gather(*(idle.deliver(delivery_of(receipt)) for _ in range(100)))
    counts = Counter(answer.status_code for answer in answers)
    assert counts[200] >= 1
    assert counts[200] + counts[409] == 100
    assert (await idle.http.get("/admin/tokens")).json()["total"] == 2
    async with idle.installation.database.sessions() as session:
        assert await session.scalar(text("SELECT count(*) FROM glisk.mint_events")) == 1


async def reorganise(glisk: Glisk, receipt: dict[str, Any], again: bool) -> None:
    """Take a mint's block away; with `again` the same transaction is in a later one."""
    raw = await glisk.node.rpc("eth_getRawTransactionByHash", receipt["transactionHash"])
    depth = await glisk.node.height() - int(receipt["blockNumber"], 16) + 1
    await glisk.node.mine()
    await glisk.node.reorg(depth + 1, [(raw, 1)] if again else [])


async def test_a_mint_undone_and_mined_again_reuses_the_picture_that_was_paid_for(
    database_url: str,
    anvil: AnvilNode,
    glisk_contract: GliskContract,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running_glisk(
        database_url, anvil, glisk_contract, monkeypatch, BATCH_REVEAL_WAIT_SECONDS="60"
    ) as glisk:
        receipt = await glisk.mint(anvil.accounts[5].address, 1)
        await glisk.until_status(1, "ready")
        first = (await glisk.http.get("/admin/token/1")).json()
        await reorganise(glisk, receipt, again=True)

        async def again() -> bool:
            token = (await glisk.http.get("/admin/token/1")).json()
            return (
                token.get("status") == "ready"
                and token["history"]["mint_event"]["block_hash"]
                != first["history"]["mint_event"]["block_hash"]
            )

        await until(again, 40)
        token = (await glisk.http.get("/admin/token/1")).json()
        assert token["image_cid"] == first["image_cid"]
        assert glisk.sandbox.counts().paid() == 1
        answer = await glisk.http.post("/admin/reveal", json={"token_ids": [1]})
        assert answer.status_code == 202
        await all_revealed(glisk, 1)
        await check(glisk, 1)


async def test_an_undone_mint_leaves_nothing_and_its_id_may_be_anothers(
    database_url: str,
    anvil: AnvilNode,
    glisk_contract: GliskContract,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running_glisk(
        database_url, anvil, glisk_contract, monkeypatch, BATCH_REVEAL_WAIT_SECONDS="60"
    ) as glisk:
        first, second = anvil.accounts[5], anvil.accounts[6]
        await glisk.sign_in(first, "the first author's")
        await glisk.sign_in(second, "the second author's")
        receipt = await glisk.mint(first.address, 1)
        await glisk.until_status(1, "ready")
        await reorganise(glisk, receipt, again=False)

        async def gone() -> bool:
            return await glisk.status_of(1) is None

        await until(gone, 40)
        await glisk.mint(second.address, 1)
        await glisk.until_status(1, "ready")
        token = (await glisk.http.get("/admin/token/1")).json()
        assert token["prompt_text"] == "the second author's"
        assert glisk.sandbox.counts().paid(prompt="the second author's") == 1
        await glisk.http.post("/admin/reveal", json={"token_ids": [1]})
        await all_revealed(glisk, 1)
        assert await reveals(glisk) == Counter([1])
        assert await glisk.contract.token_uri(1) == token["metadata_uri"]


async def test_a_reveal_that_was_reorganised_away_is_mined_again_with_the_same_bytes(
    database_url: str,
    anvil: AnvilNode,
    glisk_contract: GliskContract,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running_glisk(
        database_url, anvil, glisk_contract, monkeypatch, GLISK_REVEAL_CONFIRMATIONS="2"
    ) as glisk:
        await glisk.mint(anvil.accounts[5].address, 1)
        await anvil.mine(2)

        async def mined() -> bool:
            return await glisk.contract.is_revealed(1)

        await until(mined, 40)
        (log,) = await anvil.rpc(
            "eth_getLogs",
            {"address": glisk_contract.address, "topics": [REVEALED], "fromBlock": "0x0"},
        )
        await anvil.reorg(await anvil.height() - int(log["blockNumber"], 16) + 1)
        assert not await glisk.contract.is_revealed(1)
        await until(mined, 40)
        await anvil.mine(3)
        await glisk.until_status(1, "revealed")
        token = (await glisk.http.get("/admin/token/1")).json()
        assert token["reveal_tx_hash"] == log["transactionHash"]
        await check(glisk, 1)


async def test_a_token_somebody_else_revealed_is_an_incident_and_never_hidden(
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
        await glisk.contract.reveal(anvil.accounts[0], [1], ["ipfs://another"])
        await glisk.until_status(1, "revealed")

        async def told() -> bool:
            state = (await glisk.http.get("/admin/system/state")).json()
            return [i["kind"] for i in state["incidents"]] == ["uri_mismatch"]

        await until(told)
        token = (await glisk.http.get("/admin/token/1")).json()
        assert token["revealed_uri"] == "ipfs://another"
        await glisk.http.post("/admin/reveal", json={"token_ids": [2]})
        await glisk.until_status(2, "revealed")
        assert await reveals(glisk) == Counter([1, 2])


@pytest.mark.parametrize("kind", ["html", "huge", "redirect", "truncate"])
async def test_a_file_that_is_no_picture_is_never_kept(idle: Glisk, kind: Any) -> None:
    more: dict[str, Any] = (
        {"location": "http://169.254.169.254/latest/meta-data"} if kind == "redirect" else {}
    )
    idle.sandbox.fault("delivery", kind, **more)
    await idle.mint(idle.node.accounts[5].address, 1)
    async with working(idle.installation):

        async def told() -> bool:
            token = (await idle.http.get("/admin/token/1")).json()
            return bool(token.get("error_log"))

        await until(told, 30)
        async with idle.installation.database.sessions() as session:
            assert await session.scalar(text("SELECT count(*) FROM glisk.images")) == 0
        idle.sandbox.clear_faults()
        if await idle.status_of(1) == "failed":
            answer = await idle.http.post("/admin/token/1/retry")
            assert answer.status_code == 202
        await all_revealed(idle, 1)
    assert await reveals(idle) == Counter([1])


async def test_the_self_hosted_generator_stands_in_while_replicate_is_away(
    database_url: str,
    anvil: AnvilNode,
    glisk_contract: GliskContract,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running_glisk(
        database_url, anvil, glisk_contract, monkeypatch, worker=False
    ) as first:
        url = first.sandbox.selfhosted_url
        async with running_glisk(
            database_url, anvil, glisk_contract, monkeypatch, SELFHOSTED_IMAGE_API_URL=url
        ) as glisk:
            glisk.sandbox.fault("replicate", "status", status=503)
            await glisk.mint(anvil.accounts[5].address, 6)
            await all_revealed(glisk, 6)
            jobs = (await glisk.http.get("/admin/token/1")).json()["history"]["generation_jobs"]
            assert jobs[-1]["service"] == "selfhosted"
            assert jobs[-1]["status"] == "succeeded"


async def test_a_refused_prompt_is_drawn_once_more_with_the_harmless_one(idle: Glisk) -> None:
    author = idle.node.accounts[5]
    await idle.sign_in(author, "something forbidden")
    await idle.mint(author.address, 1)
    async with working(idle.installation):
        await all_revealed(idle, 1)
    token = (await idle.http.get("/admin/token/1")).json()
    assert token["censored"] is True
    jobs = token["history"]["generation_jobs"]
    assert [job["status"] for job in jobs] == ["censored", "succeeded"]


async def test_a_stuck_reveal_is_replaced_with_the_same_nonce(
    database_url: str,
    anvil: AnvilNode,
    glisk_contract: GliskContract,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running_glisk(
        database_url, anvil, glisk_contract, monkeypatch, TRANSACTION_TIMEOUT_SECONDS="1"
    ) as glisk:
        tx_hash = await glisk_contract.mint(anvil.accounts[2], anvil.accounts[5].address, 1)
        await receipt_of(anvil, tx_hash)
        await anvil.rpc("evm_setAutomine", False)

        async def replaced() -> bool:
            token = (await glisk.http.get("/admin/token/1")).json()
            attempts = token.get("history", {}).get("reveal_transactions", [])
            return len(attempts) >= 2

        await until(replaced, 40)
        attempts = (await glisk.http.get("/admin/token/1")).json()["history"]["reveal_transactions"]
        assert len({a["nonce"] for a in attempts}) == 1
        assert attempts[1]["replaces_id"] == attempts[0]["id"]
        await anvil.rpc("evm_setAutomine", True)
        await anvil.mine()
        await all_revealed(glisk, 1)
        await check(glisk, 1)


async def test_a_restart_of_postgresql_is_waited_out(
    postgres_server: PostgresServer,
    anvil: AnvilNode,
    glisk_contract: GliskContract,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    template = await asyncio.to_thread(migrated_template, postgres_server)
    url = postgres_server.create("restarted", template)
    async with running_glisk(
        url, anvil, glisk_contract, monkeypatch, GLISK_LEASE_SECONDS="2"
    ) as glisk:
        glisk.sandbox.settings.latency_s = 0.5
        await glisk.mint(anvil.accounts[5].address, 6)
        await glisk.until_status(1, "generating")
        await asyncio.to_thread(postgres_server.stop)
        answer = await glisk.http.get("/health")
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "DATABASE_UNAVAILABLE"
        refused = await glisk.deliver({"id": "w", "type": "GRAPHQL", "event": {}})
        assert refused.status_code in (400, 503)
        await asyncio.to_thread(postgres_server.start)
        await all_revealed(glisk, 6)
        await check(glisk, 6)
