"""Signatures of wallets: keys, contract wallets, and contract wallets that do not exist yet.

Standards: EIP-191 `personal_sign` for texts; 65-byte and EIP-2098 64-byte ECDSA signatures;
ERC-1271 for contracts; ERC-6492 for contracts not deployed yet.

The order is cheapest first. A key's signature is recovered here and needs no provider. Only what
does not recover to the address goes to the chain. An address with code whose key signs as well
(EIP-7702) is therefore accepted by its key.

`s` must be in the lower half of the curve's order, as EIP-2 asks of transactions and EIP-2098 of
compact signatures: EIP-191 is silent, every wallet makes such signatures, and so a signature has
no twin. `v` may be 27/28 or 0/1.
"""

from __future__ import annotations

import binascii
import json
import re
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Protocol

import structlog
from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError
from eth_utils.address import to_checksum_address

from causeway.auth.ecdsa import recover_address
from causeway.base.errors import CausewayError, TransactionReverted
from causeway.chains.errors import ExecutionHalted
from causeway.chains.evm.hashing import keccak

_log = structlog.get_logger(__name__)

#: Longer ones are refused unread. Passkey wallets stay below 4 kB, wrapped ones included.
MAX_SIGNATURE_BYTES = 16_384

_ADDRESS = re.compile("0[xX][0-9a-fA-F]{40}")
_IS_VALID_SIGNATURE = bytes.fromhex("1626ba7e")
_WRAPPED = bytes.fromhex("6492" * 16)


class Verdict(StrEnum):
    """What is known about a signature."""

    VALID = "valid"
    INVALID = "invalid"
    #: The chain was needed and did not answer. Never treat it as either of the others.
    UNKNOWN = "unknown"


class CallableChain(Protocol):
    """What is needed of a chain: `causeway.chains.evm.chain.EvmChain` has it."""

    async def call(self, to: str | None, data: bytes) -> bytes:
        """Run a call; without `to`, creation code. Raises `TransactionReverted`."""
        ...


async def verify(
    chain: CallableChain | None,
    address: str,
    message_or_hash: str | bytes,
    signature: str | bytes,
) -> Verdict:
    """Say whether `address` signed.

    `message_or_hash` is the text a person signed (EIP-191) or, as bytes, a 32-byte digest.
    `signature` is bytes or hex with 0x. Without a `chain`, only keys can be verified.

    `UNKNOWN` when the chain had to be asked and could not be. Raises `ValueError` for an address
    or a digest that is none.
    """
    signer = address_bytes(address)
    try:
        digest = _digest(message_or_hash)
    except UnicodeEncodeError:
        return Verdict.INVALID  # half a surrogate pair: no text that anybody can sign
    if len(digest) != 32:
        raise ValueError("a digest has 32 bytes")
    raw = _as_bytes(signature)
    if raw is None or len(raw) > MAX_SIGNATURE_BYTES:
        return Verdict.INVALID
    wrapped = raw.endswith(_WRAPPED)
    if wrapped and not _is_wrapper(raw):
        return Verdict.INVALID
    if not wrapped and recover_address(digest, raw) == signer:
        return Verdict.VALID
    if chain is None:
        return Verdict.UNKNOWN
    wallet = to_checksum_address(signer)
    try:
        if wrapped:
            return await _ask_validator(chain, wallet, digest, raw)
        return await _ask_contract(chain, wallet, digest, raw)
    except (TransactionReverted, ExecutionHalted):
        return Verdict.INVALID  # what it runs into, out of gas included, is the wallet's own affair
    except CausewayError as error:
        # Down, slow, behind, or an answer that says nothing about the signature.
        _log.warning("signature_not_checkable", signer=wallet, error=error)
        return Verdict.UNKNOWN


def address_bytes(address: str) -> bytes:
    """Return the 20 bytes of an address in hex of any case; `ValueError` for anything else."""
    if _ADDRESS.fullmatch(address) is None:
        raise ValueError(f"not an address: {address[:50]!r}")
    return bytes.fromhex(address[2:])


def _digest(message_or_hash: str | bytes) -> bytes:
    if isinstance(message_or_hash, str):
        return personal_digest(message_or_hash)
    return message_or_hash


def personal_digest(message: str) -> bytes:
    """Return the digest that `personal_sign` signs (EIP-191, version 0x45)."""
    text = message.encode()
    return keccak(b"\x19Ethereum Signed Message:\n%d" % len(text) + text)


def recover(digest: bytes, signature: bytes) -> str | None:
    """Return the EIP-55 address whose key made `signature`; None when it is no key's signature."""
    found = recover_address(digest, signature)
    return None if found is None else str(to_checksum_address(found))


async def _ask_contract(
    chain: CallableChain, signer: str, digest: bytes, signature: bytes
) -> Verdict:
    """ERC-1271. An address without code answers nothing, which is no."""
    arguments = encode(["bytes32", "bytes"], [digest, signature])
    answer = await chain.call(signer, _IS_VALID_SIGNATURE + arguments)
    # The whole word: the precompile that echoes its input begins with the four bytes, too.
    accepted = answer[:32] == _IS_VALID_SIGNATURE.ljust(32, b"\0")
    return Verdict.VALID if accepted else Verdict.INVALID


async def _ask_validator(
    chain: CallableChain, signer: str, digest: bytes, signature: bytes
) -> Verdict:
    """ERC-6492, by a call that would deploy the validator; nothing is deployed."""
    arguments = encode(["address", "bytes32", "bytes"], [signer, digest, signature])
    answer = await chain.call(None, _validator() + arguments)
    if answer == b"\x01":
        return Verdict.VALID
    if answer == b"\x00":
        return Verdict.INVALID
    _log.warning("signature_not_checkable", signer=signer, error="no answer from the validator")
    return Verdict.UNKNOWN


def _is_wrapper(signature: bytes) -> bool:
    try:
        decode(["address", "bytes", "bytes"], signature[:-32])
    except (DecodingError, OverflowError, ValueError):
        return False
    return True


def _as_bytes(signature: str | bytes) -> bytes | None:
    if isinstance(signature, bytes):
        return signature
    if not signature.startswith(("0x", "0X")) or len(signature) > 2 * MAX_SIGNATURE_BYTES + 2:
        return None
    try:
        return binascii.unhexlify(signature[2:])  # strict: `fromhex` would skip blanks
    except ValueError:
        return None


@cache
def _validator() -> bytes:
    artifact = files("causeway.auth").joinpath("artifacts/SignatureValidator.json").read_text()
    return bytes.fromhex(json.loads(artifact)["bytecode"].removeprefix("0x"))
