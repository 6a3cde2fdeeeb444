"""What a stage is: a step of a state machine held in a table, and what its work may answer.

    Stage(name="image", app="glisk", model=Token, key="token_id", claims="detected",
          working="generating", done="uploading", failed="failed", work=generate)

The row is the truth. A stage claims rows in one status under a lease and a fence, acts with no
transaction open, and records what came of it under the same claim.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar, cast

from sqlalchemy import Table, inspect
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapper

C = TypeVar("C")

#: Attributes a model needs to be worked on; an app may give their columns other names.
ATTRIBUTES = (
    "status",
    "attempts",
    "next_at",
    "lease_owner",
    "lease_until",
    "fence",
    "last_error",
)


@dataclass(slots=True)
class Claim:
    """A row in hand. What is done under it counts only while `fence` is still the row's."""

    key: Any
    row: Mapping[str, Any]
    fence: int
    #: How often the row was taken up in this stage, this time included.
    attempt: int


def _columns(model: type[Any]) -> Mapping[str, Any]:
    mapper: Mapper[Any] = inspect(model)
    return cast("Mapping[str, Any]", mapper.columns)


Record = Callable[[AsyncSession], Awaitable[None]]


@dataclass(frozen=True)
class Advance:
    """The work is done: on to the stage's `done`, or to `to`."""

    to: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict[str, Any])
    #: Runs in the transaction that moves the row; only the database is talked to.
    record: Record | None = None


@dataclass(frozen=True)
class Back:
    """The row goes to another status to be worked on from there, at once."""

    to: str
    reason: str
    values: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Retry:
    """Once more, after that many seconds."""

    after_s: float
    reason: str
    #: Whether the attempt counts towards the stage's `max_attempts`.
    counts: bool = True


@dataclass(frozen=True)
class Fail:
    """The row fails with a reason that a person understands."""

    reason: str
    values: Mapping[str, Any] = field(default_factory=dict[str, Any])


Outcome = Advance | Back | Retry | Fail


@dataclass(frozen=True, kw_only=True)
class Stage(Generic[C]):
    """One durable step."""

    name: str
    app: str
    #: The mapped class whose rows it moves; it has the attributes of `ATTRIBUTES`.
    model: type[Any]
    #: The attribute that names a row.
    key: str
    #: The status it takes rows from.
    claims: str
    #: The status of rows in work; None where that is the same as `claims`.
    working: str | None
    done: str
    failed: str
    work: Callable[[C, Claim], Awaitable[Outcome]]
    #: Rows in work at once in one process.
    batch: int = 10
    #: A worker that is gone is found out after this; seconds.
    lease_s: float = 120.0
    max_attempts: int = 10
    #: How often rows are looked for that no bell was rung for; seconds.
    poll_interval_s: float = 1.0
    order_by: tuple[str, ...] = ()
    #: The attribute that says since when a row exists or waits, for showing the oldest.
    waits_since: str | None = None
    enabled: bool = True

    @property
    def in_work(self) -> str:
        """The status of rows in work."""
        return self.working or self.claims

    @cached_property
    def table(self) -> Table[Any]:
        """The table of its rows."""
        return self.model.__table__

    def column(self, attribute: str) -> str:
        """Return the name of the column behind an attribute of the model."""
        return str(_columns(self.model)[attribute].name)

    def __post_init__(self) -> None:
        missing = [a for a in (self.key, *ATTRIBUTES) if a not in _columns(self.model)]
        if missing:
            raise TypeError(f"{self.model.__name__} lacks {', '.join(missing)} to be staged")
        if self.batch < 1 or self.lease_s <= 0 or self.max_attempts < 1:
            raise ValueError(f"stage {self.name}: batch, lease_s and max_attempts must be positive")


#: A row's exponential backoff never waits longer than this, seconds.
LONGEST_WAIT_S = 300.0


def backoff_s(tries: int, jitter: float) -> float:
    """Return min(300, 2^tries) seconds with full jitter; `jitter` is in [0, 1)."""
    return float(min(LONGEST_WAIT_S, 2.0 ** min(tries, 20))) * jitter
