"""The mean of shares, as a person sees it."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from causeway.apps.motify.statistics import Totals


@given(st.lists(st.integers(0, 1_000_000), min_size=1, max_size=40))
def test_the_mean_share_is_rounded_half_up(shares: list[int]) -> None:
    hundredths = Fraction(sum(shares), len(shares) * 100)
    rounded = hundredths.numerator // hundredths.denominator
    if hundredths - rounded >= Fraction(1, 2):
        rounded += 1
    totals = Totals(len(shares), sum(shares), 0, 0)
    assert totals.success_percentage == rounded / 100


def test_halves_go_up_and_nothing_is_zero() -> None:
    assert Totals(2, 100 + 1, 0, 0).success_percentage == 0.01
    assert Totals(2, 1_000_000 + 999_900, 0, 0).success_percentage == 100.0
    assert Totals(3, 1_000_000, 0, 0).success_percentage == 33.33
    assert Totals().success_percentage == 0.0
