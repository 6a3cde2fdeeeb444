"""What a transaction cost, chain by chain and before and after their upgrades."""

from __future__ import annotations

import pytest

from causeway.apps.mobs.fees import ARSIA, FORKS, Fee, fee, forks_between


def test_before_arsia_the_gas_is_all_there_is() -> None:
    assert fee("mantle", ARSIA - 1, 100_000, 20_000_000, 777, 5, 9) == Fee(
        2 * 10**12, 777, None, 2 * 10**12
    )


def test_since_arsia_l1_and_operator_fees_come_on_top() -> None:
    found = fee("mantle", ARSIA, 100_000, 50 * 10**9, 777, 5, 9)
    assert (found.l2, found.l1, found.operator) == (5 * 10**15, 777, 100_000 * 5 * 100 + 9)
    assert found.total == 5 * 10**15 + 777 + 50_000_009


@pytest.mark.parametrize(
    ("has_footprint", "operator"),
    [(False, 100_000 * 3_000_000 // 10**6 + 4), (True, 3 * 10**13 + 4)],
)
def test_other_op_chains(has_footprint: bool, operator: int) -> None:
    found = fee("op", 0, 100_000, 7, 11, 3_000_000, 4, has_footprint=has_footprint)
    assert found == Fee(700_000, 11, operator, 700_000 + 11 + operator)
    assert fee("op", 0, 21_000, 7, 11) == Fee(147_000, 11, None, 147_011)


def test_plain_chains_and_deposits() -> None:
    assert fee("plain", 0, 21_000, 7, 11, 1, 1) == Fee(147_000, None, None, 147_000)
    assert fee("mantle", ARSIA, 50_000, 0).total == 0


def test_numbers_have_no_upper_bound() -> None:
    assert fee("mantle", ARSIA, 2 * 10**8, 50 * 10**9).total == 10**19  # more than a bigint holds


def test_prices_are_not_compared_across_an_upgrade() -> None:
    assert forks_between(FORKS[5000], ARSIA - 1, ARSIA) == (ARSIA,)
    assert forks_between(FORKS[5000], ARSIA, ARSIA + 9) == ()
    assert forks_between(FORKS[5000], 0, ARSIA - 1) == ()
    assert forks_between((), 0, 2**40) == ()
