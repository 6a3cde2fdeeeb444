"""How far a provider can be trusted, as points out of 100 and the reasons for each lost one.

Pure functions. Score = 100 − latency − errors − lag, never below 0; the reasons always add up to
what was lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["healthy", "degraded", "unhealthy"]

#: Seconds of chain time that a provider may be behind for free: probes are not simultaneous.
FREE_LAG_S = 4.0


#: Answers that cannot be true, by the error they are kept under, and what is said of them.
LIES = {
    "wrong_chain": "serves another chain",
    "wrong_fork": "serves another fork",
    "altered_receipt": "alters receipts",
}


@dataclass(frozen=True)
class Deduction:
    """Points lost, and why."""

    points: int
    reason: str


@dataclass(frozen=True)
class Score:
    """A provider's score with its reasons."""

    points: int
    deductions: tuple[Deduction, ...]

    @property
    def status(self) -> Status:
        """Above 80 healthy, above 50 degraded."""
        if self.points > 80:
            return "healthy"
        return "degraded" if self.points > 50 else "unhealthy"


def free_blocks(block_time_s: float) -> int:
    """Return how many blocks behind cost nothing: as many as fit into 4 seconds."""
    return int(FREE_LAG_S / block_time_s)


def score(
    *,
    latency_ms: int | None,
    failures: int,
    lag_blocks: int | None,
    block_time_s: float,
    error: str | None = None,
) -> Score:
    """Return the score of a probe: latency in milliseconds, failures in a row, blocks behind.

    `error` is its code when it failed; a lie leaves nothing. A failed probe costs its
    errors only.
    """
    if error in LIES:
        return Score(0, (Deduction(100, LIES[error]),))
    lost: list[Deduction] = []
    if error == "rate_limited":  # it is there, and we ask too often
        lost.append(Deduction(10, "limits our rate; asked less for a while"))
        error = None
    if failures:
        points = min(75, 25 * failures)
        times = "probe" if failures == 1 else "probes in a row"
        lost.append(
            Deduction(points, f"{failures} failed {times}" + (f": {error}" if error else ""))
        )
    if error is None and latency_ms is not None and latency_ms > 200:
        points = min(30, -(-(latency_ms - 200) // 50))
        lost.append(Deduction(points, f"answers in {latency_ms} ms (200 are free)"))
    if error is None and lag_blocks:
        free = free_blocks(block_time_s)
        behind = max(0, lag_blocks - free)
        if behind:
            lost.append(
                Deduction(10 * behind, f"{lag_blocks} blocks behind the others ({free} are free)")
            )
    return _floored(lost)


def _floored(lost: list[Deduction]) -> Score:
    """Return the score; deductions are cut so that they never exceed 100 together."""
    left = 100
    kept: list[Deduction] = []
    for one in lost:
        points = min(one.points, left)
        if points:
            kept.append(Deduction(points, one.reason))
        left -= points
    return Score(left, tuple(kept))


def leader(heads: list[int]) -> int | None:
    """Return the height that counts: the highest that two providers have reached.

    With one or two it is the highest; a lone one ahead of all others makes nobody late.
    """
    if not heads:
        return None
    ordered = sorted(heads, reverse=True)
    return ordered[0] if len(ordered) < 3 else ordered[1]
