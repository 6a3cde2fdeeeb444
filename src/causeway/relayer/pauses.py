"""The kill switch: what an operator has stopped, for everything, a chain, an account or an app.

    no-new       plans nothing; what is planned goes on
    no-sign      signs nothing; signed bytes that were sent are sent again
    cancel-open  as `no-sign`, and what is signed and not mined is replaced by a no-op

Watching never stops. The switch is read in the commits that bind units and that store signed
bytes, under a lock that `pause` takes too: when `pause` has returned, nothing new is signed. Bytes
that were stored before may still be on their way out.

Nothing here needs a chain or a key, so any process may do it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from eth_utils.address import is_address, to_checksum_address
from sqlalchemy import ColumnElement, delete, or_, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.base.errors import Field, InvalidInput
from causeway.base.ids import uuid7
from causeway.relayer.filing import notify
from causeway.relayer.models import PAUSE_MODES, AccountRow, PauseRow

#: The lock between `pause` and the commits that read it: any number, but the same everywhere.
_LOCK = 0x72656C61790001

#: From going on to standing still; of several that apply the strictest counts.
_STRICTNESS = {
    "run": 0,
    "no-new": 1,
    "hold:budget": 2,
    "hold:funds": 2,
    "no-sign": 3,
    "cancel-open": 4,
}


@dataclass(frozen=True)
class Scope:
    """What is stopped: where a part is None, any app, chain or account."""

    app: str | None = None
    chain_id: int | None = None
    #: Checksummed.
    sender: str | None = None

    @classmethod
    def of(
        cls, app: str | None = None, chain_id: int | None = None, sender: str | None = None
    ) -> Scope:
        """Return the scope; `InvalidInput` when the account is no address."""
        return cls(app, chain_id, None if sender is None else account_of(sender, "account"))

    def __str__(self) -> str:
        parts = [
            f"app {self.app}" if self.app is not None else "",
            f"chain {self.chain_id}" if self.chain_id is not None else "",
            f"account {self.sender}" if self.sender is not None else "",
        ]
        return ", ".join(part for part in parts if part) or "everything"


#: Addresses that are field elements; one of forty digits or fewer is written with its zeros.
_LONG = re.compile(r"0[xX][0-9a-fA-F]{41,64}")


def account_of(given: str, field: str) -> str:
    """Return an account as its chain writes it: checksummed, or with all its 64 digits.

    Raises `InvalidInput` that names the field when it is no address.
    """
    if _LONG.fullmatch(given):
        return f"0x{given[2:].lower():0>64}"
    if not is_address(given):
        allowed = "an address: 0x and 40 hex digits, or up to 64 on a chain with longer ones"
        raise InvalidInput(fields=[Field(field, given[:80], allowed)])
    return str(to_checksum_address(given))


@dataclass(frozen=True)
class Pause:
    """A pause in force."""

    scope: Scope
    mode: str
    reason: str | None
    by: str
    since: datetime


@dataclass(frozen=True)
class Gate:
    """Whether an account may act for an app now, and if not, who says so and why."""

    mode: str
    reason: str | None = None
    by: str | None = None

    @property
    def may_plan(self) -> bool:
        """Whether units may be bound to new transactions."""
        return self.mode == "run"

    @property
    def may_sign(self) -> bool:
        """Whether a nonce may be taken."""
        return self.mode in ("run", "no-new")

    @property
    def is_hold(self) -> bool:
        """Whether it ends by itself once there are means again."""
        return self.mode.startswith("hold:")

    @property
    def is_stopped(self) -> bool:
        """Whether bytes that never left stay where they are."""
        return self.mode in ("no-sign", "cancel-open")

    def __str__(self) -> str:
        said = f"paused ({self.mode}) by {self.by or 'an operator'}"
        return f"{said}: {self.reason}" if self.reason else said


async def pause(
    session: AsyncSession, scope: Scope, mode: str, *, reason: str | None, by: str, now: datetime
) -> Pause:
    """Stop a scope, or change how it is stopped. Raises `InvalidInput` for an unknown mode."""
    if mode not in PAUSE_MODES:
        raise InvalidInput(fields=[Field("mode", mode, f"one of {', '.join(PAUSE_MODES)}")])
    await session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    row = await session.scalar(select(PauseRow).where(*_is(scope)))
    if row is None:
        row = PauseRow(id=uuid7(), app=scope.app, chain_id=scope.chain_id, sender=scope.sender)
        session.add(row)
    row.mode, row.reason, row.paused_by, row.since = mode, reason, by, now
    await session.flush()
    await notify(session)
    return _view(row)


async def resume(session: AsyncSession, scope: Scope) -> bool:
    """End the pause of exactly this scope; False when there is none. Wider ones go on."""
    ended = await session.scalar(delete(PauseRow).where(*_is(scope)).returning(PauseRow.id))
    await notify(session)
    return ended is not None


async def in_force(session: AsyncSession) -> list[Pause]:
    """Return all pauses, the oldest first."""
    rows = await session.scalars(select(PauseRow).order_by(PauseRow.since, PauseRow.id))
    return [_view(row) for row in rows]


async def gate(session: AsyncSession, row: AccountRow, app: str) -> Gate:
    """Return what an account may do for an app: the strictest of its mode and of all pauses."""
    own = Gate(row.mode, row.reason, row.mode_by)
    paused = await gate_of(session, row.chain_id, row.sender, app)
    return paused if _STRICTNESS[paused.mode] > _STRICTNESS[own.mode] else own


async def gate_of(session: AsyncSession, chain_id: int, sender: str, app: str) -> Gate:
    """Return the strictest of the pauses that hold for an account and an app; `run` without any."""
    found = Gate("run")
    for one in await session.scalars(
        select(PauseRow).where(
            or_(PauseRow.app.is_(None), PauseRow.app == app),
            or_(PauseRow.chain_id.is_(None), PauseRow.chain_id == chain_id),
            or_(PauseRow.sender.is_(None), PauseRow.sender == sender),
        )
    ):
        if _STRICTNESS[one.mode] > _STRICTNESS[found.mode]:
            found = Gate(one.mode, one.reason, one.paused_by)
    return found


async def hold_still(session: AsyncSession) -> None:
    """Keep everybody from pausing until this transaction ends; ask before locking rows."""
    await session.execute(text("SELECT pg_advisory_xact_lock_shared(:lock)"), {"lock": _LOCK})


def _is(scope: Scope) -> Sequence[ColumnElement[bool]]:
    return (
        PauseRow.app.is_not_distinct_from(scope.app),
        PauseRow.chain_id.is_not_distinct_from(scope.chain_id),
        PauseRow.sender.is_not_distinct_from(scope.sender),
    )


def _view(row: PauseRow) -> Pause:
    scope = Scope(row.app, row.chain_id, row.sender)
    return Pause(scope, row.mode, row.reason, row.paused_by, row.since)
