"""Contract ABIs: events to names and values, calls to bytes and back, custom errors by name.

Implements the Solidity ABI (and its JSON form) over eth-abi. Values are Python's: integers,
booleans, bytes, text, checksummed addresses (EIP-55), tuples for arrays and structs.
"""

from __future__ import annotations

import json
from binascii import unhexlify
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

import msgspec
from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError, EncodingError
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from causeway.base.errors import InvalidInput, TransactionReverted
from causeway.chains.errors import UndecodableLog
from causeway.chains.protocol import Log

N = TypeVar("N", "EventAbi", "FunctionAbi")

#: What every Solidity contract can raise, declared or not.
_BUILTIN_ERRORS = (("Error", ("string",)), ("Panic", ("uint256",)))


def from_hex(text: str) -> bytes:
    """Return the bytes of text like `0x00ff`; `ValueError` when it is anything else."""
    if text[:2] != "0x":
        raise ValueError("hex without 0x")
    try:
        return unhexlify(text[2:])  # which skips no spaces, as bytes.fromhex does
    except ValueError:
        raise ValueError("not hex") from None


@dataclass(frozen=True, slots=True)
class Parameter:
    """One input or output: its name (`arg0` when it has none) and its canonical type."""

    name: str
    type: str
    indexed: bool = False

    @property
    def hashed(self) -> bool:
        """Whether an indexed parameter is stored as the hash of its value only."""
        return self.type.endswith("]") or self.type.startswith("(") or self.type in _DYNAMIC


_DYNAMIC = frozenset({"bytes", "string"})


class _Input(msgspec.Struct):
    type: str
    name: str = ""
    indexed: bool = False
    components: list[_Input] = []


class _Entry(msgspec.Struct):
    type: str = "function"
    name: str = ""
    inputs: list[_Input] = []
    outputs: list[_Input] = []
    anonymous: bool = False


def _canonical(one: _Input) -> str:
    if not one.type.startswith("tuple"):
        return one.type
    inner = ",".join(_canonical(component) for component in one.components)
    return f"({inner}){one.type.removeprefix('tuple')}"


def _parameters(inputs: Iterable[_Input]) -> tuple[Parameter, ...]:
    return tuple(
        Parameter(one.name or f"arg{number}", _canonical(one), one.indexed)
        for number, one in enumerate(inputs)
    )


def _signature(name: str, inputs: Iterable[Parameter]) -> str:
    return f"{name}({','.join(one.type for one in inputs)})"


def _tidy(value: object, kind: str) -> object:
    """Checksum the addresses in a decoded value, however deep."""
    if "address" not in kind:
        return value
    if kind == "address":
        return to_checksum_address(str(value))
    if not isinstance(value, tuple):
        return value
    items = cast("tuple[object, ...]", value)
    if kind.endswith("]"):
        return tuple(_tidy(one, kind[: kind.rindex("[")]) for one in items)
    return tuple(_tidy(one, part) for one, part in zip(items, _members(kind), strict=True))


def _members(kind: str) -> list[str]:
    """Return the types in a tuple type `(a,(b,c)[])`."""
    members, depth, start = list[str](), 0, 1
    for at, sign in enumerate(kind):
        depth += (sign == "(") - (sign == ")")
        if (sign == "," and depth == 1) or (sign == ")" and depth == 0):
            members.append(kind[start:at])
            start = at + 1
    return [member for member in members if member]


def _decode(kinds: Sequence[str], data: bytes) -> tuple[object, ...]:
    values: tuple[object, ...] = decode(kinds, data)
    return tuple(_tidy(value, kind) for value, kind in zip(values, kinds, strict=True))


@dataclass(frozen=True, slots=True)
class DecodedEvent:
    """A log in the words of its contract."""

    name: str
    args: dict[str, object]


@dataclass(frozen=True, slots=True)
class EventAbi:
    """One event of a contract."""

    name: str
    signature: str
    inputs: tuple[Parameter, ...]
    #: keccak-256 of the signature, lower-case hex with 0x: the first topic of its logs. Those of
    #: an anonymous event do not have it.
    topic0: str
    anonymous: bool = False

    def decode(self, log: Log) -> dict[str, object]:
        """Return the arguments by name; an indexed dynamic one as the 32 bytes of its hash.

        Raises `UndecodableLog` when topics or data do not fit.
        """
        values = self.values(log.topics, log.data)
        return {one.name: value for one, value in zip(self.inputs, values, strict=True)}

    def values(self, topics: Sequence[str], data: bytes) -> tuple[object, ...]:
        """Return the arguments of a log in their order; raises as `decode` does."""
        own = 0 if self.anonymous else 1
        if own and (not topics or topics[0].lower() != self.topic0):
            raise UndecodableLog(f"not a log of {self.signature}")
        indexed = sum(one.indexed for one in self.inputs)
        if len(topics) != indexed + own:
            raise UndecodableLog(
                f"{self.signature} has {indexed} indexed arguments, the log {len(topics) - own}",
            )
        try:
            plain = iter(_decode([one.type for one in self.inputs if not one.indexed], data))
            rest = iter(topics[own:])
            return tuple(
                [
                    self._topic(one, next(rest)) if one.indexed else next(plain)
                    for one in self.inputs
                ]
            )
        except (DecodingError, ValueError, OverflowError) as error:
            raise UndecodableLog(f"{self.signature}: {error}") from error

    @staticmethod
    def _topic(one: Parameter, topic: str) -> object:
        if len(topic) != 66:
            raise ValueError("a topic is no word")
        return _decode(["bytes32" if one.hashed else one.type], from_hex(topic))[0]


@dataclass(frozen=True, slots=True)
class FunctionAbi:
    """One function of a contract."""

    name: str
    signature: str
    inputs: tuple[Parameter, ...]
    outputs: tuple[Parameter, ...]
    selector: bytes


@dataclass(frozen=True, slots=True)
class ErrorAbi:
    """One custom error of a contract."""

    name: str
    signature: str
    inputs: tuple[Parameter, ...]
    selector: bytes


class Abi:
    """A contract's interface. Overloaded names are asked for by signature (`mint(uint256)`)."""

    def __init__(self, entries: Sequence[_Entry]) -> None:
        self.events: dict[str, EventAbi] = {}
        self.functions: dict[str, FunctionAbi] = {}
        self.errors: dict[bytes, ErrorAbi] = {}
        for name, kinds in _BUILTIN_ERRORS:
            self._add_error(name, tuple(Parameter(f"arg{n}", k) for n, k in enumerate(kinds)))
        for entry in entries:
            inputs = _parameters(entry.inputs)
            signature = _signature(entry.name, inputs)
            digest = keccak(text=signature)
            if entry.type == "event":
                topic0 = "0x" + digest.hex()
                self.events[signature] = EventAbi(
                    entry.name, signature, inputs, topic0, entry.anonymous
                )
            elif entry.type == "function":
                self.functions[signature] = FunctionAbi(
                    entry.name, signature, inputs, _parameters(entry.outputs), digest[:4]
                )
            elif entry.type == "error":
                self._add_error(entry.name, inputs)
        self._by_topic0 = {
            event.topic0: event for event in self.events.values() if not event.anonymous
        }

    @classmethod
    def from_json(cls, source: str | Path | Sequence[object] | Mapping[str, object]) -> Abi:
        """Read an ABI: the list itself, its JSON text, a file's path, or build output with `abi`.

        Raises `InvalidInput` when it is none of these.
        """
        try:
            data: object = source
            if isinstance(source, Path) or (isinstance(source, str) and source[:1] not in "[{"):
                data = json.loads(Path(source).read_text())
            elif isinstance(source, str):
                data = json.loads(source)
            if isinstance(data, Mapping):
                data = msgspec.convert(data, dict[str, object])["abi"]
            return cls(msgspec.convert(data, list[_Entry]))
        except (OSError, ValueError, KeyError) as error:
            raise InvalidInput(f"not a contract ABI: {error}") from error

    def address(self, text: str) -> str:
        """Return a contract's address in the form in which logs name it."""
        return text.lower()

    def event(self, name: str) -> EventAbi:
        """Return the event with that name or signature; `InvalidInput` when it is not one event."""
        return _named(self.events, name, "event")

    def function(self, name: str) -> FunctionAbi:
        """Return the function with that name or signature; `InvalidInput` when it is not one."""
        return _named(self.functions, name, "function")

    def decode_log(self, log: Log) -> DecodedEvent | None:
        """Return the event in a log; None when no event of this ABI has its topic.

        Anonymous events are not looked for: nothing in a log tells which one it is.
        """
        event = self._by_topic0.get(log.topics[0]) if log.topics else None
        return None if event is None else DecodedEvent(event.name, event.decode(log))

    def encode(self, function: str, *args: object) -> bytes:
        """Return the call data of a function; `InvalidInput` when the arguments do not fit."""
        found = self.function(function)
        try:
            return found.selector + encode([one.type for one in found.inputs], args)
        except (EncodingError, ValueError, TypeError) as error:
            raise InvalidInput(f"{found.signature}: {error}") from error

    def decode_result(self, function: str, data: bytes) -> tuple[object, ...]:
        """Return the outputs of a function; `InvalidInput` when the data do not fit."""
        found = self.function(function)
        try:
            return _decode([one.type for one in found.outputs], data)
        except (DecodingError, ValueError, OverflowError) as error:
            raise InvalidInput(f"result of {found.signature}: {error}") from error

    def decode_error(self, data: bytes) -> tuple[str, tuple[object, ...]] | None:
        """Return name and arguments of the error in revert data; None when it is not known."""
        found = self.errors.get(bytes(data[:4]))
        if found is None:
            return None
        try:
            return found.name, _decode([one.type for one in found.inputs], data[4:])
        except (DecodingError, ValueError, OverflowError):
            return None

    def explain(self, error: TransactionReverted) -> TransactionReverted:
        """Return the revert with its reason in the contract's words, where this ABI knows it."""
        found = self.decode_error(error.data)
        if found is None:
            return error
        name, args = found
        text = f"{name}({', '.join(map(_shown, args))})"
        return TransactionReverted(text, error_name=name, error_args=args, data=error.data)

    def _add_error(self, name: str, inputs: tuple[Parameter, ...]) -> None:
        signature = _signature(name, inputs)
        selector = keccak(text=signature)[:4]
        self.errors[selector] = ErrorAbi(name, signature, inputs, selector)


def _shown(value: object) -> str:
    return "0x" + value.hex() if isinstance(value, bytes) else str(value)


def _named(found: Mapping[str, N], name: str, what: str) -> N:
    if name in found:
        return found[name]
    fitting = [one for one in found.values() if one.name == name]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise InvalidInput(f"the ABI has no {what} {name!r}")
    raise InvalidInput(f"{what} {name!r} is overloaded; write its signature")
