"""The usual way: web3.py reads and decodes the logs, SQLAlchemy writes them down.

    python bench/web3py.py RPC_URL DATABASE_URL LAST_BLOCK

Runs in an environment of its own (bench/requirements.lock) and prints JSON.
"""

from __future__ import annotations

import json
import sys
import time

from sqlalchemy import (
    BigInteger,
    Column,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    Table,
    create_engine,
    insert,
    text,
)
from web3 import Web3

TOKEN = "0x" + "70" * 20
ABI = [
    {
        "type": "event",
        "name": "Transfer",
        "anonymous": False,
        "inputs": [
            {"name": "from", "type": "address", "indexed": True},
            {"name": "to", "type": "address", "indexed": True},
            {"name": "value", "type": "uint256", "indexed": False},
        ],
    }
]
metadata = MetaData("web3py")
transfers = Table(
    "transfers",
    metadata,
    Column("block_number", BigInteger, primary_key=True, autoincrement=False),
    Column("log_index", Integer, primary_key=True, autoincrement=False),
    Column("block_time", BigInteger, nullable=False),
    Column("transaction_hash", LargeBinary, nullable=False),
    Column("sender", LargeBinary, nullable=False),
    Column("receiver", LargeBinary, nullable=False),
    Column("value", Numeric(78, 0), nullable=False),
)


def main() -> None:
    """Index up to the last block, 100 blocks at a time, each in one transaction."""
    url, database, last = sys.argv[1], sys.argv[2], int(sys.argv[3])
    engine = create_engine(database)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA IF EXISTS web3py CASCADE"))
        connection.execute(text("CREATE SCHEMA web3py"))
        metadata.create_all(connection)
    w3 = Web3(Web3.HTTPProvider(url, request_kwargs={"timeout": 60}))
    contract = w3.eth.contract(address=Web3.to_checksum_address(TOKEN), abi=ABI)
    topic = Web3.to_hex(Web3.keccak(text="Transfer(address,address,uint256)"))
    started = time.perf_counter()
    for first in range(1, last + 1, 100):
        until = min(first + 99, last)
        logs = w3.eth.get_logs(
            {"fromBlock": first, "toBlock": until, "address": contract.address, "topics": [topic]}
        )
        times: dict[int, int] = {}
        rows: list[dict[str, object]] = []
        for log in logs:
            event = contract.events.Transfer().process_log(log)
            number = event["blockNumber"]
            if number not in times:
                times[number] = w3.eth.get_block(number).get("timestamp", 0)
            args = event["args"]
            rows.append(
                {
                    "block_number": number,
                    "log_index": event["logIndex"],
                    "block_time": times[number],
                    "transaction_hash": bytes(event["transactionHash"]),
                    "sender": bytes.fromhex(args["from"][2:]),
                    "receiver": bytes.fromhex(args["to"][2:]),
                    "value": args["value"],
                }
            )
        with engine.begin() as connection:
            if rows:
                connection.execute(insert(transfers), rows)
    seconds = time.perf_counter() - started
    with engine.begin() as connection:
        count, total = connection.execute(
            text("SELECT count(*), sum(value) FROM web3py.transfers")
        ).one()
    print(json.dumps({"seconds": seconds, "rows": count, "total": str(total)}))


if __name__ == "__main__":
    main()
