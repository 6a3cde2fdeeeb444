"""Signatures of wallets verified on one core, beside eth-account's recover on the same ones."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

from eth_account import Account
from eth_account.messages import encode_defunct, encode_typed_data
from eth_utils.crypto import keccak

from causeway.auth import ecdsa
from causeway.auth.eip712 import Domain, TypedData
from causeway.auth.wallet import Verdict, verify

COUNT = 2_000
ROUNDS = 5
REQUIRED_PER_S = 5_000

LINK = TypedData(
    Domain(name="Motify", version="1", chain_id=8453, verifying_contract="0x" + "11" * 20),
    "Link",
    {"Link": [("wallet", "address"), ("provider", "string"), ("timestamp", "uint256")]},
)


async def run() -> dict[str, Any]:
    """Take everything in turns, so that whatever else the machine does falls on all."""
    signers = [Account.from_key(keccak(text=f"signer {number}")) for number in range(50)]
    who = [signers[number % len(signers)] for number in range(COUNT)]
    texts = [
        f"Connect OAuth provider github to wallet {one.address.lower()} at {1_700_000_000 + number}"
        for number, one in enumerate(who)
    ]
    messages: list[dict[str, Any]] = [
        {"wallet": one.address, "provider": "github", "timestamp": 1_700_000_000 + number}
        for number, one in enumerate(who)
    ]
    signed = [
        "0x" + bytes(one.sign_message(encode_defunct(text=text)).signature).hex()
        for one, text in zip(who, texts, strict=True)
    ]
    typed = [
        "0x" + bytes(one.sign_typed_data(full_message=LINK.payload(message)).signature).hex()
        for one, message in zip(who, messages, strict=True)
    ]
    addresses = [one.address for one in who]

    async def ours() -> None:
        for address, text, signature in zip(addresses, texts, signed, strict=True):
            assert await verify(None, address, text, signature) is Verdict.VALID

    async def theirs() -> None:
        for address, text, signature in zip(addresses, texts, signed, strict=True):
            assert (
                Account.recover_message(encode_defunct(text=text), signature=signature) == address
            )

    async def ours_typed() -> None:
        for address, message, signature in zip(addresses, messages, typed, strict=True):
            assert await verify(None, address, LINK.digest(message), signature) is Verdict.VALID

    payloads = [LINK.payload(message) for message in messages]

    async def theirs_typed() -> None:
        for address, payload, signature in zip(addresses, payloads, typed, strict=True):
            signable = encode_typed_data(full_message=payload)
            assert Account.recover_message(signable, signature=signature) == address

    async def strangers() -> None:
        for address, text, signature in zip(addresses[1:], texts, signed, strict=False):
            assert await verify(None, address, text, signature) is Verdict.UNKNOWN

    rates = await _in_turns(
        {
            "plain": ours,
            "eth_account_plain": theirs,
            "typed": ours_typed,
            "eth_account_typed": theirs_typed,
            "somebody_elses": strangers,
        }
    )
    portable = _portable_rate()
    return {
        "per_s": rates["plain"],
        "required_per_s": REQUIRED_PER_S,
        "met": rates["plain"] >= REQUIRED_PER_S,
        "eth_account_per_s": rates["eth_account_plain"],
        "ratio_to_eth_account": rates["plain"] / rates["eth_account_plain"],
        "typed_per_s": rates["typed"],
        "eth_account_typed_per_s": rates["eth_account_typed"],
        "somebody_elses_per_s": rates["somebody_elses"],
        "libsecp256k1": ecdsa.recover_key is not ecdsa.portable,
        "keys_in_python_per_s": portable,
        "signatures": COUNT,
        "rounds": ROUNDS,
    }


async def _in_turns(work: dict[str, Callable[[], Awaitable[None]]]) -> dict[str, float]:
    """Return how often a second of processor time each is done, the median of the rounds."""
    taken: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(ROUNDS):
        for name, one in work.items():
            started = time.process_time()
            await one()
            taken[name].append(time.process_time() - started)
    return {name: COUNT / statistics.median(seconds) for name, seconds in taken.items()}


def _portable_rate(count: int = 50) -> float:
    """Return the same of recovering a key where libsecp256k1 has no wheel."""
    account = Account.from_key(keccak(text="portable"))
    digests = [keccak(text=str(number)) for number in range(count)]
    signed = [bytes(account.unsafe_sign_hash(digest).signature) for digest in digests]
    started = time.process_time()
    for digest, signature in zip(digests, signed, strict=True):
        assert ecdsa.portable(digest, signature[:64], signature[64] - 27) is not None
    return count / (time.process_time() - started)
