"""From a ratio to money: integers only.

A ratio is kept as it was found, a numerator and a denominator. Inside, shares are **ppm** (parts
per million, 0 to 1,000,000); on the wire to the contract **basis points** (0 to 10,000), which is
its own scale.
"""

from __future__ import annotations

from dataclasses import dataclass

MILLION = 1_000_000
BASIS_POINTS = 10_000


@dataclass(frozen=True, order=False)
class Ratio:
    """What part of a goal was reached, 0 to 1, exactly."""

    numerator: int
    denominator: int

    def __post_init__(self) -> None:
        if self.denominator <= 0 or not 0 <= self.numerator <= self.denominator:
            raise ValueError(f"{self.numerator}/{self.denominator} is no ratio of 0 to 1")

    @property
    def ppm(self) -> int:
        """In parts per million, half up."""
        return (2 * self.numerator * MILLION + self.denominator) // (2 * self.denominator)

    @property
    def is_whole(self) -> bool:
        """Whether the goal was reached."""
        return self.numerator == self.denominator

    def at_least(self, other: Ratio) -> bool:
        """Say whether it is as high as another, exactly."""
        return self.numerator * other.denominator >= other.numerator * self.denominator

    def __str__(self) -> str:
        return f"{self.numerator}/{self.denominator}"


def capped(value: int, goal: int) -> Ratio:
    """Return min(1, value / goal); `goal` is above zero."""
    return Ratio(min(value, goal), goal)


@dataclass(frozen=True)
class BasisPoints:
    """A share as the contract takes it; one above 10,000 cannot be made."""

    value: int

    def __post_init__(self) -> None:
        if not 0 <= self.value <= BASIS_POINTS:
            raise ValueError(f"{self.value} is not 0 to {BASIS_POINTS} basis points")

    @classmethod
    def of_ppm(cls, ppm: int) -> BasisPoints:
        """Return the basis points of a share in ppm: (ppm + 50) // 100."""
        if not 0 <= ppm <= MILLION:
            raise ValueError(f"{ppm} is not 0 to {MILLION} ppm")
        return cls((ppm + 50) // 100)

    def refund(self, stake: int) -> int:
        """Return what of a stake comes back, in its minor units, as the contract computes it."""
        return stake * self.value // BASIS_POINTS

    def donation(self, stake: int) -> int:
        """Return what of a stake is given away, in its minor units."""
        return stake - self.refund(stake)
