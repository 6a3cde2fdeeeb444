"""What Strava tells of its own accord: the check of an address, and events, each kept once.

Nobody signs an event, so anybody may send one: it is looked at when its subscription is ours, kept,
and then only a reason to ask Strava. Events come up to three times, late, and in any order. The
caller answers within two seconds: keep it, answer, work later.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from sqlalchemy import BigInteger, Index, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from causeway.base.errors import Field as WrongField
from causeway.base.errors import InvalidInput, NotAllowed
from causeway.store.schema import Instant, KernelBase

#: An event is a few hundred bytes.
MOST_BYTES = 16_384


class StravaEventRow(KernelBase):
    """An event that came, and whether what follows from it was done."""

    __tablename__ = "strava_events"
    __table_args__ = (Index(None, "received_at", postgresql_where=text("done_at IS NULL")),)

    #: Hex SHA-256 of what makes two deliveries the same event.
    key: Mapped[str] = mapped_column(Text, primary_key=True)
    subscription_id: Mapped[int] = mapped_column(BigInteger)
    object_type: Mapped[str] = mapped_column(Text)
    object_id: Mapped[int] = mapped_column(BigInteger)
    aspect_type: Mapped[str] = mapped_column(Text)
    owner_id: Mapped[int] = mapped_column(BigInteger)
    updates: Mapped[dict[str, Any]] = mapped_column(JSONB)
    event_at: Mapped[datetime] = mapped_column(Instant)
    received_at: Mapped[datetime] = mapped_column(Instant, server_default=text("clock_timestamp()"))
    done_at: Mapped[datetime | None] = mapped_column(Instant)


class Event(BaseModel):
    """Something happened to an activity or an athlete."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    object_type: Literal["activity", "athlete"]
    object_id: int = Field(gt=0, lt=2**63)
    aspect_type: Literal["create", "update", "delete"]
    owner_id: int = Field(gt=0, lt=2**63)
    subscription_id: int = Field(gt=0, lt=2**63)
    #: Seconds since 1970.
    event_time: int = Field(ge=0, lt=2**33)
    updates: dict[str, Any] = Field(default_factory=dict[str, Any])

    @property
    def key(self) -> str:
        """What is the same for every delivery of one event, and for no two events."""
        parts = [
            self.subscription_id,
            self.object_type,
            self.object_id,
            self.aspect_type,
            self.event_time,
            self.updates,
        ]
        return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()

    @property
    def happened_at(self) -> datetime:
        """When it happened."""
        return datetime.fromtimestamp(self.event_time, UTC)

    @property
    def says_deauthorized(self) -> bool:
        """Whether it says that the athlete took back what they allowed.

        Anybody can say so: it is true when the token proves dead.
        """
        said = str(self.updates.get("authorized", "")).lower()
        return self.object_type == "athlete" and said == "false"


def parse(body: bytes, subscription_id: int | None) -> Event:
    """Return the event in a request's body.

    Raises `InvalidInput` for what is none, `NotAllowed` for one of another subscription than ours.
    """
    if len(body) > MOST_BYTES:
        raise InvalidInput(f"an event has at most {MOST_BYTES} bytes, not {len(body)}")
    try:
        event = Event.model_validate_json(body)
        key_fits = orjson.dumps(event.updates)
    except (ValidationError, TypeError) as error:
        if not isinstance(error, ValidationError):
            raise InvalidInput("the updates of the event cannot be read") from None
        raise InvalidInput(
            fields=[
                WrongField(
                    ".".join(str(part) for part in wrong["loc"]) or "body",
                    str(wrong.get("input"))[:60],
                    wrong["msg"],
                )
                for wrong in error.errors(include_url=False)[:10]
            ]
        ) from None
    if b"\\u0000" in key_fits:
        raise InvalidInput("the updates of the event hold a zero character")
    if subscription_id is None or event.subscription_id != subscription_id:
        raise NotAllowed("this event is of another subscription")
    return event


def answer_challenge(query: Mapping[str, str], verify_token: SecretStr) -> dict[str, str]:
    """Return what Strava must be answered, at once and with 200, when it checks our address.

    Raises `NotAllowed` when it was not us who asked for the subscription.
    """
    expected = verify_token.get_secret_value()
    given = query.get("hub.verify_token", "")
    if not expected or not hmac.compare_digest(given.encode(), expected.encode()):
        raise NotAllowed("the verify token is not ours")
    challenge = query.get("hub.challenge", "")
    if query.get("hub.mode") != "subscribe" or not 0 < len(challenge) <= 512:
        raise InvalidInput("hub.mode is 'subscribe', and hub.challenge is 1 to 512 characters")
    return {"hub.challenge": challenge}


async def keep(session: AsyncSession, event: Event) -> bool:
    """Keep an event; return False when it was kept before."""
    kept = await session.scalar(
        text(
            """
            INSERT INTO causeway.strava_events (key, subscription_id, object_type, object_id,
                aspect_type, owner_id, updates, event_at)
            VALUES (:key, :subscription_id, :object_type, :object_id,
                :aspect_type, :owner_id, CAST(:updates AS jsonb), :event_at)
            ON CONFLICT (key) DO NOTHING RETURNING true
            """
        ),
        {
            "key": event.key,
            **event.model_dump(exclude={"updates", "event_time"}),
            "updates": orjson.dumps(event.updates).decode(),
            "event_at": event.happened_at,
        },
    )
    return bool(kept)


async def undone(session: AsyncSession, most: int = 100) -> list[Event]:
    """Return events that nothing was done about, oldest first, kept from others until the end of
    the transaction."""
    rows = await session.execute(
        text(
            "SELECT subscription_id, object_type, object_id, aspect_type, owner_id, updates, "
            "event_at FROM causeway.strava_events WHERE done_at IS NULL "
            "ORDER BY received_at LIMIT :most FOR UPDATE SKIP LOCKED"
        ),
        {"most": most},
    )
    return [
        Event.model_validate(
            {**row._asdict(), "event_time": int(row.event_at.timestamp())},
        )
        for row in rows
    ]


async def done(session: AsyncSession, event: Event) -> None:
    """Note that what follows from an event was done."""
    await session.execute(
        text(
            "UPDATE causeway.strava_events SET done_at = clock_timestamp() "
            "WHERE key = :key AND done_at IS NULL"
        ),
        {"key": event.key},
    )


@dataclass(frozen=True)
class Standing:
    """What all events about one activity together come to."""

    deleted: bool
    #: The latest title, sport and privacy that were told of.
    updates: Mapping[str, Any]


def standing(events: Iterable[Event]) -> dict[int, Standing]:
    """Return what events say of activities, whatever order they came in and how often.

    A `create` that comes after the `delete` is only late, and the activity stays deleted. One that
    happened after it is not: who hides an activity and shows it again is told of so, where we may
    not see hidden ones.
    """
    order = {"create": 0, "update": 1, "delete": 2}
    told: dict[int, Standing] = {}
    for event in sorted(
        (e for e in events if e.object_type == "activity"),
        key=lambda e: (e.event_time, order[e.aspect_type], e.key),
    ):
        before = told.get(event.object_id, Standing(deleted=False, updates={}))
        deleted = before.deleted if event.aspect_type == "update" else event.aspect_type == "delete"
        told[event.object_id] = Standing(deleted, {**before.updates, **event.updates})
    return told
