"""OAuth states that count once, for their action, in their time, whoever comes how often."""

from __future__ import annotations

import asyncio
import base64
import hashlib

import pytest
from sqlalchemy import text

from causeway.base.errors import NotAuthenticated
from causeway.connections import oauth_state
from causeway.store.engine import Database

WALLET = "0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A"


async def test_old_states_do_not_pile_up(database: Database) -> None:
    for _ in range(3):
        await oauth_state.start(database, "glisk.x", WALLET)
    async with database.transaction() as session:
        await session.execute(
            text("UPDATE causeway.auth_oauth_states SET expires_at = now() - interval '2 hours'")
        )
    await oauth_state.start(database, "glisk.x", WALLET)
    async with database.transaction() as session:
        assert await session.scalar(text("SELECT count(*) FROM causeway.auth_oauth_states")) == 1


async def test_an_oauth_state_is_taken_back_once(database: Database) -> None:
    started = await oauth_state.start(database, "glisk.x", WALLET)
    assert started.code_challenge_method == "S256"

    calls = [oauth_state.consume(database, "glisk.x", started.state) for _ in range(20)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    (returned,) = [r for r in results if isinstance(r, oauth_state.Returned)]
    assert sum(isinstance(r, NotAuthenticated) for r in results) == 19
    assert returned.subject == WALLET
    digest = hashlib.sha256(returned.verifier.encode()).digest()
    assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == started.code_challenge
    assert 43 <= len(returned.verifier) <= 128
    assert returned.verifier not in repr(returned)


async def test_an_oauth_state_is_for_its_action_and_its_time(database: Database) -> None:
    started = await oauth_state.start(database, "glisk.x", WALLET)
    for action, state in (
        ("glisk.other", started.state),
        ("glisk.x", started.state + "x"),
        ("glisk.x", ""),
        ("glisk.x", "\ud800\0"),
    ):
        with pytest.raises(NotAuthenticated):
            await oauth_state.consume(database, action, state)
    assert (await oauth_state.consume(database, "glisk.x", started.state)).subject

    late = await oauth_state.start(database, "glisk.x", WALLET, lifetime_s=0)
    with pytest.raises(oauth_state.AuthorizationExpired):
        await oauth_state.consume(database, "glisk.x", late.state)
    with pytest.raises(NotAuthenticated, match="unknown, was used"):
        await oauth_state.consume(database, "glisk.x", late.state)


async def test_the_database_holds_no_state_to_steal(database: Database) -> None:
    started = await oauth_state.start(database, "glisk.x", WALLET)
    async with database.transaction() as session:
        rows = await session.execute(text("SELECT * FROM causeway.auth_oauth_states"))
        assert started.state not in str(rows.all())
