"""How much an application may still ask of a provider that counts all its people together.

Strava counts every request of an application, whoever it is for, in windows that begin at fixed
times. All processes share one budget in PostgreSQL: a request is counted before it is sent, and
what the answer's headers say puts the count right. So no more is ever sent than is allowed, also
when somebody dies in between; the provider counts what it refuses, too.

Parts are kept for what must not wait: `event` (webhooks, exports) and `interactive` (somebody
looks at a screen) may take everything but the other's reserve, `backfill` only what is reserved
for nobody. Within a purpose, those who want something get equal parts of the window.

The database's clock decides, unless a clock is given. Times in headers are the provider's.
"""

from __future__ import annotations

import email.utils
import math
import random
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from prometheus_client import Counter, Gauge
from sqlalchemy import BigInteger, Index, Text, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from causeway.base.clock import Clock
from causeway.base.errors import RateLimited
from causeway.store.engine import Database
from causeway.store.schema import Instant, KernelBase

Purpose = Literal["event", "interactive", "backfill"]

#: The part of each window that is kept for a purpose.
RESERVES: Mapping[Purpose, float] = {"event": 0.30, "interactive": 0.30}

_NOTHING: Mapping[Purpose, int] = {"event": 0, "interactive": 0, "backfill": 0}

QUARTER_S = 900
DAY_S = 86_400

#: By so much the database's clock and the provider's may differ. What is sent nearer than this to
#: the beginning of a window counts in both.
EDGE_S = 2.0
#: A time in a header that is farther from ours than this is no clock to go by.
MOST_SKEW_S = 60.0
#: After so long a request that was never answered is forgotten: longer than any may take.
LOST_S = 60.0
#: Who asked within this time wants more, and has a part of the window.
RECENT_S = 30.0
#: Added to a wait, so that not everybody comes back at the same moment.
JITTER_S = (1.0, 15.0)

REFUSED = Counter(
    "causeway_application_budget_refusals_total",
    "Requests not sent because the application's budget is used up, or the person's part of it",
    ["application", "purpose", "why"],
)
LEFT = Gauge(
    "causeway_application_budget_left",
    "What the application may still ask in this window",
    ["application", "meter", "period_s"],
)


class BudgetRow(KernelBase):
    """One meter of one application in its present window."""

    __tablename__ = "application_budgets"

    application: Mapped[str] = mapped_column(Text, primary_key=True)
    meter: Mapped[str] = mapped_column(Text, primary_key=True)
    period_s: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    #: What the provider allows, as its headers said last.
    most: Mapped[int] = mapped_column(BigInteger)
    starts_at: Mapped[datetime] = mapped_column(Instant)
    #: By everybody, also what others than we have used; then what we have, by purpose.
    used: Mapped[int] = mapped_column(BigInteger)
    used_event: Mapped[int] = mapped_column(BigInteger)
    used_interactive: Mapped[int] = mapped_column(BigInteger)
    used_backfill: Mapped[int] = mapped_column(BigInteger)


class BudgetUserRow(KernelBase):
    """What one person had in the present quarter of an hour, and until when they want more."""

    __tablename__ = "application_budget_users"

    application: Mapped[str] = mapped_column(Text, primary_key=True)
    purpose: Mapped[str] = mapped_column(Text, primary_key=True)
    subject: Mapped[str] = mapped_column(Text, primary_key=True)
    starts_at: Mapped[datetime] = mapped_column(Instant)
    used: Mapped[int] = mapped_column(BigInteger)
    active_until: Mapped[datetime] = mapped_column(Instant)


class BudgetRequestRow(KernelBase):
    """A request that was counted: under way, or answered a moment ago."""

    __tablename__ = "application_budget_requests"
    __table_args__ = (Index(None, "application", "sent_at"),)

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    application: Mapped[str] = mapped_column(Text)
    purpose: Mapped[str] = mapped_column(Text)
    is_read: Mapped[bool]
    sent_at: Mapped[datetime] = mapped_column(Instant)
    answered_at: Mapped[datetime | None] = mapped_column(Instant)


@dataclass(frozen=True)
class Limit:
    """At most `quarter` requests in each quarter of an hour, `day` in each day of UTC."""

    quarter: int
    day: int


@dataclass
class Window:
    """One meter in its present window."""

    meter: str
    period_s: int
    most: int
    starts_at: datetime
    used: int = 0
    by_purpose: dict[Purpose, int] = field(default_factory=lambda: dict(_NOTHING))

    @property
    def ends_at(self) -> datetime:
        """When the next window begins."""
        return self.starts_at + timedelta(seconds=self.period_s)

    def available(self, purpose: Purpose, reserves: Mapping[Purpose, float] = RESERVES) -> int:
        """Return how many requests of `purpose` may still be sent in it."""
        kept = sum(
            max(0, math.floor(self.most * part) - self.by_purpose[other])
            for other, part in reserves.items()
            if other != purpose
        )
        return max(0, self.most - self.used - kept)

    def count(self, purpose: Purpose, n: int = 1) -> None:
        """Count `n` requests."""
        self.used += n
        self.by_purpose[purpose] += n


@dataclass(frozen=True)
class Taken:
    """A request that was counted and may be sent."""

    id: uuid.UUID
    is_read: bool


@dataclass(frozen=True)
class Said:
    """What an answer's headers say of one meter; each for a quarter of an hour and a day."""

    limit: tuple[int, int] | None
    usage: tuple[int, int] | None


def window_start(at: datetime, period_s: int) -> datetime:
    """Return when the window began that `at` is in: :00, :15, :30 or :45, or midnight of UTC."""
    seconds = math.floor(at.timestamp())
    return datetime.fromtimestamp(seconds - seconds % period_s, UTC)


def read_headers(headers: Mapping[str, str]) -> dict[str, Said]:
    """Return what the headers say, by meter; what is not clear is left out."""
    lower = {name.lower(): value for name, value in headers.items()}
    found: dict[str, Said] = {}
    for meter, prefix in (("overall", "x-ratelimit"), ("read", "x-readratelimit")):
        limit, usage = _pair(lower.get(f"{prefix}-limit")), _pair(lower.get(f"{prefix}-usage"))
        if limit is not None or usage is not None:
            found[meter] = Said(limit, usage)
    return found


def _pair(value: str | None) -> tuple[int, int] | None:
    parts = [part.strip() for part in (value or "").split(",")]
    if len(parts) != 2 or not all(p.isascii() and p.isdigit() and len(p) < 12 for p in parts):
        return None
    return int(parts[0]), int(parts[1])


def wait_s(now: datetime, until: datetime, jitter: Callable[[float, float], float]) -> float:
    """Return the seconds until a window that begins at `until` may be used."""
    return max(0.0, (until - now).total_seconds()) + EDGE_S + jitter(*JITTER_S)


class ApplicationBudget:
    """The budget of one application at one provider, the same in every process."""

    def __init__(
        self,
        database: Database,
        application: str,
        limits: Mapping[str, Limit],
        *,
        reserves: Mapping[Purpose, float] = RESERVES,
        clock: Clock | None = None,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._database = database
        self.application = application
        self._limits = limits
        self._reserves = reserves
        self._clock = clock
        self._jitter = jitter

    async def take(self, purpose: Purpose, subject: str, *, is_read: bool = True) -> Taken:
        """Count one request, which is then sent at once, and settled.

        `subject` is who it is for. Raises `RateLimited` with the time to the next window when the
        budget is used up; a shorter one when only this person's part is.
        """
        async with self._database.transaction() as session:
            now = await self._now(session)
            windows = await self._windows(session, now - timedelta(seconds=EDGE_S), now)
            concerned = [w for w in windows if w.meter == "overall" or is_read]
            refusal = await self._refusal(session, now, concerned, purpose, subject)
            taken = Taken(uuid.uuid4(), is_read)
            if refusal is None:
                for window in concerned:
                    window.count(purpose)
                await self._write(session, windows)
                await session.execute(
                    text(
                        "INSERT INTO causeway.application_budget_requests "
                        "(id, application, purpose, is_read, sent_at) "
                        "VALUES (:id, :application, :purpose, :is_read, :now)"
                    ),
                    {
                        "id": taken.id,
                        "application": self.application,
                        "purpose": purpose,
                        "is_read": is_read,
                        "now": now,
                    },
                )
        if refusal is not None:
            REFUSED.labels(self.application, purpose, refusal[0]).inc()
            raise RateLimited(
                f"{self.application}: {_WHY[refusal[0]]}",
                retry_after_s=refusal[1],
                service=self.application,
                purpose=purpose,
            )
        return taken

    async def settle(
        self, taken: Taken, headers: Mapping[str, str] | None = None, *, refused: bool = False
    ) -> None:
        """Note that a request is over, and learn from its answer; without headers, from none.

        `refused` says that the provider had enough (429): then nothing is sent until the window
        ends, whatever was counted.
        """
        async with self._database.transaction() as session:
            now = await self._now(session)
            said = read_headers(headers) if headers else {}
            there = _date(headers or {}) or now
            if abs((there - now).total_seconds()) > MOST_SKEW_S:
                there = now
            # The provider may be in the next window already: what is under way counts there.
            basis = max(now - timedelta(seconds=EDGE_S), there)
            windows = await self._windows(session, basis, now)
            for window in windows:
                self._learn(window, said.get(window.meter), there)
            concerned = [w for w in windows if w.meter == "overall" or taken.is_read]
            if refused and not any(w.used >= w.most for w in concerned):
                for window in concerned:
                    if window.period_s == QUARTER_S:
                        window.used = max(window.used, window.most)
            await self._write(session, windows)
            await session.execute(
                text(
                    "UPDATE causeway.application_budget_requests SET answered_at = :now "
                    "WHERE id = :id"
                ),
                {"id": taken.id, "now": now},
            )

    async def left(self) -> list[Window]:
        """Return the windows as they are now."""
        async with self._database.transaction() as session:
            now = await self._now(session)
            return await self._windows(session, now - timedelta(seconds=EDGE_S), now)

    def _learn(self, window: Window, said: Said | None, there: datetime) -> None:
        if said is None:
            return
        nth = 0 if window.period_s == QUARTER_S else 1
        if said.limit is not None and said.limit[nth] > 0:
            window.most = said.limit[nth]
        # An answer of another window says nothing of this one.
        same = window_start(there, window.period_s) == window.starts_at
        if said.usage is not None and same:
            window.used = max(window.used, said.usage[nth])

    async def _refusal(
        self,
        session: AsyncSession,
        now: datetime,
        concerned: list[Window],
        purpose: Purpose,
        subject: str,
    ) -> tuple[str, float] | None:
        """Return why and for how long this person has to wait, None when they need not."""
        # What people had is counted in all requests, so it is compared with all requests.
        quarter = next(w for w in concerned if (w.meter, w.period_s) == ("overall", QUARTER_S))
        full = [w for w in concerned if not w.available(purpose, self._reserves)]
        used, others = await self._person(session, now, quarter.starts_at, purpose, subject)
        wait: tuple[str, float] | None = None
        if full:
            end = max(w.ends_at for w in full)
            wait = ("used_up", wait_s(now, end, self._jitter))
        elif others:
            # Parts of what this purpose has had and can still get in this window.
            whole = quarter.by_purpose[purpose] + min(
                w.available(purpose, self._reserves) for w in concerned
            )
            if used >= math.ceil(whole / (others + 1)):
                soon = RECENT_S + self._jitter(*JITTER_S)
                wait = ("share", min(soon, wait_s(now, quarter.ends_at, self._jitter)))
        await session.execute(
            text(
                """
                UPDATE causeway.application_budget_users
                SET used = used + :taken, active_until = :until
                WHERE application = :application AND purpose = :purpose AND subject = :subject
                """
            ),
            {
                "application": self.application,
                "purpose": purpose,
                "subject": subject,
                "taken": 0 if wait else 1,
                # Who was told to wait comes back after that, and is then one of those who want.
                "until": now + timedelta(seconds=RECENT_S + (wait[1] if wait else 0)),
            },
        )
        return wait

    async def _person(
        self,
        session: AsyncSession,
        now: datetime,
        starts_at: datetime,
        purpose: Purpose,
        subject: str,
    ) -> tuple[int, int]:
        """Return what this person had in this window, and how many others want something."""
        values = {
            "application": self.application,
            "purpose": purpose,
            "subject": subject,
            "starts_at": starts_at,
            "now": now,
        }
        used = await session.scalar(
            text(
                """
                INSERT INTO causeway.application_budget_users AS u
                    (application, purpose, subject, starts_at, used, active_until)
                VALUES (:application, :purpose, :subject, :starts_at, 0, :now)
                ON CONFLICT (application, purpose, subject) DO UPDATE SET
                    used = CASE WHEN u.starts_at = :starts_at THEN u.used ELSE 0 END,
                    starts_at = :starts_at
                RETURNING used
                """
            ),
            values,
        )
        others = await session.scalar(
            text(
                "SELECT count(*) FROM causeway.application_budget_users "
                "WHERE application = :application AND purpose = :purpose "
                "AND subject <> :subject AND active_until > :now"
            ),
            values,
        )
        return int(used or 0), int(others or 0)

    async def _windows(self, session: AsyncSession, basis: datetime, now: datetime) -> list[Window]:
        """Return the windows `basis` is in, locked; new ones begin with what is under way."""
        values: dict[str, Any] = {"application": self.application}
        # Also where there are no rows to lock yet.
        await session.execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"),
            {"name": f"causeway application budget\x1f{self.application}"},
        )
        rows = await session.execute(
            text(
                "SELECT meter, period_s, most, starts_at, used, used_event, used_interactive, "
                "used_backfill FROM causeway.application_budgets WHERE application = :application"
            ),
            values,
        )
        known = {(row.meter, row.period_s): row for row in rows}
        windows: list[Window] = []
        begun: list[Window] = []
        for meter, limit in self._limits.items():
            for period_s, most in ((QUARTER_S, limit.quarter), (DAY_S, limit.day)):
                start = window_start(basis, period_s)
                row = known.get((meter, period_s))
                if row is not None and row.starts_at >= start:
                    used: dict[Purpose, int] = {
                        "event": row.used_event,
                        "interactive": row.used_interactive,
                        "backfill": row.used_backfill,
                    }
                    windows.append(Window(meter, period_s, row.most, row.starts_at, row.used, used))
                else:
                    fresh = Window(meter, period_s, row.most if row else most, start)
                    windows.append(fresh)
                    begun.append(fresh)
        if begun:
            await self._carry(session, begun, now)
            await self._write(session, windows)
        return windows

    async def _carry(self, session: AsyncSession, begun: list[Window], now: datetime) -> None:
        """Count in new windows what may reach the provider, or has just reached it, in them."""
        values = {"application": self.application, "now": now}
        await session.execute(
            text(
                "DELETE FROM causeway.application_budget_requests "
                "WHERE application = :application "
                "AND sent_at < :now - make_interval(secs => :lost)"
            ),
            {**values, "lost": LOST_S},
        )
        await session.execute(
            text(
                "DELETE FROM causeway.application_budget_users WHERE application = :application "
                "AND active_until < :now - make_interval(days => 1)"
            ),
            values,
        )
        rows = await session.execute(
            text(
                "SELECT purpose, is_read, count(*) AS n "
                "FROM causeway.application_budget_requests WHERE application = :application "
                "AND (answered_at IS NULL OR answered_at > :now - make_interval(secs => :edge)) "
                "GROUP BY purpose, is_read"
            ),
            {**values, "edge": 2 * EDGE_S},
        )
        for row in rows:
            for window in begun:
                if window.meter == "overall" or row.is_read:
                    window.count(row.purpose, row.n)

    async def _write(self, session: AsyncSession, windows: list[Window]) -> None:
        for w in windows:
            LEFT.labels(self.application, w.meter, str(w.period_s)).set(max(0, w.most - w.used))
        await session.execute(
            text(
                """
                INSERT INTO causeway.application_budgets (application, meter, period_s, most,
                    starts_at, used, used_event, used_interactive, used_backfill)
                VALUES (:application, :meter, :period_s, :most,
                    :starts_at, :used, :event, :interactive, :backfill)
                ON CONFLICT (application, meter, period_s) DO UPDATE SET most = excluded.most,
                    starts_at = excluded.starts_at, used = excluded.used,
                    used_event = excluded.used_event,
                    used_interactive = excluded.used_interactive,
                    used_backfill = excluded.used_backfill
                """
            ),
            [
                {
                    "application": self.application,
                    "meter": w.meter,
                    "period_s": w.period_s,
                    "most": w.most,
                    "starts_at": w.starts_at,
                    "used": w.used,
                    **w.by_purpose,
                }
                for w in windows
            ],
        )

    async def _now(self, session: AsyncSession) -> datetime:
        if self._clock is not None:
            return self._clock.now()
        now = await session.scalar(text("SELECT clock_timestamp()"))
        assert isinstance(now, datetime)  # noqa: S101 - that is what it returns
        return now


_WHY = {
    "used_up": "its budget for this window is used up",
    "share": "others wait for their part of the budget",
}


def _date(headers: Mapping[str, str]) -> datetime | None:
    value = next((v for k, v in headers.items() if k.lower() == "date"), "")
    try:
        found = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
