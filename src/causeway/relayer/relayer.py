"""The relayer: units go in, inside an app's transaction; each is settled on chain exactly once.

    relayer = Relayer(database, chain, signer, kinds)
    await relayer.file(session, kind, [UnitRequest(key, payload)])
    await relayer.run(stop)

With several signers each account has nonces of its own, a lane, and they share the work. Any number
of processes may run one for the same accounts: one of them holds the lease of a lane, the others
wait for it. The rules are in `causeway.relayer.states` and in the modules of the six steps:
`planning`, `signing`, `sending`, `watching` (4 and 5) and `review`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from causeway.base.clock import SYSTEM_CLOCK, Clock
from causeway.base.errors import Bug
from causeway.chains.settling import SettlingChain, Signer
from causeway.relayer import account, filing, views
from causeway.relayer.filing import Filed, Withdrawn
from causeway.relayer.kind import UnitKind, UnitRequest
from causeway.relayer.lane import Did, Lane, RelayerSettings
from causeway.relayer.notices import OnNotice
from causeway.relayer.running import Bell, LaneRunner, hear
from causeway.relayer.stepping import step
from causeway.store import lease as leases
from causeway.store.engine import Database
from causeway.store.lease import Lease


class Relayer:
    """Settles units of the given kinds on one chain, with one account or several."""

    def __init__(
        self,
        database: Database,
        chain: SettlingChain,
        signers: Signer | Sequence[Signer],
        kinds: Sequence[UnitKind],
        *,
        clock: Clock = SYSTEM_CLOCK,
        settings: RelayerSettings | None = None,
        on_notice: OnNotice | None = None,
    ) -> None:
        by_name = {(kind.app, kind.name): kind for kind in kinds}
        if len(by_name) < len(kinds):
            raise Bug("two kinds of unit have the same name")
        strangers = [kind.label for kind in kinds if kind.chain != chain.name]
        if strangers:
            raise Bug(f"{strangers[0]} is owed on another chain than {chain.name}")
        given = list(signers) if isinstance(signers, Sequence) else [signers]
        addresses = [signer.address for signer in given]
        if not given or len(set(addresses)) < len(addresses):
            raise Bug("a relayer needs one signer or more, each with an account of its own")
        made = settings or RelayerSettings()
        self.lanes = tuple(
            Lane(
                database,
                chain,
                signer,
                by_name,
                clock,
                made,
                tuple(one for one in addresses if one != signer.address),
                on_notice,
            )
            for signer in given
        )
        for kind in kinds:
            if not any(lane.carries(kind) for lane in self.lanes):
                raise Bug(f"none of the accounts here may carry {kind.label}: {kind.senders}")
        #: The first one.
        self.lane = self.lanes[0]
        self._bells = tuple(Bell() for _ in self.lanes)

    @property
    def address(self) -> str:
        """The account that signs, checksummed; the first one of several."""
        return self.lane.sender

    @property
    def addresses(self) -> tuple[str, ...]:
        """All accounts that sign, checksummed."""
        return tuple(lane.sender for lane in self.lanes)

    async def file(
        self,
        session: AsyncSession,
        kind: UnitKind,
        requests: Sequence[UnitRequest],
        batch_id: UUID | None = None,
        requested_by: str | None = None,
        ready_at: datetime | None = None,
        priority: int = 0,
    ) -> Filed:
        """File units inside the app's transaction; see `causeway.relayer.filing.file`."""
        if self.lane.kinds.get((kind.app, kind.name)) is None:
            raise Bug(f"the relayer of {self.lane.chain.name} was not given the kind {kind.label}")
        return await filing.file(
            session,
            kind,
            self.lane.chain.chain_id,
            requests,
            now=self.lane.now(),
            batch_id=batch_id,
            requested_by=requested_by,
            ready_at=ready_at,
            priority=priority,
        )

    async def withdraw(self, session: AsyncSession, unit_keys: Sequence[str]) -> Withdrawn:
        """Take units back inside the app's transaction; see `causeway.relayer.filing.withdraw`."""
        return await filing.withdraw(session, unit_keys, now=self.lane.now())

    async def cancel(
        self, tx_id: UUID, *, withdraw_units: bool = False, by: str | None = None
    ) -> None:
        """Have a transaction cancelled; its units are owed again unless they are withdrawn, too.

        Raises `NotFound`, and `InvalidStateTransition` when it is mined already.
        """
        async with self.lane.database.transaction() as session:
            await filing.cancel(
                session, tx_id, now=self.lane.now(), withdraw_units=withdraw_units, by=by
            )
        self.wake()

    async def set_mode(
        self,
        mode: str,
        *,
        reason: str | None = None,
        by: str = "operator",
        sender: str | None = None,
    ) -> None:
        """Switch an account (the first one) to `run`, `no-new` or `no-sign`.

        See `causeway.relayer.account`; what stops more than one account is a pause
        (`causeway.relayer.pauses`).
        """
        lane = self._lane(sender)
        async with lane.database.transaction() as session:
            await account.set_mode(session, lane, mode, reason=reason, by=by)
        self.wake()

    async def transaction_view(
        self, session: AsyncSession, tx_id: UUID
    ) -> views.TransactionView | None:
        """Return a transaction with its units, attempts, receipt and story."""
        return await views.transaction_view(session, tx_id)

    async def account_view(
        self, session: AsyncSession, sender: str | None = None
    ) -> views.AccountView | None:
        """Return an account (the first one) and the kinds that wait; None before its first step."""
        lane = self._lane(sender)
        return await views.account_view(session, lane.chain.chain_id, lane.sender)

    async def acquire(self, holder: str, sender: str | None = None) -> Lease | None:
        """Take or renew the lease under which an account signs; None while another has it."""
        lane = self._lane(sender)
        return await leases.acquire(lane.database, lane.lease_name, holder, lane.settings.lease_s)

    async def step(self, lease: Lease) -> Did:
        """Do at most one action for every open thing of the lease's account.

        See `causeway.relayer.stepping`.
        """
        return await step(next(one for one in self.lanes if one.lease_name == lease.name), lease)

    def _lane(self, sender: str | None) -> Lane:
        return next(lane for lane in self.lanes if sender in (None, lane.sender))

    def wake(self) -> None:
        """Have `run` look at once, from inside this process."""
        for bell in self._bells:
            bell.ring()

    async def run(self, stop: asyncio.Event) -> None:
        """Relay until `stop` is set, through outages of the database and of the providers."""
        helpers = [asyncio.create_task(self._wake_on(stop))]
        if not self.lane.settings.poll_only:
            helpers.append(asyncio.create_task(hear(self.lane.database, self.wake, stop)))
        try:
            async with asyncio.TaskGroup() as group:
                for lane, bell in zip(self.lanes, self._bells, strict=True):
                    group.create_task(LaneRunner(lane, bell).run(stop))
        finally:
            for task in helpers:
                task.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)

    async def _wake_on(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self.wake()
