"""The rule a challenge is scored by, and what becomes of each participant under it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from causeway.apps.motify.goals import ENGINE_VERSION, Goal, Window, goal_of
from causeway.apps.motify.shares import BasisPoints, Ratio
from causeway.apps.motify.troubles import Trouble

#: Declared by somebody else before we decided: the chain's share counts.
ELSEWHERE = "declared_elsewhere"
#: Took everything back after the seven days.
TIMEOUT_REFUND = "timeout_refund"
#: The share that an operator set for a goal that nobody defined.
ORDERED = "ordered"


@dataclass(frozen=True)
class Terms:
    """What of a challenge decides its rule, as the contract has it."""

    #: Unix seconds.
    start_time: int
    end_time: int
    api_type: str
    goal_type: str
    goal_amount: int
    #: What an operator set for a goal that nobody defined.
    ordered: Mapping[str, Any] | None = None


def goal_for(terms: Terms) -> Goal | None:
    """Return the goal of a challenge, or the one an operator gave it; None when unscorable."""
    window = Window(terms.start_time, terms.end_time)
    ordered: Mapping[str, Any] = terms.ordered or {}
    return goal_of(
        str(ordered.get("api_type", terms.api_type)),
        str(ordered.get("goal_type", terms.goal_type)),
        int(ordered.get("goal_amount", terms.goal_amount)),
        window,
    )


def rule_of(terms: Terms, fallback_ppm: int, no_connection_ppm: int) -> dict[str, Any]:
    """Return the rule as it is frozen, archived, and given as evidence."""
    goal = goal_for(terms)
    rule: dict[str, Any] = {
        "type": "progress",
        "fallback_percent_ppm": fallback_ppm,
        "no_connection_percent_ppm": no_connection_ppm,
        "api_type": terms.api_type,
        "goal_type": terms.goal_type,
        "goal_amount": str(terms.goal_amount),
        "start_time": terms.start_time,
        "end_time": terms.end_time,
        "days": [] if goal is None else [str(day) for day in goal.days],
        "engine_version": ENGINE_VERSION,
    }
    if terms.ordered is not None:
        rule["ordered"] = terms.ordered
    return rule


def goal_of_rule(rule: Mapping[str, Any]) -> Goal | None:
    """Return the goal that a frozen rule stands for."""
    ordered: Mapping[str, Any] = rule.get("ordered") or {}
    return goal_of(
        str(ordered.get("api_type", rule["api_type"])),
        str(ordered.get("goal_type", rule["goal_type"])),
        int(ordered.get("goal_amount", rule["goal_amount"])),
        Window(int(rule["start_time"]), int(rule["end_time"])),
    )


@dataclass(frozen=True)
class Share:
    """What somebody gets back, in ppm and as the contract takes it, and why, if not measured."""

    ppm: int
    reason: str | None

    @property
    def bps(self) -> BasisPoints:
        """In basis points."""
        return BasisPoints.of_ppm(self.ppm)


def share_of(rule: Mapping[str, Any], ratio: Ratio | None, trouble: Trouble | None) -> Share | None:
    """Return the share under a rule; None when nothing may be declared for this participant."""
    ordered: Mapping[str, Any] = rule.get("ordered") or {}
    if "ppm" in ordered:
        return Share(int(ordered["ppm"]), ORDERED)
    if ratio is not None:
        return Share(ratio.ppm, None)
    if trouble is None or trouble is Trouble.UNSCORABLE:
        return None
    if trouble is Trouble.NO_CONNECTION:
        return Share(int(rule["no_connection_percent_ppm"]), trouble.value)
    return Share(int(rule["fallback_percent_ppm"]), trouble.value)
