"""The relayer's tables are what the models say, and keep their promises by themselves."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from causeway.relayer.models import UnitRow
from causeway.store import migrate
from causeway.store.engine import Database

_INSERT = """
INSERT INTO causeway.relayer_units (id, app, kind, chain_id, unit_key, payload, state, priority,
    ready_at, attempts, reverts, created_at, updated_at)
VALUES (gen_random_uuid(), 'a', 'k', 1, 'one', '{}', CAST(:state AS text), 0, now(), 0, 0, now(),
    now())
"""


async def test_models_and_migration_agree(database: Database) -> None:
    found = await migrate.differences(database, migrate.kernel_line())
    assert [one for one in found if "relayer" in repr(one)] == []
    assert UnitRow.metadata is migrate.kernel_line().metadata


async def test_a_key_is_open_once(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(text(_INSERT), {"state": "settled"})
        await session.execute(text(_INSERT), {"state": "pending"})
    with pytest.raises(IntegrityError):
        async with database.transaction() as session:
            await session.execute(text(_INSERT), {"state": "bound"})


async def test_the_tables_go_and_come_again(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    line = migrate.kernel_line()
    await migrate.upgrade(database, [line], "k0004")
    await migrate.downgrade(database, line, "k0003")
    async with database.transaction() as session:
        assert await session.scalar(text("SELECT to_regclass('causeway.relayer_units')")) is None
    await migrate.upgrade(database, [line], "k0004")
    async with database.transaction() as session:
        await session.execute(text(_INSERT), {"state": "pending"})
    await database.close()


async def test_lanes_and_pauses_go_and_come_again(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    line = migrate.kernel_line()
    account = (
        "INSERT INTO causeway.relayer_accounts (chain_id, sender, mode, mode_since, nonce_floor, "
        "nonce_mined, fence) VALUES (1, 'a', 'hold:budget', now(), 0, 0, 0)"
    )
    await migrate.upgrade(database, [line], "k0008")
    async with database.transaction() as session:
        await session.execute(text(account))
    await migrate.downgrade(database, line, "k0007")
    async with database.transaction() as session:
        assert await session.scalar(text("SELECT mode FROM causeway.relayer_accounts")) == "run"
        assert await session.scalar(text("SELECT to_regclass('causeway.relayer_pauses')")) is None
    await migrate.upgrade(database, [line], "k0008")
    await database.close()


async def test_a_scope_is_paused_once(database: Database) -> None:
    pause = (
        "INSERT INTO causeway.relayer_pauses (id, app, mode, paused_by, since) "
        "VALUES (gen_random_uuid(), :app, 'no-sign', 'ada', now())"
    )
    async with database.transaction() as session:
        await session.execute(text(pause), {"app": None})
        await session.execute(text(pause), {"app": "glisk"})
    with pytest.raises(IntegrityError):
        async with database.transaction() as session:
            await session.execute(text(pause), {"app": None})
