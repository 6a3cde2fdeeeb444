"""Several accounts, one queue: each looks at other units than its siblings do.

A claim only saves work: it says which account judges and simulates a unit now, and runs out by
itself. What carries a unit is decided by the commit that binds it, as ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import structlog
from sqlalchemy import ColumnElement, or_, select, update

from causeway.relayer import ledger
from causeway.relayer.kind import Unit
from causeway.relayer.lane import Lane
from causeway.relayer.models import AccountRow, UnitRow

_log = structlog.get_logger(__name__)


def free(lane: Lane) -> Sequence[ColumnElement[bool]]:
    """Return the condition for units that no sibling looks at now."""
    now = lane.now()
    return (
        or_(
            UnitRow.claimed_until.is_(None),
            UnitRow.claimed_until <= now,
            UnitRow.claimed_by == lane.sender,
        ),
    )


def claim(lane: Lane, rows: Sequence[UnitRow]) -> None:
    """Claim locked units for a while."""
    until = lane.now() + timedelta(seconds=lane.settings.claim_s)
    for row in rows:
        row.claimed_by, row.claimed_until = lane.sender, until


async def give_back(lane: Lane, units: Sequence[Unit]) -> None:
    """Give back what was claimed and not bound; what is forgotten here runs out."""
    if not units:
        return
    async with lane.database.transaction() as session:
        await session.execute(
            update(UnitRow)
            .where(UnitRow.id.in_([unit.id for unit in units]), UnitRow.claimed_by == lane.sender)
            .values(claimed_by=None, claimed_until=None)
        )


async def others_are_sound(lane: Lane) -> bool:
    """Return whether the ledger knows every nonce that the siblings have used.

    If it does not, it may be an older one that was restored, and a sibling's transaction that it
    has forgotten may carry what is owed here: nothing is planned until that is looked into.
    """
    # The chain first: what a sibling signs in between is in the ledger before it is out.
    used = {sender: await lane.chain.nonce(sender, "pending") for sender in lane.siblings}
    async with lane.database.transaction() as session:
        found = await session.execute(
            select(AccountRow.sender, AccountRow.nonce_floor).where(
                AccountRow.chain_id == lane.chain.chain_id, AccountRow.sender.in_(lane.siblings)
            )
        )
        for sender, floor in found.all():
            if used[sender] > await ledger.next_nonce(session, lane, floor, sender):
                chain = lane.chain.name
                _log.warning("relayer_sibling_unknown_nonces", account=sender, chain=chain)
                return False
    return True
