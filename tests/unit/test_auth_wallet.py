"""Signatures of keys, with nobody to ask."""

from __future__ import annotations

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct
from hypothesis import given, settings
from hypothesis import strategies as st

from causeway.auth.ecdsa import portable, recover_address, recover_key
from causeway.auth.wallet import Verdict, personal_digest, recover, verify
from causeway.base.errors import ProviderUnavailable

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141

# The example of eth-account's own documentation.
TEXT = "Some data"
DIGEST = "1da44b586eb0729ff70a73c326926f6ed5a25f5b056e7f47fbc6e58d86871655"
SIGNER = "0x2c7536E3605D9C16a7a3D7b1898e529396a65c23"
R = "b91467e570a6466aa9e9876cbcd013baba02900b8979d43fe208a4a4f339f5fd"
S = "6007e74cd82e037b800186422fc2da167c747ef045e5d18a5f5d4300f8e1a029"
SIGNATURE = "0x" + R + S + "1c"

# EIP-2098's two examples: text, r, yParityAndS, and the address of its key.
COMPACT_KEY = "0x1234567890123456789012345678901234567890123456789012345678901234"
COMPACT = [
    (
        "Hello World",
        "68a020a209d3d56c46f38cc50a33f704f4a9a10a59377f8dd762ac66910e9b90",
        "7e865ad05c4035ab5792787d4a0297a43617ae897930a6fe4d822b8faea52064",
    ),
    (
        "It's a small(er) world",
        "9328da16089fcba9bececa81663203989f2df5fe1faa6291a45381c81bd17f76",
        "939c6d6b623b42da56557e5e734a43dc83345ddfadec52cbe24d0cc64f550793",
    ),
]


class Nobody:
    """A chain that must not be asked, or that cannot be."""

    def __init__(self) -> None:
        self.asked = 0

    async def call(self, to: str | None, data: bytes) -> bytes:
        self.asked += 1
        raise ProviderUnavailable


def test_the_digest_is_that_of_personal_sign() -> None:
    assert personal_digest(TEXT).hex() == DIGEST
    assert personal_digest("é€😀\n") == personal_digest("é€😀\n")
    assert personal_digest("é") != personal_digest("e")


async def test_a_key_is_verified_without_asking_anybody() -> None:
    chain = Nobody()
    assert await verify(chain, SIGNER, TEXT, SIGNATURE) is Verdict.VALID
    assert await verify(chain, SIGNER.lower(), TEXT, SIGNATURE.upper()) is Verdict.VALID
    assert await verify(chain, SIGNER, bytes.fromhex(DIGEST), SIGNATURE) is Verdict.VALID
    assert await verify(chain, SIGNER, TEXT, bytes.fromhex(SIGNATURE[2:])) is Verdict.VALID
    assert await verify(chain, SIGNER, TEXT, "0x" + R + S + "01") is Verdict.VALID
    assert await verify(None, SIGNER, TEXT, SIGNATURE) is Verdict.VALID
    assert chain.asked == 0


@pytest.mark.parametrize(("text", "r", "s"), COMPACT)
async def test_a_compact_signature_is_verified(text: str, r: str, s: str) -> None:
    address = Account.from_key(COMPACT_KEY).address
    assert await verify(None, address, text, "0x" + r + s) is Verdict.VALID
    assert await verify(None, address, text + " ", "0x" + r + s) is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("address", "text", "signature"),
    [
        (SIGNER, "Some dat", SIGNATURE),
        (SIGNER, "Some data ", SIGNATURE),
        (SIGNER, "Some data", "0x" + R + S + "1b"),
        (SIGNER, "Some data", "0x" + R + S + "1d"),
        (SIGNER, "Some data", "0x" + R + S + "25"),  # EIP-155 is for transactions
        (SIGNER, "Some data", "0x" + R + f"{ORDER - int(S, 16):064x}" + "1b"),  # the twin
        (SIGNER, "Some data", "0x" + "00" * 32 + S + "1c"),
        (SIGNER, "Some data", "0x" + R + "00" * 32 + "1c"),
        (SIGNER, "Some data", "0x" + f"{ORDER:064x}" + S + "1c"),
        (SIGNER, "Some data", "0x" + "00" * 65),
        (SIGNER, "Some data", "0x"),
        ("0x" + "00" * 20, "Some data", SIGNATURE),
        ("0x" + "00" * 20, "Some data", "0x" + "00" * 65),
        (COMPACT_KEY[:42], "Some data", SIGNATURE),
    ],
)
async def test_what_no_key_signed_may_be_a_contracts_and_cannot_be_told_alone(
    address: str, text: str, signature: str
) -> None:
    chain = Nobody()
    assert await verify(chain, address, text, signature) is Verdict.UNKNOWN
    assert chain.asked == 1


@pytest.mark.parametrize(
    "signature",
    [
        "",
        SIGNATURE[2:],
        SIGNATURE[:-1],
        SIGNATURE + "zz",
        SIGNATURE[:10] + "  " + SIGNATURE[10:],
        "0x" + "00" * 20_000,
        b"\0" * 20_000,
        "0x" + "6492" * 16,
        "0x1234" + "6492" * 16,
        "0x" + "ff" * 96 + "6492" * 16,
    ],
)
async def test_what_is_no_signature_at_all_is_invalid_without_asking(
    signature: str | bytes,
) -> None:
    chain = Nobody()
    assert await verify(chain, SIGNER, TEXT, signature) is Verdict.INVALID
    assert chain.asked == 0


async def test_a_text_nobody_can_sign_is_invalid() -> None:
    assert await verify(None, SIGNER, "\ud800", SIGNATURE) is Verdict.INVALID


async def test_an_address_or_digest_that_is_none_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="digest"):
        await verify(None, SIGNER, b"short", SIGNATURE)
    with pytest.raises(ValueError, match="0x12"):
        await verify(None, "0x12", TEXT, SIGNATURE)


@settings(max_examples=25, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.text(max_size=200), st.integers(0, 519))
def test_any_changed_bit_makes_it_another_signers(seed: bytes, text: str, bit: int) -> None:
    try:
        account = Account.from_key(seed)
    except Exception:  # noqa: BLE001 - zero and the few above the order are no keys
        return
    signature = bytes(account.sign_message(encode_defunct(text=text)).signature)
    assert recover(personal_digest(text), signature) == account.address
    changed = (int.from_bytes(signature, "big") ^ 1 << bit).to_bytes(65, "big")
    assert recover(personal_digest(text), changed) != account.address


@settings(max_examples=40, deadline=None)
@given(
    st.binary(min_size=32, max_size=32),
    st.one_of(
        st.binary(min_size=64, max_size=64),
        # small numbers, and r from above the order, which some points do have as x
        st.tuples(st.integers(0, 50), st.integers(0, 50)).map(
            lambda rs: rs[0].to_bytes(32, "big") + rs[1].to_bytes(32, "big")
        ),
        st.integers(ORDER - 5, ORDER + 5).map(lambda r: r.to_bytes(32, "big") + b"\1" * 32),
    ),
    st.integers(0, 1),
)
def test_the_library_and_python_recover_the_same_keys(
    digest: bytes, r_and_s: bytes, parity: int
) -> None:
    pytest.importorskip("coincurve")
    assert recover_key is not portable
    r, s = int.from_bytes(r_and_s[:32], "big"), int.from_bytes(r_and_s[32:], "big")
    if 0 < r < ORDER and 0 < s < ORDER:  # nothing else is ever asked
        assert recover_key(digest, r_and_s, parity) == portable(digest, r_and_s, parity)
    address = recover_address(digest, r_and_s + bytes((27 + parity,)))
    assert address == recover_address(digest, r_and_s + bytes((parity,)))
    if not (0 < r < ORDER and 0 < s <= ORDER // 2):
        assert address is None


def test_an_r_above_the_order_is_nobodys() -> None:
    """With v 29 or 30 the x of the point would be r plus the order: ecrecover knows no such v."""
    digest = bytes.fromhex(DIGEST)
    for r in range(1, 40):
        r_and_s = r.to_bytes(32, "big") + b"\1" * 32
        for v in (2, 3, 29, 30):
            assert recover_address(digest, r_and_s + bytes((v,))) is None
