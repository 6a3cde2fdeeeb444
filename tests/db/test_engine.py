"""The database: which addresses are understood, and that none of them is ever shown whole."""

from __future__ import annotations

import traceback
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import make_url, text

from causeway.base.errors import ConfigurationError
from causeway.store.engine import Database, normalise_url

SECRET = "hunter2"


@pytest.mark.parametrize(
    "scheme",
    [
        "postgres",
        "postgresql",
        "postgresql+psycopg",
        "postgresql+psycopg2",
        "postgresql+asyncpg",
    ],
)
async def test_every_way_to_write_the_address_reaches_the_database(
    database_url: str, scheme: str
) -> None:
    database = Database(f"{scheme}://{database_url.split('://', 1)[1]}")
    await database.ping()
    connection = await database.raw_connection()
    assert await (await connection.execute("SELECT current_user")).fetchone() == ("causeway",)
    await connection.close()
    await database.close()


@pytest.mark.parametrize(
    "address",
    [
        f"mysql://user:{SECRET}@host/name",
        f"postgresql://user:{SECRET}@host:port-is-no-number/name",
        f"user={SECRET} host=localhost",
        f"sqlite:///{SECRET}",
        "",
    ],
)
def test_another_address_is_refused_without_showing_it(address: str) -> None:
    with pytest.raises(ConfigurationError, match="DATABASE_URL") as refused:
        normalise_url(address)
    assert SECRET not in "".join(traceback.format_exception(refused.value))
    assert "postgresql://" in str(refused.value)


async def test_errors_of_a_server_that_is_away_hide_the_password() -> None:
    database = Database(f"postgresql://user:{SECRET}@127.0.0.1:1/name")
    with pytest.raises(Exception, match="refused") as failed:
        await database.ping()
    await database.close()
    assert SECRET not in "".join(traceback.format_exception(failed.value))
    assert SECRET not in repr(database)
    assert SECRET not in str(database.url)


def test_words_of_other_drivers_are_translated_or_dropped() -> None:
    url = normalise_url("postgres://u@h/n?ssl=true&statement_cache_size=0&connect_timeout=3")
    assert dict(url.query) == {"sslmode": "require", "connect_timeout": "3"}
    assert normalise_url("postgres://u@h/n?ssl=true&sslmode=verify-full").query["sslmode"] == (
        "verify-full"
    )


@pytest.mark.parametrize(
    ("ending", "own"),
    [("h/n", True), ("h:5432/n", True), ("h:6543/n", False), ("h/n?pgbouncer=true", False)],
)
async def test_a_pooler_in_transaction_mode_is_recognised(ending: str, own: bool) -> None:
    database = Database(f"postgresql://u@{ending}")
    assert database.has_own_session is own
    await database.close()


async def test_it_works_without_what_a_session_keeps(database_url: str) -> None:
    database = Database(make_url(database_url).update_query_dict({"pgbouncer": "true"}))
    for _ in range(8):  # more often than a statement is run before it is prepared
        async with database.transaction() as session:
            prepared = await session.scalar(text("SELECT count(*) FROM pg_prepared_statements"))
            assert prepared == 0
    await database.close()


async def test_times_come_out_aware_and_in_utc(database: Database) -> None:
    noon = datetime(2026, 7, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    async with database.transaction() as session:
        came = await session.scalar(text("SELECT CAST(:t AS timestamptz)"), {"t": noon})
    assert came == noon
    assert came.utcoffset() == timedelta(0)
    assert came.tzinfo is not None
    assert came.astimezone(UTC).hour == 10


async def test_a_transaction_is_committed_at_the_end_and_rolled_back_on_an_error(
    database: Database,
) -> None:
    async with database.transaction() as session:
        await session.execute(text("CREATE TABLE t (n int)"))
        await session.execute(text("INSERT INTO t VALUES (1)"))

    async def fail() -> None:
        async with database.transaction() as session:
            await session.execute(text("INSERT INTO t VALUES (2)"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    async with database.transaction() as session:
        assert list(await session.scalars(text("SELECT n FROM t"))) == [1]


async def test_json_goes_in_and_comes_out(database: Database) -> None:
    async with database.transaction() as session:
        value = await session.scalar(text("""SELECT '{"a": [1, "ü"]}'::jsonb"""))
    assert value == {"a": [1, "ü"]}
