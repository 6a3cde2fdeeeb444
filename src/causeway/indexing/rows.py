"""Rows that handlers of the fast kind write: gathered, and written in one go.

`add` is for tables that only gain rows; `get` and `put` are for state, one row a primary key. All
of it goes to the database when a block (or a stretch of final blocks) is through, by COPY; an
`INSERT … ON CONFLICT` from a temporary table for what was put.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Table, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.base.errors import Bug
from causeway.store.copy import copy_rows

Row = dict[str, Any]
Key = tuple[Any, ...]

#: Rows of owned tables remembered between transactions; more, and all are forgotten.
REMEMBERED = 200_000


class Rows:
    """What the handlers of one source have written since the last flush.

    `owned` tables are written by this source's handlers only, so that what is known of their rows
    stays true from one transaction to the next.
    """

    def __init__(self, owned: Sequence[Table] = ()) -> None:
        self._owned = frozenset(owned)
        self._added: dict[Table, list[Row]] = {}
        self._put: dict[Table, dict[Key, Row]] = {}
        self._known: dict[Table, dict[Key, Row | None]] = {}
        self._session: AsyncSession | None = None

    @property
    def session(self) -> AsyncSession:
        """The transaction they belong to. `flush` before reading what was added."""
        if self._session is None:
            raise Bug("rows are written in the transaction of the indexer only")
        return self._session

    def begin(self, session: AsyncSession) -> None:
        """Start over in this transaction; what was not flushed is forgotten."""
        self._session = session
        self._added.clear()
        self._put.clear()
        if sum(map(len, self._known.values())) > REMEMBERED:
            self._known.clear()

    def forget(self) -> None:
        """Forget what is known of owned tables: somebody else moved the checkpoint, or an undo."""
        self._known.clear()
        self._session = None

    def add(self, table: Table, /, **values: Any) -> None:
        """Add a row. All rows added to a table in a transaction name the same columns."""
        rows = self._added.get(table)
        if rows is None:
            rows = self._added[table] = []
        rows.append(values)

    async def get(self, table: Table, /, *key: Any) -> Row | None:
        """Return the row with that primary key, as it was put or as it is; None without one.

        Change it by putting a new one.
        """
        put = self._put.get(table)
        if put is not None and key in put:
            return put[key]
        known = self._known.setdefault(table, {})
        if key in known:
            return known[key]
        statement = select(table)
        for column, value in zip(table.primary_key.columns, key, strict=True):
            statement = statement.where(column == value)
        found = (await self.session.execute(statement)).mappings().first()
        row = None if found is None else dict(found)
        known[key] = row
        return row

    def put(self, table: Table, row: Mapping[str, Any]) -> None:
        """Have the row with this primary key be so; all rows put name the same columns."""
        key = tuple([row[column.name] for column in table.primary_key.columns])
        self._put.setdefault(table, {})[key] = dict(row)

    def touches(self, tables: frozenset[Table]) -> bool:
        """Say whether there is anything for these tables that was not written yet."""
        return any(t in tables for t in self._added) or any(t in tables for t in self._put)

    async def flush(self) -> None:
        """Write everything to the database."""
        for table, rows in self._added.items():
            if rows:
                names = list(rows[0])
                try:
                    columns = [[row[name] for row in rows] for name in names]
                except KeyError as error:
                    raise Bug(f"rows added to {table} name different columns: {error}") from error
                await copy_rows(self.session, table, names, columns)
        self._added.clear()
        for table, put in self._put.items():
            await self._upsert(table, put)
            known = self._known.setdefault(table, {})
            known.update(put)
        self._put.clear()

    def end(self) -> None:
        """The transaction was committed: keep what is known of owned tables only."""
        for table in [t for t in self._known if t not in self._owned]:
            del self._known[table]
        self._session = None

    async def _upsert(self, table: Table, put: Mapping[Key, Row]) -> None:
        rows = list(put.values())
        names = list(rows[0])
        listed = ", ".join(f'"{name}"' for name in names)
        keys = [column.name for column in table.primary_key.columns]
        other = [name for name in names if name not in keys]
        whole = f'"{table.schema}"."{table.name}"'
        # One temporary table a connection, for these columns of this table.
        temporary = f"causeway_put_{zlib.crc32(f'{whole}{listed}'.encode()):08x}"
        await self.session.execute(
            text(
                f"CREATE TEMPORARY TABLE IF NOT EXISTS {temporary} ON COMMIT DELETE ROWS "
                f"AS SELECT {listed} FROM {whole} WITH NO DATA"
            )
        )
        columns = [[row[name] for row in rows] for name in names]
        await copy_rows(self.session, table, names, columns, into=f"pg_temp.{temporary}")
        update = ", ".join(f'"{name}" = excluded."{name}"' for name in other)
        on_conflict = f"DO UPDATE SET {update}" if update else "DO NOTHING"
        listed_keys = ", ".join(f'"{name}"' for name in keys)
        await self.session.execute(
            text(
                f"INSERT INTO {whole} ({listed}) SELECT {listed} FROM {temporary} "
                f"ON CONFLICT ({listed_keys}) {on_conflict}"
            )
        )
        await self.session.execute(text(f"TRUNCATE {temporary}"))
