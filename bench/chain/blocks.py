"""The recorded chain: made from a seed, the same every time, with true hashes and blooms in order.

Each block has ERC-20 transfers between a few thousand accounts and some logs of another contract
with dynamic arguments. Block hashes are made up but linked; blooms are those of the logs.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from functools import cache, lru_cache

from eth_abi.abi import encode
from eth_utils.crypto import keccak

from causeway.chains.evm.bloom import bloom_bits

CHAIN_ID = 9_400_417
TOKEN = "0x" + "70" * 20
MIXED = "0x" + "d1" * 20
ACCOUNTS = 4_000
TRANSFERS = 100
TRANSFERS_A_TRANSACTION = 5
MIXED_LOGS = 10
GENESIS_TIME = 1_760_000_000

TRANSFER_ABI = {
    "type": "event",
    "name": "Transfer",
    "inputs": [
        {"name": "from", "type": "address", "indexed": True},
        {"name": "to", "type": "address", "indexed": True},
        {"name": "value", "type": "uint256"},
    ],
}
NOTED_ABI = {
    "type": "event",
    "name": "Noted",
    "inputs": [
        {"name": "who", "type": "address", "indexed": True},
        {"name": "note", "type": "string"},
        {"name": "parts", "type": "uint256[]"},
        {
            "name": "place",
            "type": "tuple",
            "components": [{"name": "x", "type": "int64"}, {"name": "tag", "type": "bytes"}],
        },
    ],
}
TRANSFER = "0x" + keccak(text="Transfer(address,address,uint256)").hex()
NOTED = "0x" + keccak(text="Noted(address,string,uint256[],(int64,bytes))").hex()


@cache
def account(number: int) -> str:
    """Return an account's address."""
    return "0x" + keccak(text=f"account {number}")[12:].hex()


@lru_cache(maxsize=100_000)
def _bits(item: str) -> int:
    return bloom_bits(bytes.fromhex(item[2:]))


@dataclass(frozen=True, slots=True)
class Recorded:
    """A block as the node sends it: pieces of JSON, ready to be joined."""

    number: int
    hash: str
    header: bytes
    full: bytes
    #: Comma-separated logs of the token, and of the other contract.
    token_logs: bytes
    mixed_logs: bytes
    #: Sum of the transferred values.
    total: int


def make_block(number: int, fork: int, parent_hash: str) -> Recorded:
    """Return block `number` of a branch."""
    chance = random.Random(f"{number}/{fork}")
    block_hash = "0x" + keccak(text=f"block {number} of {fork} on {parent_hash}").hex()
    when = hex(GENESIS_TIME + 2 * number)
    bloom = 0
    token_logs: list[str] = []
    mixed_logs: list[str] = []
    transactions: list[dict[str, object]] = []
    total = index = 0
    count = (TRANSFERS // TRANSFERS_A_TRANSACTION if number else 0) + 1
    for at in range(count):
        tx_hash = "0x" + keccak(text=f"tx {number}/{fork}/{at}").hex()
        logs: list[tuple[str, list[str], str]] = []
        if at < count - 1:
            for _ in range(TRANSFERS_A_TRANSACTION):
                sender, receiver = (account(chance.randrange(ACCOUNTS)) for _ in range(2))
                value = chance.randrange(10 ** chance.randrange(1, 24))
                total += value
                topics = [TRANSFER, "0x" + sender[2:].zfill(64), "0x" + receiver[2:].zfill(64)]
                logs.append((TOKEN, topics, f"0x{value:064x}"))
        elif number:
            for n in range(MIXED_LOGS):
                data = encode(
                    ["string", "uint256[]", "(int64,bytes)"],
                    [
                        f"note {number}/{n} " + "é" * chance.randrange(30),
                        [chance.randrange(2**200) for _ in range(chance.randrange(5))],
                        (chance.randrange(-(2**60), 2**60), chance.randbytes(chance.randrange(60))),
                    ],
                )
                who = account(chance.randrange(ACCOUNTS))
                logs.append((MIXED, [NOTED, "0x" + who[2:].zfill(64)], "0x" + data.hex()))
        for address, topics, data_hex in logs:
            for item in (address, *topics):
                bloom |= _bits(item)
            one = json.dumps(
                {
                    "address": address,
                    "topics": topics,
                    "data": data_hex,
                    "blockHash": block_hash,
                    "blockNumber": hex(number),
                    "blockTimestamp": when,
                    "transactionHash": tx_hash,
                    "transactionIndex": hex(at),
                    "logIndex": hex(index),
                    "removed": False,
                },
                separators=(",", ":"),
            )
            index += 1
            (token_logs if address == TOKEN else mixed_logs).append(one)
        transactions.append(
            {
                "type": "0x2",
                "chainId": hex(CHAIN_ID),
                "nonce": hex(number),
                "hash": tx_hash,
                "from": account(at),
                "to": TOKEN if at < count - 1 else MIXED,
                "value": "0x0",
                "gas": "0x30d40",
                "gasPrice": "0x3b9aca00",
                "maxFeePerGas": "0x77359400",
                "maxPriorityFeePerGas": "0x1",
                "accessList": [],
                "input": "0x" + "ab" * 100,
                "blockHash": block_hash,
                "blockNumber": hex(number),
                "transactionIndex": hex(at),
                "v": "0x1",
                "yParity": "0x1",
                "r": "0x" + "11" * 32,
                "s": "0x" + "22" * 32,
            }
        )
    header: dict[str, object] = {
        "number": hex(number),
        "hash": block_hash,
        "parentHash": parent_hash,
        "timestamp": when,
        "nonce": "0x" + "0" * 16,
        "sha3Uncles": "0x" + "1d" * 32,
        "logsBloom": f"0x{bloom:0512x}",
        "transactionsRoot": "0x" + "56" * 32,
        "stateRoot": "0x" + "57" * 32,
        "receiptsRoot": "0x" + "58" * 32,
        "miner": "0x" + "00" * 20,
        "difficulty": "0x0",
        "totalDifficulty": "0x0",
        "extraData": "0x",
        "size": "0x5208",
        "gasLimit": "0x1c9c380",
        "gasUsed": hex(50_000 * index),
        "baseFeePerGas": "0x3b9aca00",
        "mixHash": "0x" + "00" * 32,
        "uncles": [],
    }
    hashes = [str(one["hash"]) for one in transactions]
    return Recorded(
        number,
        block_hash,
        json.dumps(header | {"transactions": hashes}, separators=(",", ":")).encode(),
        json.dumps(header | {"transactions": transactions}, separators=(",", ":")).encode(),
        ",".join(token_logs).encode(),
        ",".join(mixed_logs).encode(),
        total,
    )
