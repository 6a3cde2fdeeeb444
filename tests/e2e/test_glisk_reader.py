"""What GLISK makes of its chain: gaps found and mended, other people's doings, snapshots."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio
from sqlalchemy import text

from causeway.apps.glisk import upkeep
from causeway.runtime.process import working
from causeway.sandbox.anvil import AnvilNode
from causeway.sandbox.glisk_chain import GliskContract
from causeway.sandbox.server import SandboxServer
from tests.glisk_app import Glisk, personal_sign, running_glisk, until


@pytest_asyncio.fixture
async def glisk(
    database_url: str,
    anvil: AnvilNode,
    glisk_contract: GliskContract,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncGenerator[Glisk]:
    """GLISK that reads and works on nothing else: its tokens stay where they are put."""
    async with running_glisk(
        database_url,
        anvil,
        glisk_contract,
        monkeypatch,
        ENABLE_IMAGE_WORKER="false",
        ENABLE_IPFS_WORKER="false",
        ENABLE_REVEAL_WORKER="false",
    ) as running:
        yield running


async def known(glisk: Glisk) -> int:
    """Return how many tokens there are."""
    return int((await glisk.http.get("/admin/tokens")).json()["total"])


async def test_the_audit_finds_what_is_missing_and_mends_it(glisk: Glisk) -> None:
    author = glisk.node.accounts[5].address
    await glisk.mint(author, 2)
    await glisk.mint(author, 1)

    async def all_there() -> bool:
        return await known(glisk) == 3

    await until(all_there)
    ctx = glisk.installation.contexts["glisk"]
    async with glisk.installation.database.transaction() as session:
        await session.execute(text("DELETE FROM glisk.tokens_s0 WHERE token_id = 3"))
        await session.execute(text("DELETE FROM glisk.mint_events WHERE start_token_id = 3"))
        await session.execute(text("DELETE FROM glisk.tokens_s0 WHERE token_id = 2"))
    await glisk.node.mine(80)  # far enough for the node to call the mints final

    async def read() -> bool:
        chain = (await glisk.http.get("/health/blockchain")).json()
        return chain["last_processed_block"] >= 80

    await until(read)
    missing, at = await upkeep.missing_tokens(ctx)
    assert missing == [2, 3], at
    await upkeep.audit(ctx)
    assert await known(glisk) == 3
    from_log = (await glisk.http.get("/admin/token/3")).json()
    assert from_log["source"] == "log"
    assert from_log["history"]["mint_event"]["token_ids"] == [3]
    made = (await glisk.http.get("/admin/token/2")).json()
    assert made["source"] == "repair"  # its log is known, so it could not be applied again
    assert made["author"]["wallet_address"] == author
    assert await upkeep.missing_tokens(ctx) == ([], at)


async def test_somebody_elses_reveal_drops_our_work_and_is_read_from_the_chain(
    glisk: Glisk,
) -> None:
    await glisk.mint(glisk.node.accounts[5].address, 1)
    await glisk.until_status(1, "detected")
    await glisk.contract.reveal(glisk.node.accounts[0], [1], ["ipfs://theirs"])
    await glisk.until_status(1, "revealed")

    async def read() -> bool:
        token = (await glisk.http.get("/admin/token/1")).json()
        return token["revealed_uri"] == "ipfs://theirs"

    await until(read)
    async with working(glisk.installation):
        assert glisk.sandbox.counts().paid() == 0
    token = (await glisk.http.get("/admin/token/1")).json()
    assert token["reveal_tx_hash"] is not None
    assert token["history"]["generation_jobs"] == []


async def test_owners_prices_and_the_end_of_the_season_are_followed(glisk: Glisk) -> None:
    owner, buyer = glisk.node.accounts[2], glisk.node.accounts[7]
    admin = glisk.node.accounts[0]
    await glisk.mint(glisk.node.accounts[5].address, 1)
    await glisk.contract.transact(owner, "transferFrom", owner.address, buyer.address, 1)
    await glisk.contract.transact(admin, "setMintPrice", 123)
    await glisk.contract.transact(admin, "setPlaceholderURI", "ipfs://soon")
    await glisk.contract.transact(admin, "endSeason")

    async def ended() -> bool:
        state = (await glisk.http.get("/admin/system/state")).json()
        return "season_ended_at" in state["contract"]

    await until(ended)
    contract = (await glisk.http.get("/admin/system/state")).json()["contract"]
    assert contract["mint_price_wei"] == "123"
    assert contract["placeholder_uri"] == "ipfs://soon"
    async with glisk.installation.database.sessions() as session:
        found = await session.scalar(text("SELECT owner_address FROM glisk.tokens_s0"))
    assert found == buyer.address


async def test_a_prompt_is_what_it_was_when_it_was_paid_for(glisk: Glisk) -> None:
    author = glisk.node.accounts[5]
    await glisk.sign_in(author, "as it was")
    await glisk.mint(author.address, 1)
    await glisk.until_status(1, "detected")
    await glisk.sign_in(author, "as it is now")
    await glisk.mint(author.address, 1)
    await glisk.until_status(2, "detected")
    assert (await glisk.http.get("/admin/token/1")).json()["prompt_text"] == "as it was"
    assert (await glisk.http.get("/admin/token/2")).json()["prompt_text"] == "as it is now"


async def test_a_mint_without_an_author_is_booked_to_the_contract(glisk: Glisk) -> None:
    await glisk.mint("0x" + "0" * 40, 1)
    await glisk.until_status(1, "detected")
    token = (await glisk.http.get("/admin/token/1")).json()
    assert token["author"]["wallet_address"] == glisk.contract.address
    assert token["author"]["has_prompt"] is False


async def test_the_contract_wallet_signs_and_a_node_that_is_away_decides_nothing(
    glisk: Glisk,
) -> None:
    stranger = glisk.node.accounts[8]
    asked = await glisk.http.get(
        "/api/authors/challenge",
        params={
            "wallet": glisk.contract.address,
            "action": "prompt",
            "prompt_sha256": "a" * 64,
        },
    )
    message = asked.json()["message"]
    body = {
        "wallet_address": glisk.contract.address,
        "prompt_text": "x",
        "message": message,
        "signature": "0x" + "11" * 65,
    }
    assert (await glisk.http.post("/api/authors/prompt", json=body)).status_code == 400
    assert (await glisk.sign_in(stranger, "mine")).status_code == 200


async def test_links_that_are_not_set_up_say_so(glisk: Glisk) -> None:
    callback = await glisk.http.get("/api/authors/x/callback", follow_redirects=False)
    assert callback.status_code == 302
    assert "x_linked=false&error=unexpected_error" in callback.headers["location"]


async def test_an_x_account_is_linked_from_the_first_click_to_the_profile(
    database_url: str,
    anvil: AnvilNode,
    glisk_contract: GliskContract,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with SandboxServer.start() as sandbox:
        async with running_glisk(
            database_url,
            anvil,
            glisk_contract,
            monkeypatch,
            worker=False,
            X_CLIENT_ID=sandbox.settings.x_client_id,
            X_CLIENT_SECRET=sandbox.settings.x_client_secret,
            X_REDIRECT_URI="http://glisk.test/api/authors/x/callback",
            X_AUTHORIZE_URL=sandbox.x_authorize_url,
            X_API_BASE_URL=sandbox.x_url,
        ) as glisk:
            author = anvil.accounts[5]
            asked = await glisk.http.get(
                "/api/authors/challenge", params={"wallet": author.address, "action": "x"}
            )
            message = asked.json()["message"]
            signed = {
                "wallet_address": author.address,
                "message": message,
                "signature": personal_sign(author, message),
            }
            started = await glisk.http.post("/api/authors/x/auth/start", json=signed)
            assert started.status_code == 200, started.text
            url = started.json()["authorization_url"]
            assert "code_challenge_method=S256" in url
            assert "scope=tweet.read%20users.read" in url
            consent = await glisk.http.get(url, follow_redirects=False)
            query = consent.headers["location"].partition("?")[2]
            back = await glisk.http.get(f"/api/authors/x/callback?{query}", follow_redirects=False)
            assert back.status_code == 302
            assert back.headers["location"].endswith(
                "/profile?tab=author&x_linked=true&username=sandbox_author"
            )
            shown = (await glisk.http.get(f"/api/authors/{author.address}")).json()
            assert shown["twitter_handle"] == "sandbox_author"
            again = await glisk.http.get(f"/api/authors/x/callback?{query}", follow_redirects=False)
            assert again.headers["location"].endswith("x_linked=false&error=state_mismatch")
            replay = await glisk.http.post("/api/authors/x/auth/start", json=signed)
            assert replay.status_code == 400
