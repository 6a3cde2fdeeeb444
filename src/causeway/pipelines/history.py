"""The state machine, guarded and remembered by the database itself.

`attach_history` gives a table statement-level triggers that refuse every change of status along
an edge that is not declared, and that write one `causeway.transitions` row for each that is,
whoever made it: a stage, the reader of a chain, an operator, or somebody with psql. An app runs
the statements in a migration.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sqlalchemy.exc import DBAPIError

from causeway.base.errors import InvalidStateTransition

#: SQLSTATE of a refused edge.
REFUSED = "CW001"


def attach_history(
    table: str,
    *,
    app: str,
    key: str,
    edges: Sequence[tuple[str, str]],
    status: str = "status",
    attempts: str = "attempts",
    reason: str = "last_error",
    owner: str = "lease_owner",
) -> list[str]:
    """Return the DDL that guards and remembers the status of `table` (`schema.name`)."""
    _check(table, app, key, status, attempts, reason, owner, *(s for e in edges for s in e))
    allowed = ", ".join(f"('{a}','{b}')" for a, b in edges)
    short = table.partition(".")[2]
    actor = "coalesce(nullif(current_setting('causeway.actor', true), ''), "
    actor += "current_setting('application_name'))"
    insert = "INSERT INTO causeway.transitions (app, row_key, from_status, to_status, worker, "
    insert += "attempt, reason) "
    function = f"""
CREATE FUNCTION {table}_history() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE bad record;
BEGIN
  IF TG_OP = 'INSERT' THEN
    {insert} SELECT '{app}', n.{key}::text, NULL, n.{status}, {actor}, NULL, NULL
      FROM new_rows n;
  ELSIF TG_OP = 'DELETE' THEN
    {insert} SELECT '{app}', o.{key}::text, o.{status}, NULL, {actor}, NULL, NULL
      FROM old_rows o;
  ELSE
    SELECT n.{key}::text AS key, o.{status} AS was, n.{status} AS wanted INTO bad
      FROM new_rows n JOIN old_rows o USING ({key})
      WHERE n.{status} <> o.{status}
        AND (o.{status}, n.{status}) NOT IN (VALUES {allowed})
      LIMIT 1;
    IF FOUND THEN
      RAISE EXCEPTION USING ERRCODE = '{REFUSED}', MESSAGE = format(
        'InvalidStateTransition: {short} %s is ''%s'' and cannot become ''%s''',
        bad.key, bad.was, bad.wanted);
    END IF;
    {insert} SELECT '{app}', n.{key}::text, o.{status}, n.{status},
        coalesce(n.{owner}, o.{owner}, {actor}), greatest(n.{attempts}, o.{attempts}), n.{reason}
      FROM new_rows n JOIN old_rows o USING ({key}) WHERE n.{status} <> o.{status};
  END IF;
  RETURN NULL;
END $$"""
    return [
        function,
        *(
            f"CREATE TRIGGER causeway_history_{event} AFTER {event.upper()} ON {table} {rows} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {table}_history()"
            for event, rows in _EVENTS.items()
        ),
    ]


def detach_history(table: str) -> list[str]:
    """Return the DDL that takes back `attach_history`."""
    _check(table)
    return [
        *(f"DROP TRIGGER IF EXISTS causeway_history_{event} ON {table}" for event in _EVENTS),
        f"DROP FUNCTION IF EXISTS {table}_history()",
    ]


_EVENTS = {
    "insert": "REFERENCING NEW TABLE AS new_rows",
    "update": "REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows",
    "delete": "REFERENCING OLD TABLE AS old_rows",
}


def _check(table: str, *names: str) -> None:
    words = [*table.split("."), *names]
    if "." not in table or not all(re.fullmatch(r"[a-z_][a-z0-9_]*", word) for word in words):
        raise ValueError(f"write schema.table and plain lower-case names, not {words}")


_MESSAGE = re.compile(r"InvalidStateTransition: (.+) is '(\w+)' and cannot become '(\w+)'")


def refused_transition(error: DBAPIError) -> InvalidStateTransition | None:
    """Return our error when the database refused an edge, None for every other reason."""
    if getattr(error.orig, "sqlstate", None) != REFUSED:
        return None
    found = _MESSAGE.search(str(error.orig))
    return InvalidStateTransition(*found.groups()) if found else None
