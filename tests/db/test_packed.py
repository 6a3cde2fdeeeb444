"""Rows laid out at once are the rows that are encoded one by one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from eth_abi.abi import encode
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    String,
    Table,
    Text,
    select,
    text,
)
from sqlalchemy.schema import CreateSchema, CreateTable

from causeway.chains.evm.abi import Abi
from causeway.chains.evm.wire import WireLog
from causeway.chains.evm.words import WordDecoder
from causeway.chains.protocol import Block
from causeway.indexing.source import EventTable
from causeway.indexing.tables import TableWriter
from causeway.store.copy import encode_rows
from causeway.store.engine import Database

KINDS: list[tuple[str, Any, list[Any]]] = [
    ("address", LargeBinary, ["0x" + "ab" * 20, "0x" + "00" * 20]),
    ("address", Text, ["0x" + "AB" * 20, "0x" + "0f" * 20]),
    ("uint256", Numeric(78, 0), [0, 1, 9_999, 10_000, 10**16 - 1, 10**16, 10**18, 10**34]),
    ("uint256", Numeric(78, 0), [0, 2**256 - 1]),  # too large for one width
    ("int256", Numeric(78, 0), [0, 5 * 10**20]),
    ("int256", Numeric(78, 0), [-1, -(2**255), 2**255 - 1]),
    ("uint64", BigInteger, [0, 2**63 - 1]),
    ("int64", BigInteger, [-(2**63), 2**63 - 1, 0, -1]),
    ("uint32", Integer, [0, 2**31 - 1]),
    ("int8", SmallInteger, [-128, 127]),
    ("bool", Boolean, [True, False]),
    ("bytes4", LargeBinary, [b"abcd", bytes(4)]),
    ("bytes32", String, [b"x" * 32, bytes(32)]),
    ("string", Text, ["", "ünïcode", "x" * 300]),  # no width at all
]


@pytest.mark.parametrize(("kind", "column", "values"), KINDS, ids=lambda one: str(one)[:24])
async def test_a_table_is_filled_alike_on_both_ways(
    database: Database, kind: str, column: Any, values: list[Any]
) -> None:
    metadata = MetaData("packed")

    def table(name: str) -> Table:
        return Table(
            name,
            metadata,
            Column("block_number", BigInteger, primary_key=True),
            Column("log_index", Integer, primary_key=True),
            Column("hash", LargeBinary, nullable=False),
            Column("value", column, nullable=False),
        )

    abi = Abi.from_json(
        [{"type": "event", "name": "E", "inputs": [{"name": "value", "type": kind}]}]
    )
    event = abi.event("E")
    logs = [
        WireLog(
            "0x" + "11" * 20,
            (event.topic0,),
            "0x" + encode([kind], [value]).hex(),
            "0x7",
            "0x" + "22" * 32,
            "0x" + "33" * 32,
            "0x0",
            hex(at),
        )
        for at, value in enumerate(values)
    ]
    block = Block(7, "0x" + "22" * 32, "0x" + "21" * 32, datetime.fromtimestamp(7, UTC))
    columns = {
        "block_number": "@block_number",
        "log_index": "@log_index",
        "hash": "@transaction_hash",
        "value": "value",
    }
    found: list[list[Any]] = []
    async with database.transaction() as session:
        await session.execute(text("DROP SCHEMA IF EXISTS packed CASCADE"))
        await session.execute(CreateSchema("packed"))
        for name in ("at_once", "one_by_one"):
            made = table(name)
            await session.execute(CreateTable(made))
            writer = TableWriter(EventTable(made, columns), WordDecoder(event))
            if name == "at_once":
                rows, count = writer.rows(1, logs, [block] * len(logs), strict=True)
                assert count == len(values)
            else:
                each = writer.columns(1, logs, [block] * len(logs), strict=True)
                rows = list(encode_rows(made, list(columns), each))
            await writer.write(session, rows)
            kept = await session.execute(select(made).order_by(made.c.log_index))
            found.append([tuple(row) for row in kept])
        await session.execute(text("DROP SCHEMA packed CASCADE"))
    assert found[0] == found[1]
    assert [row[0] for row in found[0]] == [7] * len(values)
    if kind.startswith(("uint", "int")):
        assert [int(row[3]) for row in found[0]] == values
