"""Row level security: PostgreSQL itself decides which rows a person may see and change.

    people = RowSecurity(requests_database)
    async with people.transaction(claims.raw) as session:
        ...  # as role `authenticated`, auth.uid() is the person

Roles are those of Supabase, so that the same policies serve there and on a PostgreSQL of one's own:
`anon`, `authenticated` and `service_role` (which passes every policy), none of which can log in.
Requests come over a login role that owns nothing and passes no policy, and put on a role and the
claims for the length of one transaction: nothing of it is left on the connection, so that a pool,
also one in transaction mode, can hand it to the next person.

What a migration needs is here, too: `ROLES` (for an administrator), `SHIM` (schema `auth`, where
there is none), and the statements that protect a table and write its policies.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, event, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, SessionTransaction

from causeway.base.errors import Bug, ConfigurationError
from causeway.store.engine import Database
from causeway.store.unit_of_work import UnitOfWork

#: Who asks: somebody, a person, the service itself.
ANONYMOUS, PERSON, SERVICE = "anon", "authenticated", "service_role"

#: The role requests log in as, where we make it (Supabase has one: `authenticator`).
REQUESTS = "causeway_requests"

#: The person who asks, in a policy. As a subquery it is evaluated once a query, not once a row.
UID = "(SELECT auth.uid())"

#: Both at once, and one round trip; `true`: until the transaction ends.
_PUT_ON = text(
    "SELECT set_config('role', :role, true), set_config('request.jwt.claims', :claims, true)"
)


def claims_of(person: UUID) -> dict[str, Any]:
    """Return the claims under which a background job works for one person."""
    return {"sub": str(person), "role": PERSON, "aud": PERSON}


def bind(session: AsyncSession, claims: Mapping[str, Any]) -> None:
    """Have every transaction of a new session run under these claims and their role.

    Raises `Bug` for a role that is none of the three.
    """
    role = claims.get("role")
    if role not in (ANONYMOUS, PERSON, SERVICE):
        raise Bug(f"{role!r} is no role of a request: {ANONYMOUS}, {PERSON} or {SERVICE}")
    values = {"role": role, "claims": orjson.dumps(claims).decode()}

    def put_on(_session: Session, begun: SessionTransaction, connection: Connection) -> None:
        if not begun.nested:  # a savepoint is inside of what has them on already
            connection.execute(_PUT_ON, values)

    event.listen(session.sync_session, "after_begin", put_on)


class RowSecurity:
    """Transactions of people, on a database opened with the login role of requests."""

    def __init__(self, requests: Database) -> None:
        self._database = requests
        self._has_first_sight: bool | None = None

    @asynccontextmanager
    async def transaction(self, claims: Mapping[str, Any]) -> AsyncGenerator[AsyncSession]:
        """Open a transaction as whom the claims say: committed at the end, else rolled back."""
        if claims.get("role") == SERVICE:
            raise Bug("requests never work as the service; see `maintenance`")
        async with self._database.sessions() as session:
            bind(session, claims)
            async with session.begin():
                yield session

    async def see(self, session: AsyncSession) -> None:
        """Note a person who is new to us, from the claims; nothing where Supabase keeps `auth`."""
        if self._has_first_sight is None:
            found = await session.scalar(text("SELECT to_regprocedure('auth.first_sight()')"))
            self._has_first_sight = found is not None
        if self._has_first_sight:
            await session.execute(text("SELECT auth.first_sight()"))

    async def verify(self) -> None:
        """Raise `ConfigurationError` when the login role could pass by the policies."""
        async with self._database.transaction() as session:
            row = (await session.execute(text(_LOGIN_ROLE), {"person": PERSON})).one()
        problems = {
            "is a superuser": row.rolsuper,
            "has BYPASSRLS": row.rolbypassrls,
            "owns tables, and so could change their policies": row.owns,
            f"is no member of {PERSON}": not row.is_member,
        }
        wrong = [
            f"the role {row.rolname}, which requests log in as, {what}"
            for what, is_so in problems.items()
            if is_so
        ]
        if wrong:
            raise ConfigurationError(wrong, hint=f"log in as {REQUESTS} or a role made like it")


class PersonalUnitOfWork(UnitOfWork):
    """A unit of work as one person; made for each request with that request's claims."""

    def __init__(self, requests: Database, claims: Mapping[str, Any]) -> None:
        super().__init__(requests)
        self._claims = claims

    def opened(self, session: AsyncSession) -> None:
        """Put the claims on; an app's own subclass calls this before its repositories."""
        bind(session, self._claims)


@asynccontextmanager
async def maintenance(owner: Database) -> AsyncGenerator[AsyncSession]:
    """Open a transaction that passes every policy, for jobs about everybody's rows.

    `owner` is opened with the role that migrates, a member of `service_role`.
    """
    async with owner.sessions() as session:
        bind(session, {"role": SERVICE})
        async with session.begin():
            yield session


async def gaps(session: AsyncSession, schema: str) -> list[str]:
    """Return what in a schema lets rows past its policies, or is slow; empty when all is well.

    Tables without forced row security, views with the rights of their owner, materialised views
    people may read, SECURITY DEFINER without a fixed search path, `auth.uid()` once a row.
    """
    found = await session.scalars(text(_GAPS), {"schema": schema, "person": PERSON})
    return sorted(found)


def open_schema(schema: str) -> str:
    """Return the statement that lets the three roles name what is in a schema."""
    return f"GRANT USAGE ON SCHEMA {schema} TO {ANONYMOUS}, {PERSON}, {SERVICE}"


def protect(table: str) -> list[str]:
    """Return what makes a table (`schema.name`) show nobody anything until a policy says so."""
    return [
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
        f"REVOKE ALL ON TABLE {table} FROM PUBLIC, {ANONYMOUS}, {PERSON}",
        f"GRANT ALL ON TABLE {table} TO {SERVICE}",
    ]


def grant(
    table: str, *privileges: str, columns: Sequence[str] = (), to: Sequence[str] = (PERSON,)
) -> str:
    """Return the statement that grants privileges, on some columns only where given."""
    of = f" ({', '.join(columns)})" if columns else ""
    return f"GRANT {', '.join(p + of for p in privileges)} ON TABLE {table} TO {', '.join(to)}"


def policy(
    table: str,
    name: str,
    *,
    command: str = "ALL",
    using: str | None = None,
    check: str | None = None,
    to: Sequence[str] = (PERSON,),
) -> str:
    """Return a policy: which rows are seen (`using`), which may be written (`check`)."""
    clauses = [f"USING ({using})"] * (using is not None)
    clauses += [f"WITH CHECK ({check})"] * (check is not None)
    if not clauses:
        raise Bug(f"policy {name} of {table} says nothing")
    return f"CREATE POLICY {name} ON {table} FOR {command} TO {', '.join(to)} {' '.join(clauses)}"


def owner_policy(table: str, column: str = "user_id") -> str:
    """Return the policy that gives a person all of their own rows, and no other to write."""
    own = f"{column} = {UID}"
    return policy(table, "owner", using=own, check=own)


def definer(signature: str, returns: str, body: str, *, volatility: str = "STABLE") -> list[str]:
    """Return a SQL function that passes the policies, for policies to ask (`schema.name(a uuid)`).

    A policy's subquery is itself subject to the policies of the table it reads. With policies
    forced even the owner of the tables is: the function belongs to `service_role`. Nothing is on
    its search path, so every name in `body` is written with its schema.
    """
    schema = signature.partition(".")[0]
    return [
        f"CREATE FUNCTION {signature} RETURNS {returns} LANGUAGE sql {volatility} "
        f"SECURITY DEFINER SET search_path = '' AS $definer${body}$definer$",
        f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC",
        f"GRANT EXECUTE ON FUNCTION {signature} TO {ANONYMOUS}, {PERSON}, {SERVICE}",
        f"GRANT CREATE ON SCHEMA {schema} TO {SERVICE}",  # whom a function is given to needs it
        f"ALTER FUNCTION {signature} OWNER TO {SERVICE}",
        f"REVOKE CREATE ON SCHEMA {schema} FROM {SERVICE}",
    ]


def roles_for(owner: str) -> str:
    """Return what a superuser runs once: the roles that are missing, for the migrating `owner`."""
    made = "".join(
        f"IF to_regrole('{name}') IS NULL THEN CREATE ROLE {name} {what}; END IF;\n"
        for name, what in {
            ANONYMOUS: "NOLOGIN",
            PERSON: "NOLOGIN",
            SERVICE: "NOLOGIN BYPASSRLS",
            REQUESTS: "LOGIN NOINHERIT",
        }.items()
    )
    return f"""
DO $roles$ BEGIN
{made}
GRANT {ANONYMOUS}, {PERSON} TO {REQUESTS};
GRANT {SERVICE} TO {owner};
END $roles$
"""


#: Makes schema `auth` where there is none: run by the first migration of an app whose policies
#: use it. The roles must be there, or we must be allowed to make them.
SHIM = f"""
DO $shim$
BEGIN
IF to_regnamespace('auth') IS NOT NULL THEN RETURN; END IF;
IF to_regrole('{ANONYMOUS}') IS NULL OR to_regrole('{PERSON}') IS NULL
   OR NOT coalesce((SELECT rolbypassrls FROM pg_roles WHERE rolname = '{SERVICE}'), false)
   OR NOT pg_has_role('{SERVICE}', 'MEMBER') THEN
  RAISE EXCEPTION 'the roles {ANONYMOUS}, {PERSON} and {SERVICE} are missing, or not ours to use'
    USING HINT = 'as a superuser run what causeway.store.row_security.roles_for(owner) returns';
END IF;

CREATE SCHEMA auth;
GRANT USAGE ON SCHEMA auth TO {ANONYMOUS}, {PERSON}, {SERVICE};

CREATE TABLE auth.users (
  id uuid PRIMARY KEY,
  email text,
  raw_user_meta_data jsonb,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
ALTER TABLE auth.users ENABLE ROW LEVEL SECURITY;
ALTER TABLE auth.users FORCE ROW LEVEL SECURITY;
REVOKE ALL ON TABLE auth.users FROM PUBLIC;
GRANT ALL ON TABLE auth.users TO {SERVICE};

-- A custom setting is the empty text, not null, once a transaction that set it has ended.
CREATE FUNCTION auth.jwt() RETURNS jsonb LANGUAGE sql STABLE AS $f$
  SELECT nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::jsonb
$f$;
CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS $f$
  SELECT (nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::jsonb
    ->> 'sub')::uuid
$f$;
CREATE FUNCTION auth.role() RETURNS text LANGUAGE sql STABLE AS $f$
  SELECT nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::jsonb ->> 'role'
$f$;

-- Only the person themselves, as their own signed token names them.
CREATE FUNCTION auth.first_sight() RETURNS void LANGUAGE sql VOLATILE
  SECURITY DEFINER SET search_path = '' AS $f$
  INSERT INTO auth.users (id, email, raw_user_meta_data)
  SELECT auth.uid(), auth.jwt() ->> 'email', auth.jwt() -> 'user_metadata'
  WHERE auth.uid() IS NOT NULL AND auth.role() = '{PERSON}'
  ON CONFLICT (id) DO NOTHING
$f$;
REVOKE ALL ON FUNCTION auth.first_sight() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION auth.first_sight() TO {PERSON};
GRANT CREATE ON SCHEMA auth TO {SERVICE};
ALTER FUNCTION auth.first_sight() OWNER TO {SERVICE};
REVOKE CREATE ON SCHEMA auth FROM {SERVICE};
END $shim$
"""

_LOGIN_ROLE = """
SELECT r.rolname, r.rolsuper, r.rolbypassrls,
       EXISTS (SELECT FROM pg_class c WHERE c.relowner = r.oid) AS owns,
       to_regrole(:person) IS NOT NULL AND pg_has_role(r.oid, to_regrole(:person), 'MEMBER')
         AS is_member
FROM pg_roles r WHERE r.rolname = session_user
"""

_GAPS = """
SELECT format('table %I: row security is not enabled and forced', c.relname)
FROM pg_class c WHERE c.relnamespace = to_regnamespace(:schema) AND c.relkind IN ('r', 'p')
  AND NOT c.relispartition AND c.relname <> 'alembic_version'
  AND NOT (c.relrowsecurity AND c.relforcerowsecurity)
UNION ALL
SELECT format('view %I: is not security_invoker', c.relname)
FROM pg_class c WHERE c.relnamespace = to_regnamespace(:schema) AND c.relkind = 'v'
  AND NOT coalesce(c.reloptions && '{security_invoker=true,security_invoker=on}', false)
UNION ALL
SELECT format('materialised view %I: people may read it, and it has no policies', c.relname)
FROM pg_class c WHERE c.relnamespace = to_regnamespace(:schema) AND c.relkind = 'm'
  AND has_table_privilege(:person, c.oid, 'SELECT')
UNION ALL
SELECT format('function %I: SECURITY DEFINER without a fixed search_path', p.proname)
FROM pg_proc p WHERE p.pronamespace = to_regnamespace(:schema) AND p.prosecdef
  AND NOT EXISTS (SELECT FROM unnest(p.proconfig) AS s WHERE s LIKE 'search\\_path=%')
UNION ALL
SELECT format('policy %I of %I: auth.uid() is evaluated once a row; write (SELECT auth.uid())',
              p.polname, c.relname)
FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
WHERE c.relnamespace = to_regnamespace(:schema)
  AND regexp_replace(concat(pg_get_expr(p.polqual, p.polrelid), ' ',
                            pg_get_expr(p.polwithcheck, p.polrelid)),
                     'SELECT auth\\.uid\\(\\)', '', 'g') LIKE '%auth.uid()%'
"""
