"""Changing the keys under which tokens are kept: while people connect, and after a stop."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from causeway.connections.credential import Account, Tokens
from causeway.connections.rotation import Rotated, rotate
from causeway.connections.vault import Vault, list_connections, revocation_place
from causeway.store.encryption import Keyring, Undecryptable, new_key
from causeway.store.engine import Database

OLD, NEW = new_key(), new_key()
SOON = datetime(2027, 1, 1, tzinfo=UTC)


def tokens(n: int) -> Tokens:
    return Tokens(SecretStr(f"access-{n}"), SecretStr(f"refresh-{n}"), SOON)


async def ciphertexts(database: Database) -> list[str]:
    async with database.transaction() as session:
        rows = await session.scalars(
            text(
                "SELECT access_token FROM causeway.connections UNION ALL "
                "SELECT refresh_token FROM causeway.connections WHERE refresh_token IS NOT NULL "
                "UNION ALL SELECT token FROM causeway.connection_revocations"
            )
        )
        return list(rows)


async def test_every_token_comes_under_the_new_key(database: Database) -> None:
    old = Vault(database, Keyring([OLD]), "motify")
    for n in range(25):
        await old.save("github", f"0x{n}", tokens(n), Account(str(n)))
    await old.save("github", "0x0", tokens(100), Account("0"))  # one to be revoked
    await old.save("wakatime", "0x0", Tokens(SecretStr("key"), kind="api_key"), None)
    before = await list_connections(database)

    ring = Keyring([NEW, OLD])
    both = Vault(database, ring, "motify")
    # Old ones can be read at once, and what is new is under the new key already.
    opened = await both.open("github", "0x7")
    assert opened is not None
    assert opened.access_token.get_secret_value() == "access-7"
    await both.save("github", "0x99", tokens(99), Account("99"))

    assert await rotate(database, ring, batch=4) == Rotated(rows=27, already=1, unreadable=0)
    assert all(ring.rotated(sealed) for sealed in await ciphertexts(database))
    assert len(await ciphertexts(database)) == 26 * 2 + 1 + 1
    assert await rotate(database, ring) == Rotated(rows=0, already=28, unreadable=0)
    # Nothing but the ciphertexts has changed: nobody has to read again.
    after = [c for c in await list_connections(database) if c.subject != "0x99"]
    assert after == list(before)

    new = Vault(database, Keyring([NEW]), "motify")
    for n in range(1, 25):
        opened = await new.open("github", f"0x{n}")
        assert opened is not None
        assert opened.refresh_token is not None
        assert opened.access_token.get_secret_value() == f"access-{n}"
        assert opened.refresh_token.get_secret_value() == f"refresh-{n}"
    with pytest.raises(Undecryptable, match="not in the ring"):
        await old.open("github", "0x1")


async def test_a_row_that_cannot_be_read_stays_as_it_is(database: Database) -> None:
    for key, subject in ((OLD, "0x1"), (new_key(), "0x2"), (OLD, "0x3")):
        vault = Vault(database, Keyring([key]), "motify")
        await vault.save("github", subject, tokens(1), Account(subject))
    ring = Keyring([NEW, OLD])
    before = set(await ciphertexts(database))
    assert await rotate(database, ring, batch=1) == Rotated(rows=2, already=0, unreadable=1)
    assert len(before & set(await ciphertexts(database))) == 2


async def test_a_token_stored_during_the_change_is_not_lost(database: Database) -> None:
    vault = Vault(database, Keyring([NEW, OLD]), "motify")
    first = Vault(database, Keyring([OLD]), "motify")
    seen = [await first.save("github", f"0x{n}", tokens(n), Account(str(n))) for n in range(30)]
    _, *replaced = await asyncio.gather(
        rotate(database, Keyring([NEW, OLD]), batch=3),
        *[vault.replace(c, tokens(1000 + n)) for n, c in enumerate(seen)],
    )
    assert all(replaced)
    assert (await rotate(database, Keyring([NEW, OLD]))).unreadable == 0
    new = Vault(database, Keyring([NEW]), "motify")
    for n in range(30):
        opened = await new.open("github", f"0x{n}")
        assert opened is not None
        assert opened.access_token.get_secret_value() == f"access-{1000 + n}"


async def test_many_connect_the_same_at_once(database: Database) -> None:
    """One row, one token kept, and every other queued to be revoked."""
    vault = Vault(database, Keyring([NEW]), "motify")
    saved = await asyncio.gather(
        *[vault.save("github", "0xa", tokens(n), Account("1", "alice")) for n in range(8)]
    )
    assert sorted(c.version for c in saved) == list(range(1, 9))
    (kept,) = await list_connections(database)
    assert kept.version == 8
    async with database.transaction() as session:
        queued = await session.scalar(text("SELECT count(*) FROM causeway.connection_revocations"))
    assert queued == 7


async def test_apps_do_not_see_one_another_s(database: Database) -> None:
    ring = Keyring([NEW])
    motify, wisp = Vault(database, ring, "motify"), Vault(database, ring, "wisp")
    await motify.save("github", "0xa", tokens(1), Account("1"))
    assert await wisp.open("github", "0xa") is None
    assert not await wisp.remove("github", "0xa")
    # An account may be linked in each app.
    await wisp.save("github", "0xb", tokens(2), Account("1"))
    assert [c.app for c in await list_connections(database)] == ["motify", "wisp"]
    assert [c.app for c in await list_connections(database, app="wisp")] == ["wisp"]
    assert await list_connections(database, provider="strava") == []


async def test_a_token_refreshed_while_somebody_connects_again_is_revoked(
    database: Database,
) -> None:
    """The one to be revoked is the one that was replaced, not the one that was seen before."""
    ring = Keyring([NEW])
    vault = Vault(database, ring, "motify")
    seen = await vault.save("github", "0xa", tokens(1), Account("1"))
    refreshed = vault._sealed("github", "0xa", tokens(2))
    async with database.transaction() as refreshing:
        await refreshing.execute(
            text(
                "UPDATE causeway.connections SET access_token = :access_token, "
                "version = version + 1 WHERE id = :id"
            ),
            {"access_token": refreshed["access_token"], "id": seen.id},
        )
        connecting = asyncio.create_task(vault.save("github", "0xa", tokens(3), Account("1")))
        async with asyncio.timeout(20):
            while not await waiting_for_a_lock(database):
                await asyncio.sleep(0.01)
    await connecting
    async with database.transaction() as session:
        row = (
            await session.execute(text("SELECT id, token FROM causeway.connection_revocations"))
        ).one()
    queued = ring.decrypt(row.token, revocation_place(row.id, "motify", "github"))
    assert queued.get_secret_value() == "access-2"


async def waiting_for_a_lock(database: Database) -> bool:
    async with database.transaction() as session:
        return bool(
            await session.scalar(
                text(
                    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
                    "AND datname = current_database()"
                )
            )
        )
