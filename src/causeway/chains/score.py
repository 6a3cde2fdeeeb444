"""How good an endpoint is for a method, 0 to 100, and what each lost point was lost for.

50 points for answering, 30 for being as quick as the others, 20 for being at the head. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

_SUCCESS = 50.0
_LATENCY = 30.0
_LAG = 20.0
#: So many times the others' median latency loses all points for it.
_SLOWEST = 5.0
#: Differences below this are noise, seconds.
_QUICK_S = 0.02
_LAG_BLOCKS = 10


@dataclass(frozen=True, slots=True)
class Deduction:
    """Points that were lost, and why."""

    reason: str
    points: float


@dataclass(frozen=True, slots=True)
class Score:
    """What is left of 100 points; the deductions are the rest of them."""

    points: float
    deductions: tuple[Deduction, ...]


def score(
    *,
    success: float | None,
    latency_s: float | None,
    median_s: float | None,
    lag_blocks: int = 0,
    forked: bool = False,
) -> Score:
    """Return the score.

    `success`: share of recent calls that were answered, 0 to 1; None before the first.
    `latency_s`: its median; `median_s`: that of all endpoints. `lag_blocks` below the agreed head.
    """
    if forked:
        return Score(0.0, (Deduction("on another fork than the others", 100.0),))
    found: list[Deduction] = []
    if success is not None and success < 1:
        found.append(
            Deduction(f"{1 - success:.0%} of recent calls failed", _SUCCESS * (1 - success))
        )
    if latency_s is not None and median_s is not None:
        times = max(latency_s, _QUICK_S) / max(median_s, _QUICK_S)
        if times > 1:
            lost = _LATENCY * min(1.0, (times - 1) / (_SLOWEST - 1))
            text = f"{latency_s * 1000:.0f} ms where the others' median is {median_s * 1000:.0f} ms"
            found.append(Deduction(text, lost))
    if lag_blocks > 0:
        lost = _LAG * min(1.0, lag_blocks / _LAG_BLOCKS)
        found.append(Deduction(f"{lag_blocks} blocks behind the head", lost))
    return Score(100.0 - sum(one.points for one in found), tuple(found))
