"""The commands as an operator types them: what they print, and how they exit."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio
from sqlalchemy import text

from causeway.sandbox.anvil import AnvilNode
from causeway.sandbox.glisk_chain import GliskContract
from tests.command import causeway
from tests.glisk_app import Glisk, running_glisk


@pytest_asyncio.fixture
async def glisk(
    database_url: str,
    anvil: AnvilNode,
    glisk_contract: GliskContract,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncGenerator[Glisk]:
    """GLISK at work, whose batches wait for an operator."""
    async with running_glisk(
        database_url, anvil, glisk_contract, monkeypatch, BATCH_REVEAL_WAIT_SECONDS="60"
    ) as running:
        yield running


async def test_an_operators_day(glisk: Glisk) -> None:
    author = glisk.node.accounts[5].address
    await glisk.mint(author, 1)
    await glisk.until_status(1, "ready")

    shown = await causeway("glisk", "token", "1", "--json")
    assert shown.code == 0, shown.err
    assert json.loads(shown.out)["status"] == "ready"
    assert "detected" in (await causeway("glisk", "token", "1")).out
    nobody = await causeway("glisk", "token", "99")
    assert (nobody.code, nobody.err.strip()) == (1, "causeway: there is no token 99")

    done = await causeway("glisk", "reveal", "1", "--wait")
    assert (done.code, done.out.strip()) == (0, "1: accepted")
    await glisk.mint(author, 2)  # these wait a minute for more
    for token_id in (2, 3):
        await glisk.until_status(token_id, "ready")
    partly = await causeway("glisk", "reveal", "1", "2")
    assert partly.code == 2
    assert "1: it is revealed already" in partly.out
    none = await causeway("glisk", "reveal", "77")
    assert none.code == 1
    old = await causeway("glisk", "manual_reveal", "--token-ids", "3", "77")
    assert old.code == 2

    leaders = await causeway("glisk", "authors", "--json")
    assert json.loads(leaders.out) == [{"author_address": author, "total_tokens": 3}]

    assert (await causeway("glisk", "pause", "ipfs", "--reason", "dinner")).code == 0
    assert (await glisk.http.get("/health")).json()["problems"] == ["ipfs is paused: dinner"]
    assert (await causeway("glisk", "resume", "ipfs")).code == 0
    wrong = await causeway("glisk", "pause", "dishes")
    assert wrong.code == 1
    assert "image, ipfs, reveal" in wrong.err

    assert (await causeway("glisk", "doctor")).code == 0
    whole = await causeway("doctor", "glisk")
    assert whole.code == 0, whole.out
    assert (await causeway("migrate", "--check")).code == 0
    lines = (await causeway("glisk", "export")).out.strip().splitlines()
    assert [json.loads(line)["token_id"] for line in lines] == [1, 2, 3]

    good = await causeway("glisk", "verify-cids")
    assert (good.code, good.out.strip()) == (0, "3 token(s) checked, 0 wrong CID(s)")
    async with glisk.installation.database.transaction() as session:
        await session.execute(text("UPDATE glisk.images SET content = content || 'x'::bytea"))
    assert (await causeway("glisk", "verify-cids")).code == 1

    shown_config = (await causeway("config")).out
    assert glisk.node.accounts[1].private_key[2:] not in shown_config
    assert "set, hidden" in shown_config


async def test_what_was_missed_is_found_again(glisk: Glisk) -> None:
    author = glisk.node.accounts[5].address
    await glisk.mint(author, 1)
    await glisk.mint(author, 2)
    await glisk.until_status(3, "ready")
    async with glisk.installation.database.transaction() as session:
        for table in ("image_generation_jobs", "ipfs_upload_records"):
            await session.execute(text(f"UPDATE glisk.{table} SET token_id = NULL"))
        await session.execute(text("DELETE FROM glisk.tokens_s0 WHERE token_id IN (2, 3)"))
        await session.execute(text("DELETE FROM glisk.mint_events WHERE start_token_id = 2"))
    dry = await causeway("glisk", "recover", "--from-block", "0", "--dry-run")
    assert "1 mint(s) would be applied, 1 known" in dry.out
    assert (await causeway("glisk", "recover", "--batch-size", "0")).code == 2
    found = await causeway("glisk", "recover-events", "--from-block", "0", "--batch-size", "1")
    assert "1 mint(s) applied, 1 known" in found.out
    await glisk.until_status(3, "ready")
    again = await causeway("glisk", "recover", "--from-block", "0")
    assert "0 mint(s) applied, 2 known" in again.out


async def test_failed_tokens_go_on_from_what_is_still_good(glisk: Glisk) -> None:
    glisk.sandbox.fault("delivery", "short")
    await glisk.mint(glisk.node.accounts[5].address, 1)
    await glisk.until_status(1, "failed")
    token = (await glisk.http.get("/admin/token/1")).json()
    assert "damaged or cut short" in token["generation_error"]
    glisk.sandbox.clear_faults()
    retried = await causeway("glisk", "retry", "--all-failed")
    assert (retried.code, retried.out.strip()) == (0, "1: detected")
    await glisk.until_status(1, "ready")
    assert (await causeway("glisk", "retry", "1")).code == 1
    assert (await causeway("glisk", "retry")).code == 1


async def test_settings_that_are_wrong_stop_the_start_with_one_list() -> None:
    ran = await causeway("run", "glisk", WORKER_POLL_INTERVAL="9", GAS_STRATEGY="wild")
    assert ran.code == 1
    assert "WORKER_POLL_INTERVAL" in ran.err
    assert "GAS_STRATEGY" in ran.err
    unsafe = await causeway("run", "glisk", CAUSEWAY_ENV="production")
    assert unsafe.code == 1
    assert "DATABASE_URL" in unsafe.err
    assert "ALCHEMY_WEBHOOK_SECRET" in unsafe.err
    assert (await causeway("run", "nothing")).code == 1
