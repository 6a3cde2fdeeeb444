"""Which times are known."""

from __future__ import annotations

import pytest

from causeway.apps.mobs.coverage import Coverage

KNOWN = Coverage(through=1000, begins=120, marked=(300, 420), holes=((605, 700),))


@pytest.mark.parametrize(
    ("at", "width", "whole"),
    [
        (60, 60, False),  # before it began
        (120, 60, True),
        (300, 60, False),  # still to be computed
        (360, 60, True),
        (120, 300, False),  # one of its minutes is
        (540, 60, True),
        (600, 60, False),  # blocks are missing in it
        (660, 60, False),
        (720, 60, True),
        (940, 60, True),
        (960, 60, False),  # the index has not passed its end
    ],
)
def test_what_is_known(at: int, width: int, whole: bool) -> None:
    assert KNOWN.whole(at, width) is whole


def test_nothing_is_known_before_the_first_block() -> None:
    assert not Coverage(None, None).whole(0, 60)
    assert not Coverage(1000, None).whole(0, 60)
