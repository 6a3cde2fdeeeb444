"""From a goal and an answer to money: the specification's own examples, and what always holds."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causeway.apps.motify import evidence
from causeway.apps.motify.counting import backdated, count, ratio
from causeway.apps.motify.evidence import Said, Tree, leaf, proves
from causeway.apps.motify.goals import Window, goal_of, microseconds
from causeway.apps.motify.rules import Terms, rule_of, share_of
from causeway.apps.motify.shares import BasisPoints, Ratio, capped
from causeway.apps.motify.troubles import Trouble
from causeway.base.errors import InvalidInput

MONDAY = 1_700_438_400  # 2023-11-20T00:00:00Z
DAY = 86_400
WEEK = Window(MONDAY, MONDAY + 7 * DAY)
WALLET = "0x" + "ab" * 20


@pytest.mark.parametrize(
    ("numerator", "denominator", "ppm", "bps"),
    [
        (6, 7, 857_143, 8571),
        (1, 3, 333_333, 3333),
        (2, 3, 666_667, 6667),
        (1, 32, 31_250, 313),
        (99_995, 100_000, 999_950, 10_000),
        (0, 7, 0, 0),
        (7, 7, 1_000_000, 10_000),
    ],
)
def test_shares_are_those_of_the_specification(
    numerator: int, denominator: int, ppm: int, bps: int
) -> None:
    found = Ratio(numerator, denominator)
    assert found.ppm == ppm
    assert BasisPoints.of_ppm(found.ppm).value == bps


@given(st.integers(1, 10**30).flatmap(lambda d: st.tuples(st.integers(0, d), st.just(d))))
def test_a_ratio_is_rounded_half_up_exactly(pair: tuple[int, int]) -> None:
    numerator, denominator = pair
    exact = Decimal(numerator) / Decimal(denominator) * 1_000_000
    found = Ratio(numerator, denominator).ppm
    assert 0 <= found <= 1_000_000
    assert abs(found - exact) <= Decimal("0.5000001")
    if denominator < 10**9:
        assert found == int(exact.quantize(Decimal(1), ROUND_HALF_UP))


@given(st.integers(0, 10**18), st.integers(0, 1_000_000))
def test_nothing_of_a_stake_is_made_or_lost(stake: int, ppm: int) -> None:
    share = BasisPoints.of_ppm(ppm)
    assert share.refund(stake) + share.donation(stake) == stake
    assert 0 <= share.refund(stake) <= stake


@pytest.mark.parametrize("ppm", [-1, 1_000_001, 857_143_000])
def test_a_share_out_of_range_cannot_be_made(ppm: int) -> None:
    with pytest.raises(ValueError, match="ppm"):
        BasisPoints.of_ppm(ppm)
    with pytest.raises(ValueError, match="basis points"):
        BasisPoints(10_001)
    with pytest.raises(ValueError, match="no ratio"):
        Ratio(2, 1)


@pytest.mark.parametrize(
    ("start", "end", "days"),
    [
        (MONDAY, MONDAY + 7 * DAY, 7),  # an end at midnight adds no day
        (MONDAY, MONDAY + 7 * DAY + 1, 8),
        (MONDAY + 23 * 3600, MONDAY + 25 * 3600, 2),
        (MONDAY, MONDAY + 1, 1),
    ],
)
def test_days_are_the_dates_that_the_window_touches(start: int, end: int, days: int) -> None:
    window = Window(start, end)
    assert len(window.days) == len(window) == days
    assert window.days[0] == datetime.fromtimestamp(start, UTC).date()


@pytest.mark.parametrize(
    ("api_type", "goal_type"),
    [
        ("github", "contribution_per_day"),
        (" GitHub\n", "Push-Per Day"),
        ("GITHUB", "COMMIT_PER_DAY"),
        ("github", "commits"),
        ("github", "pull requests"),
        ("farcaster", "cast_per_day"),
        ("Farcaster", "POST_PER_DAY"),
        ("farcaster", "CASTS"),
        ("wakatime", "CODING_TIME"),
        ("WakaTime", "coding hours"),
    ],
)
def test_goals_of_the_table_are_known_in_any_spelling(api_type: str, goal_type: str) -> None:
    assert goal_of(api_type, goal_type, 3, WEEK) is not None


@pytest.mark.parametrize(
    ("api_type", "goal_type", "window"),
    [
        ("github", "ISSUES_FIXED", WEEK),
        ("github", "", WEEK),
        ("wakatime", "COMMITS", WEEK),
        ("strava", "RUNS", WEEK),
        ("github", "COMMITS", Window(MONDAY, MONDAY)),
        ("github", "COMMITS", Window(0, 2**256 - 1)),
        ("github", "COMMITS", Window(MONDAY, MONDAY + 4000 * DAY)),
    ],
)
def test_everything_else_is_unscorable(api_type: str, goal_type: str, window: Window) -> None:
    assert goal_of(api_type, goal_type, 1, window) is None


def test_a_goal_of_zero_counts_as_one() -> None:
    goal = goal_of("github", "contribution_per_day", 0, WEEK)
    assert goal is not None
    assert goal.ratio({goal.days[0]: 1}) == Ratio(1, 7)
    assert goal.ratio({}) == Ratio(0, 7)


def test_seconds_are_counted_as_they_are_written() -> None:
    assert microseconds(1800.25) == 1_800_250_000
    assert microseconds(0.1) * 3 == 300_000
    assert microseconds(7200) == 7_200_000_000


def viewer(days: dict[date, int], commits: int = 0) -> list[dict[str, Any]]:
    """Return GitHub's answer with these days."""
    calendar = {
        "totalContributions": sum(days.values()),
        "weeks": [
            {
                "contributionDays": [
                    {"date": str(day), "contributionCount": number} for day, number in days.items()
                ]
            }
        ],
    }
    collection = {
        "totalCommitContributions": commits,
        "totalPullRequestContributions": 0,
        "contributionCalendar": calendar,
    }
    return [{"query": {}, "answer": {"contributionsCollection": collection}}]


def casts(*seconds: int) -> list[dict[str, str]]:
    """Return casts that long after Monday's midnight."""
    return [
        {
            "hash": f"0x{number}",
            "at": datetime.fromtimestamp(MONDAY + s, UTC).isoformat().replace("+00:00", "Z"),
        }
        for number, s in enumerate(seconds)
    ]


def test_casts_count_once_and_only_inside_the_window() -> None:
    goal = goal_of("farcaster", "cast_per_day", 2, WEEK)
    assert goal is not None
    seen = casts(-1, 0, 1, DAY - 1, 3 * DAY, 7 * DAY - 1, 7 * DAY)
    found = count(goal, [*seen, *seen])
    assert list(found.days.values()) == [3, 0, 0, 1, 0, 0, 1]
    assert ratio(goal, found, {}) == Ratio(1, 7)
    total = goal_of("farcaster", "CASTS", 4, WEEK)
    assert total is not None
    assert ratio(total, count(total, seen), {}) == capped(5, 4) == Ratio(4, 4)


def test_days_that_are_forgotten_are_carried_from_earlier_readings() -> None:
    goal = goal_of("wakatime", "CODING_TIME", 2, WEEK)
    assert goal is not None
    day = {"range": {"date": str(goal.days[6])}, "grand_total": {"total_seconds": 3600.0}}
    found = count(goal, {"data": [day]})
    assert ratio(goal, found, {}) == Ratio(3600_000_000, 7200_000_000)
    assert ratio(goal, found, {goal.days[0]: 3600_000_000}).is_whole
    # Of a day that both know, the later reading counts.
    assert ratio(goal, found, {goal.days[6]: 9 * 3600_000_000}) == ratio(goal, found, {})


def test_days_that_grow_after_they_were_over_are_named() -> None:
    goal = goal_of("github", "contribution_per_day", 1, WEEK)
    assert goal is not None
    first, second, third, *_ = goal.days
    now = {first: 1, second: 5, third: 2}
    assert backdated(goal, now, {first: 1, second: 4}) == (second,)


TERMS = Terms(WEEK.start, WEEK.end, "github", "contribution_per_day", 1)
RULE = rule_of(TERMS, 1_000_000, 250_000)


@pytest.mark.parametrize(
    ("found", "trouble", "ppm", "reason"),
    [
        (Ratio(6, 7), None, 857_143, None),
        (Ratio(6, 7), Trouble.UNAVAILABLE, 857_143, None),
        (None, Trouble.NO_CONNECTION, 250_000, "no_connection"),
        (None, Trouble.REJECTED, 1_000_000, "rejected"),
        (None, Trouble.UNAVAILABLE, 1_000_000, "unavailable"),
        (None, Trouble.NO_DATA, 1_000_000, "no_data"),
        (None, Trouble.MISCONFIGURED, 1_000_000, "misconfigured"),
    ],
)
def test_what_became_of_somebody_decides_the_share(
    found: Ratio | None, trouble: Trouble | None, ppm: int, reason: str | None
) -> None:
    share = share_of(RULE, found, trouble)
    assert share is not None
    assert (share.ppm, share.reason) == (ppm, reason)


def test_nothing_is_declared_of_who_cannot_be_scored() -> None:
    assert share_of(RULE, None, Trouble.UNSCORABLE) is None
    assert share_of(RULE, None, None) is None


def document(good: int, stake: int = 100_000_000, wallet: str = WALLET) -> str:
    """Return the evidence of somebody with that many good days."""
    days = {day: int(n < good) for n, day in enumerate(WEEK.days)}
    return evidence.document(
        chain_id=8453,
        contract="0x" + "11" * 20,
        challenge_id=7,
        wallet=wallet,
        stake=stake,
        rule=RULE,
        said=Said("github", {"id": "1", "name": "ann"}, {"from": "…"}, viewer(days), "…", WEEK.end),
        carried={},
        backdated=(),
        trouble=None,
        detail=None,
    )


def test_evidence_is_recomputed_to_the_same_amount_by_hand() -> None:
    body = evidence.check(document(6))
    assert body["result"]["ratio"] == {"numerator": "6", "denominator": "7"}
    assert body["result"]["bps"] == 8571
    assert body["result"]["refund_minor_units"] == str(100_000_000 * 8571 // 10_000)
    assert [day["achieved"] for day in body["result"]["days"]] == [True] * 6 + [False]


@given(st.integers(0, 7), st.integers(0, 10**15))
def test_evidence_holds_whatever_is_needed_to_check_it(good: int, stake: int) -> None:
    result = evidence.check(document(good, stake))["result"]
    assert int(result["refund_minor_units"]) + int(result["donation_minor_units"]) == stake


CHANGES: list[tuple[tuple[str, ...], Any]] = [
    (("result", "bps"), 10_000),
    (("stake_minor_units",), "1"),
    (("rule", "goal_amount"), "2"),
    (("trouble",), "nonsense"),
    (("reading", "answered"), [{"answer": {}}]),
]


@pytest.mark.parametrize(("path", "value"), CHANGES)
def test_evidence_that_was_changed_is_refused(path: tuple[str, ...], value: object) -> None:
    body = json.loads(document(6))
    inner = body
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    with pytest.raises(InvalidInput):
        evidence.check(json.dumps(body))


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", '{"result":{}}', "not json"])
def test_what_is_no_evidence_is_said_to_be_none(text: str) -> None:
    with pytest.raises(InvalidInput):
        evidence.check(text)


@given(st.sets(st.integers(0, 10**9), min_size=1, max_size=40), st.data())
def test_every_document_is_proved_and_no_other(numbers: set[int], data: st.DataObject) -> None:
    leaves = [leaf(str(number)) for number in sorted(numbers)]
    tree = Tree(leaves)
    assert Tree(list(reversed(leaves))).root == tree.root
    one = data.draw(st.sampled_from(leaves))
    proof = tree.proof(one)
    assert proves(tree.root, one, proof)
    stranger = leaf(str(10**9 + 1))
    assert not proves(tree.root, stranger, proof)
    with pytest.raises(ValueError, match="list"):
        tree.proof(stranger)
    if proof:
        assert not proves(tree.root, one, proof[:-1])


def test_a_rule_says_everything_that_decided() -> None:
    assert RULE["days"] == [str(date(2023, 11, 20) + timedelta(days=n)) for n in range(7)]
    assert RULE["fallback_percent_ppm"] == 1_000_000
    assert RULE["engine_version"] == 1
