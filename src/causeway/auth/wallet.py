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

import json
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Protocol

import structlog
from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError
from eth_keys.datatypes import Signature
from eth_keys.exceptions import BadSignature
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError

from causeway.base.errors import CausewayError, TransactionReverted

_log = structlog.get_logger(__name__)

#: Longer ones are refused unread. Passkey wallets stay below 4 kB, wrapped ones included.
MAX_SIGNATURE_BYTES = 16_384

_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
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
    signer = to_checksum_address(address)
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
    if not wrapped and recover(digest, raw) == signer:
        return Verdict.VALID
    if chain is None:
        return Verdict.UNKNOWN
    try:
        if wrapped:
            return await _ask_validator(chain, signer, digest, raw)
        return await _ask_contract(chain, signer, digest, raw)
    except CausewayError as error:
        # Down, slow, behind, or an answer that says nothing about the signature.
        _log.warning("signature_not_checkable", signer=signer, error=error)
        return Verdict.UNKNOWN


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
    if len(signature) == 65:
        s, v = int.from_bytes(signature[32:64], "big"), signature[64]
        parity = v - 27 if v >= 27 else v
    elif len(signature) == 64:  # EIP-2098: the parity is the top bit of s
        s = int.from_bytes(signature[32:], "big")
        parity, s = s >> 255, s & (1 << 255) - 1
    else:
        return None
    r = int.from_bytes(signature[:32], "big")
    if parity not in (0, 1) or not 0 < r < _ORDER or not 0 < s <= _ORDER // 2:
        return None
    try:
        key = Signature(vrs=(parity, r, s)).recover_public_key_from_msg_hash(digest)
    except (BadSignature, ValidationError):
        return None  # no point of the curve has that r
    return to_checksum_address(key.to_canonical_address())


async def _ask_contract(
    chain: CallableChain, signer: str, digest: bytes, signature: bytes
) -> Verdict:
    """ERC-1271. An address without code answers nothing, which is no."""
    arguments = encode(["bytes32", "bytes"], [digest, signature])
    try:
        answer = await chain.call(signer, _IS_VALID_SIGNATURE + arguments)
    except TransactionReverted:
        return Verdict.INVALID
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
        return bytes.fromhex(signature[2:])
    except ValueError:
        return None


@cache
def _validator() -> bytes:
    artifact = files("causeway.auth").joinpath("artifacts/SignatureValidator.json").read_text()
    return bytes.fromhex(json.loads(artifact)["bytecode"].removeprefix("0x"))
