"""What an operator should look at: raised once, told in the log and by metrics, open until over."""

from __future__ import annotations

from typing import Any

import structlog
from prometheus_client import Counter
from sqlalchemy import func, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.motify.models import Incident

log = structlog.get_logger(__name__)

INCIDENTS = Counter("causeway_motify_incidents_total", "Incidents raised", ["kind"])


async def raise_incident(session: AsyncSession, kind: str, subject: str, **detail: Any) -> bool:
    """Note an incident, unless it is open already; return whether it is new."""
    added = await session.scalar(
        insert(Incident)
        .values(kind=kind, subject=subject, detail=detail)
        .on_conflict_do_nothing()
        .returning(Incident.id)
    )
    if added is None:
        return False
    INCIDENTS.labels(kind).inc()
    log.error("incident", kind=kind, subject=subject, **detail)
    return True


async def resolve(session: AsyncSession, kind: str, subject: str) -> None:
    """Close an incident that is over."""
    await session.execute(
        update(Incident)
        .where(Incident.kind == kind, Incident.subject == subject, Incident.resolved_at.is_(None))
        .values(resolved_at=func.clock_timestamp())
    )


def challenge(challenge_id: int, wallet: str | None = None) -> str:
    """Return how an incident names a challenge, or one participant of it."""
    return f"challenge {challenge_id}" + (f" {wallet}" if wallet else "")
