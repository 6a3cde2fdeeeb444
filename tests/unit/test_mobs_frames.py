"""What call trees say: where a failure began, and how they are stored."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import orjson
from eth_abi.abi import encode

from causeway.apps.mobs.decoding import Decoder
from causeway.apps.mobs.decoding.signatures import parse_signature
from causeway.apps.mobs.frames import explain, failing_frame, shape
from causeway.apps.mobs.packing import LARGEST, pack, unpack
from causeway.chains.evm.abi import Abi
from causeway.chains.evm.blocks import Frame

A, B, C, D = ("0x" + digit * 40 for digit in "abcd")
REVERTED = "execution reverted"


def call(
    to: str, *calls: Frame, error: str | None = None, output: str = "0x", **more: Any
) -> Frame:
    fields = {"type": "CALL", "from_": A, "input": "0xa9059cbb"} | more
    return Frame(**fields, to=to, error=error, output=output, calls=list(calls))


def said(word: str) -> str:
    return "0x08c379a0" + encode(["string"], [word]).hex()


def test_a_reason_that_is_passed_on_began_where_it_was_said() -> None:
    no = said("no")
    tree = call(
        A,
        call(B, error=REVERTED, output=said("caught")),
        call(
            C,
            call(B, output="0x01"),
            call(D, error=REVERTED, output=no, input="0x12345678"),
            error=REVERTED,
            output=no,
        ),
        error=REVERTED,
        output=no,
    )
    frame, depth = failing_frame(tree)
    assert (frame.to, depth) == (D, 2)
    found = explain(tree, Decoder())
    assert found.decoded.text == "no"
    assert found.origin == {"address": D, "depth": 2, "function": "0x12345678"}
    assert shape(tree) == (3, 5)


def test_a_reason_of_its_own_hides_what_it_caught() -> None:
    tree = call(
        A, call(B, error=REVERTED, output=said("inner")), error=REVERTED, output=said("mine")
    )
    assert failing_frame(tree)[1] == 0
    assert explain(tree, Decoder()).decoded.text == "mine"


def test_the_machines_own_words() -> None:
    gas = call(A, call(B, error="out of gas"), error=REVERTED)
    assert explain(gas, Decoder()).decoded.text == "Out of gas"
    assert explain(gas, Decoder()).origin == {"address": B, "depth": 1, "function": "0xa9059cbb"}
    assert explain(call(A, error="invalid opcode: INVALID"), Decoder()).decoded.text == (
        "Invalid opcode: INVALID"
    )
    # It ran out by itself: what failed inside it before was not the reason.
    own = call(A, call(B, error=REVERTED), error="out of gas")
    assert explain(own, Decoder()).origin == {"address": A, "depth": 0, "function": "0xa9059cbb"}
    silent = explain(call(A, error=REVERTED), Decoder())
    assert (silent.decoded.text, silent.data) == ("Reverted without reason", None)


def test_the_abi_of_the_failing_contract_is_believed_also_behind_a_proxy() -> None:
    one = parse_signature("Refused(uint256 n)")
    abi = Abi.from_json(
        [{"type": "error", "name": "Refused", "inputs": [{"name": "n", "type": "uint256"}]}]
    )
    data = "0x" + (one.selector + encode(["uint256"], [7])).hex()
    inner = call(C, error=REVERTED, output=data, type="DELEGATECALL", from_=B)
    tree = call(B, inner, error=REVERTED, output=data)
    decoder = Decoder({bytes.fromhex(B[2:]): abi})
    assert explain(tree, decoder).decoded.text == "Refused(n=7)"
    made = call(C, error=REVERTED, type="CREATE2", input="0x6080")
    assert (explain(made, decoder).origin or {})["function"] == "constructor"


def test_small_trees_are_stored_whole() -> None:
    tree = call(A, call(B, error=REVERTED), error=REVERTED)
    packed, truncated = pack(tree)
    assert not truncated
    assert msgspec.convert(unpack(packed), Frame) == tree


def test_large_trees_are_cut_to_a_bound_quickly() -> None:
    long = call(A, call(B, input="0x" + "ab" * LARGEST))
    packed, truncated = pack(long)
    assert truncated
    kept = unpack(packed)["calls"][0]
    assert kept["to"] == B
    assert len(kept["input"]) < 2000
    wide = call(A, *(call(B, call(C), call(D)) for _ in range(8000)))
    started = time.perf_counter()
    packed, truncated = pack(wide)
    assert time.perf_counter() - started < 3
    assert truncated
    tree = unpack(packed)
    assert len(msgspec.json.encode(tree)) <= LARGEST
    assert tree["to"] == A
    deep = call(A)
    for _ in range(400):
        deep = call(B, deep, input="0x" + "00" * 4000)
    packed, truncated = pack(deep)
    assert truncated
    kept = unpack(packed)
    assert len(msgspec.json.encode(kept)) <= LARGEST
    assert len(orjson.dumps(kept)) > 10_000
    assert shape(deep) == (401, 401)
