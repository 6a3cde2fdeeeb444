"""A provider that is away is asked by one at a time, less and less often, until it answers."""

from __future__ import annotations

from causeway.apps.motify.goals import Provider
from causeway.apps.motify.outages import Outages

GITHUB, WAKATIME = Provider.GITHUB, Provider.WAKATIME


def test_a_few_failures_are_not_an_outage() -> None:
    outages = Outages()
    for moment in range(2):
        outages.failed(GITHUB, moment)
    assert outages.wait_s(GITHUB, 2) is None
    assert outages.answered(GITHUB) is False
    outages.failed(GITHUB, 3)
    assert outages.wait_s(GITHUB, 3) is None


def test_one_asks_a_provider_that_is_away_and_the_others_wait() -> None:
    outages = Outages()
    for _ in range(3):
        outages.failed(WAKATIME, 10)
    assert outages.wait_s(WAKATIME, 10) == 2
    assert outages.wait_s(WAKATIME, 11.5) == 0.5
    assert outages.wait_s(GITHUB, 11) is None
    assert outages.wait_s(WAKATIME, 12) is None
    assert outages.wait_s(WAKATIME, 12) == 2
    assert outages.answered(WAKATIME) is True
    assert outages.wait_s(WAKATIME, 12) is None


def test_pauses_grow_to_a_minute() -> None:
    outages = Outages()
    for _ in range(20):
        outages.failed(WAKATIME, 0)
    assert outages.wait_s(WAKATIME, 0) == 60
