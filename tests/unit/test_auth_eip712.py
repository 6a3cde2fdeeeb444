"""Typed data against what the standard and other implementations publish."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from eth_account import Account
from eth_utils.crypto import keccak

from causeway.auth.eip712 import Domain, TypedData
from causeway.auth.wallet import Verdict, recover, verify
from causeway.base.errors import InvalidInput

CONTRACT = "0xCcCCccccCCCCcCCCCCCcCcCccCcCCCcCcccccccC"
ETHER_MAIL = Domain(name="Ether Mail", version="1", chain_id=1, verifying_contract=CONTRACT)
MAIL = TypedData(
    ETHER_MAIL,
    "Mail",
    {
        "Person": [("name", "string"), ("wallet", "address")],
        "Mail": [("from", "Person"), ("to", "Person"), ("contents", "string")],
    },
)
COW = Account.from_key(keccak(text="cow"))
BOB = {"name": "Bob", "wallet": "0xbBbBBBBbbBBBbbbBbbBbbbbBBbBbbbbBbBbbBBbB"}
HELLO: dict[str, Any] = {
    "from": {"name": "Cow", "wallet": "0xCD2a3d9F938E13CD947Ec05AbC7FE734Df8DD826"},
    "to": BOB,
    "contents": "Hello, Bob!",
}
# EIP-712's own example (assets/eip-712/Example.js): the digest and what "cow" signs.
HELLO_DIGEST = "be609aee343fb3c4b28e1df9e632fca64fcfaede20f02e86244efddf30957bd2"
HELLO_SIGNATURE = (
    "0x4355c47d63924e8a72e509b65029052eb6c299d53a04e167c5775fd466751c9d"
    "07299936d304c153f6443dfa05f40ff007d72911b6f72307f996231605b91562"
    "1c"
)


def test_the_standards_example_has_the_standards_digest() -> None:
    assert MAIL.digest(HELLO).hex() == HELLO_DIGEST
    assert recover(MAIL.digest(HELLO), bytes.fromhex(HELLO_SIGNATURE[2:])) == COW.address


async def test_the_standards_signature_is_its_signers() -> None:
    digest = MAIL.digest(HELLO)
    assert await verify(None, COW.address, digest, HELLO_SIGNATURE) is Verdict.VALID
    assert await verify(None, BOB["wallet"], digest, HELLO_SIGNATURE) is Verdict.UNKNOWN


def test_lists_are_encoded_as_in_metamasks_vector() -> None:
    # MetaMask/eth-sig-util, signTypedData V4: the digest and what "cow" signs.
    mail = TypedData(
        ETHER_MAIL,
        "Mail",
        {
            "Person": [("name", "string"), ("wallets", "address[]")],
            "Mail": [("from", "Person"), ("to", "Person[]"), ("contents", "string")],
        },
    )
    message = {
        "from": {
            "name": "Cow",
            "wallets": [
                "0xCD2a3d9F938E13CD947Ec05AbC7FE734Df8DD826",
                "0xDeaDbeefdEAdbeefdEadbEEFdeadbeEFdEaDbeeF",
            ],
        },
        "to": [
            {
                "name": "Bob",
                "wallets": [
                    "0xbBbBBBBbbBBBbbbBbbBbbbbBBbBbbbbBbBbbBBbB",
                    "0xB0BdaBea57B0BDABeA57b0bdABEA57b0BDabEa57",
                    "0xB0B0b0b0b0b0B000000000000000000000000000",
                ],
            }
        ],
        "contents": "Hello, Bob!",
    }
    digest = mail.digest(message)
    assert digest.hex() == "a85c2e2b118698e88db68a8105b794a8cc7cec074e89ef991cb4f5f533819cc2"
    signature = (
        "65cbd956f2fae28a601bebc9b906cea0191744bd4c4247bcd27cd08f8eb6b71c"
        "78efdf7a31dc9abee78f492292721f362d296cf86b4538e07b51303b67f74906"
        "1b"
    )
    assert recover(digest, bytes.fromhex(signature)) == COW.address


def test_any_other_domain_chain_contract_or_kind_is_another_digest() -> None:
    domains = [
        replace(ETHER_MAIL, name="Ether Mai1"),
        replace(ETHER_MAIL, version="2"),
        replace(ETHER_MAIL, version=None),
        replace(ETHER_MAIL, chain_id=8453),
        replace(ETHER_MAIL, verifying_contract=BOB["wallet"]),
        replace(ETHER_MAIL, verifying_contract=None),
        replace(ETHER_MAIL, salt=b"\0" * 32),
    ]
    digests = {TypedData(domain, MAIL.primary_type, MAIL.types).digest(HELLO) for domain in domains}
    types = {**MAIL.types, "Mail": [("from", "Person"), ("to", "Person"), ("contents", "bytes")]}
    digests.add(TypedData(ETHER_MAIL, "Mail", types).digest({**HELLO, "contents": "0x00"}))
    types = {"Person": MAIL.types["Person"], "Letter": MAIL.types["Mail"]}
    digests.add(TypedData(ETHER_MAIL, "Letter", types).digest(HELLO))
    digests.add(MAIL.digest(HELLO))
    assert len(digests) == len(domains) + 3
    lower = replace(ETHER_MAIL, verifying_contract=CONTRACT.lower())
    assert TypedData(lower, "Mail", MAIL.types).digest(HELLO) == MAIL.digest(HELLO)


def test_what_is_shown_to_the_wallet_is_what_is_checked() -> None:
    shown = json.loads(json.dumps(MAIL.payload(HELLO)))
    assert shown["primaryType"] == "Mail"
    assert shown["domain"] == {
        "name": "Ether Mail",
        "version": "1",
        "chainId": 1,
        "verifyingContract": CONTRACT,
    }
    assert [member["name"] for member in shown["types"]["EIP712Domain"]] == [
        "name",
        "version",
        "chainId",
        "verifyingContract",
    ]
    assert shown["message"] == HELLO
    signed = COW.sign_typed_data(full_message=shown)
    assert "0x" + bytes(signed.signature).hex() == HELLO_SIGNATURE


EVERYTHING = TypedData(
    Domain(name="Ünïcode 🏃", chain_id=2**63, salt=b"\x01" * 32),
    "All",
    {
        "All": [
            ("flag", "bool"),
            ("small", "int8"),
            ("big", "uint256"),
            ("text", "string"),
            ("raw", "bytes"),
            ("four", "bytes4"),
            ("who", "address"),
            ("grid", "uint16[2][]"),
            ("parts", "Part[]"),
        ],
        "Part": [("n", "uint64")],
    },
)
GOOD: dict[str, Any] = {
    "flag": False,
    "small": -128,
    "big": str(2**256 - 1),
    "text": "",
    "raw": "0x",
    "four": "0x01020304",
    "who": BOB["wallet"].lower(),
    "grid": [[1, 2], ["0x03", "4"]],
    "parts": [{"n": 1}],
}


def test_json_of_large_numbers_and_bytes_reads_back_as_the_same_message() -> None:
    shown = EVERYTHING.payload(GOOD)
    assert shown["message"]["big"] == str(2**256 - 1)
    assert shown["message"]["grid"] == [[1, 2], [3, 4]]
    read_back = json.loads(json.dumps(shown["message"]))
    assert EVERYTHING.digest(read_back) == EVERYTHING.digest(GOOD)
    given_as_bytes = {**GOOD, "raw": b"", "four": b"\1\2\3\4", "big": 2**256 - 1}
    assert EVERYTHING.digest(given_as_bytes) == EVERYTHING.digest(GOOD)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("flag", 0),
        ("flag", "false"),
        ("flag", None),
        ("small", -129),
        ("small", 128),
        ("small", True),
        ("small", 1.0),
        ("small", "1e1"),
        ("big", -1),
        ("big", 2**256),
        ("big", "0x"),
        ("big", "0x" + "f" * 65),
        ("text", None),
        ("text", 5),
        ("text", "\ud800"),
        ("raw", "00"),
        ("raw", "0x0"),
        ("raw", 5),
        ("four", "0x010203"),
        ("four", "0x0102030405"),
        ("four", "abcd"),
        ("who", "0x12"),
        ("who", 5),
        ("grid", "12"),
        ("grid", {"0": [1, 2]}),
        ("parts", [None]),
    ],
)
def test_a_value_of_another_type_is_refused_by_name(member: str, value: object) -> None:
    with pytest.raises(InvalidInput) as refusal:
        EVERYTHING.digest({**GOOD, member: value})
    (field,) = refusal.value.fields
    assert field.path.startswith(f"message.{member}")


def test_every_wrong_field_is_named_with_its_path() -> None:
    message = {**GOOD, "grid": [[1, 2, 3], [70000, 4]], "parts": [{"n": 1}, {"m": 2}], "x": 1}
    del message["flag"]
    with pytest.raises(InvalidInput) as refusal:
        EVERYTHING.payload(message)
    assert {(field.path, field.allowed) for field in refusal.value.fields} == {
        ("message.flag", "missing"),
        ("message.grid[0]", "a list of 2"),
        ("message.grid[1][0]", "an integer in uint16"),
        ("message.parts[1].n", "missing"),
        ("message.parts[1].m", "a member of Part: n"),
        ("message.x", f"a member of All: {', '.join(name for name, _ in EVERYTHING.types['All'])}"),
    }


@pytest.mark.parametrize(
    ("types", "problem"),
    [
        ({"A": [("b", "B")]}, "not a type: 'B'"),
        ({"A": [("b", "uint7")]}, "not a type"),
        ({"A": [("b", "uint12")]}, "not a type"),
        ({"A": [("b", "uint264")]}, "not a type"),
        ({"A": [("b", "bytes33")]}, "not a type"),
        ({"A": [("b", "uint")]}, "not a type"),
        ({"B": [("b", "bool")]}, "not a type: 'A'"),
        ({"A": [("b", "bool")], "B": [("b", "bool")]}, "no part of A: B"),
        ({"A": [("b", "B[]")], "B": [("a", "A")]}, "contains itself"),
    ],
)
def test_types_that_make_no_message_are_a_mistake_of_the_app(
    types: dict[str, list[tuple[str, str]]], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        TypedData(ETHER_MAIL, "A", types)
