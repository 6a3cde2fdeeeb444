"""One account on one chain: everything the relayer's steps need, and the chain as one step sees it.

All writes of a step go through `Lane.commit`, which holds the lease's row until the transaction
ends: who lost the lease commits nothing more.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import structlog
from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.base.clock import Clock
from causeway.base.errors import Bug
from causeway.chains.protocol import Block, Finality
from causeway.chains.settling import SettlingChain, Signer
from causeway.relayer.fees import PERCENTILES, Quote, suggested_tip
from causeway.relayer.kind import UnitKind
from causeway.relayer.notices import OnNotice
from causeway.store.engine import Database
from causeway.store.lease import Lease, guard

_log = structlog.get_logger(__name__)
_ALARMS = Counter("causeway_relayer_alarms_total", "Things a person should look at", ["cause"])

#: Blocks whose tips and base fees the suggestion is made from.
FEE_BLOCKS = 20


@dataclass(frozen=True, kw_only=True)
class RelayerSettings:
    """How a relayer behaves; the rules of one kind of unit are in its `UnitKind`."""

    #: Between two looks when nothing happens; filing units wakes it at once.
    poll_s: float = 1.0
    #: Do without LISTEN, behind a transaction-mode pooler.
    poll_only: bool = False
    lease_s: float = 15.0
    #: Transactions with a nonce that are not mined yet, at most.
    in_flight_max: int = 8
    #: The least tip ever offered, and the most ever paid per gas.
    min_tip_wei: int = 1_000_000
    max_fee_wei: int | None = None
    #: By how much the fees of a stuck transaction rise; never less than an eighth.
    bump_factor_ppm: int = 1_250_000
    #: Below what the chain asks for that long: bumped before it counts as stuck.
    underpriced_after_s: float = 30.0
    stuck_most_s: float = 3600.0
    #: How often to look whether the node still has a transaction that waits.
    presence_check_s: float = 15.0
    #: Bytes whose fate is open go out again after this, doubled each time.
    resend_first_s: float = 1.0
    resend_most_s: float = 30.0
    #: A plan older than this is made anew instead of being signed.
    plan_valid_s: float = 10.0
    #: How often balance and base fee are looked at when nothing else asks for them.
    account_check_s: float = 30.0
    #: How often what holds everything up is looked at again.
    hold_check_s: float = 5.0
    #: Most gas one transaction may have, and the part of a block, in millionths.
    gas_limit_max: int = 12_000_000
    block_part_ppm: int = 900_000
    #: Below this balance there is an alarm.
    balance_warning_wei: int | None = None
    #: The most one account spends in 24 hours, with the most that what is under way can cost.
    daily_budget_wei: int | None = None
    #: A kind that waits that long raises an alarm.
    wait_alert_s: float = 600.0
    #: A unit that may not be sent now is looked at again after this.
    recheck_s: float = 2.0
    #: One account looks at units for as long before another may look at the same ones.
    claim_s: float = 10.0
    #: How often a spent nonce without a receipt of ours is seen before it counts as lost.
    lost_sightings: int = 3
    #: Blocks that make a thing final on a chain that does not tell.
    final_depth: int = 256
    #: A nonce that another program spent is watched for this long.
    lost_watch_s: float = 3600.0
    #: Go on by itself after the review that follows nonces spent without us.
    resume_after_review: bool = True


@dataclass
class Memory:
    """What only saves time and may be forgotten at any moment."""

    #: Units that fitted into the gas limit, by kind.
    fitting: dict[str, int] = field(default_factory=dict[str, int])
    #: How often a nonce looked lost, by transaction.
    sightings: dict[UUID, int] = field(default_factory=dict[UUID, int])
    #: When it was last looked whether the node has a transaction.
    presence: dict[UUID, float] = field(default_factory=dict[UUID, float])
    #: Whether the chain has the oracle for data fees; None before it was asked.
    has_oracle: bool | None = None
    #: When a kind that waits, or the funds, were last looked at.
    checked: dict[str, float] = field(default_factory=dict[str, float])


@dataclass
class Lane:
    """One account on one chain, the kinds it serves, and the database with its ledger."""

    database: Database
    chain: SettlingChain
    signer: Signer
    kinds: Mapping[tuple[str, str], UnitKind]
    clock: Clock
    settings: RelayerSettings
    #: The other accounts of the same relayer: who else may carry its units.
    siblings: tuple[str, ...] = ()
    on_notice: OnNotice | None = None
    memory: Memory = field(default_factory=Memory)

    @property
    def sender(self) -> str:
        """The account, checksummed."""
        return self.signer.address

    @property
    def lease_name(self) -> str:
        """The name of the lease under which this account signs."""
        return f"relayer:{self.chain.chain_id}:{self.sender}"

    def now(self) -> datetime:
        """Return the clock's time."""
        return self.clock.now()

    def kind(self, app: str, name: str) -> UnitKind:
        """Return a kind this lane serves; `Bug` when it does not."""
        found = self.kinds.get((app, name))
        if found is None:
            raise Bug(f"the relayer of {self.chain.name} was not given the kind {app}.{name}")
        return found

    def carries(self, kind: UnitKind) -> bool:
        """Return whether this account may carry units of a kind."""
        return not kind.senders or self.sender.lower() in {s.lower() for s in kind.senders}

    def shares(self, kind: UnitKind) -> bool:
        """Return whether another account may carry units of a kind as well."""
        others = {sender.lower() for sender in self.siblings}
        return bool(others & {s.lower() for s in kind.senders} if kind.senders else others)

    @asynccontextmanager
    async def commit(self, lease: Lease) -> AsyncGenerator[AsyncSession]:
        """Open a transaction that can only be committed while the lease is ours."""
        async with self.database.transaction() as session:
            await guard(session, lease)
            yield session

    def turn(self, what: str, every_s: float) -> bool:
        """Return whether `every_s` seconds have passed since this was last true for `what`."""
        now = self.clock.monotonic()
        last = self.memory.checked.get(what)
        if last is not None and now - last < every_s:
            return False
        self.memory.checked[what] = now
        return True

    def ceiling(self, kind: UnitKind) -> int | None:
        """Return the most a kind's transactions pay per gas, in wei."""
        limits = [x for x in (kind.max_fee_wei, self.settings.max_fee_wei) if x is not None]
        return min(limits) if limits else None


class Sight:
    """The chain as one step sees it; what is asked for twice is fetched once."""

    def __init__(self, lane: Lane, head: Block, mined: int) -> None:
        self._lane = lane
        self.head = head
        #: Transactions of our account that are mined at the head: the next nonce of the chain.
        self.mined = mined
        self._depths: dict[Finality, int | None] = {}
        self._quotes: dict[str, Quote] = {}

    @classmethod
    async def look(cls, lane: Lane) -> Sight:
        """Return what the chain looks like now."""
        head = await lane.chain.head()
        return cls(lane, head, await lane.chain.nonce(lane.sender))

    async def depth(self, finality: Finality) -> int | None:
        """Return the newest block that is as deep as `finality` asks; None when there is none."""
        if finality not in self._depths:
            if isinstance(finality, int):
                found = self.head.number - finality
                self._depths[finality] = found if found >= 0 else None
            else:
                block = await self._lane.chain.block(finality)
                self._depths[finality] = None if block is None else block.number
        return self._depths[finality]

    async def quote(self, kind: UnitKind) -> Quote:
        """Return what the chain asks per gas now, by the kind's strategy."""
        found = self._quotes.get(kind.label)
        if found is None:
            chain, settings = self._lane.chain, self._lane.settings
            history = await chain.fee_history(FEE_BLOCKS, list(PERCENTILES.values()))
            # Not multiplied by a buffer: on a quiet chain the node suggests what we paid last, and
            # each transaction would offer more than the one before, without end.
            node_wei = 0 if kind.gas_strategy == "slow" else await chain.max_priority_fee()
            tip = suggested_tip(history.rewards, kind.gas_strategy, settings.min_tip_wei, node_wei)
            found = self._quotes[kind.label] = Quote(history.base_fee_per_gas[-1], tip)
        return found


@dataclass
class Did:
    """What one step did."""

    planned: int = 0
    dropped: int = 0
    signed: int = 0
    sent: int = 0
    bumped: int = 0
    mined: int = 0
    unmined: int = 0
    #: Transactions that reached a final state.
    ended: int = 0
    settled: int = 0
    released: int = 0
    failed: int = 0
    #: What went wrong on the way, one for each thing that will be tried again.
    errors: list[Exception] = field(default_factory=list[Exception])

    @property
    def progress(self) -> bool:
        """Whether anything moved, so that the next step should not wait."""
        return any(value for name, value in vars(self).items() if name != "errors")


def alarm(cause: str, message: str, **context: object) -> None:
    """Tell a person: an error in the log, and a count in the metrics."""
    _ALARMS.labels(cause).inc()
    _log.error(message, cause=cause, **context)
