"""Connecting an account, from the first request to the stored token, and every way to cheat."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator
from io import StringIO

import httpx2
import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from causeway.base import logging as our_logging
from causeway.connections import flow
from causeway.connections.errors import AuthorizationFailed, CredentialRefused, NotConnected
from causeway.connections.revocation import revoke_due
from causeway.connections.vault import list_connections
from causeway.store import migrate
from causeway.store.encryption import Undecryptable
from causeway.store.engine import Database
from tests.connections import ALICE, CALLBACK, MALLORY, WAKA_KEY, World, world
from tests.postgres_fixtures import PostgresServer


@pytest.fixture(name="w")
async def _world(database: Database) -> AsyncIterator[World]:
    async with world(database) as opened:
        yield opened


async def everything(database: Database) -> str:
    """Return all tables of this room as somebody with a copy of the database reads them."""
    async with database.transaction() as session:
        parts: list[str] = []
        for table in ("connections", "connection_revocations", "auth_oauth_states"):
            rows = await session.execute(text(f"SELECT t::text FROM causeway.{table} t"))
            parts += [str(row[0]) for row in rows]
    return "\n".join(parts)


async def failure(w: World, **callback: str | None) -> str:
    with pytest.raises(AuthorizationFailed) as failed:
        await flow.finish(
            w.vault, w.github, code=callback.get("code"), state=callback.get("state"),
            error=callback.get("error"),
        )  # fmt: skip
    return failed.value.code


async def test_an_account_is_connected(w: World) -> None:
    connection = await w.connect()
    assert (connection.app, connection.provider, connection.subject) == ("motify", "github", ALICE)
    assert connection.account is not None
    assert connection.account.name == "alice"
    assert connection.scopes == ("user:email",)
    credential = await w.connections.credential("github", ALICE)
    assert credential.token.get_secret_value().startswith("gho_")
    assert await w.github.account(credential) == connection.account


async def test_the_authorization_address_is_as_documented(w: World) -> None:
    begun = await flow.begin(w.vault, w.github, ALICE)
    url = httpx2.URL(begun.url)
    assert str(url.copy_with(query=None)) == f"{w.sandbox.github_oauth_url}/login/oauth/authorize"
    parameters = dict(url.params)
    challenge = parameters.pop("code_challenge")
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", challenge)
    assert parameters == {
        "response_type": "code",
        "client_id": "sandbox-github-client",
        "redirect_uri": CALLBACK,
        "scope": "user:email",
        "state": begun.state,
        "code_challenge_method": "S256",
    }
    assert "scope=user%3Aemail" in begun.url


async def test_a_callback_counts_once(w: World, database: Database) -> None:
    begun = await flow.begin(w.vault, w.github, ALICE)
    back = await w.visit(begun.url)
    results = await asyncio.gather(
        *[
            flow.finish(w.vault, w.github, code=back["code"], state=back["state"])
            for _ in range(10)
        ],
        return_exceptions=True,
    )
    codes = [r.code for r in results if isinstance(r, AuthorizationFailed)]
    assert codes == ["invalid_state"] * 9
    assert w.asked("/github/login/oauth/access_token") == 1
    assert len(await list_connections(database)) == 1


@pytest.mark.parametrize("state", [None, "", "guessed", "x" * 5000, "\ud800\0"])
async def test_a_forged_callback_connects_nothing(w: World, state: str | None) -> None:
    begun = await flow.begin(w.vault, w.github, ALICE)
    back = await w.visit(begun.url)
    assert await failure(w, code=back["code"], state=state) == "invalid_state"
    assert w.asked("/github/login/oauth/access_token") == 0
    assert await w.vault.find("github", ALICE) is None


async def test_a_code_of_another_authorization_buys_nothing(w: World) -> None:
    """Mallory's code in Alice's callback would link Mallory's account to Alice's wallet."""
    alices = await flow.begin(w.vault, w.github, ALICE)
    mallorys = await flow.begin(w.vault, w.github, MALLORY)
    w.sandbox.settings.github_login = "mallory"
    back = await w.visit(mallorys.url)
    assert await failure(w, code=back["code"], state=alices.state) == "token_exchange_failed"
    assert await w.vault.find("github", ALICE) is None
    assert await w.vault.find("github", MALLORY) is None


async def test_the_subject_comes_from_the_state_alone(w: World) -> None:
    first = await w.connect(ALICE, "alice")
    second = await w.connect(MALLORY, "mallory")
    assert (first.subject, second.subject) == (ALICE, MALLORY)
    tokens = {(await w.connections.credential("github", s)).token for s in (ALICE, MALLORY)}
    assert len(tokens) == 2


async def test_a_state_is_for_its_app_and_provider(w: World, database: Database) -> None:
    begun = await flow.begin(w.vault, w.wakatime, ALICE)
    back = await w.visit(begun.url)
    assert await failure(w, code=back["code"], state=back["state"]) == "invalid_state"
    # It was left for its own callback.
    connection = await flow.finish(w.vault, w.wakatime, code=back["code"], state=back["state"])
    assert connection.provider == "wakatime"
    assert connection.scopes == ("read_summaries",)
    credential = await w.connections.credential("wakatime", ALICE)
    assert (await w.wakatime.account(credential)) == connection.account


async def test_a_late_callback_is_told_that_it_is_late(w: World, database: Database) -> None:
    begun = await flow.begin(w.vault, w.github, ALICE)
    back = await w.visit(begun.url)
    async with database.transaction() as session:
        left = await session.scalar(
            text("SELECT extract(epoch FROM expires_at - now()) FROM causeway.auth_oauth_states")
        )
        assert 590 < float(left or 0) <= 600
        await session.execute(
            text(
                "UPDATE causeway.auth_oauth_states SET expires_at = expires_at - '601 s'::interval"
            )
        )
    assert await failure(w, code=back["code"], state=back["state"]) == "expired_state"
    assert await failure(w, code=back["code"], state=back["state"]) == "invalid_state"


async def test_cancelling_is_told_from_an_error_and_uses_the_state_up(w: World) -> None:
    w.sandbox.settings.github_decision = "deny"
    begun = await flow.begin(w.vault, w.github, ALICE)
    back = await w.visit(begun.url)
    assert await failure(w, error=back["error"], state=back["state"]) == "access_denied"
    assert await failure(w, code="any", state=back["state"]) == "invalid_state"
    assert await failure(w, error="server_error<script>", state="s") == "provider_error"


@pytest.mark.parametrize(
    ("kind", "match"),
    [("status", "access_token"), ("html", "access_token"), ("reset", "access_token"),
     ("huge", "access_token"), ("status", "/user"), ("html", "/user"), ("redirect", "/user")],
)  # fmt: skip
async def test_a_provider_in_trouble_connects_nothing(w: World, kind: str, match: str) -> None:
    w.sandbox.fault("github", kind, match=match)  # pyright: ignore[reportArgumentType]
    begun = await flow.begin(w.vault, w.github, ALICE)
    back = await w.visit(begun.url)
    assert await failure(w, code=back["code"], state=back["state"]) == "token_exchange_failed"
    assert await w.vault.find("github", ALICE) is None
    assert w.asked("/github/login/oauth/access_token") == 1


async def test_a_wrong_secret_of_ours_is_no_connection(w: World) -> None:
    begun = await flow.begin(w.vault, w.github, ALICE)
    back = await w.visit(begun.url)
    w.sandbox.settings.github_client_secret = "changed there"
    assert await failure(w, code=back["code"], state=back["state"]) == "token_exchange_failed"


async def test_a_token_that_cannot_be_stored_is_taken_back_at_once(
    postgres_server: PostgresServer,
) -> None:
    database = Database(await asyncio.to_thread(postgres_server.create, "stopped"))
    await migrate.upgrade(database, [migrate.kernel_line()])
    async with world(database) as w:
        w.sandbox.fault("github", "slow", count=1, seconds=1, match="/user")
        begun = await flow.begin(w.vault, w.github, ALICE)
        back = await w.visit(begun.url)
        finishing = asyncio.create_task(
            flow.finish(w.vault, w.github, code=back["code"], state=back["state"])
        )
        async with asyncio.timeout(20):
            while not w.asked("/github-api/user"):
                await asyncio.sleep(0.01)
        assert len(w.sandbox.tokens("github")) == 1
        await asyncio.to_thread(postgres_server.stop)
        with pytest.raises(OperationalError):
            await finishing
        assert w.sandbox.tokens("github") == {}
    await database.close()


async def test_one_account_serves_one_person(w: World, database: Database) -> None:
    first = await w.connect(ALICE, "alice")
    with pytest.raises(AuthorizationFailed) as taken:
        await w.connect(MALLORY, "alice")
    assert taken.value.code == "account_already_linked"
    assert await w.vault.find("github", ALICE) == first
    assert await w.vault.find("github", MALLORY) is None
    # The token nobody uses is given back.
    done = await revoke_due(database, w.keyring, "motify", w.connections.providers)
    assert done.done == 1
    assert (await w.github.account(await w.connections.credential("github", ALICE))).name == "alice"
    # And is free again once its holder lets go.
    assert await w.vault.remove("github", ALICE)
    assert (await w.connect(MALLORY, "alice")).subject == MALLORY


async def test_connecting_again_replaces_the_token_and_the_old_one_is_revoked(
    w: World, database: Database
) -> None:
    first = await w.connect()
    old = await w.connections.credential("github", ALICE)
    second = await w.connect()
    new = await w.connections.credential("github", ALICE)
    assert (second.id, second.version) == (first.id, first.version + 1)
    assert new.token != old.token
    assert (await revoke_due(database, w.keyring, "motify", w.connections.providers)).done == 1
    log = await everything(database)
    assert old.token.get_secret_value() not in log
    await w.github.account(new)


async def test_disconnecting_deletes_and_revokes(w: World, database: Database) -> None:
    await w.connect()
    credential = await w.connections.credential("github", ALICE)
    w.sandbox.fault("github", "status", count=3, match="applications")
    assert await w.vault.remove("github", ALICE)
    assert not await w.vault.remove("github", ALICE)
    with pytest.raises(NotConnected):
        await w.connections.credential("github", ALICE)

    async def due() -> None:
        async with database.transaction() as session:
            await session.execute(
                text("UPDATE causeway.connection_revocations SET due_at = now() - '1 s'::interval")
            )

    revoked = [await revoke_due(database, w.keyring, "motify", w.connections.providers)]
    assert revoked[0].later == 1
    # Not before its time, and not by another app.
    assert (
        await revoke_due(database, w.keyring, "motify", w.connections.providers)
        == type(revoked[0])()
    )
    await due()
    w.clock.move(3600)
    nobody = await revoke_due(database, w.keyring, "wisp", w.connections.providers)
    both = await asyncio.gather(
        *[revoke_due(database, w.keyring, "motify", w.connections.providers) for _ in range(2)]
    )
    assert nobody.done == 0
    assert sum(r.done + r.later for r in both) == 1
    async with httpx2.AsyncClient() as http:
        answer = await http.get(
            f"{w.sandbox.github_api_url}/user",
            headers={"Authorization": f"Bearer {credential.token.get_secret_value()}"},
        )
    assert answer.status_code == 401
    assert await everything(database) == ""


async def test_the_tables_read_raw_show_no_secret(w: World, database: Database) -> None:
    w.sandbox.settings.github_tokens_expire = True
    await w.connect(ALICE, "alice")
    await w.connect(ALICE, "alice")  # leaves an old token to be revoked
    await w.connect_key()
    opened = [await w.vault.open(provider, ALICE) for provider in ("github", "wakatime")]
    raw = await everything(database)
    assert raw.count("v1.") == 4
    for connection in opened:
        assert connection is not None
        for token in (connection.access_token, connection.refresh_token):
            if token is not None:
                assert token.get_secret_value() not in raw
                assert token.get_secret_value()[5:20] not in raw
                assert token.get_secret_value() not in repr(connection)


async def test_a_token_moved_to_another_wallet_s_row_does_not_open(
    w: World, database: Database
) -> None:
    """Somebody who can write to the table must not score with another's account."""
    await w.connect(ALICE, "alice")
    await w.connect(MALLORY, "mallory")
    for change in (
        "UPDATE causeway.connections SET access_token = (SELECT access_token FROM "
        f"causeway.connections WHERE subject = '{ALICE}') WHERE subject = '{MALLORY}'",
        f"UPDATE causeway.connections SET subject = '0xother' WHERE subject = '{ALICE}'",
    ):
        async with database.transaction() as session:
            await session.execute(text(change))
    for subject in (MALLORY, "0xother"):
        with pytest.raises(Undecryptable):
            await w.connections.credential("github", subject)
    # What cannot be read keeps nobody from connecting again, or from leaving.
    assert (await w.connect(MALLORY, "mallory")).subject == MALLORY
    assert await w.vault.remove("github", "0xother")


async def test_nothing_secret_is_logged(w: World, database: Database) -> None:
    out = StringIO()
    our_logging.configure("DEBUG", "json", out)
    before = {n: logging.getLogger(n).level for n in ("httpx2", "httpcore", "psycopg")}
    try:
        for name in before:
            logging.getLogger(name).setLevel(logging.DEBUG)
        w.sandbox.settings.github_tokens_expire = True
        begun = await flow.begin(w.vault, w.github, ALICE)
        back = await w.visit(begun.url)
        w.sandbox.fault("github", "html", count=1, match="/user")
        await failure(w, code=back["code"], state=back["state"])
        await w.connect()
        await w.connect_key()
        secrets = [begun.state, back["code"], WAKA_KEY, "sandbox-github-secret"]
        for provider in ("github", "wakatime"):
            opened = await w.vault.open(provider, ALICE)
            assert opened is not None
            secrets += [
                t.get_secret_value() for t in (opened.access_token, opened.refresh_token) if t
            ]
        w.sandbox.settings.github_revoked = ("alice",)
        w.sandbox.settings.wakatime_revoked = ("alice",)
        for provider, ask in (("github", w.github.account), ("wakatime", w.wakatime.account)):
            with pytest.raises(CredentialRefused) as refused:
                await w.connections.call(provider, ALICE, ask)
            logging.getLogger("causeway").exception("refused", exc_info=refused.value)
            secrets_shown = [s for s in secrets if s in str(refused.value)]
            assert not secrets_shown
        await w.vault.remove("github", ALICE)
        await revoke_due(database, w.keyring, "motify", w.connections.providers)
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
        our_logging.configure("WARNING", "json", StringIO())
    written = out.getvalue()
    assert "authorization_failed" in written
    assert len(written.splitlines()) > 20
    assert [s for s in secrets if s in written] == []
    for line in written.splitlines():
        json.loads(line)


async def test_secrets_are_in_no_repr(w: World) -> None:
    await w.connect()
    credential = await w.connections.credential("github", ALICE)
    shown = repr([credential, w.github.oauth and w.github.oauth.app, w.vault, w.keyring])
    assert credential.token.get_secret_value() not in shown
    assert "sandbox-github-secret" not in shown
    assert repr(SecretStr("x")) in repr(credential)
