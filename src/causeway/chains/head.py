"""What the endpoints of one chain say is its newest block, and what to make of it.

Two that name the same hash at the same height, or of whom one names the other's block as the
parent of its own, confirm one another. Who contradicts blocks that more others confirm is on
another fork and is not asked about the tip until it agrees again. A head that only one endpoint
has is followed too, as long as nobody contradicts it: what is read from it can be undone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from causeway.chains.protocol import Block


@dataclass(frozen=True)
class Agreement:
    """What follows from the heads that endpoints named."""

    #: The highest head that is not contradicted by a majority, and who named it.
    head: Block
    named_by: str
    #: The height that two endpoints agree on; the head's where there is only one endpoint.
    confirmed: int
    #: Endpoints on another fork than the head.
    forked: frozenset[str] = frozenset()
    #: Whether the forks are equally many, so that the head is only the better guess.
    undecided: bool = False
    #: How many blocks each endpoint is below the head.
    lags: Mapping[str, int] = field(default_factory=dict[str, int])


def agree(heads: Mapping[str, Block], *, trusted: str | None = None) -> Agreement:
    """Return what the heads (by endpoint) amount to. `trusted`: who is believed in a tie.

    Raises `ValueError` without any head.
    """
    if not heads:
        raise ValueError("no endpoint named a head")
    supporters = {name: _supporters(name, heads) for name in heads}
    contradicting = {name: _contradicting(name, heads) for name in heads}

    def rank(name: str) -> tuple[bool, int, bool, int]:
        # Among rivals the one with more support; without rivals the highest.
        rivals = contradicting[name]
        outnumbered = any(len(supporters[one]) > len(supporters[name]) for one in rivals)
        return (not outnumbered, heads[name].number, name == trusted, len(supporters[name]))

    best = max(heads, key=rank)
    rivals = contradicting[best]
    undecided = any(len(supporters[one]) == len(supporters[best]) for one in rivals)
    if undecided and trusted is not None and trusted in rivals:
        best, rivals = trusted, contradicting[trusted]
    head = heads[best]
    agreeing = [heads[name].number for name in supporters[best] if name != best]
    return Agreement(
        head,
        best,
        head.number if len(heads) == 1 else min(head.number, max(agreeing, default=-1)),
        frozenset(rivals),
        undecided,
        {name: max(0, head.number - one.number) for name, one in heads.items()},
    )


def _supporters(name: str, heads: Mapping[str, Block]) -> set[str]:
    """Return who names this block, its parent or its child, itself among them."""
    ours = heads[name]
    return {
        other
        for other, theirs in heads.items()
        if theirs.hash == ours.hash
        or theirs.hash == ours.parent_hash
        or theirs.parent_hash == ours.hash
    }


def _contradicting(name: str, heads: Mapping[str, Block]) -> set[str]:
    """Return who names another block in a place that this one's head fixes."""
    ours = heads[name]
    fixed = {ours.number: ours.hash, ours.number - 1: ours.parent_hash}
    return {
        other
        for other, theirs in heads.items()
        if fixed.get(theirs.number, theirs.hash) != theirs.hash
        or fixed.get(theirs.number - 1, theirs.parent_hash) != theirs.parent_hash
    }
