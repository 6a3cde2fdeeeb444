"""Signers whose key never leaves a key service: it signs digests, we make transactions of them.

A service gives a signature in DER, with either of the two values of s and without the parity of
the point. Here s is brought below half the order (EIP-2; nodes refuse the other) and the parity is
found by recovering the public key, which also shows that the service used the key we expect.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

import rlp
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256K1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)
from eth_keys.datatypes import PublicKey, Signature
from eth_keys.exceptions import BadSignature
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from causeway.base.errors import ConfigurationError, InvalidInput, SignatureInvalid
from causeway.chains.evm.signer import SignedTransaction

#: The order of secp256k1.
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141

_FIELDS = (
    "chainId",
    "nonce",
    "maxPriorityFeePerGas",
    "maxFeePerGas",
    "gas",
    "to",
    "value",
    "data",
)


class DigestKey(Protocol):
    """A secp256k1 key in a key service."""

    @property
    def name(self) -> str:
        """What the service calls it; no secret."""
        ...

    async def public_key(self) -> EllipticCurvePublicKey:
        """Return its public half."""
        ...

    async def sign_digest(self, digest: bytes) -> bytes:
        """Sign 32 bytes; return ECDSA-Sig-Value in DER.

        A `TransientError` says that it may be tried again: a lost answer has sent nothing.
        """
        ...


class RemoteSigner:
    """Signs transactions of EIP-1559 with a key in a key service."""

    def __init__(self, key: DigestKey, address: str) -> None:
        """`address` is what the key must turn out to have; see `open`."""
        self._key = key
        self._address = str(to_checksum_address(address))
        self._public: PublicKey | None = None

    @classmethod
    async def open(cls, key: DigestKey, address: str | None = None) -> RemoteSigner:
        """Return the signer of a key; it is only asked for its address when none is given.

        With an address the service need not answer yet; the first signature shows that it is right.
        """
        if address is not None:
            return cls(key, address)
        public = public_key_of(await key.public_key(), key.name)
        signer = cls(key, public.to_checksum_address())
        signer._public = public
        return signer

    @property
    def address(self) -> str:
        """The account's address, checksummed (EIP-55)."""
        return self._address

    async def sign(self, tx: Mapping[str, object]) -> SignedTransaction:
        """Sign the fields of a transaction (see `Signer.sign`).

        Raises `ConfigurationError` when the key has another address than was said, and
        `SignatureInvalid` when the service signed with another key, or something else.
        """
        unsigned = _payload(tx)
        digest = keccak(_envelope(unsigned))
        public = await self._checked()
        r, s, parity = normalised(await self._key.sign_digest(digest), digest, public)
        raw = _envelope([*unsigned, parity, r, s])
        return SignedTransaction(raw, "0x" + keccak(raw).hex())

    async def _checked(self) -> PublicKey:
        if self._public is None:
            public = public_key_of(await self._key.public_key(), self._key.name)
            found = public.to_checksum_address()
            if found != self._address:
                raise ConfigurationError(
                    f"{self._key.name} is the key of {found}, not of {self._address}",
                    hint="check the key's name, and the address that is set for it",
                )
            self._public = public
        return self._public

    def __repr__(self) -> str:
        return f"RemoteSigner({self._key.name}, {self._address})"


def normalised(der: bytes, digest: bytes, public: PublicKey) -> tuple[int, int, int]:
    """Return r, the lower s, and the parity under which the signature gives back the public key.

    Raises `SignatureInvalid` when it is no signature of that digest by that key.
    """
    try:
        r, s = decode_dss_signature(der)
    except ValueError:
        raise SignatureInvalid("the key service's answer is no DER signature") from None
    if not (0 < r < ORDER and 0 < s < ORDER):
        raise SignatureInvalid("the key service's signature is outside the curve's order")
    s = min(s, ORDER - s)
    for parity in (0, 1):
        try:
            found = Signature(vrs=(parity, r, s)).recover_public_key_from_msg_hash(digest)
        except BadSignature:
            continue
        if found == public:
            return r, s, parity
    raise SignatureInvalid("the key service signed with another key, or signed something else")


def public_key_of(key: EllipticCurvePublicKey, name: str) -> PublicKey:
    """Return a public key as Ethereum writes it; `ConfigurationError` for another curve."""
    if not isinstance(key.curve, SECP256K1):
        raise ConfigurationError(
            f"{name} is a key on {key.curve.name}, not on secp256k1",
            hint="make one of ECC_SECG_P256K1 (AWS) or EC_SIGN_SECP256K1_SHA256 (GCP)",
        )
    point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return PublicKey(point[1:])


def read_public_key(content: bytes, name: str) -> EllipticCurvePublicKey:
    """Return the public key in a SubjectPublicKeyInfo, as PEM or DER."""
    load = load_pem_public_key if content.lstrip().startswith(b"-----") else load_der_public_key
    try:
        key = load(content)
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(f"{name}: what came is no public key that is known here") from None
    if not isinstance(key, EllipticCurvePublicKey):
        raise ConfigurationError(f"{name} is no elliptic curve key")
    return key


def _envelope(values: list[object]) -> bytes:
    return b"\x02" + bytes(cast("Any", rlp).encode(values))  # it has no types


def _payload(tx: Mapping[str, object]) -> list[object]:
    if tx.get("type", 2) != 2:
        raise InvalidInput(f"transactions of type {tx['type']!r} are not signed here, only 2")
    missing = [name for name in _FIELDS if name not in tx]
    if missing:
        raise InvalidInput(f"the transaction lacks {', '.join(missing)}")
    to = str(tx["to"])
    values: dict[str, object] = dict(tx)
    values["to"] = bytes.fromhex(to.removeprefix("0x"))
    if isinstance(tx["data"], str):
        values["data"] = bytes.fromhex(tx["data"].removeprefix("0x"))
    return [*(values[name] for name in _FIELDS), []]
