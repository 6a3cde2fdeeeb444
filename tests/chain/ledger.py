"""A contract that emits what it is told, tables its events fill, and a chain to play with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from eth_abi.abi import encode
from sqlalchemy import Column, MetaData, Numeric, Table, text
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.chains.endpoint import Endpoint, SecretUrl
from causeway.chains.evm.abi import Abi
from causeway.chains.evm.chain import EvmChain
from causeway.chains.evm.signer import LocalSigner, SignedTransaction
from causeway.chains.logs import LogChain
from causeway.chains.pool import ProviderPool
from causeway.indexing.indexer import Indexer
from causeway.indexing.source import Fact, OnUndone, Source
from causeway.indexing.undo import attach_undo
from causeway.sandbox.anvil import AnvilNode
from causeway.store.engine import Database

LEDGER = Abi.from_json(
    [
        {
            "type": "event",
            "name": "Put",
            "inputs": [
                {"name": "key", "type": "uint256", "indexed": True},
                {"name": "amount", "type": "uint256"},
                {"name": "note", "type": "string"},
            ],
        },
        {
            "type": "event",
            "name": "Drop",
            "inputs": [{"name": "key", "type": "uint256", "indexed": True}],
        },
        {
            "type": "event",
            "name": "Made",
            "inputs": [{"name": "child", "type": "address", "indexed": True}],
        },
    ]
)

#: Emits LOG2(calldata[0:32], calldata[32:64]) with the rest of the call data as the log's data.
_RUNTIME = "6020356000356040360380604060003760 00a200".replace(" ", "")
_DEPLOY = "0x6014 80 600b 6000 39 6000 f3".replace(" ", "") + _RUNTIME
#: anvil's first account.
SENDER = "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266"


def put(key: int, amount: int, note: str = "") -> str:
    """Return call data that emits `Put`."""
    return _emit("Put", key, encode(["uint256", "string"], [amount, note]))


def drop(key: int) -> str:
    """Return call data that emits `Drop`."""
    return _emit("Drop", key, b"")


def made(child: str) -> str:
    """Return call data that emits `Made`, of a contract's address."""
    return _emit("Made", int(child, 16), b"")


def _emit(event: str, key: int, data: bytes) -> str:
    return LEDGER.event(event).topic0 + key.to_bytes(32, "big").hex() + data.hex()


class Ledger:
    """The contract on an anvil node that mines only when told."""

    def __init__(self, anvil: AnvilNode) -> None:
        self.rpc = anvil.rpc
        self.address = ""

    async def deploy(self) -> None:
        """Put the contract on the chain and stop automatic mining."""
        await self.rpc("evm_setAutomine", False)
        made = await self.rpc("eth_sendTransaction", {"from": SENDER, "data": _DEPLOY})
        await self.rpc("evm_mine")
        receipt = await self.rpc("eth_getTransactionReceipt", made)
        self.address = receipt["contractAddress"]

    def transaction(self, call: str) -> dict[str, str]:
        """Return a transaction that calls the contract."""
        return {"from": SENDER, "to": self.address, "data": call, "gas": hex(200_000)}

    async def block(self, *calls: str) -> int:
        """Mine one block with these calls, in this order; return its number."""
        for call in calls:
            await self.rpc("eth_sendTransaction", self.transaction(call))
        await self.rpc("evm_mine")
        return await self.head()

    async def mine(self, blocks: int) -> int:
        """Mine empty blocks; return the head's number."""
        await self.rpc("anvil_mine", hex(blocks))
        return await self.head()

    async def head(self) -> int:
        """Return the head's number."""
        return int(await self.rpc("eth_blockNumber"), 16)

    async def reorg(self, depth: int, moved: list[tuple[str, int]] | None = None) -> None:
        """Replace the newest `depth` blocks; `moved`: calls and the new block (0..) they are in."""
        pairs = [[self.transaction(call), at] for call, at in moved or []]
        await self.rpc("anvil_reorg", depth, pairs)

    async def shrink(self, blocks: int) -> None:
        """Take the newest blocks away."""
        await self.rpc("anvil_rollback", blocks)


@dataclass(frozen=True)
class Book:
    """Tables in a schema of their own, filled by the ledger's events."""

    schema: str

    @property
    def derived(self) -> tuple[Table, ...]:
        """The tables that are undone."""
        metadata = MetaData(schema=self.schema)
        return tuple(
            Table(name, metadata, Column("key", Numeric(78, 0))) for name in ("entries", "moves")
        )

    async def create(self, database: Database) -> None:
        """Create the tables, with every kind of column an undo has to bring back."""
        s = self.schema
        statements = [
            f"CREATE SCHEMA {s}",
            f"CREATE TYPE {s}.kind AS ENUM ('small', 'large')",
            f"""
            CREATE TABLE {s}.entries (
                key numeric(78, 0) PRIMARY KEY,
                id bigint GENERATED ALWAYS AS IDENTITY,
                amount numeric(78, 0) NOT NULL,
                note text,
                raw bytea NOT NULL,
                amounts numeric(78, 0)[] NOT NULL,
                kind {s}.kind NOT NULL,
                extra jsonb NOT NULL,
                seen timestamptz NOT NULL,
                times integer NOT NULL,
                doubled integer GENERATED ALWAYS AS (times * 2) STORED,
                status text NOT NULL DEFAULT 'new'
            )
            """,
            f"""
            CREATE TABLE {s}.moves (
                block_hash text, log_index integer, key numeric(78, 0) NOT NULL
                REFERENCES {s}.entries ON DELETE CASCADE, amount numeric(78, 0) NOT NULL,
                PRIMARY KEY (block_hash, log_index)
            )
            """,
            *attach_undo(f"{s}.entries"),
            *attach_undo(f"{s}.moves"),
        ]
        async with database.transaction() as session:
            for statement in statements:
                await session.execute(text(statement.replace(":", "\\:")))

    def source(
        self,
        name: str,
        address: str,
        start_block: int,
        on_undone: OnUndone | None = None,
    ) -> Source:
        """Return the source that fills the tables."""
        return Source(
            name=name,
            chain="ledger",
            abi=LEDGER,
            addresses=(address,),
            start_block=start_block,
            handlers={"Put": self.put, "Drop": self.drop},
            derived=self.derived,
            on_undone=on_undone,
        )

    async def put(self, session: AsyncSession, fact: Fact) -> None:
        """Insert the entry or change it, and note the move."""
        amount = int(fact.args["amount"])
        values = {
            "key": int(fact.args["key"]),
            "amount": amount,
            "note": fact.args["note"] or None,
            "raw": amount.to_bytes(32, "big"),
            "kind": "large" if amount > 2**128 else "small",
            "extra": "null"
            if amount % 3 == 0
            else f'{{"amount": "{amount}", "deep": [null, 1.5]}}',
            "seen": fact.block.timestamp,
            "hash": fact.log.block_hash,
            "index": fact.log.log_index,
        }
        await session.execute(
            text(
                f"""
                INSERT INTO {self.schema}.entries AS e
                    (key, amount, note, raw, amounts, kind, extra, seen, times)
                VALUES (:key, :amount, :note, :raw, ARRAY[CAST(:amount AS numeric)],
                    CAST(:kind AS {self.schema}.kind), CAST(:extra AS jsonb), :seen, 1)
                ON CONFLICT (key) DO UPDATE SET amount = excluded.amount, note = excluded.note,
                    raw = excluded.raw, amounts = e.amounts || excluded.amounts,
                    kind = excluded.kind, extra = excluded.extra, seen = excluded.seen,
                    times = e.times + 1
                """
            ),
            values,
        )
        await session.execute(
            text(f"INSERT INTO {self.schema}.moves VALUES (:hash, :index, :key, :amount)"), values
        )

    async def drop(self, session: AsyncSession, fact: Fact) -> None:
        """Delete the entry and, through the foreign key, its moves."""
        await session.execute(
            text(f"DELETE FROM {self.schema}.entries WHERE key = :key"),
            {"key": int(fact.args["key"])},
        )

    async def rows(self, database: Database) -> list[tuple[Any, ...]]:
        """Return everything in the tables but what the database numbers by itself."""
        async with database.transaction() as session:
            entries = await session.execute(
                text(
                    "SELECT key, amount, note, raw, amounts, CAST(kind AS text), "
                    "CAST(extra AS text), seen, times, doubled, status "
                    f"FROM {self.schema}.entries ORDER BY key"
                )
            )
            moves = await session.execute(
                text(f"SELECT * FROM {self.schema}.moves ORDER BY key, block_hash, log_index")
            )
            return [tuple(row) for row in (*entries, *moves)]


async def transfer(anvil: AnvilNode, nonce: int = 0, **fields: object) -> SignedTransaction:
    """Return a signed transfer of one wei from the node's first account."""
    transaction: dict[str, object] = {
        "type": 2,
        "chainId": anvil.chain_id,
        "nonce": nonce,
        "to": "0x" + "11" * 20,
        "value": 1,
        "data": b"",
        "gas": 21_000,
        "maxFeePerGas": 3 * 10**9,
        "maxPriorityFeePerGas": 10**9,
    }
    signer = LocalSigner.from_private_key(anvil.accounts[0].private_key)
    return await signer.sign(transaction | fields)


def chain_at(url: str, chain_id: int, *more: str) -> EvmChain:
    """Return the chain read through these endpoints; the caller closes it."""
    endpoints = [Endpoint(SecretUrl(one), f"node{n}") for n, one in enumerate((url, *more))]
    return EvmChain("ledger", chain_id, ProviderPool(endpoints, timeout_s=5))


async def settle(one: Indexer) -> None:
    """Step until there is nothing left to do, neither forward nor back."""
    quiet = 0
    while quiet < 4:
        progress = await one.step()
        quiet = 0 if progress.behind or progress.undone or progress.facts else quiet + 1


async def assert_as_fresh(
    database: Database, chain: LogChain, book: Book, address: str, start_block: int = 1
) -> None:
    """The rows are those of an index that has seen only the chain as it is now."""
    fresh = replace(book, schema="fresh")
    await fresh.create(database)
    source = fresh.source("fresh", address, start_block)
    await settle(Indexer(database, chain, source, patience_s=0.0))
    assert await book.rows(database) == await fresh.rows(database)
    async with database.transaction() as session:
        await session.execute(text("DROP SCHEMA fresh CASCADE"))
        for table in ("checkpoints", "blocks", "undo_log"):
            await session.execute(text(f"DELETE FROM causeway.{table} WHERE source = 'fresh'"))
