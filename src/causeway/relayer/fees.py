"""What a transaction should offer per gas (EIP-1559). Pure arithmetic in wei.

A node replaces a waiting transaction only when *both* fields rise by a tenth (geth's rule; an
eighth covers stricter clients), so a bump raises both, and a ceiling that leaves no room for that
means that there is no bump.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low

from causeway.relayer.kind import GasStrategy

MILLION = 1_000_000

#: Never less than this between two attempts for one nonce, in millionths.
MIN_BUMP_PPM = 1_125_000

#: The percentile of the tips in recent blocks that each strategy takes.
PERCENTILES: dict[GasStrategy, float] = {"slow": 25.0, "medium": 50.0, "fast": 75.0}


@dataclass(frozen=True)
class Fees:
    """What an attempt offers per gas: its tip, and the most it pays in all."""

    tip_wei: int
    cap_wei: int


@dataclass(frozen=True)
class Quote:
    """What the chain asks now per gas: the next block's base fee, and a tip that gets in."""

    base_wei: int
    tip_wei: int

    @property
    def price_wei(self) -> int:
        """What would be paid per gas in the next block."""
        return self.base_wei + self.tip_wei


def scaled_up(amount: int, ppm: int) -> int:
    """Return `amount` times `ppm` millionths, rounded up."""
    return -(-amount * ppm // MILLION)


def suggested_tip(
    rewards: Sequence[Sequence[int]], strategy: GasStrategy, floor_wei: int, node_wei: int
) -> int:
    """Return the tip to offer: the median of recent blocks at the strategy's percentile.

    `rewards` holds a triple for each block, at 25, 50 and 75 percent. Blocks without any tip
    (empty ones) say nothing. Never below `floor_wei`; for `medium` and `fast` never below what the
    node suggests, `node_wei`.
    """
    column = list(PERCENTILES).index(strategy)
    seen = [block[column] for block in rewards if len(block) > column and block[column] > 0]
    tip = median_low(seen) if seen else 0
    return max(tip, floor_wei, 0 if strategy == "slow" else node_wei)


def starting_fees(quote: Quote, ceiling_wei: int | None) -> Fees | None:
    """Return the first attempt's fees: room for the base fee to double, within the ceiling.

    None when the chain asks for more than the ceiling now.
    """
    if ceiling_wei is not None and quote.price_wei > ceiling_wei:
        return None
    cap = 2 * quote.base_wei + quote.tip_wei
    return Fees(quote.tip_wei, cap if ceiling_wei is None else min(cap, ceiling_wei))


def bumped_fees(last: Fees, quote: Quote, factor_ppm: int, ceiling_wei: int | None) -> Fees | None:
    """Return fees that replace `last` (the highest offered so far, field by field).

    Both fields rise by `factor_ppm` (never by less than an eighth), and at least to what the chain
    asks. At the ceiling they rise by less, but by an eighth; None when there is no room for that.
    """
    factor = max(factor_ppm, MIN_BUMP_PPM)
    tip = max(scaled_up(last.tip_wei, factor), last.tip_wei + 1, quote.tip_wei)
    cap = max(scaled_up(last.cap_wei, factor), last.cap_wei + 1, 2 * quote.base_wei + tip)
    if ceiling_wei is not None and cap > ceiling_wei:
        cap = ceiling_wei
        tip = min(tip, cap)
    enough = cap >= scaled_up(last.cap_wei, MIN_BUMP_PPM) and cap > last.cap_wei
    if not enough or tip < scaled_up(last.tip_wei, MIN_BUMP_PPM) or tip <= last.tip_wei:
        return None
    return Fees(tip, cap)


def is_underpriced(offer: Fees, quote: Quote) -> bool:
    """Return whether an offer is below what the chain asks for the next block."""
    return offer.cap_wei < quote.price_wei


def gas_limit(estimate: int, buffer_ppm: int) -> int:
    """Return the limit for an estimate, rounded down."""
    return estimate * buffer_ppm // MILLION


def doubled(first_s: float, times: int, most_s: float) -> float:
    """Return a waiting time that doubles with each turn, in seconds."""
    return min(most_s, first_s * 2.0 ** min(times, 30))
