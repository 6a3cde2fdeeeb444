"""Evidence: for each participant one document that says what was asked, answered and computed.

A document is JSON text, kept byte for byte. Its leaf is keccak256(keccak256(text)): hashed twice,
so that no inner node of the tree can pass for a document. The leaves of a challenge, sorted, make a
binary Merkle tree whose nodes are keccak256 of their two children in ascending order; an odd one is
carried up. So a proof is a list of siblings without sides, as OpenZeppelin's MerkleProof checks it
on chain. The root is kept with the declaration.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from eth_utils.crypto import keccak

from causeway.apps.motify import counting
from causeway.apps.motify.rules import goal_of_rule, share_of
from causeway.apps.motify.shares import BasisPoints, Ratio
from causeway.apps.motify.troubles import Trouble
from causeway.base.errors import InvalidInput

VERSION = 1


@dataclass(frozen=True)
class Said:
    """The reading that counted, as it was kept."""

    provider: str
    account: Mapping[str, Any]
    asked: Mapping[str, Any]
    answered: Any
    read_at: str
    chain_time: int


def document(
    *,
    chain_id: int,
    contract: str,
    challenge_id: int,
    wallet: str,
    stake: int,
    rule: Mapping[str, Any],
    said: Said | None,
    carried: Mapping[date, int],
    backdated: Sequence[date],
    trouble: Trouble | None,
    detail: str | None,
) -> str:
    """Return the document of one participant; what it computes, `explain` computes again."""
    body: dict[str, Any] = {
        "version": VERSION,
        "chain_id": chain_id,
        "contract": contract,
        "challenge_id": str(challenge_id),
        "wallet": wallet,
        "stake_minor_units": str(stake),
        "rule": dict(rule),
        "reading": None
        if said is None
        else {
            "provider": said.provider,
            "account": dict(said.account),
            "asked": dict(said.asked),
            "answered": said.answered,
            "read_at": said.read_at,
            "chain_time": said.chain_time,
        },
        "carried_days": {str(day): value for day, value in sorted(carried.items())},
        "backdated_days": [str(day) for day in backdated],
        "trouble": trouble.value if trouble else None,
        "detail": detail,
    }
    body["result"] = computed(body)
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def computed(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result that a document's rule, reading and stake give, from nothing else.

    `InvalidInput` when the document does not hold what is needed.
    """
    try:
        rule: Mapping[str, Any] = body["rule"]
        reading: Mapping[str, Any] | None = body["reading"]
        stake = int(body["stake_minor_units"])
        goal = goal_of_rule(rule)
        ratio: Ratio | None = None
        days: dict[date, int] = {}
        if reading is not None and goal is not None:
            carried = {date.fromisoformat(d): int(v) for d, v in body["carried_days"].items()}
            found = counting.count(goal, reading["answered"])
            days = carried | found.days
            ratio = counting.ratio(goal, found, carried)
        trouble = None if body["trouble"] is None else Trouble(body["trouble"])
        share = share_of(rule, ratio, trouble)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInput(f"this is no evidence of a challenge: {error!r}") from None
    if share is None:
        raise InvalidInput("nothing may be declared on this evidence")
    bps: BasisPoints = share.bps
    target = None if goal is None else goal.day_target()
    return {
        "ratio": None
        if ratio is None
        else {"numerator": str(ratio.numerator), "denominator": str(ratio.denominator)},
        "days": [
            {
                "date": str(day),
                "value": days.get(day),
                "achieved": None if target is None or day not in days else days[day] >= target,
            }
            for day in (() if goal is None else goal.days)
        ],
        "percent_ppm": share.ppm,
        "bps": bps.value,
        "reason": share.reason,
        "refund_minor_units": str(bps.refund(stake)),
        "donation_minor_units": str(bps.donation(stake)),
    }


def check(text: str) -> dict[str, Any]:
    """Return a document whose result follows from what it holds, else raise `InvalidInput`."""
    try:
        body: Any = json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"this is not JSON: {error}") from None
    if not isinstance(body, dict) or "result" not in body:
        raise InvalidInput("this is no evidence of a challenge")
    again = computed(body)  # pyright: ignore[reportUnknownArgumentType]
    if again != body["result"]:
        raise InvalidInput("the result does not follow from the evidence")
    return body  # pyright: ignore[reportUnknownVariableType]


def leaf(text: str) -> bytes:
    """Return the leaf of a document."""
    return keccak(keccak(text.encode()))


class Tree:
    """The Merkle tree over the documents of one challenge."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        if not leaves:
            raise ValueError("a tree needs leaves")
        self._levels: list[list[bytes]] = [sorted(leaves)]
        while len(self._levels[-1]) > 1:
            below = self._levels[-1]
            pairs = zip(below[::2], below[1::2], strict=False)
            above = [_node(one, two) for one, two in pairs]
            self._levels.append(above + below[len(below) - len(below) % 2 :])

    @property
    def root(self) -> bytes:
        """The root."""
        return self._levels[-1][0]

    def proof(self, one: bytes) -> list[bytes]:
        """Return the siblings from a leaf up to the root; `ValueError` when it is no leaf."""
        place = self._levels[0].index(one)
        found: list[bytes] = []
        for level in self._levels[:-1]:
            other = place ^ 1
            if other < len(level):
                found.append(level[other])
            place //= 2
        return found


def proves(root: bytes, one: bytes, proof: Sequence[bytes]) -> bool:
    """Say whether a proof leads from a leaf to a root."""
    for sibling in proof:
        one = _node(one, sibling)
    return one == root


def _node(one: bytes, two: bytes) -> bytes:
    return keccak(min(one, two) + max(one, two))
