"""The states a transaction goes through, and the places where a process may die on the way.

    planned ──▶ signed ──▶ sent ◀──▶ mined ──▶ confirmed
       │           └──────────────────▲  ├───▶ reverted
       ▼                   │             └───▶ cancelled   (our own no-op took the nonce)
    dropped                └──▶ lost                       (somebody else's transaction took it)

`sent → mined → sent` is a reorg, and so is `confirmed → sent`, one that is deeper than the kind
asked for: until the chain calls a block final, what ended in it is still looked at.

Units are bound from `planned` on and released by the review
after `reverted`, `cancelled` and `lost`, or at once from `dropped`, when nothing was ever signed.
"""

from __future__ import annotations

from typing import Literal

from causeway.base.errors import InvalidStateTransition

TransactionState = Literal[
    "planned",
    "signed",
    "sent",
    "mined",
    "confirmed",
    "reverted",
    "cancelled",
    "lost",
    "dropped",
]

EDGES: dict[TransactionState, frozenset[TransactionState]] = {
    "planned": frozenset({"signed", "dropped"}),
    "signed": frozenset({"sent", "mined", "lost"}),
    "sent": frozenset({"mined", "lost"}),
    "mined": frozenset({"sent", "confirmed", "reverted", "cancelled"}),
    "confirmed": frozenset({"sent"}),
    "reverted": frozenset(),
    "cancelled": frozenset(),
    "lost": frozenset(),
    "dropped": frozenset(),
}

#: States with bytes that may be mined, or be mined again.
OPEN: tuple[TransactionState, ...] = ("signed", "sent", "mined")

#: Final states that did not do the units: their review decides each of them.
TO_REVIEW: tuple[TransactionState, ...] = ("reverted", "cancelled", "lost")

#: States that end a nonce, for good as soon as the chain says that the block is final.
ENDED: tuple[TransactionState, ...] = ("confirmed", *TO_REVIEW)

#: Every place where `causeway.base.faults` may end the process, in the order they are passed.
FAULT_POINTS: tuple[str, ...] = (
    "relayer.planned",  # units bound, transaction planned, committed
    "relayer.signed_unsaved",  # signature in hand, not committed
    "relayer.signed",  # nonce, bytes and hash committed, nothing on the wire
    "relayer.sent_unrecorded",  # on the wire, answer known, not committed
    "relayer.sent",  # acceptance committed
    "relayer.bumped",  # bytes with higher fees committed, not on the wire
    "relayer.mined_unrecorded",  # receipt seen, not committed
    "relayer.mined",  # receipt committed
    "relayer.confirming",  # inside the commit that settles the units and moves the app's rows
    "relayer.confirmed",  # that commit made
)


def check_edge(current: str, wanted: TransactionState) -> None:
    """Raise `InvalidStateTransition` unless `current` leads to `wanted`."""
    if wanted not in EDGES[current]:  # pyright: ignore[reportArgumentType] - the column's check
        raise InvalidStateTransition("the transaction", current, wanted)
