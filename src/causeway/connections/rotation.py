"""Putting everything that is encrypted under the newest key, while everything runs.

Rows are taken some at a time, each batch in one short transaction; stopped in the middle it goes
on where it was, and run again it does nothing.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.connections.vault import revocation_place, token_place
from causeway.store.encryption import Keyring, Undecryptable
from causeway.store.engine import Database

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Rotated:
    """What became of the rows."""

    #: Now under the newest key.
    rows: int
    #: Under it before.
    already: int
    #: Under no key of the ring, or changed; left as they are.
    unreadable: int


async def rotate(database: Database, keyring: Keyring, *, batch: int = 200) -> Rotated:
    """Encrypt every token under the first key of the ring."""
    counts = {"rows": 0, "already": 0, "unreadable": 0}
    for table, columns, again in (
        ("connections", "app, provider, subject, access_token, refresh_token", _connection),
        ("connection_revocations", "app, provider, token", _revocation),
    ):
        after = uuid.UUID(int=0)
        while True:
            async with database.transaction() as session:
                rows = (
                    await session.execute(
                        text(
                            f"SELECT id, {columns} FROM causeway.{table} WHERE id > :after "
                            "ORDER BY id LIMIT :batch FOR UPDATE"
                        ),
                        {"after": after, "batch": batch},
                    )
                ).all()
                for row in rows:
                    counts[await _one(session, keyring, table, row, again)] += 1
            if not rows:
                break
            after = rows[-1].id
    return Rotated(**counts)


async def keys_in_use(database: Database) -> dict[str, int]:
    """Return how many tokens are kept under each key, by the key's id."""
    async with database.transaction() as session:
        rows = await session.execute(
            text(
                """
                SELECT split_part(token, '.', 2) AS key_id, count(*) AS tokens FROM (
                    SELECT access_token AS token FROM causeway.connections
                    UNION ALL SELECT refresh_token FROM causeway.connections
                    UNION ALL SELECT token FROM causeway.connection_revocations
                ) t WHERE token IS NOT NULL GROUP BY 1 ORDER BY 1
                """
            )
        )
        return {row.key_id: int(row.tokens) for row in rows}


async def _one(
    session: AsyncSession, keyring: Keyring, table: str, row: Row[Any], again: Any
) -> str:
    try:
        new: dict[str, str] = again(keyring, row)
    except Undecryptable as error:
        _log.error("token_not_rotated", table=table, id=str(row.id), why=error.message)
        return "unreadable"
    if not new:
        return "already"
    changes = ", ".join(f"{column} = :{column}" for column in new)
    await session.execute(
        text(f"UPDATE causeway.{table} SET {changes} WHERE id = :id"), {"id": row.id, **new}
    )
    return "rows"


def _connection(keyring: Keyring, row: Row[Any]) -> dict[str, str]:
    new: dict[str, str] = {}
    for column in ("access_token", "refresh_token"):
        sealed: str | None = getattr(row, column)
        if sealed is not None and not keyring.rotated(sealed):
            place = token_place(row.app, row.provider, row.subject, column)
            new[column] = keyring.encrypt(keyring.decrypt(sealed, place), place)
    return new


def _revocation(keyring: Keyring, row: Row[Any]) -> dict[str, str]:
    if keyring.rotated(row.token):
        return {}
    place = revocation_place(row.id, row.app, row.provider)
    return {"token": keyring.encrypt(keyring.decrypt(row.token, place), place)}
