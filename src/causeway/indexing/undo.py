"""Undoing what facts changed, by the database itself.

A derived table has three statement-level triggers. While the indexer applies a block that may
still be replaced it sets `causeway.undo` in its transaction, and only then the triggers note in
`causeway.undo_log` what each row was before: nothing for an inserted row, the changed columns for
an updated one, the whole row for a deleted one. So what stages write is never noted, and an undo
gives back only what facts took.

An app attaches its tables in a migration:

    for statement in attach_undo("glisk.tokens"):
        op.execute(statement)

The table needs a primary key. In a column of JSON that may be SQL null, a JSON null comes back as
an SQL null: both read as None. Rows that go with an undone row (ON DELETE CASCADE) or keep it from
going (no such clause) are for the app's foreign keys to decide.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sqlalchemy import Table, text
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.base.errors import ConfigurationError

_TRIGGERS = {
    "insert": "REFERENCING NEW TABLE AS new_rows",
    "update": "REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows",
    "delete": "REFERENCING OLD TABLE AS old_rows",
}


def attach_undo(table: str | Table) -> list[str]:
    """Return the DDL statements that have the changes of a table's rows noted for undoing.

    `table` is `schema.name` (plain identifiers) or a table of a schema.
    """
    name = _name(table)
    return [
        f"CREATE TRIGGER causeway_undo_{event} AFTER {event.upper()} ON {name} {references} "
        "FOR EACH STATEMENT EXECUTE FUNCTION causeway.log_undo()"
        for event, references in _TRIGGERS.items()
    ]


def detach_undo(table: str | Table) -> list[str]:
    """Return the DDL statements that take back `attach_undo`."""
    name = _name(table)
    return [f"DROP TRIGGER IF EXISTS causeway_undo_{event} ON {name}" for event in _TRIGGERS]


def _name(table: str | Table) -> str:
    plain = table if isinstance(table, str) else f"{table.schema}.{table.name}"
    if not re.fullmatch(r"[a-z_][a-z0-9_]*\.[a-z_][a-z0-9_]*", plain):
        raise ConfigurationError(f"write the table as schema.name in lower case, not {plain!r}")
    return plain


async def note_changes(session: AsyncSession, source: str, block_number: int | None) -> None:
    """From here on, in this transaction, note changes as those of this block; None: note none."""
    await session.flush()
    place = "" if block_number is None else f"{source}:{block_number}"
    await session.execute(
        text("SELECT set_config('causeway.undo', :place, true)"), {"place": place}
    )


async def undo_above(session: AsyncSession, source: str, block_number: int) -> int:
    """Take back what facts of blocks above this one changed, newest first; return the changes."""
    await session.flush()
    undone = await session.scalar(
        text("SELECT causeway.undo_above(:source, :above)"),
        {"source": source, "above": block_number},
    )
    session.expire_all()
    return int(undone or 0)


async def forget_up_to(session: AsyncSession, source: str, block_number: int) -> None:
    """Drop undo entries of blocks that are final."""
    await session.execute(
        text("DELETE FROM causeway.undo_log WHERE source = :source AND block_number <= :upto"),
        {"source": source, "upto": block_number},
    )


async def require_attached(session: AsyncSession, tables: Sequence[Table]) -> None:
    """Raise `ConfigurationError` naming every table that lacks its undo triggers."""
    missing: list[str] = []
    for table in tables:
        name = _name(table)
        count = await session.scalar(
            text(
                "SELECT count(*) FROM pg_catalog.pg_trigger WHERE tgrelid = to_regclass(:name) "
                "AND tgname = ANY(:triggers) AND tgenabled <> 'D'"
            ),
            {"name": name, "triggers": [f"causeway_undo_{event}" for event in _TRIGGERS]},
        )
        if count != len(_TRIGGERS):
            missing.append(
                f"{name} is derived from a chain but has no undo triggers: "
                "run the migrations, or call attach_undo in one"
            )
    if missing:
        raise ConfigurationError(missing)
