"""Contract ABIs of Cairo: events to names and values, calls to felts and back.

Reads the JSON of Cairo 1 and later (interfaces, nested and flat events) and of Cairo 0. What
stands in for bytes elsewhere is a row of felts here: 32 bytes each, the function's selector first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from causeway.base.errors import InvalidInput, TransactionReverted
from causeway.chains.errors import UndecodableLog
from causeway.chains.protocol import Log
from causeway.chains.starknet import felts
from causeway.chains.starknet.types import Definition, Struct, Type, TypeBook

N = TypeVar("N", "EventAbi", "FunctionAbi")

WORD = 32
#: Events inside events, at most.
_DEEPEST = 16


def to_bytes(values: Iterable[int]) -> bytes:
    """Return felts as 32 bytes each."""
    return b"".join([value.to_bytes(WORD, "big") for value in values])


def to_felts(data: bytes) -> list[int]:
    """Return the felts in these bytes; `InvalidInput` when they are no whole number of them."""
    if len(data) % WORD:
        raise InvalidInput(f"{len(data)} bytes are no felts of {WORD} bytes")
    return [int.from_bytes(data[at : at + WORD], "big") for at in range(0, len(data), WORD)]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One member of an event, input or output."""

    name: str
    #: What it is for whoever stores it: `uint64`, `bool`, `bytes32` (an address), `bytes31`; the
    #: Cairo type where it is none of these.
    type: str
    reader: Type = field(repr=False)
    #: Whether it stands in the keys.
    indexed: bool = False

    @property
    def hashed(self) -> bool:
        """Keys hold values, never hashes of them."""
        return False


class _Member(msgspec.Struct):
    name: str = ""
    type: str = "()"
    kind: str = "data"


class _Entry(msgspec.Struct):
    type: str = "function"
    name: str = ""
    kind: str = ""
    members: list[_Member] = []
    variants: list[_Member] = []
    inputs: list[_Member] = []
    outputs: list[_Member] = []
    items: list[_Entry] = []
    keys: list[_Member] = []
    data: list[_Member] = []


@dataclass(frozen=True, slots=True)
class DecodedEvent:
    """A log in the words of its contract."""

    name: str
    args: dict[str, Any]


@dataclass(frozen=True, slots=True)
class EventAbi:
    """One event of a contract."""

    name: str
    #: Its full name in the contract, which tells it from others of the same name.
    signature: str
    inputs: tuple[Parameter, ...]
    #: The first keys of its logs: the names of the variants that lead to it, hashed.
    selectors: tuple[int, ...]
    #: The first key as nodes write it.
    topic0: str
    anonymous: bool = False

    def decode(self, log: Log) -> dict[str, Any]:
        """Return the members by name; `UndecodableLog` when keys or data do not fit."""
        values = self.values([int(key, 16) for key in log.topics], to_felts(log.data))
        return {one.name: value for one, value in zip(self.inputs, values, strict=True)}

    def values(self, keys: Sequence[int], data: Sequence[int]) -> tuple[Any, ...]:
        """Return the members of a log in their order; raises as `decode` does."""
        own = len(self.selectors)
        if tuple(keys[:own]) != self.selectors:
            raise UndecodableLog(f"not a log of {self.signature}")
        made: list[Any] = []
        in_keys, in_data = own, 0
        try:
            for one in self.inputs:
                if one.indexed:
                    value, in_keys = one.reader.read(keys, in_keys)
                else:
                    value, in_data = one.reader.read(data, in_data)
                made.append(value)
        except ValueError as error:
            at = self.inputs[len(made)].name
            raise UndecodableLog(f"{self.signature}, {at}: {error}") from error
        if in_keys != len(keys) or in_data != len(data):
            raise UndecodableLog(f"{self.signature}: more keys or data than its members take")
        return tuple(made)


@dataclass(frozen=True, slots=True)
class FunctionAbi:
    """One function of a contract."""

    name: str
    inputs: tuple[Parameter, ...]
    outputs: tuple[Parameter, ...]
    selector: int


class Abi:
    """A contract's interface. Names that several events have are asked for in full."""

    def __init__(self, entries: Sequence[_Entry]) -> None:
        self.events: dict[str, EventAbi] = {}
        self.functions: dict[str, FunctionAbi] = {}
        flat = [inner for one in entries for inner in (one, *one.items)]
        self._types = TypeBook(
            {
                one.name: Definition(
                    tuple((m.name, m.type) for m in (one.members or one.variants)),
                    one.type == "enum",
                )
                for one in flat
                if one.type in ("struct", "enum")
            }
        )
        for one in flat:
            if one.type in ("function", "constructor", "l1_handler"):
                self._add_function(one)
        self._add_events([one for one in flat if one.type == "event"])
        self._by_keys = {event.selectors: event for event in self.events.values()}
        self._depths = sorted({len(keys) for keys in self._by_keys}, reverse=True)

    @classmethod
    def from_json(cls, source: str | Path | Sequence[object] | Mapping[str, object]) -> Abi:
        """Read an ABI: the list itself, its JSON text, a file's path, or a class with `abi`.

        Raises `InvalidInput` when it is none of these or names types it does not define.
        """
        try:
            data: object = source
            if isinstance(source, Path) or (isinstance(source, str) and source[:1] not in "[{"):
                data = json.loads(Path(source).read_text())
            elif isinstance(source, str):
                data = json.loads(source)
            if isinstance(data, Mapping):
                data = msgspec.convert(data, dict[str, object])["abi"]
                if isinstance(data, str):  # class files hold it as text
                    data = json.loads(data)
            return cls(msgspec.convert(data, list[_Entry]))
        except (OSError, ValueError, KeyError) as error:
            raise InvalidInput(f"not a contract ABI: {error}") from error

    def address(self, text: str) -> str:
        """Return a contract's address in the form in which logs name it."""
        return felts.address(text)

    def event(self, name: str) -> EventAbi:
        """Return the event with that name; `InvalidInput` when it is not one event."""
        return _named(self.events, name, "event")

    def function(self, name: str) -> FunctionAbi:
        """Return the function with that name; `InvalidInput` when there is none."""
        return _named(self.functions, name, "function")

    def decode_log(self, log: Log) -> DecodedEvent | None:
        """Return the event in a log; None when no event of this ABI has its keys."""
        keys = tuple([int(key, 16) for key in log.topics])
        for depth in self._depths:
            event = self._by_keys.get(keys[:depth])
            if event is not None:
                return DecodedEvent(event.name, event.decode(log))
        return None

    def encode(self, function: str, *args: object) -> bytes:
        """Return the call data of a function: its selector, then its inputs, as felts.

        Raises `InvalidInput` when the arguments do not fit.
        """
        found = self.function(function)
        into = [found.selector]
        try:
            Struct([(one.name, one.reader) for one in found.inputs]).write(args, into)
        except ValueError as error:
            raise InvalidInput(f"{found.name}: {error}") from error
        return to_bytes(into)

    def decode_result(self, function: str, data: bytes) -> tuple[Any, ...]:
        """Return the outputs of a function; `InvalidInput` when the data do not fit."""
        found = self.function(function)
        values = to_felts(data)
        made: list[Any] = []
        at = 0
        try:
            for one in found.outputs:
                value, at = one.reader.read(values, at)
                made.append(value)
        except ValueError as error:
            raise InvalidInput(f"result of {found.name}: {error}") from error
        if at != len(values):
            raise InvalidInput(f"result of {found.name}: {len(values) - at} felts too many")
        return tuple(made)

    def explain(self, error: TransactionReverted) -> TransactionReverted:
        """Return the revert; what contracts give as its reason is text already."""
        return error

    def _parameters(self, members: Iterable[_Member], *, where: str) -> tuple[Parameter, ...]:
        made: list[Parameter] = []
        for number, one in enumerate(members):
            try:
                reader = self._types.find(one.type)
            except ValueError as error:
                raise InvalidInput(f"{where}: {error}") from error
            made.append(
                Parameter(
                    one.name or f"arg{number}",
                    getattr(reader, "kind", one.type),
                    reader,
                    one.kind == "key",
                )
            )
        return tuple(made)

    def _add_function(self, entry: _Entry) -> None:
        self.functions[entry.name] = FunctionAbi(
            entry.name,
            self._parameters(entry.inputs, where=entry.name),
            self._parameters(entry.outputs, where=entry.name),
            felts.selector(entry.name),
        )

    def _add_events(self, entries: Sequence[_Entry]) -> None:
        """Find every event that a contract can tell of, and the keys that lead to it."""
        by_name = {one.name: one for one in entries}
        inside = {variant.type for one in entries for variant in one.variants}

        def walk(entry: _Entry, path: tuple[int, ...], name: str, depth: int) -> None:
            if depth > _DEEPEST:
                raise InvalidInput(f"event {entry.name} holds itself")
            if entry.kind != "enum":
                self._add_event(entry, path, name)
                return
            for variant in entry.variants:
                inner = by_name.get(variant.type)
                if inner is None:
                    raise InvalidInput(f"the ABI does not say what event {variant.type} is")
                # A flat variant leaves no key of its own: its inner events' names stand instead.
                own = path if variant.kind == "flat" else (*path, felts.selector(variant.name))
                walk(inner, own, variant.name, depth + 1)

        for one in entries:
            if one.name not in inside:
                short = one.name.rsplit("::", 1)[-1]
                walk(one, () if one.kind == "enum" else (felts.selector(short),), short, 0)

    def _add_event(self, entry: _Entry, path: tuple[int, ...], name: str) -> None:
        members = entry.members or [
            *[_Member(one.name, one.type, "key") for one in entry.keys],
            *[_Member(one.name, one.type, "data") for one in entry.data],
            *entry.inputs,
        ]
        signature = entry.name
        if signature in self.events:  # the same struct, told under several names
            signature = f"{entry.name}#{name}"
        self.events[signature] = EventAbi(
            name,
            signature,
            self._parameters(members, where=entry.name),
            path,
            felts.wire(path[0]),
        )


def _named(found: Mapping[str, N], name: str, what: str) -> N:
    if name in found:
        return found[name]
    fitting = [one for one in found.values() if one.name == name]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise InvalidInput(f"the ABI has no {what} {name!r}")
    raise InvalidInput(
        f"{what} {name!r} is there more than once; write its full name: "
        + ", ".join(sorted(key for key, one in found.items() if one.name == name))
    )
