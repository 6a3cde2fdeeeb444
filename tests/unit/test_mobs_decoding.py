"""What failed transactions say: every kind of revert data, honest or hostile."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest
from eth_abi.abi import encode
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st

from causeway.apps.mobs.decoding import NO_REASON, Decoder
from causeway.apps.mobs.decoding.canonical import NotCanonical, decode_canonical
from causeway.apps.mobs.decoding.shown import clean
from causeway.apps.mobs.decoding.signatures import parse_signature
from causeway.apps.mobs.decoding.standard import ERRORS, METHODS
from causeway.base.errors import InvalidInput
from causeway.chains.evm.abi import Abi

SOMEBODY = b"\x11" * 20
VAULT, ROUTER, OTHER = b"\xaa" * 20, b"\xbb" * 20, b"\xcc" * 20


def error_abi(*signatures: str) -> Abi:
    entries: list[dict[str, Any]] = []
    for text in signatures:
        one = parse_signature(text)
        inputs = [{"name": n, "type": t} for n, t in zip(one.names, one.types, strict=True)]
        entries.append({"type": "error", "name": one.name, "inputs": inputs})
    return Abi.from_json(entries)


def revert(signature: str, *values: object) -> bytes:
    one = parse_signature(signature)
    return one.selector + encode(one.types, values)


PLAIN = Decoder()


def test_the_three_plain_kinds() -> None:
    assert PLAIN.error(b"").text == NO_REASON
    assert PLAIN.error(b"").signature is None
    said = PLAIN.error(revert("Error(string m)", "not enough"))
    assert (said.text, said.params) == ("not enough", {"message": "not enough"})
    assert said.signature == bytes.fromhex("08c379a0")
    panic = PLAIN.error(revert("Panic(uint256 c)", 0x11))
    assert (panic.text, panic.params) == (
        "Panic(0x11): arithmetic overflow or underflow",
        {"code": "17"},
    )
    assert PLAIN.error(revert("Panic(uint256 c)", 0x99)).text == "Panic(0x99)"
    assert len(PLAIN.error(revert("Panic(uint256 c)", 2**256 - 1)).text) <= 256


@pytest.mark.parametrize("data", [b"\x01", b"\x01\x02", b"\x08\xc3\x79"])
def test_one_to_three_bytes_are_shown_raw(data: bytes) -> None:
    found = PLAIN.error(data)
    assert (found.text, found.signature) == ("0x" + data.hex(), None)


def test_a_message_is_made_safe_to_store() -> None:
    dirty = "a\0b\x1b[31mc\u202ed\n" + "x" * 400
    found = PLAIN.error(revert("Error(string m)", dirty))
    assert found.text.startswith("ab[31mcdx")
    assert len(found.text) == 256
    raw = revert("Error(string m)", "abc").replace(b"abc", b"\xff\xfeb")
    assert PLAIN.error(raw).text == "\ufffd\ufffdb"
    assert PLAIN.error(revert("Error(string m)", "")).text == "(empty message)"
    # Written by hand in assembly: not padded to a word.
    short = bytes.fromhex("08c379a0") + (32).to_bytes(32, "big") + (2).to_bytes(32, "big") + b"no"
    assert PLAIN.error(short).text == "no"


@pytest.mark.parametrize("word", [2**256 - 1, 2**255, 2**64, 10**9])
def test_hostile_lengths_and_offsets_are_refused(word: int) -> None:
    size = bytes.fromhex("08c379a0") + (32).to_bytes(32, "big") + word.to_bytes(32, "big") + b"abc"
    offset = bytes.fromhex("08c379a0") + word.to_bytes(32, "big") + bytes(64)
    for data in (size, offset):
        assert PLAIN.error(data).text == "Custom error 0x08c379a0"
    for kind in ("uint256[]", "string[]", "bytes", "(string,uint256[])[]"):
        one = Decoder({VAULT: error_abi(f"Bad({kind} x)")})
        selector = parse_signature(f"Bad({kind})").selector
        data = selector + (32).to_bytes(32, "big") + word.to_bytes(32, "big") + bytes(320)
        assert one.error(data, VAULT).text == f"Custom error 0x{selector.hex()}"


def test_a_nest_of_pointers_to_one_place_does_not_unfold() -> None:
    kind = "uint256" + "[]" * 10
    one = Decoder({VAULT: error_abi(f"Bomb({kind} x)")})
    # Each level says "ten items, all of them there": 10^10 values for a general decoder.
    level = (10).to_bytes(32, "big") + (0).to_bytes(32, "big") * 10
    data = parse_signature(f"Bomb({kind})").selector + (32).to_bytes(32, "big") + level * 10
    started = time.perf_counter()
    assert one.error(data, VAULT).text.startswith("Custom error")
    assert time.perf_counter() - started < 0.1


def test_the_failing_contracts_own_words_come_first() -> None:
    signature = "Refused(address who, uint256 amount, bool really, bytes4 tag, string why)"
    decoder = Decoder({VAULT: error_abi(signature)})
    data = revert(signature, SOMEBODY, 2**200, True, b"\1\2\3\4", "no\0pe")
    for places in ((VAULT,), (None, VAULT), (OTHER, ROUTER), ()):
        found = decoder.error(data, *places)
        assert found.params == {
            "who": "0x" + "11" * 20,
            "amount": str(2**200),
            "really": True,
            "tag": "0x01020304",
            "why": "nope",
        }
        assert found.text == (
            f"Refused(who=0x{'11' * 20}, amount={2**200}, really=true, tag=0x01020304, why=nope)"
        )
    assert found.candidates == ()


def test_what_does_not_encode_back_is_not_believed() -> None:
    decoder = Decoder({VAULT: error_abi("Refused(uint8 n, address who)")})
    good = revert("Refused(uint8 n, address who)", 7, SOMEBODY)
    assert decoder.error(good, VAULT).text.startswith("Refused(n=7")
    selector = good[:4].hex()
    for bad in (good + b"\0", good[:-1], good + bytes(32), good.replace(b"\0\7", b"\1\7")):
        found = decoder.error(bad, VAULT)
        assert found.text == f"Custom error 0x{selector}"
        assert found.signature == good[:4]


def colliding() -> tuple[str, str]:
    """Two signatures with one selector, known for long."""
    one, two = "transfer(address,uint256)", "many_msg_babbage(bytes1)"
    assert keccak(text=one)[:4] == keccak(text=two)[:4]
    return one, two


def test_an_ambiguous_selector_shows_all_readings_the_nearest_first() -> None:
    one, two = colliding()
    decoder = Decoder({VAULT: error_abi(one), ROUTER: error_abi(two)})
    long = revert(one, SOMEBODY, 5)
    assert decoder.error(long, ROUTER).text.startswith("transfer(")  # the other does not fit
    both = Decoder({VAULT: error_abi("f(uint256 a)"), ROUTER: error_abi("f(uint256 b)")})
    found = both.error(revert("f(uint256)", 1), ROUTER)
    assert (found.text, found.candidates) == ("f(b=1)", ())
    first, second = "E82926()", "E94430()"  # the same four bytes, and data that fit both
    assert keccak(text=first)[:4] == keccak(text=second)[:4]
    data = keccak(text=first)[:4]
    pair = Decoder({VAULT: error_abi(first), ROUTER: error_abi(second)})
    assert pair.error(data, ROUTER).candidates == (second, first)
    assert pair.error(data, VAULT).candidates == (first, second)
    assert pair.error(data, None, ROUTER).text == second
    assert pair.error(data, OTHER).text == first


def test_standard_errors_and_an_operators_signatures_are_known() -> None:
    data = revert("ERC20InsufficientBalance(address s, uint256 b, uint256 n)", SOMEBODY, 1, 2)
    assert PLAIN.error(data).text == (
        f"ERC20InsufficientBalance(sender=0x{'11' * 20}, balance=1, needed=2)"
    )
    told = Decoder({}, ["Mine(uint256 n)", "this is no signature", "Bad(uint7)"])
    assert told.error(revert("Mine(uint256)", 3)).text == "Mine(n=3)"
    assert PLAIN.error(revert("Mine(uint256)", 3)).text.startswith("Custom error 0x")
    assert len({parse_signature(one).text for one in ERRORS}) == len(ERRORS)
    assert len({parse_signature(one).text for one in METHODS}) == len(METHODS)


def test_well_known_selectors() -> None:
    known = {
        "ERC20InsufficientBalance(address,uint256,uint256)": "e450d38c",
        "OwnableUnauthorizedAccount(address)": "118cdaa7",
        "EnforcedPause()": "d93c0665",
    }
    for text, selector in known.items():
        assert parse_signature(text).selector.hex() == selector
        assert any(parse_signature(one).text == text for one in ERRORS)


def test_method_names() -> None:
    call = revert("transfer(address,uint256)", SOMEBODY, 1)
    assert PLAIN.method(call, OTHER) == "transfer"
    assert PLAIN.method(call[:-1], OTHER) is None  # not that function's arguments
    abi = Abi.from_json([{"type": "function", "name": "poke", "inputs": [{"type": "bytes"}]}])
    decoder = Decoder({VAULT: abi})
    selector = keccak(text="poke(bytes)")[:4]
    assert decoder.method(selector, VAULT) == "poke"  # its own ABI, whatever follows
    assert decoder.method(selector, OTHER) is None
    assert decoder.method(selector + encode(["bytes"], [b"x"]), OTHER) == "poke"
    assert decoder.method(b"\1\2\3", VAULT) is None


@pytest.mark.parametrize(
    "text", ["", "f", "f(", "f)", "f(uint7)", "f(uint256", "f((uint256)", "1()"]
)
def test_wrong_signatures_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_signature(text)


def test_signatures_as_people_write_them() -> None:
    one = parse_signature("error Bad(address payable to, tuple(uint a, bytes b)[2][] list, uint);")
    assert one.text == "Bad(address,(uint256,bytes)[2][],uint256)"
    assert one.names == ("to", "list", "arg2")


# Against the reference encoder.

LEAVES = ("uint256", "uint8", "int256", "int16", "address", "bool", "bytes", "bytes4", "string")


def values_of(kind: str) -> st.SearchStrategy[Any]:
    if kind.endswith("]"):
        item, _, size = kind[:-1].rpartition("[")
        low, high = (int(size), int(size)) if size else (0, 3)
        return st.lists(values_of(item), min_size=low, max_size=high)
    if kind.startswith("("):
        parts = parse_signature(f"f{kind}").types
        return st.tuples(*map(values_of, parts))
    return {
        "uint256": st.integers(0, 2**256 - 1),
        "uint8": st.integers(0, 255),
        "int256": st.integers(-(2**255), 2**255 - 1),
        "int16": st.integers(-(2**15), 2**15 - 1),
        "address": st.binary(min_size=20, max_size=20),
        "bool": st.booleans(),
        "bytes": st.binary(max_size=70),
        "bytes4": st.binary(min_size=4, max_size=4),
        "string": st.text(max_size=40).filter(lambda t: t.encode("utf-8", "ignore").decode() == t),
    }[kind]


KINDS = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.one_of(
        inner.map(lambda k: f"{k}[]"),
        st.tuples(inner, st.integers(1, 3)).map(lambda p: f"{p[0]}[{p[1]}]"),
        st.lists(inner, min_size=1, max_size=3).map(lambda ks: f"({','.join(ks)})"),
    ),
    max_leaves=5,
)


def plain(value: Any) -> Any:
    if not isinstance(value, (list, tuple)):
        return value
    return tuple(map(plain, cast("list[Any]", value)))


@given(st.data(), st.lists(KINDS, max_size=4))
def test_everything_an_encoder_writes_is_read(data: st.DataObject, kinds: list[str]) -> None:
    values = [data.draw(values_of(kind)) for kind in kinds]
    written = encode(
        kinds, [_hexed(kind, value) for kind, value in zip(kinds, values, strict=True)]
    )
    assert decode_canonical(tuple(kinds), written) == plain(values)


@given(st.data(), st.lists(KINDS, min_size=1, max_size=3))
def test_one_byte_changed_is_another_value_or_refused(
    data: st.DataObject, kinds: list[str]
) -> None:
    values = [data.draw(values_of(kind)) for kind in kinds]
    written = bytearray(
        encode(kinds, [_hexed(kind, value) for kind, value in zip(kinds, values, strict=True)])
    )
    if not written:
        return
    at = data.draw(st.integers(0, len(written) - 1))
    written[at] ^= data.draw(st.integers(1, 255))
    try:
        found = decode_canonical(tuple(kinds), bytes(written))
    except NotCanonical:
        return
    if "\ufffd" not in repr(found):  # replaced text does not come back
        again = encode(kinds, [_hexed(k, v) for k, v in zip(kinds, found, strict=True)])
        assert again == bytes(written)


def _hexed(kind: str, value: Any) -> Any:
    """Addresses as eth-abi wants them."""
    if kind.endswith("]"):
        return [_hexed(kind[: kind.rindex("[")], one) for one in value]
    if kind.startswith("("):
        parts = parse_signature(f"f{kind}").types
        return tuple(_hexed(part, one) for part, one in zip(parts, value, strict=True))
    return "0x" + value.hex() if kind == "address" else value


HOSTILE = Decoder(
    {
        VAULT: error_abi(
            "A(string s, bytes b)", "B(uint256[] a, (string,bytes)[] c)", "C(bool b)", "D()"
        )
    },
    ["E(address a, int8 b)"],
)
SELECTORS = [
    bytes.fromhex("08c379a0"),
    bytes.fromhex("4e487b71"),
    *(
        parse_signature(one).selector
        for one in ("A(string,bytes)", "B(uint256[],(string,bytes)[])", "C(bool)", "D()")
    ),
]


@given(
    st.one_of(
        st.binary(max_size=600),
        st.tuples(st.sampled_from(SELECTORS), st.binary(max_size=600)).map(b"".join),
        st.tuples(
            st.sampled_from(SELECTORS),
            st.lists(st.one_of(st.integers(0, 400), st.integers(0, 2**256 - 1)), max_size=20).map(
                lambda ws: b"".join(w.to_bytes(32, "big") for w in ws)
            ),
        ).map(b"".join),
    )
)
def test_any_data_give_something_that_can_be_stored(data: bytes) -> None:
    found = HOSTILE.error(data, VAULT, OTHER)
    assert found.text
    assert len(found.text) <= 256
    assert found.text == clean(found.text)
    assert found.signature == (data[:4] if len(data) >= 4 else None)
    assert "\0" not in repr(found.params).replace("\\x00", "\0")
    HOSTILE.method(data, VAULT)


@given(st.text())
def test_clean_text_can_be_encoded_and_is_short(text: str) -> None:
    shown = clean(text)
    assert len(shown) <= 256
    shown.encode()
    assert not any(ord(sign) < 32 for sign in shown)
