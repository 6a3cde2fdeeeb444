"""The relayer: units go in, inside an app's transaction; each is settled on chain exactly once.

    relayer = Relayer(database, chain, signer, kinds)
    await relayer.file(session, kind, [UnitRequest(key, payload)])
    await relayer.run(stop)

Any number of processes may run one for the same account: one of them holds the lease, the others
wait for it. The rules are in `causeway.relayer.states` and in the modules of the six steps:
`planning`, `signing`, `sending`, `watching` (4 and 5) and `review`.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from uuid import UUID

import psycopg
import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.base.clock import SYSTEM_CLOCK, Clock
from causeway.base.errors import Bug, LeaseLost, TransientError
from causeway.base.ids import uuid7
from causeway.chains.evm.chain import EvmChain
from causeway.chains.evm.signer import Signer
from causeway.relayer import account, filing, views
from causeway.relayer.filing import CHANNEL, Filed, Withdrawn
from causeway.relayer.kind import UnitKind, UnitRequest
from causeway.relayer.lane import Did, Lane, RelayerSettings
from causeway.relayer.stepping import step
from causeway.store import lease as leases
from causeway.store.engine import Database
from causeway.store.lease import Lease

_log = structlog.get_logger(__name__)

#: What an outage of the database or of all providers looks like.
_OUTAGE = (TransientError, SQLAlchemyError, psycopg.Error, OSError)
_BACKOFF_MOST_S = 30.0


class Relayer:
    """Settles units of the given kinds with one account on one chain."""

    def __init__(
        self,
        database: Database,
        chain: EvmChain,
        signer: Signer,
        kinds: Sequence[UnitKind],
        *,
        clock: Clock = SYSTEM_CLOCK,
        settings: RelayerSettings | None = None,
    ) -> None:
        by_name = {(kind.app, kind.name): kind for kind in kinds}
        if len(by_name) < len(kinds):
            raise Bug("two kinds of unit have the same name")
        strangers = [kind.label for kind in kinds if kind.chain != chain.name]
        if strangers:
            raise Bug(f"{strangers[0]} is owed on another chain than {chain.name}")
        self.lane = Lane(database, chain, signer, by_name, clock, settings or RelayerSettings())
        self._wake = asyncio.Event()

    @property
    def address(self) -> str:
        """The account that signs, checksummed."""
        return self.lane.sender

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
        self._wake.set()

    async def set_mode(self, mode: str, *, reason: str | None = None, by: str = "operator") -> None:
        """Switch the account to `run`, `no-new` or `no-sign`; see `causeway.relayer.account`."""
        async with self.lane.database.transaction() as session:
            await account.set_mode(session, self.lane, mode, reason=reason, by=by)
        self._wake.set()

    async def transaction_view(
        self, session: AsyncSession, tx_id: UUID
    ) -> views.TransactionView | None:
        """Return a transaction with its units, attempts, receipt and story."""
        return await views.transaction_view(session, tx_id)

    async def account_view(self, session: AsyncSession) -> views.AccountView | None:
        """Return this relayer's account and the kinds that wait; None before its first step."""
        return await views.account_view(session, self.lane.chain.chain_id, self.lane.sender)

    async def acquire(self, holder: str) -> Lease | None:
        """Take or renew the lease under which this account signs; None while another has it."""
        seconds = self.lane.settings.lease_s
        return await leases.acquire(self.lane.database, self.lane.lease_name, holder, seconds)

    async def step(self, lease: Lease) -> Did:
        """Do at most one action for every open thing; see `causeway.relayer.stepping`."""
        return await step(self.lane, lease)

    def wake(self) -> None:
        """Have `run` look at once, from inside this process."""
        self._wake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Relay until `stop` is set, through outages of the database and of the providers."""
        holder = f"{socket.gethostname()}:{os.getpid()}:{uuid7()}"
        listener = None
        if not self.lane.settings.poll_only:
            listener = asyncio.create_task(self._listen(stop))
        stopper = asyncio.create_task(self._wake_on(stop))
        failures = 0
        try:
            while not stop.is_set():
                try:
                    lease = await self.acquire(holder)
                    if lease is not None:
                        await self._while_held(lease, stop)
                    failures = 0
                except LeaseLost as error:
                    _log.warning("relayer_lease_lost", error=error)
                except _OUTAGE as error:
                    failures += 1
                    _log.warning("relayer_outage", error=error, failures=failures)
                except Exception as error:  # noqa: BLE001 - this loop never dies
                    failures += 1
                    _log.exception("relayer_failed", error=error)
                # Who waits for the lease looks often enough to take it over when it runs out.
                poll_s = min(self.lane.settings.poll_s, self.lane.settings.lease_s / 3)
                await self._pause(_backoff_s(failures, poll_s), stop)
        finally:
            for task in (listener, stopper):
                if task is not None:
                    task.cancel()
            await asyncio.gather(
                *(task for task in (listener, stopper) if task is not None),
                return_exceptions=True,
            )

    async def _while_held(self, lease: Lease, stop: asyncio.Event) -> None:
        renewing = asyncio.create_task(self._renew(lease))
        failures = 0
        try:
            while not stop.is_set() and not renewing.done():
                self._wake.clear()
                did = await self.step(lease)
                failures = 0 if did.progress or not did.errors else failures + 1
                if not did.progress:
                    await self._pause(_backoff_s(failures, self.lane.settings.poll_s), stop)
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            with suppress(*_OUTAGE):
                await leases.release(self.lane.database, lease)

    async def _renew(self, lease: Lease) -> None:
        """Renew the lease each third of its time; ends when it is lost."""
        while True:
            await asyncio.sleep(self.lane.settings.lease_s / 3)
            try:
                renewed = await self.acquire(lease.holder)
            except _OUTAGE:
                continue  # if it runs out meanwhile, the next commit says so
            if renewed is None or renewed.fence != lease.fence:
                return

    async def _listen(self, stop: asyncio.Event) -> None:
        """Hear PostgreSQL's notifications; while that fails, polling is what there is."""
        failures = 0
        while not stop.is_set():
            try:
                connection = await self.lane.database.raw_connection()
                async with connection:
                    await connection.execute(f"LISTEN {CHANNEL}")
                    self._wake.set()  # what was filed before we listened
                    failures = 0
                    async for _ in connection.notifies():
                        self._wake.set()
            except _OUTAGE as error:
                failures += 1
                _log.info("relayer_does_not_hear", error=error)
                await asyncio.sleep(_backoff_s(failures, 1.0))

    async def _wake_on(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._wake.set()

    async def _pause(self, seconds: float, stop: asyncio.Event) -> None:
        if stop.is_set():
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()


def _backoff_s(failures: int, poll_s: float) -> float:
    """Return how long to wait: the poll interval, or more and more, with jitter, in an outage."""
    if failures == 0:
        return poll_s
    longest = min(_BACKOFF_MOST_S, poll_s * 2.0 ** min(failures, 10))
    return random.uniform(poll_s / 2, longest)  # noqa: S311 - jitter
