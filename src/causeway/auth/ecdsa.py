"""Whose key made a signature: public key recovery on secp256k1.

By libsecp256k1 (coincurve) where it has a wheel, asked without the wrapping eth-keys puts around
it; elsewhere by eth-keys, in Python. Both give the same answers.
"""

from __future__ import annotations

from collections.abc import Callable

from eth_keys.backends.native.main import NativeECCBackend
from eth_keys.datatypes import Signature
from eth_keys.exceptions import BadSignature
from eth_utils.exceptions import ValidationError

from causeway.chains.evm.hashing import keccak

#: Of the curve's group.
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141

#: Takes a digest, r and s (64 bytes) and the parity; gives the 64 bytes of the public key.
Recover = Callable[[bytes, bytes, int], bytes | None]


def portable(digest: bytes, r_and_s: bytes, parity: int) -> bytes | None:
    """Recover in Python; a few hundred a second."""
    r, s = int.from_bytes(r_and_s[:32], "big"), int.from_bytes(r_and_s[32:], "big")
    signature = Signature(vrs=(parity, r, s), backend=NativeECCBackend())
    try:
        key = signature.recover_public_key_from_msg_hash(digest)
    except (BadSignature, ValidationError):
        return None  # no point of the curve has that r
    return key.to_bytes()


def _fastest() -> Recover:
    try:
        from coincurve import PublicKey
    except ImportError:
        return portable

    def native(digest: bytes, r_and_s: bytes, parity: int) -> bytes | None:
        try:
            key = PublicKey.from_signature_and_message(
                r_and_s + bytes((parity,)), digest, hasher=None
            )
        except ValueError:
            return None
        return key.format(compressed=False)[1:]

    return native


recover_key: Recover = _fastest()


def recover_address(digest: bytes, signature: bytes) -> bytes | None:
    """Return the 20 bytes of the address whose key signed; None when no key makes that signature.

    `signature` has 65 bytes, v being 0, 1, 27 or 28, or 64 with the parity in the top bit of s
    (EIP-2098). r and s are from 1, r below the order and s not above half of it.
    """
    if len(signature) == 65:
        v = signature[64]
        parity = v - 27 if v >= 27 else v
        r_and_s = signature[:64]
    elif len(signature) == 64:
        parity = signature[32] >> 7
        r_and_s = signature[:32] + bytes((signature[32] & 0x7F,)) + signature[33:]
    else:
        return None
    r, s = int.from_bytes(r_and_s[:32], "big"), int.from_bytes(r_and_s[32:], "big")
    if parity not in (0, 1) or not 0 < r < ORDER or not 0 < s <= ORDER // 2:
        return None
    key = recover_key(digest, r_and_s, parity)
    return None if key is None else keccak(key)[-20:]
