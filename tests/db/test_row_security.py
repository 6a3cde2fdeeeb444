"""Two people, one stranger, and what each can do to the others' rows by SQL alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import MetaData, text
from sqlalchemy.exc import DBAPIError, ProgrammingError

from causeway.base.errors import Bug, ConfigurationError
from causeway.store import migrate, row_security
from causeway.store.embedded import EmbeddedPostgres
from causeway.store.engine import Database
from causeway.store.row_security import (
    REQUESTS,
    SHIM,
    UID,
    PersonalUnitOfWork,
    RowSecurity,
    claims_of,
)
from tests.postgres_fixtures import PostgresServer
from tests.transaction_pooler import transaction_pooler

ALICE, BOB = (UUID(f"0197a2b0-0000-7000-8000-00000000000{n}") for n in (1, 2))

TABLES = [
    "CREATE TABLE diary.notes (id int PRIMARY KEY, user_id uuid NOT NULL, body text NOT NULL,"
    " secret text NOT NULL DEFAULT 'hidden')",
    *row_security.protect("diary.notes"),
    row_security.owner_policy("diary.notes"),
    row_security.grant("diary.notes", "SELECT", columns=("id", "user_id", "body")),
    row_security.grant("diary.notes", "INSERT", "UPDATE", columns=("id", "user_id", "body")),
    row_security.grant("diary.notes", "DELETE"),
    "CREATE TABLE diary.settings (user_id uuid PRIMARY KEY, is_public boolean NOT NULL)",
    *row_security.protect("diary.settings"),
    row_security.owner_policy("diary.settings"),
    row_security.grant("diary.settings", "SELECT", "INSERT", "UPDATE"),
    *row_security.definer(
        "diary.is_open(owner uuid)",
        "boolean",
        "SELECT EXISTS (SELECT FROM diary.settings s WHERE s.user_id = owner AND s.is_public)",
    ),
    row_security.policy(
        "diary.notes",
        "open",
        command="SELECT",
        using="diary.is_open(user_id)",
        to=("authenticated", "anon"),
    ),
    row_security.grant("diary.notes", "SELECT", columns=("id", "body"), to=("anon",)),
    row_security.open_schema("diary"),
    "CREATE VIEW diary.counts WITH (security_invoker = true) AS"
    " SELECT user_id, count(id) AS notes FROM diary.notes GROUP BY user_id",
    row_security.grant("diary.counts", "SELECT"),
]


def line_in(folder: Path) -> migrate.MigrationLine:
    """An app's migrations: the shim first, then its tables."""
    versions = folder / "versions"
    versions.mkdir()
    (versions / "d0001_tables.py").write_text(
        "from alembic import op\nfrom tests.db.test_row_security import TABLES\n"
        "from causeway.store.row_security import SHIM\n"
        "revision, down_revision, branch_labels, depends_on = 'd0001', None, None, None\n"
        "def upgrade():\n    for statement in (SHIM, *TABLES):\n        op.execute(statement)\n"
        "def downgrade():\n    pass\n"
    )
    return migrate.MigrationLine("diary", "diary", MetaData(schema="diary"), str(folder))


@dataclass
class World:
    owner: Database
    requests: Database
    people: RowSecurity

    async def as_(self, person: UUID, statement: str, **values: Any) -> list[Any]:
        async with self.people.transaction(claims_of(person)) as session:
            result = await session.execute(text(statement), values)
            return [tuple(row) for row in result] if result.returns_rows else []  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]

    async def all_notes(self) -> list[Any]:
        async with row_security.maintenance(self.owner) as session:
            found = await session.execute(text("SELECT id, user_id, body FROM diary.notes"))
            return sorted(tuple(row) for row in found)


@pytest.fixture
async def world(
    tmp_path: Path, shared_server: PostgresServer, database: Database
) -> AsyncGenerator[World]:
    await migrate.upgrade(database, [line_in(tmp_path)])
    # One connection: what is left on it is what the next person gets.
    requests = Database(shared_server.requests_url(str(database.url.database)), pool_size=1)
    made = World(database, requests, RowSecurity(requests))
    for number, person in ((1, ALICE), (2, BOB)):
        await made.as_(
            person,
            "INSERT INTO diary.notes (id, user_id, body) VALUES (:id, :p, 'mine')",
            id=number,
            p=person,
        )
        await made.as_(person, "INSERT INTO diary.settings VALUES (:p, false)", p=person)
    yield made
    await requests.close()


async def test_each_person_sees_and_changes_their_own_rows_only(world: World) -> None:
    assert await world.as_(ALICE, "SELECT id, user_id FROM diary.notes") == [(1, ALICE)]
    assert await world.as_(BOB, "SELECT count(*), max(id) FROM diary.notes") == [(1, 2)]
    changed = "UPDATE diary.notes SET body = :body {} RETURNING id"
    assert await world.as_(ALICE, changed.format("WHERE id = 2"), body="not mine") == []
    assert await world.as_(ALICE, changed.format(""), body="changed") == [(1,)]
    await world.as_(BOB, "DELETE FROM diary.notes")
    assert await world.all_notes() == [(1, ALICE, "changed")]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO diary.notes (id, user_id, body) VALUES (3, :bob, 'planted')",
        "UPDATE diary.notes SET user_id = :bob WHERE id = 1",
        "INSERT INTO diary.notes (id, user_id, body) VALUES (2, :bob, 'x')"
        " ON CONFLICT (id) DO UPDATE SET body = 'taken'",
        "SELECT secret FROM diary.notes WHERE id = 1 OR :bob IS NULL",
        "SELECT * FROM auth.users WHERE id = :bob",
        "INSERT INTO auth.users (id) VALUES (:bob)",
        "TRUNCATE diary.notes",
        "ALTER TABLE diary.notes DISABLE ROW LEVEL SECURITY",
        "DROP POLICY owner ON diary.notes",
        "CREATE TABLE diary.mine ()",
        "SET LOCAL ROLE service_role",
        "SET LOCAL ROLE causeway",
        "SELECT * FROM causeway.auth_challenges",
        "ALTER ROLE authenticated BYPASSRLS",
    ],
)
async def test_what_is_not_theirs_is_refused(world: World, statement: str) -> None:
    values = {"bob": BOB} if ":bob" in statement else {}
    with pytest.raises(DBAPIError, match=r"policy|permission denied|must be|ust have|only roles"):
        await world.as_(ALICE, statement, **values)
    assert await world.all_notes() == [(1, ALICE, "mine"), (2, BOB, "mine")]


async def test_without_the_policies_a_person_cannot_ask_around_them(world: World) -> None:
    """`row_security = off` is an error, not a way by."""
    async with world.people.transaction(claims_of(ALICE)) as session:
        await session.execute(text("SET LOCAL row_security = off"))
        with pytest.raises(ProgrammingError, match="row-level security policy"):
            await session.execute(text("SELECT id FROM diary.notes"))


async def test_a_helper_sees_what_its_policy_may_not(world: World) -> None:
    """What somebody set to public is seen by others, though their settings are not."""
    assert await world.as_(ALICE, "SELECT id FROM diary.notes WHERE user_id = :b", b=BOB) == []
    await world.as_(BOB, "UPDATE diary.settings SET is_public = true")
    assert await world.as_(ALICE, "SELECT id FROM diary.notes WHERE user_id = :b", b=BOB) == [(2,)]
    assert await world.as_(ALICE, "SELECT user_id FROM diary.settings") == [(ALICE,)]
    assert (
        await world.as_(ALICE, "UPDATE diary.notes SET body = '' WHERE id = 2 RETURNING id") == []
    )
    async with world.people.transaction({"role": "anon"}) as session:
        assert list(await session.scalars(text("SELECT id FROM diary.notes"))) == [2]


async def test_a_view_shows_what_its_reader_may_see(world: World) -> None:
    assert await world.as_(ALICE, "SELECT user_id, notes FROM diary.counts") == [(ALICE, 1)]


async def left_behind(database: Database) -> tuple[Any, ...]:
    """What a transaction without claims finds on the connection."""
    async with database.transaction() as session:
        found = await session.execute(
            text(
                "SELECT current_user::text,"
                " coalesce(current_setting('request.jwt.claims', true), '')"
            )
        )
        login = tuple(found.one())
        # The setting is the empty text now, and the functions must not stumble over it.
        await session.execute(text("SET LOCAL ROLE authenticated"))
        found = await session.execute(text("SELECT auth.uid(), auth.role(), auth.jwt()"))
        return (*login, *found.one())


NOBODY = (REQUESTS, "", None, None, None)


async def test_nothing_is_left_on_the_connection(
    world: World, shared_server: PostgresServer
) -> None:
    assert await left_behind(world.requests) == NOBODY
    with pytest.raises(RuntimeError, match="oops"):  # noqa: PT012
        async with world.people.transaction(claims_of(BOB)) as session:
            await session.execute(text("SELECT 1"))
            raise RuntimeError("oops")
    assert await left_behind(world.requests) == NOBODY
    with pytest.raises(DBAPIError):
        await world.as_(BOB, "SELECT 1/0")
    assert await left_behind(world.requests) == NOBODY
    asked = asyncio.create_task(world.as_(BOB, "SELECT pg_sleep(60)"))
    async with asyncio.timeout(20):
        while not is_sleeping(shared_server, str(world.owner.url.database)):
            await asyncio.sleep(0.01)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert await left_behind(world.requests) == NOBODY
    with pytest.raises(ProgrammingError, match="permission denied"):
        async with world.requests.transaction() as session:
            await session.execute(text("SELECT * FROM diary.notes"))


def is_sleeping(server: PostgresServer, name: str) -> bool:
    with server.administrator() as connection:
        return bool(
            connection.execute(
                "SELECT FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%%'"
                " AND state = 'active' AND datname = %s",
                [name],
            ).fetchall()
        )


async def test_a_plan_made_for_one_person_is_not_another_s(world: World) -> None:
    """Prepared statements and their cached plans are the connection's, not the person's."""
    for _ in range(20):
        assert await world.as_(ALICE, "SELECT id FROM diary.notes") == [(1,)]
        assert await world.as_(BOB, "SELECT id FROM diary.notes") == [(2,)]


async def test_every_transaction_of_a_session_has_them_on(world: World) -> None:
    unit = PersonalUnitOfWork(world.requests, claims_of(ALICE))
    async with unit as uow:
        await uow.snapshot()
        for _ in range(2):
            assert await uow.session.scalar(text("SELECT max(id) FROM diary.notes")) == 1
            async with uow.session.begin_nested():
                assert await uow.session.scalar(text("SELECT auth.uid()")) == ALICE
            await uow.commit()
    assert await left_behind(world.requests) == NOBODY


async def test_people_do_not_meet_behind_a_pooler_in_transaction_mode(
    world: World, shared_server: PostgresServer
) -> None:
    name = str(world.owner.url.database)
    async with transaction_pooler(shared_server.layout.socket_dir, REQUESTS, name, 2) as pooler:
        url = f"postgresql://{REQUESTS}@127.0.0.1:{pooler.port}/{name}?pgbouncer=true"
        pooled = Database(url, pool_size=8)
        people = RowSecurity(pooled)

        async def ask(person: UUID, number: int) -> None:
            async with people.transaction(claims_of(person)) as session:
                for _ in range(3):
                    seen = await session.execute(text("SELECT id, auth.uid() FROM diary.notes"))
                    assert [tuple(row) for row in seen] == [(number, person)]

        for _ in range(10):
            await asyncio.gather(
                *(ask(*who) for who in ((ALICE, 1), (BOB, 2)) * 4),
                *(asserted_nobody(pooled) for _ in range(2)),
            )
        assert pooler.transactions >= 100
        await pooled.close()


async def asserted_nobody(database: Database) -> None:
    assert await left_behind(database) == NOBODY


async def test_requests_never_work_as_the_service(world: World) -> None:
    with pytest.raises(Bug, match="never work as the service"):
        async with world.people.transaction({"role": "service_role"}):
            pass
    with pytest.raises(Bug, match="no role of a request"):
        async with world.people.transaction({"role": "causeway"}):
            pass
    with pytest.raises(DBAPIError, match="permission denied"):
        async with row_security.maintenance(world.requests) as session:
            await session.execute(text("SELECT 1"))


async def test_the_login_role_is_looked_at(world: World, shared_server: PostgresServer) -> None:
    await world.people.verify()
    with pytest.raises(ConfigurationError, match="causeway, which requests log in as, owns"):
        await RowSecurity(world.owner).verify()
    name = str(world.owner.url.database)
    admin = Database(f"postgresql://postgres@/{name}?host={shared_server.layout.socket_dir}")
    with pytest.raises(ConfigurationError, match=r"is a superuser.*BYPASSRLS"):
        await RowSecurity(admin).verify()
    await admin.close()


async def test_a_new_person_is_noted_once_and_only_by_themselves(world: World) -> None:
    carol = uuid4()
    told = claims_of(carol) | {"email": "c@example.org", "user_metadata": {"name": "Carol"}}
    for _ in range(2):
        async with world.people.transaction(told) as session:
            await world.people.see(session)
    async with row_security.maintenance(world.owner) as session:
        users = await session.execute(text("SELECT id, email, raw_user_meta_data FROM auth.users"))
        assert [tuple(row) for row in users] == [(carol, "c@example.org", {"name": "Carol"})]
    with pytest.raises(ProgrammingError, match="permission denied"):
        async with world.people.transaction({"role": "anon"}) as session:
            await world.people.see(session)


async def test_what_supabase_has_is_left_as_it_is(
    tmp_path: Path, shared_server: PostgresServer, database: Database
) -> None:
    async with database.transaction() as session:
        for statement in (
            "CREATE SCHEMA auth",
            "CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS"
            " $$SELECT (current_setting('request.jwt.claims', true)::jsonb ->> 'sub')::uuid$$",
            "GRANT USAGE ON SCHEMA auth TO authenticated",
        ):
            await session.execute(text(statement))
    await migrate.upgrade(database, [line_in(tmp_path)])
    requests = Database(shared_server.requests_url(str(database.url.database)))
    people = RowSecurity(requests)
    async with people.transaction(claims_of(ALICE)) as session:
        await people.see(session)
        assert await session.scalar(text("SELECT to_regclass('auth.users')")) is None
        assert await session.scalar(text("SELECT count(*) FROM diary.notes")) == 0
    await requests.close()


async def test_missing_roles_are_named_with_what_to_do(postgres_server: PostgresServer) -> None:
    with postgres_server.administrator() as connection:
        connection.execute("REVOKE service_role FROM causeway")
    database = Database(postgres_server.create("bare"))
    with pytest.raises(DBAPIError, match=r"missing, or not ours(.|\n)*roles_for"):
        async with database.transaction() as session:
            await session.execute(text(SHIM))
    await database.close()


async def test_gaps_in_a_schema_are_found(world: World) -> None:
    async with world.owner.transaction() as session:
        assert await row_security.gaps(session, "diary") == []
        for statement in (
            "CREATE TABLE diary.forgotten ()",
            "CREATE TABLE diary.half ()",
            "ALTER TABLE diary.half ENABLE ROW LEVEL SECURITY",
            "CREATE VIEW diary.loose AS SELECT id FROM diary.notes",
            "CREATE MATERIALIZED VIEW diary.kept AS SELECT 1 AS one",
            "GRANT SELECT ON diary.kept TO authenticated",
            "CREATE FUNCTION diary.f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'",
            "CREATE POLICY slow ON diary.notes USING (user_id = auth.uid())",
        ):
            await session.execute(text(statement))
        found = await row_security.gaps(session, "diary")
    assert [line.split(":")[0] for line in found] == [
        "function f",
        "materialised view kept",
        "policy slow of notes",
        "table forgotten",
        "table half",
        "view loose",
    ]


async def test_the_person_is_found_once_a_query(world: World) -> None:
    async with row_security.maintenance(world.owner) as session:
        await session.execute(
            text(
                "INSERT INTO diary.notes (id, user_id, body)"
                " SELECT n, gen_random_uuid(), '' FROM generate_series(10, 2000) n"
            )
        )
    plan = await world.as_(ALICE, f"EXPLAIN SELECT id FROM diary.notes WHERE user_id = {UID}")
    assert "InitPlan" in "\n".join(line for (line,) in plan)


async def test_the_embedded_server_has_the_roles(tmp_path: Path) -> None:
    async with EmbeddedPostgres.open(tmp_path / "data") as server:
        # As a folder of before has it: they are made when it is next opened.
        with server.administrator("causeway") as connection:
            connection.execute(f"DROP ROLE {REQUESTS}")
    async with EmbeddedPostgres.open(tmp_path / "data") as server:
        owner, requests = Database(server.url), Database(server.requests_url)
        (tmp_path / "line").mkdir()
        await migrate.upgrade(owner, [line_in(tmp_path / "line")])
        people = RowSecurity(requests)
        await people.verify()
        async with people.transaction(claims_of(ALICE)) as session:
            assert await session.scalar(text("SELECT auth.uid()")) == ALICE
            assert await session.scalar(text("SELECT count(*) FROM diary.notes")) == 0
        await owner.close()
        await requests.close()
