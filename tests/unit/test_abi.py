"""The codec against eth-abi, and against signatures known from deployed contracts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from eth_abi.abi import decode, encode
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from causeway.base.errors import InvalidInput, TransactionReverted
from causeway.chains.evm.abi import Abi, UndecodableLog
from causeway.chains.protocol import Log

GLISK = Abi.from_json(
    [
        {
            "type": "event",
            "name": "BatchMinted",
            "inputs": [
                {"name": "minter", "type": "address", "indexed": True},
                {"name": "promptAuthor", "type": "address", "indexed": True},
                {"name": "startTokenId", "type": "uint256", "indexed": True},
                {"name": "quantity", "type": "uint256", "indexed": False},
                {"name": "totalPaid", "type": "uint256", "indexed": False},
            ],
        },
        {
            "type": "event",
            "name": "TokensRevealed",
            "inputs": [{"name": "tokenIds", "type": "uint256[]", "indexed": False}],
        },
        {
            "type": "function",
            "name": "revealTokens",
            "inputs": [
                {"name": "tokenIds", "type": "uint256[]"},
                {"name": "uris", "type": "string[]"},
            ],
            "outputs": [],
        },
        {
            "type": "function",
            "name": "ownerOf",
            "inputs": [{"name": "tokenId", "type": "uint256"}],
            "outputs": [{"name": "", "type": "address"}],
        },
        {
            "type": "error",
            "name": "AlreadyRevealed",
            "inputs": [{"name": "tokenId", "type": "uint256"}],
        },
        {
            "type": "error",
            "name": "AccessControlUnauthorizedAccount",
            "inputs": [
                {"name": "account", "type": "address"},
                {"name": "neededRole", "type": "bytes32"},
            ],
        },
    ]
)


def log(topics: list[str], data: bytes) -> Log:
    return Log("0x" + "11" * 20, tuple(topics), data, 1, "0x", "0x", 0, 0)


def values(kind: str) -> st.SearchStrategy[Any]:
    """Return values of an ABI type as eth-abi takes them."""
    if kind.endswith("]"):
        inner, _, size = kind[:-1].rpartition("[")
        least, most = (int(size), int(size)) if size else (0, 3)
        return st.lists(values(inner), min_size=least, max_size=most).map(tuple)
    if kind.startswith("("):
        return st.tuples(st.integers(0, 2**256 - 1), st.lists(addresses, max_size=2).map(tuple))
    if kind.startswith("uint"):
        return st.integers(0, 2 ** int(kind[4:]) - 1)
    if kind.startswith("int"):
        bits = int(kind[3:])
        return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    if kind == "bytes":
        return st.binary(max_size=70)
    if kind.startswith("bytes"):
        return st.binary(min_size=int(kind[5:]), max_size=int(kind[5:]))
    return {
        "address": addresses,
        "bool": st.booleans(),
        "string": st.text(max_size=40),
    }[kind]


addresses = st.binary(min_size=20, max_size=20).map(to_checksum_address)
#: The machine may be busy; only what comes out is tested.
QUIET = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
PLAIN = ["uint256", "uint8", "int128", "int256", "address", "bool", "bytes32", "bytes4"]
DEEP = [
    "string",
    "bytes",
    "uint256[]",
    "string[]",
    "address[2]",
    "bytes[][]",
    "(uint256,address[])",
]


def component(kind: str) -> dict[str, object]:
    if kind.startswith("("):
        parts = [{"name": "a", "type": "uint256"}, {"name": "b", "type": "address[]"}]
        return {"type": "tuple", "components": parts}
    return {"type": kind}


@st.composite
def events(draw: st.DrawFn) -> tuple[list[str], list[bool], list[Any]]:
    kinds = draw(st.lists(st.sampled_from(PLAIN + DEEP), min_size=1, max_size=6))
    indexed = [draw(st.booleans()) for _ in kinds]
    chosen: list[bool] = []
    for one in indexed:
        chosen.append(one and sum(chosen) < 3)
    return kinds, chosen, [draw(values(kind)) for kind in kinds]


@QUIET
@given(events())
def test_an_event_comes_back_as_it_was_emitted(case: tuple[list[str], list[bool], list[Any]]):
    kinds, indexed, wanted = case
    abi = Abi.from_json(
        [
            {
                "type": "event",
                "name": "E",
                "inputs": [
                    {"name": f"v{n}", "indexed": i, **component(kind)}
                    for n, (kind, i) in enumerate(zip(kinds, indexed, strict=True))
                ],
            }
        ]
    )
    topics = ["0x" + keccak(text=f"E({','.join(kinds)})").hex()]
    plain: list[tuple[str, Any]] = []
    for kind, is_indexed, value in zip(kinds, indexed, wanted, strict=True):
        if not is_indexed:
            plain.append((kind, value))
        elif kind in PLAIN:
            topics.append("0x" + encode([kind], [value]).hex())
        else:
            topics.append("0x" + keccak(encode([kind], [value])).hex())
    data = encode([kind for kind, _ in plain], [value for _, value in plain])
    decoded = abi.decode_log(log(topics, data))
    assert decoded is not None
    assert decoded.name == "E"
    topic = iter(topics[1:])
    for n, (kind, is_indexed, value) in enumerate(zip(kinds, indexed, wanted, strict=True)):
        found = decoded.args[f"v{n}"]
        if is_indexed and kind not in PLAIN:
            assert found == bytes.fromhex(next(topic)[2:])
        else:
            assert found == value
            if is_indexed:
                next(topic)


@QUIET
@given(st.data())
def test_a_call_is_encoded_as_eth_abi_does_and_its_result_comes_back(data: st.DataObject):
    kinds = data.draw(st.lists(st.sampled_from(PLAIN + DEEP), max_size=5))
    args = [data.draw(values(kind)) for kind in kinds]
    inputs = [component(kind) for kind in kinds]
    abi = Abi.from_json([{"type": "function", "name": "f", "inputs": inputs, "outputs": inputs}])
    encoded = abi.encode("f", *args)
    assert encoded[:4] == keccak(text=f"f({','.join(kinds)})")[:4]
    assert encoded[4:] == encode(kinds, args)
    assert abi.decode_result("f", encoded[4:]) == tuple(args)


def test_signatures_are_those_of_the_deployed_contract():
    assert GLISK.event("BatchMinted").topic0 == (
        "0x20c0d4a5bab7118059cf1d2fd0403c4f29a05e446d435b347f90b80778374c54"
    )
    assert GLISK.event("TokensRevealed").topic0 == (
        "0x5f36dfedf769ad12bf71aec843edc397276a255b70d51016d99f5fb020dfd902"
    )
    assert GLISK.function("revealTokens").selector.hex() == "53de7804"
    assert {e.name: s.hex() for s, e in GLISK.errors.items()} == {
        "AlreadyRevealed": "a3a57894",
        "AccessControlUnauthorizedAccount": "e2517d3f",
        "Error": "08c379a0",
        "Panic": "4e487b71",
    }


def test_an_error_is_told_in_the_contracts_words():
    data = bytes.fromhex("a3a57894") + encode(["uint256"], [42])
    assert GLISK.decode_error(data) == ("AlreadyRevealed", (42,))
    explained = GLISK.explain(TransactionReverted("execution reverted", data=data))
    assert (explained.message, explained.error_name) == ("AlreadyRevealed(42)", "AlreadyRevealed")
    assert explained.data == data
    text = bytes.fromhex("08c379a0") + encode(["string"], ["no"])
    assert GLISK.decode_error(text) == ("Error", ("no",))
    assert GLISK.decode_error(b"") is None
    assert GLISK.decode_error(bytes.fromhex("a3a57894")) is None
    assert GLISK.decode_error(bytes.fromhex("deadbeef")) is None


def test_a_log_that_does_not_fit_its_event_is_refused():
    event = GLISK.event("BatchMinted")
    with pytest.raises(UndecodableLog):
        event.decode(log([event.topic0], b""))
    with pytest.raises(UndecodableLog):
        event.decode(log([event.topic0, *["0x" + "00" * 32] * 3], b"\x01"))
    with pytest.raises(UndecodableLog):
        event.decode(log([event.topic0, "0x" + "ff" * 32, *["0x" + "00" * 32] * 2], b"\0" * 64))
    assert GLISK.decode_log(log(["0x" + "00" * 32], b"")) is None
    assert GLISK.decode_log(log([], b"")) is None


def test_an_abi_is_read_from_text_file_and_build_output(tmp_path: Any):
    entries = [{"type": "function", "name": "f", "inputs": [{"type": "uint8"}], "outputs": []}]
    path = tmp_path / "abi.json"
    path.write_text(json.dumps({"abi": entries, "bytecode": "0x"}))
    for source in (entries, json.dumps(entries), path, str(path), {"abi": entries}):
        assert Abi.from_json(source).encode("f", 7) == Abi.from_json(entries).encode("f", 7)
    for wrong in ("{}", "[1]", tmp_path / "none.json", "[{"):
        with pytest.raises(InvalidInput):
            Abi.from_json(wrong)


def test_an_overloaded_name_is_asked_for_by_signature():
    abi = Abi.from_json(
        [
            {"type": "function", "name": "f", "inputs": [{"type": "uint8"}], "outputs": []},
            {"type": "function", "name": "f", "inputs": [], "outputs": []},
        ]
    )
    with pytest.raises(InvalidInput, match="overloaded"):
        abi.encode("f", 1)
    assert abi.encode("f()") == keccak(text="f()")[:4]
    with pytest.raises(InvalidInput, match="no function"):
        abi.encode("g")
    with pytest.raises(InvalidInput):
        abi.encode("f(uint8)", 256)
    assert decode(["uint8"], abi.encode("f(uint8)", 255)[4:]) == (255,)
