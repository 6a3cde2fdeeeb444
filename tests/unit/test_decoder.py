"""Decoded logs are what eth-abi says they are, for any event and for logs cut and bent at random.

The reference decodes with eth-abi and shares no code with the decoder. What it demands besides:
text of whole bytes in hex, as many topics as the event says, and topics of one word each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pytest
from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from hypothesis import given, settings
from hypothesis import strategies as st

from causeway.chains.evm.abi import Abi
from causeway.chains.evm.decoder import EventDecoder, UndecodableLog

Values = tuple[Any, ...]

#: Names an argument can have in somebody's ABI; none of them may get into generated code.
_NAMES = ["", "to", "value", "class", "t", "d", "v0", "fromhex", "'; raise SystemExit", "\n", "ñ"]
_HEX = "0123456789abcdefABCDEF"
#: What is no hex digit, but what one reader of numbers or another lets pass.
_NOT_HEX = "_ +-xXgG\t\n\0é٣\uff11"


@dataclass(frozen=True)
class Kind:
    """A type: its canonical name, its entry in an ABI's JSON, and values of it."""

    type: str
    json: dict[str, Any]
    values: st.SearchStrategy[Any]
    #: Returns what eth-abi decoded with its addresses checksummed.
    tidy: Callable[[Any], Any] = lambda value: value
    #: Whether an indexed argument of it is its hash.
    hashed: bool = False


@dataclass(frozen=True)
class Argument:
    """One argument of an event."""

    name: str
    kind: Kind
    indexed: bool


@dataclass(frozen=True)
class Wire:
    """A log as it comes over the wire."""

    topics: tuple[str, ...]
    data: str


@dataclass(frozen=True)
class Event:
    """An event, made from its ABI, and its decoder."""

    arguments: tuple[Argument, ...]
    anonymous: bool

    @property
    def json(self) -> list[dict[str, Any]]:
        """The ABI with this event alone."""
        inputs = [{**a.kind.json, "name": a.name, "indexed": a.indexed} for a in self.arguments]
        return [{"type": "event", "name": "E", "inputs": inputs, "anonymous": self.anonymous}]

    @property
    def topic0(self) -> str:
        """The hash of the signature."""
        return "0x" + keccak(text=f"E({','.join(a.kind.type for a in self.arguments)})").hex()

    @property
    def own(self) -> int:
        """How many topics say which event it is."""
        return 0 if self.anonymous else 1

    def decoder(self) -> EventDecoder:
        """Return a new decoder of it."""
        return EventDecoder(Abi.from_json(self.json).event("E"))

    def log(self, values: Values) -> Wire:
        """Return the log that a contract emits; of hashed arguments the hash is given."""
        topics = [] if self.anonymous else [self.topic0]
        kinds: list[str] = []
        plain: list[Any] = []
        for one, value in zip(self.arguments, values, strict=True):
            if not one.indexed:
                kinds.append(one.kind.type)
                plain.append(value)
            else:
                word = value if one.kind.hashed else encode([one.kind.type], [value])
                topics.append("0x" + word.hex())
        return Wire(tuple(topics), "0x" + encode(kinds, plain).hex())

    def reference(self, log: Wire) -> Values | None:
        """Return the values of a log by eth-abi; None when it is none of this event."""
        words = [_bytes(topic) for topic in log.topics]
        data = _bytes(log.data)
        if data is None or any(word is None or len(word) != 32 for word in words[self.own :]):
            return None
        if len(words) != self.own + sum(one.indexed for one in self.arguments):
            return None
        if self.own and log.topics[0].lower() != self.topic0:
            return None
        rest = iter(cast("list[bytes]", words[self.own :]))
        try:
            plain = iter(decode([a.kind.type for a in self.arguments if not a.indexed], data))
            values: list[Any] = []
            for one in self.arguments:
                if not one.indexed:
                    values.append(one.kind.tidy(next(plain)))
                elif one.kind.hashed:
                    values.append(next(rest))
                else:
                    values.append(one.kind.tidy(decode([one.kind.type], next(rest))[0]))
        except (DecodingError, ValueError, OverflowError):
            return None
        return tuple(values)


def _bytes(text: str) -> bytes | None:
    return bytes.fromhex(text[2:]) if re.fullmatch(r"0x([0-9a-fA-F]{2})*", text) else None


def _checksummed(value: Any) -> str:
    return to_checksum_address(str(value))


def _number(low: int, high: int) -> st.SearchStrategy[int]:
    return st.integers(low, high) | st.sampled_from((low, high, 0, 1))


def _static_kind(name: str, values: st.SearchStrategy[Any], **more: Any) -> Kind:
    return Kind(name, {"type": name}, values, **more)


def _uint(size: int) -> Kind:
    return _static_kind(f"uint{size}", _number(0, (1 << size) - 1))


def _int(size: int) -> Kind:
    return _static_kind(f"int{size}", _number(-(1 << (size - 1)), (1 << (size - 1)) - 1))


def _fixed_bytes(size: int) -> Kind:
    return _static_kind(f"bytes{size}", st.binary(min_size=size, max_size=size))


_SIZES = st.integers(1, 32).map(lambda size: size * 8) | st.just(256)
STATIC = st.one_of(
    _SIZES.map(_uint),
    _SIZES.map(_int),
    st.integers(1, 32).map(_fixed_bytes),
    st.just(_static_kind("bool", st.booleans())),
    st.just(
        _static_kind(
            "address",
            st.binary(min_size=20, max_size=20).map(to_checksum_address),
            tidy=_checksummed,
        )
    ),
)
DYNAMIC = st.sampled_from(
    [
        _static_kind("string", st.text(max_size=40), hashed=True),
        _static_kind("bytes", st.binary(max_size=70), hashed=True),
    ]
)


def _array(item: Kind, size: int | None) -> Kind:
    low, high = (0, 3) if size is None else (size, size)
    suffix = f"[{'' if size is None else size}]"
    return Kind(
        item.type + suffix,
        {**item.json, "type": item.json["type"] + suffix},
        st.lists(item.values, min_size=low, max_size=high).map(tuple),
        lambda value: tuple(item.tidy(one) for one in value),
        hashed=True,
    )


def _tuple(parts: list[Kind]) -> Kind:
    return Kind(
        f"({','.join(part.type for part in parts)})",
        {"type": "tuple", "components": [{**p.json, "name": ""} for p in parts]},
        st.tuples(*[part.values for part in parts]),
        lambda value: tuple(part.tidy(one) for part, one in zip(parts, value, strict=True)),
        hashed=True,
    )


KINDS = st.recursive(
    STATIC | DYNAMIC,
    lambda inner: st.one_of(
        st.builds(_array, inner, st.none() | st.integers(1, 3)),
        st.lists(inner, min_size=1, max_size=3).map(_tuple),
    ),
    max_leaves=4,
)


@st.composite
def events(draw: st.DrawFn, kinds: st.SearchStrategy[Kind] = STATIC | KINDS) -> Event:
    """Return an event of up to six arguments, at most as many indexed as a log has topics."""
    anonymous = draw(st.booleans())
    room = 4 if anonymous else 3
    arguments: list[Argument] = []
    for kind in draw(st.lists(kinds, max_size=6)):
        indexed = draw(st.booleans()) and room > 0
        room -= indexed
        arguments.append(Argument(draw(st.sampled_from(_NAMES)), kind, indexed))
    return Event(tuple(arguments), anonymous)


#: Those with a slice decoder come as often as those without.
EVENTS = events(STATIC) | events()


def values_of(event: Event) -> st.SearchStrategy[Values]:
    """Return values of an event's arguments, hashes where it has only these."""
    return st.tuples(
        *[
            st.binary(min_size=32, max_size=32) if a.indexed and a.kind.hashed else a.kind.values
            for a in event.arguments
        ]
    )


def _put(text: str, at: int, sign: str) -> str:
    return text[:at] + sign + text[at + 1 :]


@st.composite
def _bent(draw: st.DrawFn, text: str) -> str:
    """Return hex text that is cut, longer, or has other signs, often at the edges of words."""
    how = draw(st.sampled_from(["nibble", "nibble", "nibble", "no hex", "cut", "more", "case"]))
    if how == "cut":
        least = max(2, len(text) - 130)
        return text[: draw(st.integers(least, len(text)) | st.just(max(2, len(text) - 64)))]
    if how == "more":
        return text + draw(st.text(_HEX, max_size=3) | st.sampled_from(["00" * 32, "ff" * 32]))
    if how == "case" or len(text) == 2:
        return "0x" + text[2:].upper()
    word = draw(st.integers(0, (len(text) - 3) // 64))
    edge = st.sampled_from((0, 1, 22, 23, 24, 62, 63))
    at = min(2 + word * 64 + draw(edge | st.integers(0, 63)), len(text) - 1)
    return _put(text, at, draw(st.sampled_from(_HEX if how == "nibble" else _NOT_HEX)))


@st.composite
def mutilated(draw: st.DrawFn, log: Wire) -> Wire:
    """Return a log with something changed, once or a few times."""
    topics, data = list(log.topics), log.data
    for _ in range(draw(st.integers(1, 3))):
        what = draw(st.sampled_from(["data", "data", "topic", "topic", "lost", "added"]))
        at = draw(st.integers(0, max(0, len(topics) - 1)))
        if what == "data":
            data = draw(_bent(data))
        elif what == "added":
            topics.insert(at, draw(st.sampled_from([*topics, "0x" + "00" * 32])))
        elif topics and what == "lost":
            del topics[at]
        elif topics:
            topics[at] = draw(_bent(topics[at]))
    return Wire(tuple(topics), data)


def decoded(decoder: EventDecoder, log: Wire) -> Values | None:
    """Return what the decoder gives; None when it refuses."""
    try:
        return decoder.decode(log.topics, log.data)
    except UndecodableLog:
        return None


def as_column(event: Event, values: Values) -> Values:
    """Return the values as they stand in columns: addresses of 20 bytes."""
    return tuple(
        bytes.fromhex(value[2:]) if one.kind.type == "address" else value
        for one, value in zip(event.arguments, values, strict=True)
    )


@settings(deadline=None, max_examples=400)
@given(st.data())
def test_a_log_decodes_to_the_values_that_were_encoded(data: st.DataObject) -> None:
    event = data.draw(EVENTS)
    values = data.draw(values_of(event))
    log = event.log(values)
    decoder = event.decoder()
    # Text, because True is not 1 here.
    assert repr(decoder.decode(log.topics, log.data)) == repr(values)
    names = [one.name or f"arg{at}" for at, one in enumerate(event.arguments)]
    named = decoder.arguments(log.topics, log.data)
    assert repr(named) == repr(dict(zip(names, values, strict=True)))
    assert decoder.generated == all(not one.kind.hashed or one.indexed for one in event.arguments)


@settings(deadline=None, max_examples=400)
@given(st.data())
def test_hex_in_capitals_is_the_same_log(data: st.DataObject) -> None:
    event = data.draw(EVENTS)
    values = data.draw(values_of(event))
    log = event.log(values)
    capitals = Wire(
        tuple("0x" + topic[2:].upper() for topic in log.topics), "0x" + log.data[2:].upper()
    )
    decoder = event.decoder()
    assert repr(decoder.decode(capitals.topics, capitals.data)) == repr(values)
    columns, _ = decoder.decode_batch([capitals])
    assert repr([column[0] for column in columns]) == repr([*as_column(event, values)])


@settings(deadline=None, max_examples=1000)
@given(st.data())
def test_a_mutilated_log_is_refused_or_read_as_eth_abi_reads_it(data: st.DataObject) -> None:
    event = data.draw(EVENTS)
    log = data.draw(mutilated(event.log(data.draw(values_of(event)))))
    decoder = event.decoder()
    wanted = event.reference(log)
    assert repr(decoded(decoder, log)) == repr(wanted)
    columns, wrong = decoder.decode_batch([log], strict=False)
    if wanted is None:
        assert (columns, wrong) == ([[] for _ in event.arguments], [0])
        with pytest.raises(UndecodableLog):
            decoder.arguments(log.topics, log.data)
        with pytest.raises(UndecodableLog):
            decoder.decode_batch([log])
    else:
        assert repr(columns) == repr([[one] for one in as_column(event, wanted)])
        assert wrong == []
        names = [one.name or f"arg{at}" for at, one in enumerate(event.arguments)]
        named = dict(zip(names, wanted, strict=True))
        assert repr(decoder.arguments(log.topics, log.data)) == repr(named)


@settings(deadline=None, max_examples=400)
@given(st.data())
def test_a_batch_gives_the_columns_of_its_logs_one_by_one(data: st.DataObject) -> None:
    event = data.draw(EVENTS)
    true = [event.log(one) for one in data.draw(st.lists(values_of(event), max_size=5))]
    bend = data.draw(st.booleans())
    logs = [data.draw(mutilated(one)) if bend and data.draw(st.booleans()) else one for one in true]
    decoder = event.decoder()
    one_by_one = [decoded(decoder, log) for log in logs]
    rows = [as_column(event, values) for values in one_by_one if values is not None]
    columns, wrong = decoder.decode_batch(logs, strict=False)
    assert repr(columns) == repr([[row[at] for row in rows] for at in range(len(event.arguments))])
    assert wrong == [at for at, values in enumerate(one_by_one) if values is None]
    if wrong:
        with pytest.raises(UndecodableLog):
            decoder.decode_batch(logs)
    else:
        all_of_them, none_wrong = decoder.decode_batch(logs)
        assert (repr(all_of_them), none_wrong) == (repr(columns), [])


def _event(*kinds: Kind) -> Event:
    return Event(tuple(Argument("", kind, indexed=False) for kind in kinds), anonymous=False)


def _word(value: int) -> str:
    return f"{value:064x}"


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (_uint(8), _word(256)),
        (_uint(248), _word(1 << 248)),
        (_int(8), _word(128)),
        (_int(8), _word((1 << 256) - 129)),
        (_int(8), "00" * 31 + "ff"[:1] + "f"),
        (_int(248), _word(1 << 255)),
        (_fixed_bytes(1), "ff" + "00" * 30 + "01"),
        (_fixed_bytes(31), "ff" * 32),
        (_static_kind("bool", st.booleans()), _word(2)),
        (_static_kind("bool", st.booleans()), _word(1 << 255)),
        (_static_kind("address", st.nothing()), _word(1 << 160)),
    ],
)
def test_a_word_with_something_in_its_padding_is_refused(kind: Kind, word: str) -> None:
    event = _event(kind)
    log = Wire((event.topic0,), "0x" + word)
    assert event.reference(log) is None
    assert decoded(event.decoder(), log) is None


@pytest.mark.parametrize("sign", list(_NOT_HEX))
@pytest.mark.parametrize("at", [2, 3, 30, 64, 65])
@pytest.mark.parametrize(
    "kind",
    [
        _uint(256),
        _int(256),
        _fixed_bytes(32),
        _static_kind("address", st.nothing()),
        _static_kind("bool", st.booleans()),
    ],
    ids=lambda kind: kind.type,
)
def test_what_is_no_hex_digit_is_refused_wherever_it_stands(kind: Kind, at: int, sign: str) -> None:
    word = _put("0x" + "00" * 32, at, sign)
    plain = _event(kind)
    assert decoded(plain.decoder(), Wire((plain.topic0,), word)) is None
    assert decoded(plain.decoder(), Wire((plain.topic0,), "0x" + "00" * 32 + word[2:])) is None
    indexed = Event((Argument("", kind, indexed=True),), anonymous=True)
    assert decoded(indexed.decoder(), Wire((word,), "0x")) is None
    assert decoded(indexed.decoder(), Wire(("0x" + "00" * 32,), word)) is None


def test_pairs_of_digits_with_spaces_between_them_are_refused() -> None:
    kinds: Sequence[Kind] = (_uint(256), _fixed_bytes(32), _static_kind("string", st.nothing()))
    for kind in kinds:
        event = _event(kind)
        word = " ".join(["00"] * 32)
        log = Wire((event.topic0,), "0x" + " " + word + word.replace(" ", "") * 2)
        assert decoded(event.decoder(), log) is None
