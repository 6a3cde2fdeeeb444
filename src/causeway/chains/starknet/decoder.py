"""Fast decoding of events: those of fixed size get a reader of their own, written from the ABI.

Members of fixed size (numbers, booleans, addresses, and structs and tuples of these) stand at fixed
places among keys and data, so that the code to read one event is a line a felt; it is compiled
once. Everything else takes the general path through `types`, which this must agree with to the
letter, in what it refuses too. `words` has all logs of one event at once, as arrays.
"""

from __future__ import annotations

from binascii import unhexlify
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from causeway.chains.errors import UndecodableLog
from causeway.chains.starknet import types
from causeway.chains.starknet.abi import EventAbi, Parameter
from causeway.chains.starknet.felts import ADDRESS_BOUND, PRIME, SHORT

Words = npt.NDArray[np.uint8]
Values = tuple[Any, ...]


class RawLog(Protocol):
    """An event as it comes over the wire: felts as hex text."""

    @property
    def topics(self) -> Sequence[str]:
        """Its keys."""
        ...

    @property
    def data(self) -> Sequence[str]:
        """Its data."""
        ...


_WORD = 32
_REMEMBERED = 1 << 16
#: Addresses by the text they stood in; emptied when there are many.
_known: dict[str, str] = {}


def _felt(text: str) -> int:
    if text[:2] != "0x":
        raise ValueError("a felt without 0x")
    return int(text, 16)


def _address_in(text: str, bound: int) -> str:
    number = _felt(text)
    if not 0 <= number < bound:
        raise UndecodableLog("a number that is no address")
    if len(_known) >= _REMEMBERED:
        _known.clear()
    value = f"0x{number:064x}"
    if bound == ADDRESS_BOUND:
        _known[text] = value
    return value


class EventDecoder:
    """Decodes the logs of one event."""

    def __init__(self, event: EventAbi) -> None:
        self.event = event
        #: Whether a reader of its own serves it; else the general path does.
        self.generated = all(_is_fixed(one.reader) for one in event.inputs)
        self._one: Callable[[Sequence[str], Sequence[str]], Values] = (
            _compiled(event) if self.generated else self._general
        )
        self._names = [one.name for one in event.inputs]
        self._plain = [one.type in ("bytes32", "bytes31") for one in event.inputs]

    def decode(self, topics: Sequence[str], data: Sequence[str]) -> Values:
        """Return the members in their order, addresses as 0x and 64 digits.

        Raises `UndecodableLog` when keys or data do not fit.
        """
        try:
            return self._one(topics, data)
        except (ValueError, IndexError, UndecodableLog) as error:
            if not self.generated:
                raise
            self._general(topics, data)  # says what is wrong
            raise UndecodableLog(f"{self.event.signature}: {error}") from error

    def arguments(self, topics: Sequence[str], data: Sequence[str]) -> dict[str, Any]:
        """Return the members by name; otherwise as `decode` does."""
        return dict(zip(self._names, self.decode(topics, data), strict=True))

    def arguments_of(self, logs: Sequence[RawLog]) -> list[dict[str, Any]] | None:
        """Return the members by name of each log; None when one of them does not fit."""
        one, names = self._one, self._names
        try:
            return [dict(zip(names, one(w.topics, w.data), strict=True)) for w in logs]
        except (UndecodableLog, ValueError, IndexError):
            return None

    def decode_batch(
        self, logs: Sequence[RawLog], *, strict: bool = True
    ) -> tuple[list[list[Any]], list[int]]:
        """Return one column for each member, addresses as 32 bytes, and which logs do not fit.

        Raises `UndecodableLog` for those with `strict`; without it their values are left out.
        """
        rows: list[Values] = []
        wrong: list[int] = []
        for at, log in enumerate(logs):
            try:
                rows.append(self.decode(log.topics, log.data))
            except UndecodableLog:
                if strict:
                    raise
                wrong.append(at)
        columns: list[list[Any]] = [list(c) for c in zip(*rows, strict=True)]
        if not rows:
            columns = [[] for _ in self.event.inputs]
        for at, plain in enumerate(self._plain):
            if plain:
                columns[at] = [
                    bytes.fromhex(v[2:]) if isinstance(v, str) else v for v in columns[at]
                ]
        return columns, wrong

    def words(self, logs: Sequence[RawLog]) -> list[Words] | None:
        """Return an array of (logs, 32) bytes for each member.

        None when the event has other than plain members, or when any of the logs does not fit.
        """
        if not logs or not all(_is_plain(one) for one in self.event.inputs):
            return None
        own = len(self.event.selectors)
        keys, data = [log.topics for log in logs], [log.data for log in logs]
        if set(map(len, keys)) != {own + _felts(self.event.inputs, keys=True)}:
            return None
        if set(map(len, data)) != {_felts(self.event.inputs, keys=False)}:
            return None
        by_key, by_place = list(zip(*keys, strict=True)), list(zip(*data, strict=True))
        for at, expected in enumerate(self.event.selectors):
            # Compared as text at first: nodes write the same few keys again and again.
            if any(_number(text) != expected for text in set(by_key[at])):
                return None
        made: list[Words] = []
        in_keys, in_data = own, 0
        for one in self.event.inputs:
            size = one.reader.size or 0
            if one.indexed:
                columns = by_key[in_keys : in_keys + size]
                in_keys += size
            else:
                columns = by_place[in_data : in_data + size]
                in_data += size
            found = _fitting(one.reader, columns)
            if found is None:
                return None
            made.append(found)
        return made

    def _general(self, topics: Sequence[str], data: Sequence[str]) -> Values:
        try:
            keys, plain = [_felt(one) for one in topics], [_felt(one) for one in data]
            if not all(0 <= one < PRIME for one in (*keys, *plain)):
                raise ValueError("a number that is no felt")
        except ValueError as error:
            raise UndecodableLog(f"{self.event.signature}: {error}") from error
        return self.event.values(keys, plain)


def _number(text: str) -> int:
    try:
        return _felt(text)
    except ValueError:
        return -1


def _felts(inputs: Sequence[Parameter], *, keys: bool) -> int:
    return sum(one.reader.size or 0 for one in inputs if one.indexed == keys)


def _is_plain(one: Parameter) -> bool:
    return isinstance(one.reader, (types.Scalar, types.U256))


def _is_fixed(kind: types.Type) -> bool:
    """Say whether a reader can be written for it."""
    if isinstance(kind, types.Struct):
        return all(_is_fixed(inner) for _, inner in kind.members)
    return isinstance(kind, (types.Scalar, types.U256, types.Signed))


def _fitting(kind: types.Type, columns: Sequence[Sequence[str]]) -> Words | None:
    """Return a member's values as words, checked; None when any of them does not fit."""
    words = [_words(column) for column in columns]
    first = words[0]
    if first is None:
        return None
    if isinstance(kind, types.U256):
        low, high = first, words[1]
        if high is None or low[:, :16].any() or high[:, :16].any():
            return None
        return np.concatenate([high[:, 16:], low[:, 16:]], axis=1)
    bound = kind.bound if isinstance(kind, types.Scalar) else PRIME
    if bound in (PRIME, ADDRESS_BOUND):
        # The first two digits decide nearly always: below 0x08 it is in the field.
        doubtful = np.flatnonzero(first[:, 0] >= 7)
        if any(int.from_bytes(first[at].tobytes(), "big") >= bound for at in doubtful):
            return None
        return first
    if bound == 2:
        return first if not first[:, :31].any() and not (first[:, 31] > 1).any() else None
    if first[:, : _WORD - (bound.bit_length() - 1) // 8].any():
        return None
    if isinstance(kind, types.Bytes31):
        return np.concatenate([first[:, 1:], np.zeros((len(first), 1), np.uint8)], axis=1)
    return first


def _words(texts: Sequence[str]) -> Words | None:
    """Return felts as rows of 32 bytes; None when one is none."""
    if {text[:2] for text in texts} != {"0x"}:
        return None
    joined = "".join([text[2:].rjust(64, "0") for text in texts])
    if len(joined) != 64 * len(texts) or not min(map(len, texts)) > 2:
        return None
    try:
        return np.frombuffer(unhexlify(joined), np.uint8).reshape(len(texts), _WORD)
    except ValueError:
        return None


def _compiled(event: EventAbi) -> Callable[[Sequence[str], Sequence[str]], Values]:
    """Write and compile the function that reads this event.

    Everything in the source text is a number of ours or one of the fixed phrases below: no name
    from the ABI gets into it.
    """
    writer = _Writer()
    own = len(event.selectors)
    keys, data = own, 0
    values: list[str] = []
    for one in event.inputs:
        if one.indexed:
            value, keys = writer.value(one.reader, "t", keys)
        else:
            value, data = writer.value(one.reader, "d", data)
        values.append(value)
    head = ["def read(t, d):", f" if len(t) != {keys} or len(d) != {data}: raise Wrong('sizes')"]
    for at, expected in enumerate(event.selectors):
        wanted = f"'{expected:#x}'"
        head.append(f" if t[{at}] != {wanted} and felt(t[{at}]) != {expected}: raise Wrong('key')")
    made = "".join(f"{value}, " for value in values)
    source = "\n".join([*head, *[f" {line}" for line in writer.lines], f" return ({made})"])
    names: dict[str, Any] = {
        "Wrong": UndecodableLog,
        "felt": _felt,
        "known": _known.get,
        "address_in": _address_in,
        "names": writer.names,
    }
    exec(compile(source, f"<decoder of {event.topic0}>", "exec"), names)  # noqa: S102 - see above
    return names["read"]


class _Writer:
    """Writes the lines that read values, and the expressions that name them."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.names: list[str] = []
        self._made = 0

    def value(self, kind: types.Type, text: str, at: int) -> tuple[str, int]:
        """Return the expression of a value whose first felt is `text[at]`, and where it ends."""
        if isinstance(kind, types.Struct):
            parts: list[str] = []
            for name, inner in kind.members:
                value, at = self.value(inner, text, at)
                if kind.named:
                    self.names.append(name)
                    value = f"names[{len(self.names) - 1}]: {value}"
                parts.append(value)
            if kind.named:
                return "{" + ", ".join(parts) + "}", at
            return "(" + "".join(f"{part}, " for part in parts) + ")", at
        name = f"v{self._made}"
        self._made += 1
        place = f"{text}[{at}]"
        if isinstance(kind, types.U256):
            limb = 1 << 128
            self.lines += [
                f"{name} = felt({place}); h{name} = felt({text}[{at + 1}])",
                f"if not 0 <= {name} < {limb} or not 0 <= h{name} < {limb}: raise Wrong('halves')",
            ]
            return f"h{name} << 128 | {name}", at + 2
        if isinstance(kind, types.Address):
            if kind.bound == ADDRESS_BOUND:
                return f"(known({place}) or address_in({place}, {kind.bound}))", at + 1
            return f"address_in({place}, {kind.bound})", at + 1
        self.lines.append(f"{name} = felt({place})")
        if isinstance(kind, types.Signed):
            half = PRIME // 2
            self.lines += [
                f"if not 0 <= {name} < {PRIME}: raise Wrong('no felt')",
                f"if {name} > {half}: {name} -= {PRIME}",
                f"if not {kind.low} <= {name} <= {kind.high}: raise Wrong('out of range')",
            ]
            return name, at + 1
        bound = kind.bound if isinstance(kind, types.Scalar) else PRIME
        self.lines.append(f"if not 0 <= {name} < {bound}: raise Wrong('out of range')")
        if isinstance(kind, types.Bool):
            return f"{name} == 1", at + 1
        if isinstance(kind, types.Bytes31):
            return f"{name}.to_bytes({SHORT}, 'big')", at + 1
        return name, at + 1
