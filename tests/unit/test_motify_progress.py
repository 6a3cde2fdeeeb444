"""What a person sees of the days that were read so far, for every kind of goal."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from causeway.apps.motify.goals import Goal, Window, goal_of
from causeway.apps.motify.progress import view

FIRST = date(2026, 11, 2)
START = int(datetime(2026, 11, 2, 9, tzinfo=UTC).timestamp())
HOUR = 3_600_000_000  # microseconds


def goal(api_type: str, goal_type: str, amount: int) -> Goal:
    found = goal_of(api_type, goal_type, amount, Window(START, START + 4 * 86_400))
    assert found is not None
    return found


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


def shown(goal: Goal, values: list[int], today: int, total: int | None = None) -> str:
    """Return the days as letters, + reached, - not, and then whether all is well so far."""
    found = view(goal, {day(n): value for n, value in enumerate(values)}, total, day(today))
    assert [one["date"] for one in found["progress"]] == [
        str(day(n)) for n in range(len(found["progress"]))
    ]
    letters = "".join("+" if one["achieved"] else "-" for one in found["progress"])
    return f"{letters} {found['currentlySucceeded']}"


@pytest.mark.parametrize(
    ("values", "today", "expected"),
    [
        ([2, 2], 1, "++ True"),
        ([2, 1], 1, "+- True"),  # the day is not over
        ([2, 1], 2, "+- False"),
        ([1, 5], 1, "-+ False"),
        ([2, 2, 2, 2, 2], 6, "+++++ True"),
        ([0], 0, "- True"),
        ([], 0, " False"),
        ([2, 2, 9], 1, "++ True"),  # nothing is shown of days to come
    ],
)
def test_of_a_goal_for_each_day(values: list[int], today: int, expected: str) -> None:
    assert shown(goal("github", "CONTRIBUTION_PER_DAY", 2), values, today) == expected


def test_of_coding_time_the_sum_counts_and_seconds_are_shown() -> None:
    hours = goal("wakatime", "CODING_TIME", 3)
    assert shown(hours, [HOUR, HOUR], 1) == "-- False"
    assert shown(hours, [HOUR, 2 * HOUR, 0], 2) == "-++ True"
    found = view(hours, {FIRST: HOUR + 1_999_999}, None, FIRST)
    assert found["progress"][0]["value"] == 3601


def test_of_casts_the_sum_counts() -> None:
    casts = goal("farcaster", "CASTS", 5)
    assert shown(casts, [2, 2], 1, 4) == "-- False"
    assert shown(casts, [2, 2, 1], 2, 5) == "--+ True"


def test_of_commits_the_days_count_something_else() -> None:
    commits = goal("github", "COMMITS", 5)
    assert shown(commits, [9, 9], 1, 4) == "-- False"
    assert shown(commits, [1, 0], 1, 5) == "-+ True"
