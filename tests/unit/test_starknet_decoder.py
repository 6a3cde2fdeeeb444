"""Decoded events are what starknet-py says they are, for any event and felts bent at random.

The reference parses the ABI with its own grammar and shares no code with the decoder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from starknet_py.abi.v2.parser import AbiParser
from starknet_py.cairo.data_types import CairoType
from starknet_py.serialization.errors import CairoSerializerException
from starknet_py.serialization.factory import serializer_for_payload

from causeway.base.errors import InvalidInput
from causeway.chains.errors import UndecodableLog
from causeway.chains.starknet.abi import Abi
from causeway.chains.starknet.decoder import EventDecoder
from causeway.chains.starknet.felts import (
    ADDRESS_BOUND,
    PRIME,
    from_short_string,
    selector,
    short_string,
)
from causeway.chains.starknet.types import Variant

#: Without explaining, which traces every line, those of grammars too.
_PHASES = [Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink]
_ADDRESS = "core::starknet::contract_address::ContractAddress"


def _hex(value: int) -> str:
    return f"0x{value:064x}"


@dataclass(frozen=True)
class Kind:
    """A type: its text, values of it as we return them, and how they look to starknet-py."""

    text: str
    values: st.SearchStrategy[Any]
    theirs: Callable[[Any], Any] = lambda value: value


@dataclass(frozen=True)
class Wire:
    topics: tuple[str, ...]
    data: tuple[str, ...]


def _unsigned(bits: int) -> st.SearchStrategy[int]:
    top = (1 << bits) - 1
    return st.one_of(st.sampled_from([0, 1, top]), st.integers(0, top))


_SCALARS = [
    Kind("core::felt252", st.one_of(st.sampled_from([0, PRIME - 1]), st.integers(0, PRIME - 1))),
    Kind("core::bool", st.booleans()),
    Kind("core::integer::u256", _unsigned(256)),
    Kind(
        _ADDRESS,
        st.integers(0, ADDRESS_BOUND - 1).map(_hex),
        lambda value: int(value, 16),
    ),
    Kind(
        "core::starknet::class_hash::ClassHash",
        st.integers(0, PRIME - 1).map(_hex),
        lambda value: int(value, 16),
    ),
    Kind(
        "core::bytes_31::bytes31",
        st.binary(min_size=31, max_size=31),
        lambda value: int.from_bytes(value, "big"),
    ),
    Kind("core::internal::BoundedInt::<0, 255>", st.integers(0, 255)),
    *[Kind(f"core::integer::u{n}", _unsigned(n)) for n in (8, 16, 32, 64, 96, 128)],
    *[
        Kind(f"core::integer::i{n}", st.integers(-(1 << (n - 1)), (1 << (n - 1)) - 1))
        for n in (8, 16, 32, 64, 128)
    ],
]
_POINT = [("x", _SCALARS[0]), ("y", _SCALARS[2])]
_NESTED = [("at", Kind("t::Point", st.nothing())), ("by", _SCALARS[3])]
_POINTS = st.fixed_dictionaries({name: kind.values for name, kind in _POINT})
_STRUCTS = [
    Kind("t::Point", _POINTS),
    Kind(
        "t::Line",
        st.fixed_dictionaries({"at": _POINTS, "by": _SCALARS[3].values}),
        lambda value: {"at": value["at"], "by": int(value["by"], 16)},
    ),
]
_TEXT = Kind(
    "core::byte_array::ByteArray",
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=100),
)
_ENUM = Kind(
    "t::Choice",
    st.one_of(
        st.just(Variant("Nothing")),
        st.integers(0, 255).map(lambda n: Variant("Small", n)),
        _POINTS.map(lambda p: Variant("Place", p)),
    ),
    lambda value: (value.name, None if value.value == () else value.value),
)
_DEFINITIONS: list[dict[str, Any]] = [
    {
        "type": "struct",
        "name": "core::byte_array::ByteArray",
        "members": [
            {"name": "data", "type": "core::array::Array::<core::bytes_31::bytes31>"},
            {"name": "pending_word", "type": "core::felt252"},
            {"name": "pending_word_len", "type": "core::integer::u32"},
        ],
    },
    {
        "type": "struct",
        "name": "core::integer::u256",
        "members": [
            {"name": "low", "type": "core::integer::u128"},
            {"name": "high", "type": "core::integer::u128"},
        ],
    },
    {
        "type": "struct",
        "name": "t::Point",
        "members": [{"name": n, "type": k.text} for n, k in _POINT],
    },
    {
        "type": "struct",
        "name": "t::Line",
        "members": [{"name": n, "type": k.text} for n, k in _NESTED],
    },
    {
        "type": "enum",
        "name": "t::Choice",
        "variants": [
            {"name": "Nothing", "type": "()"},
            {"name": "Small", "type": "core::integer::u8"},
            {"name": "Place", "type": "t::Point"},
        ],
    },
]


def _array(inner: Kind) -> Kind:
    return Kind(
        f"core::array::Array::<{inner.text}>",
        st.lists(inner.values, max_size=4).map(tuple),
        lambda value: [inner.theirs(one) for one in value],
    )


def _span(inner: Kind) -> Kind:
    made = _array(inner)
    return Kind(f"core::array::Span::<{inner.text}>", made.values, made.theirs)


def _option(inner: Kind) -> Kind:
    return Kind(
        f"core::option::Option::<{inner.text}>",
        st.one_of(st.none(), inner.values),
        lambda value: None if value is None else inner.theirs(value),
    )


def _tuple(inner: list[Kind]) -> Kind:
    return Kind(
        f"({', '.join(one.text for one in inner)})",
        st.tuples(*[one.values for one in inner]),
        lambda value: tuple(k.theirs(one) for k, one in zip(inner, value, strict=True)),
    )


_INNER = [_SCALARS[0], _SCALARS[2], _SCALARS[3], *_STRUCTS, _TEXT, _ENUM]
_LISTS = [*map(_array, _INNER), *map(_span, _INNER), *map(_option, _INNER)]
_DEEP = [
    _array(_array(_SCALARS[2])),
    _array(_option(_STRUCTS[1])),
    _option(_span(_TEXT)),
    _tuple([_SCALARS[0], _TEXT]),
    _tuple([_ENUM, _array(_STRUCTS[0]), _SCALARS[1]]),
    _array(_tuple([_SCALARS[3], _option(_ENUM)])),
]
_KINDS = [*_SCALARS, *_STRUCTS, _TEXT, _ENUM, *_LISTS, *_DEEP]
_plain = st.sampled_from(_SCALARS)
_fixed = st.sampled_from([*_SCALARS, *_STRUCTS])
_any = st.sampled_from(_KINDS)


@dataclass(frozen=True)
class Event:
    kinds: tuple[Kind, ...]
    keys: int

    @property
    def json(self) -> list[dict[str, Any]]:
        members = [
            {"name": f"m{at}", "type": kind.text, "kind": "key" if at < self.keys else "data"}
            for at, kind in enumerate(self.kinds)
        ]
        return [
            *_DEFINITIONS,
            {"type": "event", "name": "t::E", "kind": "struct", "members": members},
        ]


@st.composite
def _case(draw: st.DrawFn, kinds: st.SearchStrategy[Kind]) -> tuple[Event, tuple[Any, ...], Wire]:
    """Draw an event, values of its members, and the felts they are written as."""
    chosen = draw(st.lists(kinds, max_size=5))
    event = Event(tuple(chosen), draw(st.integers(0, len(chosen))))
    values = tuple(draw(kind.values) for kind in chosen)
    abi = Abi.from_json(event.json).event("E")
    keys, data = [selector("E")], list[int]()
    for one, value in zip(abi.inputs, values, strict=True):
        one.reader.write(value, keys if one.indexed else data)
    return event, values, Wire(tuple(map(hex, keys)), tuple(map(hex, data)))


@cache
def _parsed() -> dict[str, CairoType]:
    """Return every type as starknet-py's grammar reads it, which takes it a while."""
    event = AbiParser(Event(tuple(_KINDS), 0).json).parse().events["t::E"]
    return {kind.text: event.types[f"m{at}"] for at, kind in enumerate(_KINDS)}


@pytest.fixture(scope="module", autouse=True)
def _parsed_before() -> None:
    _parsed()


def _reference(event: Event, wire: Wire) -> dict[str, Any]:
    types = {f"m{at}": _parsed()[kind.text] for at, kind in enumerate(event.kinds)}
    felts = [int(one, 16) for one in (*wire.topics[1:], *wire.data)]
    made: Any = serializer_for_payload(types).deserialize(felts)
    return dict(made.as_dict())


def _tidy(value: Any) -> Any:
    """Return a value of starknet-py with its own classes made plain."""
    if isinstance(value, dict):
        return {str(k): _tidy(v) for k, v in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, list):
        return [_tidy(one) for one in value]  # pyright: ignore[reportUnknownVariableType]
    if type(value).__name__ == "TupleDataclass":
        return (value.variant, _tidy(value.value))
    if isinstance(value, tuple):
        return tuple(_tidy(one) for one in value)  # pyright: ignore[reportUnknownVariableType]
    return value


@given(_case(_any))
@settings(deadline=None, max_examples=200, phases=_PHASES)
def test_every_value_is_read_as_it_was_written_and_as_starknet_py_reads_it(
    case: tuple[Event, tuple[Any, ...], Wire],
) -> None:
    event, values, wire = case
    decoder = EventDecoder(Abi.from_json(event.json).event("E"))
    assert decoder.decode(wire.topics, wire.data) == values
    theirs = [kind.theirs(value) for kind, value in zip(event.kinds, values, strict=True)]
    assert [_tidy(one) for one in _reference(event, wire).values()] == theirs


@given(_case(_fixed), st.data())
@settings(deadline=None, max_examples=200, phases=_PHASES)
def test_the_three_ways_agree_on_logs_bent_at_random(
    case: tuple[Event, tuple[Any, ...], Wire], data: st.DataObject
) -> None:
    event, _, wire = case
    keys, rest = list(wire.topics), list(wire.data)
    target = data.draw(st.sampled_from([keys, rest]))
    odd = ["0x", "0", "", "-0x1", "0xg", hex(PRIME), hex(PRIME - 1), hex(1 << 250), "0x2", "0x"]
    odd += [hex(1 << n) for n in (8, 16, 32, 64, 96, 128)] + ["0x" + "0" * 64]
    bend = data.draw(st.sampled_from(["replace", "drop", "add", "none"]))
    at = data.draw(st.integers(0, max(0, len(target) - 1)))
    if bend == "replace" and target:
        target[at] = data.draw(st.sampled_from(odd))
    elif bend == "drop" and target:
        del target[at]
    elif bend == "add":
        target.insert(at, data.draw(st.sampled_from(odd)))
    bent = Wire(tuple(keys), tuple(rest))
    abi = Abi.from_json(event.json).event("E")
    decoder = EventDecoder(abi)
    assert decoder.generated
    try:
        general: Any = decoder._general(bent.topics, bent.data)
    except UndecodableLog:
        general = None
    try:
        fast: Any = decoder.decode(bent.topics, bent.data)
    except UndecodableLog:
        fast = None
    assert fast == general
    columns, wrong = decoder.decode_batch([bent], strict=False)
    assert wrong == ([] if general is not None else [0])
    at_once = decoder.words([bent])
    if at_once is not None:
        assert general is not None
        for words, one, column in zip(at_once, abi.inputs, columns, strict=True):
            value = column[0]
            if isinstance(value, bytes):
                assert words[0].tobytes()[: len(value)] == value, one
            else:
                assert int.from_bytes(words[0].tobytes(), "big") == int(value)
    if general is None or bent.topics[:1] != wire.topics[:1]:
        return
    theirs = [kind.theirs(value) for kind, value in zip(event.kinds, general, strict=True)]
    assert [_tidy(one) for one in _reference(event, bent).values()] == theirs


@given(_case(_plain), st.integers(1, 20))
@settings(deadline=None, max_examples=100, phases=_PHASES)
def test_plain_members_of_many_logs_become_words(
    case: tuple[Event, tuple[Any, ...], Wire], count: int
) -> None:
    event, _, wire = case
    decoder = EventDecoder(Abi.from_json(event.json).event("E"))
    signed = any("integer::i" in kind.text or "Bounded" in kind.text for kind in event.kinds)
    words = decoder.words([wire] * count)
    assert (words is None) == signed
    for found in words or ():
        assert found.shape == (count, 32)


@given(_case(_fixed))
@settings(deadline=None, max_examples=200, phases=_PHASES)
def test_what_starknet_py_refuses_in_range_is_refused(
    case: tuple[Event, tuple[Any, ...], Wire],
) -> None:
    event, _, wire = case
    bigger = Wire(wire.topics, tuple(hex(PRIME - 2) for _ in wire.data))
    try:
        _reference(event, bigger)
    except CairoSerializerException:
        with pytest.raises(UndecodableLog):
            EventDecoder(Abi.from_json(event.json).event("E")).decode(bigger.topics, bigger.data)


def test_events_inside_events_have_a_key_for_each_variant_unless_flat() -> None:
    abi = Abi.from_json(
        [
            {
                "type": "event",
                "name": "c::Part::Moved",
                "kind": "struct",
                "members": [{"name": "to", "type": "core::felt252", "kind": "key"}],
            },
            {
                "type": "event",
                "name": "c::Part::Event",
                "kind": "enum",
                "variants": [{"name": "Moved", "type": "c::Part::Moved", "kind": "nested"}],
            },
            {
                "type": "event",
                "name": "c::Own",
                "kind": "struct",
                "members": [{"name": "by", "type": "core::felt252", "kind": "data"}],
            },
            {
                "type": "event",
                "name": "c::Event",
                "kind": "enum",
                "variants": [
                    {"name": "PartEvent", "type": "c::Part::Event", "kind": "nested"},
                    {"name": "Renamed", "type": "c::Own", "kind": "nested"},
                ],
            },
        ]
    )
    moved = EventDecoder(abi.event("Moved"))
    keys = [hex(selector("PartEvent")), hex(selector("Moved")), "0x7"]
    assert moved.decode(keys, []) == (7,)
    with pytest.raises(UndecodableLog, match="not a log of"):
        moved.decode([keys[0], keys[0], "0x7"], [])
    renamed = EventDecoder(abi.event("Renamed"))
    assert renamed.decode([hex(selector("Renamed"))], ["0x9"]) == (9,)
    flat = Abi.from_json(
        [
            {
                "type": "event",
                "name": "c::Part::Moved",
                "kind": "struct",
                "members": [{"name": "to", "type": "core::felt252", "kind": "key"}],
            },
            {
                "type": "event",
                "name": "c::Part::Event",
                "kind": "enum",
                "variants": [{"name": "Moved", "type": "c::Part::Moved", "kind": "nested"}],
            },
            {
                "type": "event",
                "name": "c::Event",
                "kind": "enum",
                "variants": [{"name": "PartEvent", "type": "c::Part::Event", "kind": "flat"}],
            },
        ]
    )
    assert flat.event("Moved").topic0 == hex(selector("Moved"))


def test_members_may_be_declared_in_any_order_of_keys_and_data() -> None:
    abi = Abi.from_json(
        [
            {
                "type": "event",
                "name": "c::E",
                "kind": "struct",
                "members": [
                    {"name": "a", "type": "core::felt252", "kind": "data"},
                    {"name": "b", "type": "core::integer::u256", "kind": "key"},
                    {"name": "c", "type": _ADDRESS, "kind": "data"},
                ],
            }
        ]
    )
    decoder = EventDecoder(abi.event("E"))
    assert decoder.decode([hex(selector("E")), "0x1", "0x1"], ["0x5", "0x6"]) == (
        5,
        (1 << 128) + 1,
        _hex(6),
    )


def test_text_that_is_no_text_is_shown_and_can_be_stored() -> None:
    abi = Abi.from_json(
        [
            *_DEFINITIONS,
            {
                "type": "event",
                "name": "c::E",
                "kind": "struct",
                "members": [{"name": "a", "type": "core::byte_array::ByteArray", "kind": "data"}],
            },
        ]
    )
    decoder = EventDecoder(abi.event("E"))
    key = [hex(selector("E"))]
    assert decoder.decode(key, ["0x0", "0xff0041", "0x3"]) == ("\\xff\\x00A",)
    with pytest.raises(UndecodableLog, match="longer than its length"):
        decoder.decode(key, ["0x0", "0x4142", "0x1"])
    with pytest.raises(UndecodableLog, match="length of 1099511627776"):
        decoder.decode(key, ["0x10000000000", "0x0", "0x0"])


@pytest.mark.parametrize(
    ("abi", "reason"),
    [
        ([{"type": "event", "name": "E", "kind": "struct", "members": [
            {"name": "a", "type": "t::Unknown", "kind": "data"}]}], "does not say what t::Unknown"),
        ([{"type": "struct", "name": "t::S", "members": [{"name": "s", "type": "t::S"}]},
          {"type": "function", "name": "f", "inputs": [{"name": "s", "type": "t::S"}]}],
         "holds itself"),
        ([{"type": "event", "name": "E", "kind": "enum", "variants": [
            {"name": "A", "type": "t::Nowhere", "kind": "nested"}]}], "what event t::Nowhere"),
        ([{"type": "event", "name": "a::E", "kind": "enum", "variants": [
            {"name": "B", "type": "b::E", "kind": "nested"}]},
          {"type": "event", "name": "b::E", "kind": "enum", "variants": [
            {"name": "A", "type": "b::E", "kind": "nested"}]}], "holds itself"),
    ],
)  # fmt: skip
def test_an_abi_that_cannot_be_read_says_why(abi: list[Any], reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        Abi.from_json(abi)


_REGISTRY = Path(__file__).parents[2] / "contracts" / "veriframe" / "veriframe.abi.json"


@pytest.mark.parametrize(
    ("event", "keys", "data", "expected"),
    [
        (
            "JobCreated",
            "0x2f55671042f49cee637514657f3408fdc23c087e234456fc99036d54f51b63 0x1 0xc4ea",
            "0x64 0x0 0x6553f2f4",
            {
                "job_id": 1,
                "creator": _hex(0xC4EA),
                "reward_amount": 100,
                "deadline": 1700000500,
            },
        ),
        (
            "WorkerVerified",
            "0x28984707ae0457bc33fc668c7f5a875bf9e0765a530dcf9a32e59e2f45e7eab 0x3013",
            "0x1 0xa11",
            {"worker": _hex(0x3013), "verified": True, "verifier": _hex(0xA11)},
        ),
        (
            "ReputationSlashed",
            "0x19675db2bb2b2bc218cb5abf2ded7bc7430c1d32841d8896068cab25575cfa5 0x3013",
            "0x24e 0x1 0x1388 0x6d6973636f6e64756374",
            {
                "worker": _hex(0x3013),
                "old_reputation": 0x24E,
                "new_reputation": 1,
                "slash_amount": 5000,
                "reason": from_short_string("misconduct"),
            },
        ),
    ],
)
def test_what_the_deployed_registry_told_is_understood(
    event: str, keys: str, data: str, expected: dict[str, Any]
) -> None:
    decoder = EventDecoder(Abi.from_json(_REGISTRY).event(event))
    assert decoder.arguments(keys.split(), data.split()) == expected
    assert short_string(from_short_string("misconduct")) == "misconduct"
