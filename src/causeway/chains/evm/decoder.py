"""Fast decoding of event logs: each event with static arguments gets a slice decoder of its own.

Static arguments (numbers, addresses, booleans, `bytesN`) stand at fixed places of a log, so that
the code to read one event is a line an argument; it is generated from the ABI once and compiled.
Events with anything dynamic, with tuples or with arrays take the general path through eth-abi,
which this must agree with to the letter, in what it refuses too. Implements the event part of the
Solidity ABI specification.
"""

from __future__ import annotations

import re
from binascii import unhexlify
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Literal, Protocol

from causeway.chains.evm.abi import EventAbi, Parameter, UndecodableLog, from_hex
from causeway.chains.evm.hashing import keccak


class RawLog(Protocol):
    """A log as it comes over the wire: hex text with 0x."""

    @property
    def topics(self) -> Sequence[str]:
        """Its topics."""
        ...

    @property
    def data(self) -> str:
        """Its data."""
        ...


Values = tuple[Any, ...]
Form = Literal["values", "arguments", "columns", "mappings"]
_One = Callable[[Sequence[str], str], Any]
_Many = Callable[[Sequence[RawLog]], list[list[Any]]]
_Mappings = Callable[[Sequence[RawLog]], list[dict[str, Any]]]

_WORD = 32  # bytes
_SIZED = re.compile(r"(uint|int|bytes)(\d+)")


_ONES = int.from_bytes(b"\x01" * 40, "big")


@lru_cache(maxsize=1 << 16)
def checksummed(address: bytes) -> str:
    """Return an address of 20 bytes as text with its checksum (EIP-55).

    All forty digits at once: a letter becomes a capital (32 less) where the digest's digit is 8 or
    more; in ASCII those have bit 3 (8 and 9) or bit 6 (a to f), as letters have bit 6.
    """
    text = address.hex().encode()
    lower = int.from_bytes(text, "big")
    digest = int.from_bytes(keccak(text)[:20].hex().encode(), "big")
    capitals = (digest >> 3 | digest >> 6) & lower >> 6 & _ONES
    return "0x" + (lower - (capitals << 5)).to_bytes(40, "big").decode()


#: Addresses by the topic they stood in, as text; emptied when there are many.
_in_topics: dict[str, str] = {}
_REMEMBERED = 1 << 16


def address_in(topic: str) -> str:
    """Return the address, checksummed, that an indexed argument holds.

    Raises `UndecodableLog` or `ValueError` when the topic is no word or holds no address.
    """
    if len(topic) != 66 or topic[:2] != "0x":
        raise UndecodableLog("a topic no word")
    word = unhexlify(topic[2:])
    if word[:12] != bytes(12):
        raise UndecodableLog("a padded address")
    if len(_in_topics) >= _REMEMBERED:
        _in_topics.clear()
    made = _in_topics[topic] = checksummed(word[12:])
    return made


def is_static(one: Parameter) -> bool:
    """Say whether an argument stands at a fixed place and in one word."""
    if one.indexed and one.hashed:
        return True
    return one.type in ("address", "bool") or bool(_SIZED.fullmatch(one.type))


class EventDecoder:
    """Decodes the logs of one event."""

    def __init__(self, event: EventAbi) -> None:
        self.event = event
        #: Whether a slice decoder serves it; else the general path does.
        self.generated = all(is_static(one) for one in event.inputs)
        self._one: _One = _compiled(event, "values") if self.generated else self._general
        self._named: _One = _compiled(event, "arguments") if self.generated else self._by_name
        self._many: _Many | None = _compiled(event, "columns") if self.generated else None
        self._mappings: _Mappings | None = _compiled(event, "mappings") if self.generated else None

    def decode(self, topics: Sequence[str], data: str) -> Values:
        """Return the arguments in their order, addresses as checksummed text.

        Raises `UndecodableLog` when topics or data do not fit.
        """
        try:
            return self._one(topics, data)
        except (ValueError, IndexError) as error:
            # The general path says what is wrong.
            return self._general(topics, data, error)

    def arguments(self, topics: Sequence[str], data: str) -> dict[str, Any]:
        """Return the arguments by name; otherwise as `decode` does."""
        try:
            return self._named(topics, data)
        except (ValueError, IndexError) as error:
            return self._by_name(topics, data, error)

    def arguments_of(self, logs: Sequence[RawLog]) -> list[dict[str, Any]] | None:
        """Return the arguments by name of each log; None when one of them does not fit."""
        try:
            if self._mappings is not None:
                return self._mappings(logs)
            return [self._by_name(log.topics, log.data) for log in logs]
        except (UndecodableLog, ValueError, IndexError):
            return None

    def decode_batch(
        self, logs: Sequence[RawLog], *, strict: bool = True
    ) -> tuple[list[list[Any]], list[int]]:
        """Return one column for each argument, addresses as 20 bytes, and which logs do not fit.

        Raises `UndecodableLog` for those with `strict`; without it their values are left out.
        """
        if self._many is not None:
            try:
                return self._many(logs), []
            except (UndecodableLog, ValueError, IndexError):
                pass  # some log does not fit: one by one, to find which
        columns: list[list[Any]] = [[] for _ in self.event.inputs]
        wrong: list[int] = []
        for at, log in enumerate(logs):
            try:
                values = self.decode(log.topics, log.data)
            except UndecodableLog:
                if strict:
                    raise
                wrong.append(at)
                continue
            for column, one, value in zip(columns, self.event.inputs, values, strict=True):
                plain = one.type == "address" and not one.hashed
                column.append(bytes.fromhex(value[2:]) if plain else value)
        return columns, wrong

    def _by_name(
        self, topics: Sequence[str], data: str, cause: Exception | None = None
    ) -> dict[str, Any]:
        values = self._general(topics, data, cause)
        return {one.name: value for one, value in zip(self.event.inputs, values, strict=True)}

    def _general(self, topics: Sequence[str], data: str, cause: Exception | None = None) -> Values:
        try:
            plain = from_hex(data)
        except ValueError as error:
            raise UndecodableLog(f"{self.event.signature}: the data are {error}") from None
        values = self.event.values(topics, plain)
        if cause is not None and self.generated:
            raise UndecodableLog(f"{self.event.signature}: {cause}") from cause
        return values


def _compiled(event: EventAbi, form: Form) -> Any:
    """Write and compile the function that reads this event.

    Everything in the source text is a number of ours or one of the fixed phrases below: no name
    from the ABI gets into it.
    """
    own = 0 if event.anonymous else 1
    indexed = sum(one.indexed for one in event.inputs)
    lines: list[str] = []
    values: list[str] = []
    topic, word = own, 0
    checks: list[str] = []
    for at, one in enumerate(event.inputs):
        if one.indexed and one.type == "address" and form != "columns":
            # The same few write and are written of again and again: found by the text itself.
            lines.append(f"v{at} = known(t[{topic}]) or address_in(t[{topic}])")
            values.append(f"v{at}")
            topic += 1
            continue
        if one.indexed:
            text, start = f"w{topic}", 0
            word_of = f"t[{topic}]"
            checks.append(
                f"if len({word_of}) != 66 or {word_of}[:2] != '0x': raise Wrong('a topic no word')"
            )
            checks.append(f"{text} = plain({word_of}[2:])")
            topic += 1
        else:
            text, start = "w", word * _WORD
            word += 1
        lines += _argument(one, text, start, f"v{at}", as_bytes=form == "columns")
        values.append(f"v{at}")
    first = [f"if len(t) != {indexed + own}: raise Wrong('another number of topics')"]
    if own:
        first.append("if t[0] != topic0 and t[0].lower() != topic0: raise Wrong('another event')")
    checks = first + checks
    checks.append("if d[:2] != '0x': raise Wrong('data without 0x')")
    checks.append("w = plain(d[2:])")
    if word:
        checks.append(f"if len(w) < {word * _WORD}: raise Wrong('too little data')")
    if form == "columns":
        head = ["def read(logs):"]
        head += [f" c{n} = []; a{n} = c{n}.append" for n in range(len(values))]
        head += [" for log in logs:", "  t = log.topics; d = log.data"]
        tail = [f"  a{n}({value})" for n, value in enumerate(values)]
        tail.append(f" return [{', '.join(f'c{n}' for n in range(len(values)))}]")
        indent = "  "
    elif form == "mappings":
        head = ["def read(logs):", " c = []; a = c.append"]
        head += [" for log in logs:", "  t = log.topics; d = log.data"]
        made = ", ".join(f"n{n}: {value}" for n, value in enumerate(values))
        tail, indent = [f"  a({{{made}}})", " return c"], "  "
    else:
        head, indent = ["def read(t, d):"], " "
        made = "".join(f"{value}, " for value in values)
        if form == "arguments":
            made = "{" + "".join(f"n{n}: {value}, " for n, value in enumerate(values)) + "}"
        tail = [f" return {made}" if form == "arguments" else f" return ({made})"]
    source = "\n".join(head + [indent + line for line in checks + lines] + tail)
    names: dict[str, Any] = {
        "Wrong": UndecodableLog,
        "topic0": event.topic0,
        "plain": unhexlify,  # which skips no spaces, as bytes.fromhex does
        "number": int.from_bytes,
        "checksummed": checksummed,
        "known": _in_topics.get,
        "address_in": address_in,
    } | {f"n{at}": one.name for at, one in enumerate(event.inputs)}
    exec(compile(source, f"<decoder of {event.topic0}>", "exec"), names)  # noqa: S102 - see above
    return names["read"]


def _argument(one: Parameter, text: str, start: int, name: str, *, as_bytes: bool) -> list[str]:
    """Return the lines that read one argument from the bytes `text`, beginning at `start`."""
    end = start + _WORD
    word = f"{text}[{start}:{end}]"
    if one.indexed and one.hashed:
        return [f"{name} = {word}"]
    if one.type == "address":
        digits = f"{text}[{end - 20}:{end}]"
        return [
            f"if {text}[{start}:{end - 20}] != {bytes(12)}: raise Wrong('a padded address')",
            f"{name} = {digits}" if as_bytes else f"{name} = checksummed({digits})",
        ]
    if one.type == "bool":
        return [
            f"{name} = number({word}, 'big')",
            f"if {name} > 1: raise Wrong('a boolean that is neither 0 nor 1')",
            f"{name} = {name} == 1",
        ]
    sized = _SIZED.fullmatch(one.type)
    if sized is None:  # not reached: `is_static` let it through
        raise UndecodableLog(f"{one.type} is not static")
    kind, size = sized[1], int(sized[2])
    if kind == "bytes":
        lines = [f"{name} = {text}[{start}:{start + size}]"]
        if size < _WORD:
            padding = bytes(_WORD - size)
            lines.append(
                f"if {text}[{start + size}:{end}] != {padding}: raise Wrong('padded bytes')"
            )
        return lines
    if kind == "uint":
        lines = [f"{name} = number({word}, 'big')"]
        if size < 256:
            lines.append(f"if {name} >> {size}: raise Wrong('a number out of its range')")
        return lines
    lines = [f"{name} = number({word}, 'big', signed=True)"]
    if size < 256:
        low, high = -(1 << (size - 1)), (1 << (size - 1)) - 1
        lines.append(f"if not {low} <= {name} <= {high}: raise Wrong('a number out of its range')")
    return lines
