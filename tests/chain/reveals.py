"""GLISK's reveal as a kind of unit, with an app's table, for tests of the relayer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from eth_utils.crypto import keccak
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.base.errors import TransactionReverted
from causeway.chains.endpoint import Endpoint, SecretUrl
from causeway.chains.evm.abi import Abi
from causeway.chains.evm.chain import EvmChain
from causeway.chains.evm.signer import LocalSigner
from causeway.chains.pool import ProviderPool
from causeway.chains.protocol import LogFilter
from causeway.relayer.kind import (
    At,
    Call,
    Done,
    MinedBatch,
    NotDone,
    Outcome,
    SettledBatch,
    Unit,
    UnitKind,
    UnitRequest,
)
from causeway.relayer.lane import Did, RelayerSettings
from causeway.relayer.notices import OnNotice
from causeway.relayer.relayer import Relayer
from causeway.relayer.views import TransactionView, transactions_of
from causeway.sandbox.anvil import AnvilNode
from causeway.sandbox.glisk_chain import GliskContract, artifact
from causeway.store.engine import Database
from causeway.store.lease import Lease

KEEPER_ROLE = keccak(text="KEEPER_ROLE")
ABI = Abi.from_json(artifact("GliskNFT")["abi"])
CHAIN = "local"

TABLE = """
CREATE TABLE IF NOT EXISTS public.reveals (
    token_id bigint PRIMARY KEY, state text NOT NULL, hash text, times integer NOT NULL DEFAULT 0
)
"""


class TestClock:
    """A clock that stands until it is moved, or runs along with the machine's."""

    __test__ = False

    def __init__(self) -> None:
        self.at = datetime(2026, 1, 1, tzinfo=UTC)
        self.seconds = 0.0

    def now(self) -> datetime:
        """Return the instant it stands at."""
        return self.at

    def monotonic(self) -> float:
        """Return the seconds it was moved by."""
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        """Move it."""
        self.move(seconds)

    def move(self, seconds: float) -> None:
        """Move it by that many seconds."""
        self.at += timedelta(seconds=seconds)
        self.seconds += seconds


def key(token_id: int) -> str:
    """Return the unit key of a token."""
    return f"test:{token_id}"


def request(token_id: int, uri: str | None = None) -> UnitRequest:
    """Return what is filed for a token."""
    return UnitRequest(key(token_id), {"token_id": token_id, "uri": uri or uri_of(token_id)})


def uri_of(token_id: int) -> str:
    """Return the URI a token is to have."""
    return f"ipfs://bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi/{token_id}"


def reveal_kind(contract: str, **changes: Any) -> UnitKind:
    """Return the kind: it keeps what it is told in `public.reveals`."""

    def encode(units: Sequence[Unit]) -> Call:
        ids = [int(unit.payload["token_id"]) for unit in units]
        uris = [str(unit.payload["uri"]) for unit in units]
        return Call(contract, ABI.encode("revealTokens", ids, uris))

    async def is_done(chain: EvmChain, units: Sequence[Unit], at: At) -> Mapping[str, Outcome]:
        calls = [(contract, ABI.encode("isRevealed", unit.payload["token_id"])) for unit in units]
        outcomes: dict[str, Outcome] = {}
        for unit, output in zip(units, await chain.call_many(calls, at), strict=True):
            if isinstance(output, TransactionReverted) or not output:
                outcomes[unit.key] = NotDone()  # before the contract was there
                continue
            (revealed,) = ABI.decode_result("isRevealed", output)
            outcomes[unit.key] = Done() if revealed else NotDone()
        return outcomes

    async def note(session: AsyncSession, unit: Unit, state: str, tx_hash: str | None) -> None:
        await session.execute(
            text(
                "INSERT INTO public.reveals AS r (token_id, state, hash, times) "
                "VALUES (:id, :state, :hash, :times) ON CONFLICT (token_id) DO UPDATE "
                "SET state = :state, hash = :hash, times = r.times + :times"
            ),
            {
                "id": unit.payload["token_id"],
                "state": state,
                "hash": tx_hash,
                "times": int(state == "revealed"),
            },
        )

    async def on_settled(session: AsyncSession, batch: SettledBatch) -> None:
        for unit in batch.units:
            await note(session, unit, "revealed", batch.hashes.get(unit.key))

    async def on_mined(session: AsyncSession, batch: MinedBatch) -> None:
        for unit in batch.units:
            await note(session, unit, "mined", batch.tx.hash)

    async def on_unmined(session: AsyncSession, batch: MinedBatch) -> None:
        for unit in batch.units:
            await note(session, unit, "unmined", None)

    async def on_failed(session: AsyncSession, unit: Unit, reason: str) -> None:
        await note(session, unit, "failed", None)

    def offender(name: str, args: Sequence[object], units: Sequence[Unit]) -> str | None:
        return key(int(str(args[0]))) if name == "AlreadyRevealed" else None

    options: dict[str, Any] = {
        "encode": encode,
        "is_done": is_done,
        "on_settled": on_settled,
        "finality": 2,
        "on_mined": on_mined,
        "on_unmined": on_unmined,
        "on_failed": on_failed,
        "drop_reverted": offender,
        "hold_errors": frozenset({"AccessControlUnauthorizedAccount"}),
    }
    return UnitKind(name="reveal", app="test", chain=CHAIN, abi=ABI, **options | changes)


def chain_at(url: str, chain_id: int) -> EvmChain:
    """Return the chain behind a URL; the caller closes it."""
    pool = ProviderPool([Endpoint(SecretUrl(url), "one")], timeout_s=2)
    return EvmChain(CHAIN, chain_id, pool)


class World:
    """A relayer for GLISK's contract that goes on step by step, on a clock that stands."""

    def __init__(
        self,
        database: Database,
        node: AnvilNode,
        contract: GliskContract,
        chain: EvmChain,
        lease: Lease,
        relayer: Relayer,
        clock: TestClock,
        kind: UnitKind,
    ) -> None:
        self.database = database
        self.node = node
        self.contract = contract
        self.chain = chain
        self.lease = lease
        #: One for each account.
        self.leases = [lease]
        self.relayer = relayer
        self.clock = clock
        self.kind = kind

    @classmethod
    async def make(
        cls,
        database: Database,
        node: AnvilNode,
        contract: GliskContract,
        chain: EvmChain,
        *,
        settings: RelayerSettings | None = None,
        holder: str = "test",
        clock: TestClock | None = None,
        keepers: int = 1,
        on_notice: OnNotice | None = None,
        **changes: Any,
    ) -> World:
        """Make one with that many accounts that may reveal; `changes` are to the kind."""
        async with database.transaction() as session:
            await session.execute(text(TABLE))
        kind = reveal_kind(contract.address, **changes)
        clock = clock or TestClock()
        accounts = [node.accounts[1], *node.accounts[4 : 3 + keepers]]
        for account in accounts[1:]:
            await contract.transact(node.accounts[0], "grantRole", KEEPER_ROLE, account.address)
        signers = [LocalSigner.from_private_key(account.private_key) for account in accounts]
        made = settings or RelayerSettings(lease_s=600)
        relayer = Relayer(
            database, chain, signers, [kind], clock=clock, settings=made, on_notice=on_notice
        )
        lease = await relayer.acquire(holder)
        assert lease is not None
        world = cls(database, node, contract, chain, lease, relayer, clock, kind)
        for sender in relayer.addresses[1:]:
            lease = await relayer.acquire(holder, sender)
            assert lease is not None
            world.leases.append(lease)
        return world

    async def mint(self, quantity: int) -> None:
        """Mint that many more tokens."""
        author = self.node.accounts[2].address
        await self.contract.mint(self.node.accounts[3], author, quantity)
        await self.node.mine()

    async def file(self, *token_ids: int, **options: Any) -> None:
        """File tokens in a transaction of the app."""
        async with self.database.transaction() as session:
            await self.relayer.file(session, self.kind, [request(i) for i in token_ids], **options)

    async def step(self) -> Did:
        """Take one step with each account, none fails; return the first that moved something."""
        steps = [await self.relayer.step(lease) for lease in self.leases]
        errors = [error for did in steps for error in did.errors]
        assert not errors, errors
        return next((did for did in steps if did.progress), steps[0])

    async def steps(self) -> Did:
        """Take steps until nothing moves; return the last but one."""
        last = Did()
        for _ in range(30):
            did = await self.step()
            if not did.progress:
                return last
            last = did
        raise AssertionError("it never comes to rest")

    async def settle(self) -> None:
        """Have everything confirmed that can be without waiting for long."""
        for _ in range(4):
            await self.steps()
            await self.node.mine(3)
        await self.steps()

    async def transactions(self) -> list[TransactionView]:
        """Return all transactions, oldest first."""
        async with self.database.transaction() as session:
            return (await transactions_of(session, "test", limit=10_000))[::-1]

    async def units(self) -> dict[int, tuple[str, str | None]]:
        """Return state and hash of every unit, by token."""
        async with self.database.transaction() as session:
            rows = await session.execute(
                text(
                    "SELECT (payload->>'token_id')::bigint, state, settled_hash "
                    "FROM causeway.relayer_units ORDER BY created_at"
                )
            )
            return {token: (state, tx_hash) for token, state, tx_hash in rows}

    async def reveals(self) -> dict[int, tuple[str, str | None, int]]:
        """Return what the app was told, by token: state, hash, times settled."""
        async with self.database.transaction() as session:
            rows = await session.execute(
                text("SELECT token_id, state, hash, times FROM public.reveals ORDER BY token_id")
            )
            return {token: (state, tx_hash, times) for token, state, tx_hash, times in rows}

    async def revealed(self) -> dict[int, list[str]]:
        """Return the transactions that revealed each token, from the chain's own logs."""
        return await revealed_on(self.chain, self.contract.address)

    async def exactly_once(self, *token_ids: int) -> None:
        """Check the whole promise for these tokens."""
        on_chain, units, told = await self.revealed(), await self.units(), await self.reveals()
        for token_id in token_ids:
            (tx_hash,) = on_chain[token_id]
            assert units[token_id] == ("settled", tx_hash)
            assert told[token_id] == ("revealed", tx_hash, 1)
            assert await self.contract.token_uri(token_id) == uri_of(token_id)


async def revealed_on(chain: EvmChain, contract: str) -> dict[int, list[str]]:
    """Return the transactions that revealed each token."""
    head = await chain.head()
    wanted = LogFilter((contract.lower(),), (ABI.event("TokensRevealed").topic0,))
    found: dict[int, list[str]] = {}
    for log in await chain.logs(wanted, 0, head.number):
        decoded = ABI.decode_log(log)
        assert decoded is not None
        ids: Any = decoded.args["tokenIds"]
        for token_id in ids:
            found.setdefault(int(token_id), []).append(log.transaction_hash)
    return found
