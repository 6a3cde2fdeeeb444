"""What an app declares so that the relayer can settle its units: data and a few functions.

    reveal = UnitKind(name="reveal", app="glisk", chain="base", max_batch=50,
                      encode=encode, is_done=is_done, on_settled=on_settled, abi=abi)

Functions that take a session run inside the commit that they belong to and only touch the
database; an error in them rolls that commit back, and it is tried again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from causeway.chains.protocol import Finality
from causeway.chains.settling import Receipt, RevertAbi

#: Where state is read: a block number, or a tag.
At = int | str

GasStrategy = Literal["slow", "medium", "fast"]

#: Why units are settled: our transaction did it, it was done without one of ours that we can
#: name, or the chain holds another value for ever (an incident).
Cause = Literal["confirmed", "already_on_chain", "other_value"]


@dataclass(frozen=True)
class UnitRequest:
    """What an app files: a key under which it is owed once, and what `encode` will need."""

    key: str
    payload: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Unit:
    """One thing owed, as the functions of its kind see it."""

    id: UUID
    key: str
    payload: Mapping[str, Any]
    batch_id: UUID | None
    requested_by: str | None
    attempts: int
    reverts: int
    created_at: datetime


@dataclass(frozen=True)
class Call:
    """A call to a contract; `value` in wei."""

    to: str
    data: bytes
    value: int = 0


@dataclass(frozen=True)
class Done:
    """The chain has it; `hash` is the transaction that did it, where the kind knows."""

    hash: str | None = None


@dataclass(frozen=True)
class NotDone:
    """The chain does not have it, and it may be sent."""


@dataclass(frozen=True)
class NotYet:
    """It may not be sent now (its cause is not deep enough); look again after `after_s`."""

    reason: str
    after_s: float = 2.0


@dataclass(frozen=True)
class Other:
    """The chain holds another value, for ever."""

    value: object
    hash: str | None = None


@dataclass(frozen=True)
class Never:
    """It must not be sent at all; the unit fails with this reason."""

    reason: str


Outcome = Done | NotDone | NotYet | Other | Never


@dataclass(frozen=True)
class Carrier:
    """The transaction that carried units: its row's id, its nonce, and the hash that was mined."""

    id: UUID
    nonce: int
    hash: str
    requested_by: str | None


@dataclass(frozen=True)
class SettledBatch:
    """Units whose fate is known, and what decided it."""

    units: tuple[Unit, ...]
    cause: Cause
    #: None when it was done without a transaction of ours.
    tx: Carrier | None = None
    receipt: Receipt | None = None
    #: By unit key: the hash that did it, where it is known; always for our own.
    hashes: Mapping[str, str] = field(default_factory=dict[str, str])
    #: By unit key: the other value, when that is the cause.
    values: Mapping[str, object] = field(default_factory=dict[str, object])


@dataclass(frozen=True)
class MinedBatch:
    """Units whose transaction is in a block that may still be replaced."""

    units: tuple[Unit, ...]
    tx: Carrier
    block_number: int
    block_hash: str


Encode = Callable[[Sequence[Unit]], Call]
#: Asks the chain it is owed on, in whatever class its family has.
IsDone = Callable[[Any, Sequence[Unit], At], Awaitable[Mapping[str, Outcome]]]
OnSettled = Callable[[AsyncSession, SettledBatch], Awaitable[None]]
OnMined = Callable[[AsyncSession, MinedBatch], Awaitable[None]]
OnFailed = Callable[[AsyncSession, Unit, str], Awaitable[None]]
#: The key of the unit that a revert names, from the error's name and arguments and the batch.
Offender = Callable[[str, Sequence[object], Sequence[Unit]], str | None]


@dataclass(frozen=True, kw_only=True)
class UnitKind:
    """One kind of unit: how it is encoded, how the chain tells that it is done, and its rules."""

    name: str
    app: str
    #: The name of the chain it is owed on.
    chain: str
    encode: Encode
    is_done: IsDone
    on_settled: OnSettled
    on_mined: OnMined | None = None
    #: A reorg took it out of its block, before the units were settled or even after; they are
    #: owed again, and the same bytes are on their way.
    on_unmined: OnMined | None = None
    on_failed: OnFailed | None = None
    abi: RevertAbi | None = None
    drop_reverted: Offender | None = None
    #: Errors that are our own fault (a missing role): the kind waits, no unit fails. By name, or
    #: by the text of a `require`.
    hold_errors: frozenset[str] = frozenset()
    #: Units in one transaction, at most.
    max_batch: int = 50
    #: How deep its transaction must be before the units are settled.
    finality: Finality = 10
    gas_strategy: GasStrategy = "medium"
    #: The estimate is multiplied by this many millionths, rounded down.
    gas_buffer_ppm: int = 1_200_000
    #: The accounts that may carry it (a contract with one owner); none: all that the relayer has.
    senders: tuple[str, ...] = ()
    #: The most that a transaction of this kind may send along, in wei.
    max_value_wei: int = 0
    #: The most paid per gas, in wei; above it the kind waits. None: no limit.
    max_fee_wei: int | None = None
    #: Unmined for that long: the same nonce again with higher fees; doubled each time.
    stuck_after_s: float = 180.0
    #: A unit that is mined and reverted that often fails.
    max_reverts: int = 3

    @property
    def label(self) -> str:
        """`app.kind`, for logs and metrics."""
        return f"{self.app}.{self.name}"
