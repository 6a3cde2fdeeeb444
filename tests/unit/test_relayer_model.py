"""Every order of planning, signing, sending, mining, dropping, replacing, reorg and crash."""

from __future__ import annotations

import pytest

from causeway.relayer.states import EDGES
from tests.relayer_model import Model, Shortcut, State, start


class Explored:
    """Everything that can be reached, and the shortest story of what is broken."""

    def __init__(self, model: Model, first: State, most: int = 10_000_000) -> None:
        self.came_from: dict[State, tuple[State, str] | None] = {first: None}
        self.broken: str | None = None
        self.story: list[str] = []
        layer = [first]
        while layer:
            following: list[State] = []
            for state in layer:
                for moves in (model.ours(state), model.theirs(state)):
                    for name, after in moves:
                        if after in self.came_from:
                            continue
                        self.came_from[after] = (state, name)
                        following.append(after)
                        self.broken = model.broken(after)
                        if self.broken is not None or len(self.came_from) > most:
                            self.story = self.told(after)
                            return
            layer = following

    def told(self, state: State) -> list[str]:
        story: list[str] = []
        while (before := self.came_from[state]) is not None:
            state = before[0]
            story.append(before[1])
        return story[::-1]


BOUNDS = [
    pytest.param(False, start(1, reorg=2, drop=1, cancel=1, foreign=1), id="one, unguarded"),
    pytest.param(True, start(1, reorg=1, drop=1, cancel=1, foreign=1, outsider=1), id="one"),
    pytest.param(False, start(2, reorg=1), id="two, unguarded"),
    pytest.param(
        False,
        start(2, reorg=1, drop=1, cancel=1),
        id="two, unguarded, more",
        marks=[pytest.mark.long, pytest.mark.timeout(900)],
    ),
    pytest.param(
        True,
        start(2, reorg=1, outsider=1),
        id="two, more",
        marks=[pytest.mark.long, pytest.mark.timeout(900)],
    ),
]


@pytest.mark.parametrize(("guarded", "first"), BOUNDS)
def test_no_order_of_events_pays_twice_or_loses_anything(guarded: bool, first: State) -> None:
    model = Model(guarded=guarded)
    found = Explored(model, first)
    assert found.broken is None, "\n".join([found.broken, *found.story])
    assert len(found.came_from) > 20_000
    for state in found.came_from:
        assert model.settle(state), "\n".join(["it never ends", *found.told(state), repr(state)])


@pytest.mark.parametrize("shortcut", list(Shortcut))
def test_each_rule_is_needed(shortcut: Shortcut) -> None:
    """Without it something is done twice, or settled in vain, or never ends."""
    model = Model(shortcut=shortcut)
    found = Explored(model, start(1, reorg=1, drop=1, cancel=1, foreign=1))
    stuck = found.broken is None and not all(model.settle(state) for state in found.came_from)
    assert found.broken is not None or stuck


def test_a_contract_that_does_a_thing_once_hides_no_shortcut_of_the_ledger() -> None:
    """The guard keeps payments from being repeated; the ledger is still wrong, and seen to be."""
    model = Model(guarded=True, shortcut=Shortcut.SETTLE_WHEN_MINED)
    found = Explored(model, start(1, reorg=1))
    assert found.broken == "unit 0 is settled and not done for good"


def test_the_model_moves_as_the_code_is_allowed_to_and_makes_every_move() -> None:
    made: set[tuple[str, str]] = set()
    for guarded in (False, True):
        left = {"reorg": 1, "cancel": 1, "foreign": 1} | ({"outsider": 1} if guarded else {})
        model = Model(guarded=guarded, most_txs=2)
        for before in Explored(model, start(1, **left)).came_from:
            for _, after in model.ours(before):
                pairs = zip(before.txs, after.txs, strict=False)
                made |= {(old.state, new.state) for old, new in pairs if old.state != new.state}
    allowed = {(old, new) for old, news in EDGES.items() for new in news}
    # A reorg of what was final enough is the one thing that the model's world does not do.
    assert made == allowed - {("confirmed", "sent")}
