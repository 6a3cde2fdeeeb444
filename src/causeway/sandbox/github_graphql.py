"""The part of GitHub's GraphQL schema that tells of contributions, answered as GitHub does.

A real GraphQL engine over the published types: a field that GitHub does not have is an error here,
too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from graphql import GraphQLError, build_schema, graphql_sync  # pyright: ignore[reportUnknownVariableType]

_SCHEMA = build_schema(
    """
    scalar DateTime
    scalar Date
    type Query { viewer: User! }
    type User {
      id: ID!
      databaseId: Int
      login: String!
      contributionsCollection(
        organizationID: ID, from: DateTime, to: DateTime
      ): ContributionsCollection!
    }
    type ContributionsCollection {
      startedAt: DateTime!
      endedAt: DateTime!
      hasAnyContributions: Boolean!
      restrictedContributionsCount: Int!
      totalCommitContributions: Int!
      totalIssueContributions: Int!
      totalPullRequestContributions: Int!
      totalPullRequestReviewContributions: Int!
      contributionCalendar: ContributionCalendar!
    }
    type ContributionCalendar {
      isHalloween: Boolean!
      totalContributions: Int!
      weeks: [ContributionCalendarWeek!]!
    }
    type ContributionCalendarWeek {
      firstDay: Date!
      contributionDays: [ContributionCalendarDay!]!
    }
    type ContributionCalendarDay {
      date: Date!
      contributionCount: Int!
      weekday: Int!
    }
    """
)

#: As GitHub's own server checks it: a year, the rest of its first week, and a leap day.
_MOST = timedelta(days=373)
_TOO_LONG = "The total time spanned by 'from' and 'to' must not exceed 1 year"


@dataclass(frozen=True)
class Person:
    """Whose contributions are asked for."""

    login: str
    number: int
    node_id: str
    #: date -> (contributions, commits, pull requests).
    days: Mapping[date, tuple[int, int, int]]
    now: datetime


def answer(asked: Any, person: Person, *, every_other_day: bool = False) -> dict[str, Any]:
    """Return the answer to a request's body."""
    if not isinstance(asked, dict) or not isinstance(asked.get("query"), str):  # pyright: ignore[reportUnknownMemberType]
        return {"errors": [{"message": "A query attribute must be specified and must be a string"}]}
    result = graphql_sync(
        _SCHEMA,
        asked["query"],  # pyright: ignore[reportUnknownArgumentType]
        root_value={"viewer": _viewer(person, every_other_day)},
        variable_values=asked.get("variables") or {},  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    )
    body: dict[str, Any] = {}
    if result.data is not None:
        body["data"] = result.data
    if result.errors:
        body["errors"] = [
            {**error.formatted, **({"type": "VALIDATION"} if error.message == _TOO_LONG else {})}
            for error in result.errors
        ]
    return body


def _viewer(person: Person, every_other_day: bool) -> dict[str, Any]:
    def collection(_info: Any, **given: Any) -> dict[str, Any]:
        return _collection(person, every_other_day, given.get("from"), given.get("to"))

    return {
        "id": person.node_id,
        "databaseId": person.number,
        "login": person.login,
        "contributionsCollection": collection,
    }


def _collection(person: Person, every_other_day: bool, begin: Any, end: Any) -> dict[str, Any]:
    to = _instant(end) if end else (_instant(begin) + timedelta(days=365) if begin else person.now)
    since = _instant(begin) if begin else to - timedelta(days=365)
    if to < since:
        raise GraphQLError("The 'to' date must be after the 'from' date")
    if to - since > _MOST:
        raise GraphQLError(_TOO_LONG)
    days = [since.date() + timedelta(days=n) for n in range((to.date() - since.date()).days + 1)]
    counts = [person.days.get(day, (0, 0, 0)) for day in days]
    contributions, commits, pulls = (sum(c[n] for c in counts) for n in range(3))
    shown = days[::2] if every_other_day else days
    return {
        "startedAt": _written(since),
        "endedAt": _written(to),
        "hasAnyContributions": contributions > 0,
        "restrictedContributionsCount": 0,
        "totalCommitContributions": commits,
        "totalIssueContributions": 0,
        "totalPullRequestContributions": pulls,
        "totalPullRequestReviewContributions": 0,
        "contributionCalendar": {
            "isHalloween": False,
            "totalContributions": contributions,
            "weeks": _weeks(person, shown),
        },
    }


def _weeks(person: Person, days: list[date]) -> list[dict[str, Any]]:
    """Return the days in weeks from Sunday on; the first and the last may be short."""
    weeks: list[dict[str, Any]] = []
    for day in days:
        weekday = day.isoweekday() % 7
        sunday = day - timedelta(days=weekday)
        if not weeks or weeks[-1]["firstDay"] != sunday.isoformat():
            weeks.append({"firstDay": sunday.isoformat(), "contributionDays": []})
        count = person.days.get(day, (0, 0, 0))[0]
        weeks[-1]["contributionDays"].append(
            {"date": day.isoformat(), "contributionCount": count, "weekday": weekday}
        )
    return weeks


def _instant(written: Any) -> datetime:
    try:
        at = datetime.fromisoformat(str(written))
    except ValueError:
        raise GraphQLError(f"{written!r} is not a valid DateTime") from None
    return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)


def _written(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
