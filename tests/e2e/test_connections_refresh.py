"""A token near its end is refreshed once, whoever wants it how often, and nothing is lost by it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text

from causeway.base.clock import SYSTEM_CLOCK
from causeway.base.errors import ProviderUnavailable
from causeway.connections import flow
from causeway.connections.access import Connections
from causeway.connections.credential import Account, Credential
from causeway.connections.errors import CredentialRefused, NotConnected
from causeway.connections.vault import Vault
from causeway.store import lease, migrate
from causeway.store.encryption import Keyring, new_key
from causeway.store.engine import Database
from tests.connections import ALICE, World, world
from tests.postgres_fixtures import PostgresServer

TOKEN_PATH = "/github/login/oauth/access_token"


@pytest.fixture(name="w")
async def _world(database: Database) -> AsyncIterator[World]:
    async with world(database) as opened:
        opened.sandbox.settings.github_tokens_expire = True
        await opened.connect()
        yield opened


def refreshes(outcome: str) -> float:
    labels = {"provider": "github", "outcome": outcome}
    return REGISTRY.get_sample_value("causeway_connection_refreshes_total", labels) or 0.0


async def test_a_token_is_used_until_ten_minutes_before_its_end(w: World) -> None:
    first = await w.connections.credential("github", ALICE)
    w.clock.move(28800 - 601)
    assert await w.connections.credential("github", ALICE) == first
    assert w.asked(TOKEN_PATH) == 1

    w.clock.move(1)
    stored = refreshes("stored")
    second = await w.connections.credential("github", ALICE)
    assert second.token != first.token
    assert second.version == first.version + 1
    assert (await w.github.account(second)).name == "alice"
    assert refreshes("stored") == stored + 1
    # The old one is worth nothing any more, as GitHub documents.
    with pytest.raises(CredentialRefused):
        await w.github.account(first)
    # The account stays linked, and the next refresh has the next refresh token.
    w.clock.move(28800)
    third = await w.connections.credential("github", ALICE)
    assert third.account == first.account
    assert (await w.github.account(third)).name == "alice"


@pytest.mark.parametrize("late", [0, 28800])
async def test_many_at_once_refresh_once(w: World, database: Database, late: int) -> None:
    """In several processes, as far as the database can tell: each has a vault of its own."""
    w.clock.move(28800 - 300 + late)
    others = [
        Connections(Vault(database, w.keyring, "motify"), w.connections.providers, clock=w.clock)
        for _ in range(4)
    ]
    w.sandbox.fault("github", "slow", count=1, seconds=0.2, match="access_token")
    found = await asyncio.gather(
        *[c.credential("github", ALICE) for c in others for _ in range(5)], return_exceptions=True
    )
    assert w.asked(TOKEN_PATH) == 2
    good = [c for c in found if isinstance(c, Credential)]
    # Who found the token expired waits; who could use the old one a little longer used it. A clock
    # that a sleeper moves at once may run out of patience, which is an outage and no refusal.
    assert all(isinstance(c, Credential | ProviderUnavailable) for c in found)
    assert max(c.version for c in good) == 2
    if late:
        assert {c.version for c in good} == {2}
    current = await w.connections.credential("github", ALICE)
    assert (await w.github.account(current)).name == "alice"


async def test_who_gives_up_waiting_does_not_take_the_new_token_along(w: World) -> None:
    w.clock.move(28800)
    w.sandbox.fault("github", "slow", count=1, seconds=0.3, match="access_token")
    impatient = asyncio.create_task(w.connections.credential("github", ALICE))
    async with asyncio.timeout(10):
        while w.asked(TOKEN_PATH) < 2:
            await asyncio.sleep(0.01)
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    await w.connections.aclose()
    assert (await w.github.account(await w.connections.credential("github", ALICE))).name
    assert w.asked(TOKEN_PATH) == 2


async def test_an_outage_before_the_end_hurts_nobody_and_after_it_is_no_refusal(w: World) -> None:
    first = await w.connections.credential("github", ALICE)
    w.sandbox.fault("github", "status", match="access_token")
    w.clock.move(28800 - 300)
    assert await w.connections.credential("github", ALICE) == first
    w.clock.move(301)
    with pytest.raises(ProviderUnavailable):
        await w.connections.credential("github", ALICE)
    connection = await w.vault.find("github", ALICE)
    assert connection is not None
    assert connection.rejected_at is None
    w.sandbox.clear_faults()
    w.clock.move(61)
    assert (await w.connections.credential("github", ALICE)).version == 2


async def test_a_refused_refresh_is_noted_and_a_new_connection_clears_it(w: World) -> None:
    w.sandbox.settings.github_revoked = ("alice",)
    w.clock.move(28800)
    with pytest.raises(CredentialRefused, match="bad_refresh_token"):
        await w.connections.credential("github", ALICE)
    connection = await w.vault.find("github", ALICE)
    assert connection is not None
    assert connection.rejected_why == "github gives no token: bad_refresh_token"
    w.sandbox.settings.github_revoked = ()
    assert (await w.connect()).rejected_at is None


async def test_a_refresh_token_that_is_over_is_not_presented(w: World) -> None:
    w.clock.move(15_897_600)
    with pytest.raises(CredentialRefused, match="has expired"):
        await w.connections.credential("github", ALICE)
    assert w.asked(TOKEN_PATH) == 1


async def test_a_refused_call_is_made_again_with_a_newer_token(w: World) -> None:
    """Another process refreshed meanwhile, which took our token back."""
    seen: list[Credential] = []

    async def ask(credential: Credential) -> Account:
        seen.append(credential)
        if len(seen) == 1:
            opened = await w.vault.open("github", ALICE)
            assert opened is not None
            assert opened.refresh_token is not None
            assert w.github.oauth is not None
            tokens = await w.github.oauth.refresh(opened.refresh_token)
            assert await w.vault.replace(opened.connection, tokens)
        return await w.github.account(credential)

    assert (await w.connections.call("github", ALICE, ask)).name == "alice"
    assert [c.version for c in seen] == [1, 2]
    assert w.asked(TOKEN_PATH) == 2


async def test_a_token_taken_back_is_refreshed_once_then_refused(w: World) -> None:
    w.sandbox.settings.github_revoked = ("alice",)
    with pytest.raises(CredentialRefused):
        await w.connections.call("github", ALICE, w.github.account)
    connection = await w.vault.find("github", ALICE)
    assert connection is not None
    assert connection.rejected_at is not None
    asked = w.asked(TOKEN_PATH)
    assert asked == 2
    # Allowed again there, it works again here, and says so.
    w.sandbox.settings.github_revoked = ()
    tokens = await w.vault.open("github", ALICE)
    assert tokens is not None
    await w.connect()
    await w.connections.call("github", ALICE, w.github.account)
    connection = await w.vault.find("github", ALICE)
    assert connection is not None
    assert connection.rejected_at is None


async def test_a_mistaken_refusal_is_forgotten_by_the_next_success(w: World) -> None:
    connection = await w.vault.find("github", ALICE)
    assert connection is not None
    await w.vault.rejected(connection, "once")
    await w.connections.call("github", ALICE, w.github.account)
    connection = await w.vault.find("github", ALICE)
    assert connection is not None
    assert connection.rejected_at is None


async def test_a_late_refresh_never_overwrites_a_new_connection(w: World) -> None:
    opened = await w.vault.open("github", ALICE)
    assert opened is not None
    assert opened.refresh_token is not None
    assert w.github.oauth is not None
    tokens = await w.github.oauth.refresh(opened.refresh_token)
    connected = await w.connect()
    assert not await w.vault.replace(opened.connection, tokens)
    assert (await w.vault.find("github", ALICE)) == connected


async def test_a_refusal_that_somebody_else_s_refresh_caused_is_none(
    w: World, database: Database
) -> None:
    """The lease ran out while we were away, and another refreshed: there is a newer token."""
    w.clock.move(28800)
    w.sandbox.fault("github", "slow", count=1, seconds=0.5, match="access_token")
    slow = asyncio.create_task(w.connections.credential("github", ALICE))
    async with asyncio.timeout(10):
        while w.asked(TOKEN_PATH) < 2:
            await asyncio.sleep(0.01)
    async with database.transaction() as session:
        await session.execute(text("UPDATE causeway.leases SET expires_at = now()"))
    other = Connections(
        Vault(database, w.keyring, "motify"), w.connections.providers, clock=w.clock
    )
    first = await other.credential("github", ALICE)
    assert await slow == first
    assert w.asked(TOKEN_PATH) == 3


async def test_a_database_that_restarts_during_a_refresh_loses_no_token(
    postgres_server: PostgresServer,
) -> None:
    url = await asyncio.to_thread(lambda: postgres_server.create("restarted"))
    database = Database(url)
    await migrate.upgrade(database, [migrate.kernel_line()])
    async with world(database) as w:
        w.sandbox.settings.github_tokens_expire = True
        w.clock.at = SYSTEM_CLOCK.now() - timedelta(seconds=28800 - 60)
        await w.connect()
        w.clock.at = SYSTEM_CLOCK.now()
        connections = Connections(w.vault, w.connections.providers)
        w.sandbox.fault("github", "slow", count=1, seconds=1, match="access_token")
        refreshing = asyncio.create_task(connections.credential("github", ALICE))
        async with asyncio.timeout(20):
            while w.asked(TOKEN_PATH) < 2:
                await asyncio.sleep(0.01)
        await asyncio.to_thread(postgres_server.stop)
        async with asyncio.timeout(20):
            while [e.status for e in w.sandbox.log() if e.path == TOKEN_PATH][-1] is None:
                await asyncio.sleep(0.01)
        await asyncio.to_thread(postgres_server.start)
        assert (await refreshing).version == 2
        current = await connections.credential("github", ALICE)
        assert list(w.sandbox.tokens("github")) == [current.token.get_secret_value()]
        assert (await w.github.account(current)).name == "alice"
        assert w.asked(TOKEN_PATH) == 2
    await database.close()


async def test_an_answer_that_is_lost_ends_as_a_refusal(w: World) -> None:
    """GitHub has taken the old token back, and nobody has the new one."""
    w.clock.move(28800)
    w.sandbox.fault("github", "lose_answer", count=1, match="access_token")
    with pytest.raises(ProviderUnavailable):
        await w.connections.credential("github", ALICE)
    with pytest.raises(CredentialRefused, match="bad_refresh_token"):
        await w.connections.credential("github", ALICE)
    assert (await w.connect()).rejected_at is None


async def test_whether_it_is_usable_is_known_without_asking(w: World) -> None:
    w.sandbox.settings.github_tokens_expire = False
    lasting = await w.connect("0xbob", "bob")
    key = await w.connect_key()
    expiring = await w.vault.find("github", ALICE)
    assert expiring is not None

    def usable() -> list[bool]:
        return [c.is_usable(w.clock.now()) for c in (lasting, key, expiring)]

    assert usable() == [True, True, True]
    w.clock.move(28800)
    assert usable() == [True, True, True]
    w.clock.move(15_897_600)
    assert usable() == [True, True, False]
    await w.vault.rejected(lasting, "taken back")
    found = await w.vault.find("github", "0xbob")
    assert found is not None
    assert not found.is_usable(w.clock.now())
    assert not found.can_refresh


async def test_nobody_connected_is_said_so(w: World) -> None:
    with pytest.raises(NotConnected, match="no github account is connected"):
        await w.connections.credential("github", "0xnobody")


CHILD = """
import asyncio, sys
from pydantic import SecretStr
from causeway.connections import github
from causeway.connections import flow
from causeway.connections.access import Connections
from causeway.connections.vault import Vault
from causeway.store.encryption import Keyring
from causeway.store.engine import Database

async def main(url, oauth_url, api_url, key):
    database = Database(url)
    app = github.oauth_app(
        "sandbox-github-client", SecretStr("sandbox-github-secret"), "https://b.example/",
        oauth_url=oauth_url)
    hub = github.GitHub(api_url=api_url, app=app)
    connections = Connections(Vault(database, Keyring([key]), "motify"), {"github": hub})
    found = await connections.credential("github", sys.argv[1])
    print(found.version)
    await hub.aclose()
    await database.close()

url, oauth_url, api_url, key = sys.stdin.read().split()
asyncio.run(main(url, oauth_url, api_url, key))
"""


async def in_a_process(
    w: World, database: Database, key: str, fault: str = ""
) -> tuple[int | None, str]:
    """Ask for the credential in a process of its own; return its exit code and its output."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, ALICE, stdin=PIPE, stdout=PIPE, stderr=PIPE,
        env={**os.environ, "CAUSEWAY_FAULT": fault},
    )  # fmt: skip
    given = " ".join(
        (database.url.render_as_string(False), w.sandbox.github_oauth_url,
         w.sandbox.github_api_url, key)
    )  # fmt: skip
    out, err = await child.communicate(given.encode())
    return child.returncode, (out + err).decode()


@pytest.mark.parametrize("point", ["connections.refreshed", "connections.stored"])
async def test_a_process_killed_in_the_middle_of_a_refresh(database: Database, point: str) -> None:
    async with world(database) as w:
        key = new_key()
        w.sandbox.settings.github_tokens_expire = True
        w.vault = Vault(database, Keyring([key]), "motify")
        w.connections = Connections(w.vault, w.connections.providers, clock=w.clock)
        await w.connect()
        async with database.transaction() as session:
            await session.execute(
                text("UPDATE causeway.connections SET expires_at = now() + '5 minutes'::interval")
            )
        code, said = await in_a_process(w, database, key, point)
        assert code == -signal.SIGKILL, said
        assert w.asked(TOKEN_PATH) == 2
        # The dead process holds the lease, and while the old token lasts nobody waits for it.
        connection = await w.vault.find("github", ALICE)
        assert connection is not None
        assert connection.version == (1 if point == "connections.refreshed" else 2)
        assert await lease.acquire(database, f"connection:{connection.id}", "me", 1) is None
        code, said = await in_a_process(w, database, key)
        assert (code, said.strip()) == (0, str(connection.version)), said
        assert w.asked(TOKEN_PATH) == 2

        async with database.transaction() as session:
            await session.execute(text("UPDATE causeway.leases SET expires_at = now()"))
        w.clock.at = connection.connected_at + timedelta(seconds=1)
        call = w.connections.call("github", ALICE, w.github.account)
        if point == "connections.stored":
            assert (await call).name == "alice"
            return
        # What the provider gave died with the process. That is a refusal a person can mend, not
        # an outage, and it never ends in a refresh over and over.
        with pytest.raises(CredentialRefused):
            await call
        connection = await w.vault.find("github", ALICE)
        assert connection is not None
        assert connection.rejected_why == "github gives no token: bad_refresh_token"
        assert w.asked(TOKEN_PATH) == 3
        assert (await w.connect()).rejected_at is None


async def test_several_processes_refresh_once(database: Database) -> None:
    async with world(database) as w:
        key = new_key()
        w.sandbox.settings.github_tokens_expire = True
        w.vault = Vault(database, Keyring([key]), "motify")
        await w.connect()
        async with database.transaction() as session:
            await session.execute(text("UPDATE causeway.connections SET expires_at = now()"))
        w.sandbox.fault("github", "slow", count=1, seconds=1, match="access_token")
        w.clock.at = SYSTEM_CLOCK.now()
        ended = await asyncio.gather(*[in_a_process(w, database, key) for _ in range(3)])
        assert [code for code, _ in ended] == [0, 0, 0], ended
        assert {said.strip() for _, said in ended} == {"2"}
        assert w.asked(TOKEN_PATH) == 2


async def test_a_key_does_not_expire_and_a_wakatime_token_is_refreshed(w: World) -> None:
    w.sandbox.settings.wakatime_username = "bob"
    begun = await flow.begin(w.vault, w.wakatime, "0xbob")
    back = await w.visit(begun.url)
    await flow.finish(w.vault, w.wakatime, code=back["code"], state=back["state"])
    await w.connect_key()
    w.clock.move(366 * 86_400)
    assert (await w.connections.call("wakatime", "0xbob", w.wakatime.account)).name == "bob"
    assert (await w.connections.call("wakatime", ALICE, w.wakatime.account)).name == "alice"
    assert w.asked("/wakatime/oauth/token") == 2
