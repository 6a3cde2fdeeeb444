"""Whole blocks for M-OBS's tests, as a node would give them."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from causeway.apps.mobs import models
from causeway.apps.mobs.scanner import Scanner
from causeway.apps.mobs.settings import MobsSettings
from causeway.apps.mobs.watched import Watched
from causeway.chains.evm.blocks import FullBlock, Header, Receipt
from causeway.chains.protocol import Block
from causeway.indexing.source import Undone
from causeway.store import migrate
from causeway.store.engine import Database
from tests.postgres_fixtures import migration_lines

#: 12:00:00 of a day long after Mantle's Arsia upgrade.
NOON = 1_790_000_000 - 1_790_000_000 % 86_400 + 43_200

SYSTEM = "0xdeaddeaddeaddeaddeaddeaddeaddeaddead0001"
L1_BLOCK = "0x4200000000000000000000000000000000000015"


def digest(*parts: object) -> str:
    """Return a hash that depends on these."""
    return "0x" + hashlib.sha256(repr(parts).encode()).hexdigest()


def address(number: int) -> str:
    """Return the address of somebody."""
    return "0x" + hashlib.sha256(f"address {number}".encode()).hexdigest()[:40]


@dataclass(frozen=True)
class Sent:
    """A transaction, in few words."""

    sender: int = 1
    to: int | None = 2
    status: int = 1
    gas_used: int = 21_000
    price: int = 20_000_000
    nonce: int = 0
    data: str = "0x"
    #: Besu's `revertReason`.
    reason: str | None = None
    deposit: bool = False
    system: bool = False
    extra: tuple[tuple[str, Any], ...] = ()

    @property
    def hash(self) -> str:
        """Its hash, the same in every block."""
        return digest("tx", self)


def block(number: int, at: int, sent: Sequence[Sent] = (), branch: object = 0) -> FullBlock:
    """Return a block of time `at` (Unix seconds); `branch` makes another of the same number."""
    hashed = digest("block", number, branch)
    transactions: list[dict[str, Any]] = []
    receipts: list[dict[str, Any]] = []
    gas = 0
    for index, one in enumerate(sent):
        gas += one.gas_used
        kind = "0x7e" if one.deposit or one.system else "0x2"
        transactions.append(
            {
                "hash": one.hash,
                "type": kind,
                "from": SYSTEM if one.system else address(one.sender),
                "to": L1_BLOCK if one.system else one.to and address(one.to),
                "value": "0xde0b6b3a7640000",
                "gas": hex(one.gas_used * 2),
                "input": one.data,
                "nonce": hex(one.nonce),
                "gasPrice": hex(one.price),
                "transactionIndex": hex(index),
            }
        )
        receipts.append(
            {
                "transactionHash": one.hash,
                "transactionIndex": hex(index),
                "blockHash": hashed,
                "blockNumber": hex(number),
                "gasUsed": hex(one.gas_used),
                "cumulativeGasUsed": hex(gas),
                "effectiveGasPrice": hex(one.price),
                "status": hex(one.status),
                "logs": [],
                "contractAddress": None if one.to else address(10_000 + one.nonce),
                "revertReason": one.reason,
                **dict(one.extra),
            }
        )
    header = {
        "number": hex(number),
        "hash": hashed,
        "parentHash": digest("block", number - 1, branch),
        "timestamp": hex(at),
        "gasUsed": hex(gas),
        "gasLimit": hex(30_000_000),
        "baseFeePerGas": hex(1000),
        "size": hex(500),
        "transactions": transactions,
    }
    return FullBlock(
        msgspec.convert(header, Header), tuple(msgspec.convert(receipts, list[Receipt]))
    )


def place(full: FullBlock) -> Block:
    """Return the block's place."""
    return full.block


def undone_to(fork: FullBlock, head: FullBlock) -> Undone:
    """Return the news that everything above `fork` is gone."""
    return Undone("mobs", fork.block.number + 1, head.block.number, 0, place(fork), place(head))


def genesis() -> Block:
    """Return the block before all."""
    return Block(-1, "0x" + "00" * 32, "0x" + "00" * 32, datetime.fromtimestamp(0, UTC))


def settings(**changed: Any) -> MobsSettings:
    """Return settings that nothing around the test changes."""
    return MobsSettings.model_construct(**{**MobsSettings().model_dump(), **changed})


@asynccontextmanager
async def scanner(database: Database, **changed: Any) -> AsyncGenerator[Scanner]:
    """Give a scanner on a database that has M-OBS's tables."""
    lines = [line for line in migration_lines() if line.name != "mobs"]
    folder = str(Path(models.__file__).parent / "migrations")
    lines.append(migrate.MigrationLine("mobs", "mobs", models.metadata, folder))
    await migrate.upgrade(database, lines)
    yield Scanner(settings(**changed), Watched())
