"""Leases: one holder at a time for a name, across all machines, with a fence.

A lease is a row, not an advisory lock, so that it also works behind a transaction-mode pooler. The
database's clock decides when it has run out. The fence grows each time the holder changes; a
holder that was away too long finds that its fence is old and stops.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import BigInteger, Text, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from causeway.base.errors import LeaseLost
from causeway.store.engine import Database
from causeway.store.schema import Instant, KernelBase


class LeaseRow(KernelBase):
    """Who holds which name, until when, under which fence."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    holder: Mapped[str] = mapped_column(Text)
    fence: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[datetime] = mapped_column(Instant)


@dataclass(frozen=True)
class Lease:
    """A lease in hand."""

    name: str
    holder: str
    fence: int


async def acquire(database: Database, name: str, holder: str, seconds: float) -> Lease | None:
    """Take or renew the lease `name` for `seconds`; None while somebody else holds it.

    The fence stays while the holder renews in time and grows in every other case, also when the
    same holder comes back to a lease that had run out.
    """
    async with database.transaction() as session:
        fence = await session.scalar(
            text(
                """
                INSERT INTO causeway.leases AS l (name, holder, fence, expires_at)
                VALUES (:name, :holder, 1, clock_timestamp() + make_interval(secs => :seconds))
                ON CONFLICT (name) DO UPDATE SET
                    holder = excluded.holder,
                    expires_at = excluded.expires_at,
                    fence = l.fence + CASE WHEN l.holder = excluded.holder
                        AND l.expires_at > clock_timestamp() THEN 0 ELSE 1 END
                WHERE l.holder = excluded.holder OR l.expires_at <= clock_timestamp()
                RETURNING fence
                """
            ),
            {"name": name, "holder": holder, "seconds": seconds},
        )
    return None if fence is None else Lease(name, holder, int(fence))


async def renew(database: Database, lease: Lease, seconds: float) -> None:
    """Hold the lease for `seconds` from now; raise `LeaseLost` when it has run out or moved on."""
    async with database.transaction() as session:
        held = await session.scalar(
            text(
                "UPDATE causeway.leases "
                "SET expires_at = clock_timestamp() + make_interval(secs => :seconds) "
                "WHERE name = :name AND holder = :holder AND fence = :fence "
                "AND expires_at > clock_timestamp() RETURNING true"
            ),
            {"name": lease.name, "holder": lease.holder, "fence": lease.fence, "seconds": seconds},
        )
    if not held:
        raise LeaseLost(f"the lease {lease.name!r} is not held any more")


async def release(database: Database, lease: Lease) -> None:
    """Give the lease back, so that the next holder need not wait for it to run out."""
    async with database.transaction() as session:
        await session.execute(
            text(
                "UPDATE causeway.leases SET expires_at = clock_timestamp() "
                "WHERE name = :name AND holder = :holder AND fence = :fence"
            ),
            {"name": lease.name, "holder": lease.holder, "fence": lease.fence},
        )


async def guard(session: AsyncSession, lease: Lease) -> None:
    """Hold the lease's row until this transaction ends; raise `LeaseLost` if it is not ours."""
    held = await session.scalar(
        text(
            "SELECT true FROM causeway.leases WHERE name = :name AND holder = :holder "
            "AND fence = :fence AND expires_at > clock_timestamp() FOR SHARE"
        ),
        {"name": lease.name, "holder": lease.holder, "fence": lease.fence},
    )
    if not held:
        raise LeaseLost(f"the lease {lease.name!r} is not held any more")
