"""Tickets: a person's right to open one connection, once, within a minute.

A browser cannot put a header on a WebSocket, and an address ends in logs: the ticket travels as a
second subprotocol, `ticket.<value>`, and is of no use afterwards.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.base.errors import NotAuthenticated
from causeway.store.engine import Database

LIFETIME_S = 60.0


@dataclass(frozen=True)
class Viewer:
    """Who is at the other end of a connection."""

    subject: str
    #: When the token runs out that they showed; None: never.
    until: datetime | None = None
    claims: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)


async def issue(session: AsyncSession, viewer: Viewer, lifetime_s: float = LIFETIME_S) -> str:
    """Make a ticket for a person who has just shown their token; it is good when this commits."""
    value = secrets.token_urlsafe(32)
    await session.execute(
        text(
            "INSERT INTO causeway.live_tickets (sha256, subject, claims, person_until, expires_at)"
            " VALUES (:sha256, :subject, CAST(:claims AS jsonb), :until,"
            " clock_timestamp() + make_interval(secs => :lifetime_s))"
        ),
        {
            "sha256": _hash(value),
            "subject": viewer.subject,
            "claims": orjson.dumps(viewer.claims).decode(),
            "until": viewer.until,
            "lifetime_s": lifetime_s,
        },
    )
    return value


async def redeem(database: Database, value: str) -> Viewer:
    """Use a ticket up; raises `NotAuthenticated` when it was used, has expired or never was."""
    async with database.transaction() as session:
        found = await session.execute(
            text(
                "DELETE FROM causeway.live_tickets WHERE sha256 = :sha256"
                " RETURNING subject, person_until, claims, expires_at > clock_timestamp() AS good"
            ),
            {"sha256": _hash(value)},
        )
        row = found.one_or_none()
    if row is None or not row.good:
        raise NotAuthenticated("the ticket was used, has expired, or never was one")
    return Viewer(row.subject, row.person_until, row.claims)


def _hash(value: str) -> bytes:
    return hashlib.sha256(value.encode()).digest()
