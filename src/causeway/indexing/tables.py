"""From logs to the columns of a declared table, all rows at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import DateTime, Integer, LargeBinary
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.base.errors import ConfigurationError
from causeway.chains.logs import Decoder, WireLog
from causeway.chains.protocol import Block
from causeway.indexing.packing import argument_field, place_field
from causeway.indexing.source import EventTable
from causeway.store import packed
from causeway.store.copy import copy_encoded, encode_rows

Column = Sequence[Any]
#: Rows in the binary form of COPY, in pieces.
Encoded = list[bytes]
_PlaceColumn = Callable[[int, Sequence[WireLog], Sequence[Block]], Column]


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text[2:])


def _by_block(convert: Callable[[Block], Any]) -> _PlaceColumn:
    """Return a column of something of the block, converted once for each block."""

    def column(_chain_id: int, _logs: Sequence[WireLog], blocks: Sequence[Block]) -> Column:
        made: list[Any] = []
        last: Block | None = None
        value: Any = None
        for block in blocks:
            if block is not last:
                last, value = block, convert(block)
            made.append(value)
        return made

    return column


def _place_column(place: str, *, as_bytes: bool, as_time: bool) -> _PlaceColumn:
    match place:
        case "@chain_id":
            return lambda chain_id, logs, _: [chain_id] * len(logs)
        case "@block_number":
            return lambda _, __, blocks: [block.number for block in blocks]
        case "@block_hash":
            return _by_block(lambda b: _bytes(b.hash) if as_bytes else b.hash)
        case "@block_time":
            return _by_block(lambda b: b.timestamp if as_time else int(b.timestamp.timestamp()))
        case "@transaction_hash":
            if as_bytes:
                return lambda _, logs, __: [bytes.fromhex(w.transaction_hash[2:]) for w in logs]
            return lambda _, logs, __: [w.transaction_hash for w in logs]
        case "@transaction_index":
            return lambda _, logs, __: [int(w.transaction_index, 16) for w in logs]
        case "@log_index":
            return lambda _, logs, __: [int(w.log_index, 16) for w in logs]
        case "@address":
            if as_bytes:
                return lambda _, logs, __: [bytes.fromhex(w.address[2:]) for w in logs]
            return lambda _, logs, __: [w.address for w in logs]
        case _:
            raise ConfigurationError(f"{place} is no place of a fact")


class TableWriter:
    """Fills an `EventTable` from the logs of its event."""

    def __init__(self, declared: EventTable, decoder: Decoder) -> None:
        self.table = declared.table
        self._decoder = decoder
        self._names = list(declared.columns)
        self._places: dict[str, _PlaceColumn] = {}
        self._arguments: dict[str, int] = {}
        self._as_text: set[str] = set()
        arguments = [one.name for one in decoder.event.inputs]
        for name, what in declared.columns.items():
            kind = declared.table.c[name].type
            as_bytes = isinstance(kind, LargeBinary)
            if what.startswith("@"):
                as_time = isinstance(kind, DateTime)
                self._places[name] = _place_column(what, as_bytes=as_bytes, as_time=as_time)
                continue
            self._arguments[name] = arguments.index(what)
            if not as_bytes and not isinstance(kind, Integer):
                self._as_text.add(name)

    def columns(
        self, chain_id: int, logs: Sequence[WireLog], blocks: Sequence[Block], *, strict: bool
    ) -> list[Column]:
        """Return the columns of the table, one value for each log and its block.

        A log that does not fit the event raises `UndecodableLog` with `strict`, and is left out
        without it: anybody may emit logs that look like another contract's.
        """
        decoded, wrong = self._decoder.decode_batch(logs, strict=strict)
        if wrong:
            left_out = set(wrong)
            logs = [log for at, log in enumerate(logs) if at not in left_out]
            blocks = [block for at, block in enumerate(blocks) if at not in left_out]
        made: list[Column] = []
        for name in self._names:
            place = self._places.get(name)
            if place is not None:
                made.append(place(chain_id, logs, blocks))
                continue
            column = decoded[self._arguments[name]]
            if name in self._as_text and column and isinstance(column[0], bytes):
                column = ["0x" + value.hex() for value in column]
            made.append(column)
        return made

    def rows(
        self, chain_id: int, logs: Sequence[WireLog], blocks: Sequence[Block], *, strict: bool
    ) -> tuple[Encoded, int]:
        """Return the rows in the form of COPY, and how many; otherwise as `columns` does."""
        at_once = self._packed(chain_id, logs, blocks)
        if at_once is not None:
            return [at_once], len(logs)
        columns = self.columns(chain_id, logs, blocks, strict=strict)
        if not columns or not columns[0]:
            return [], 0
        return list(encode_rows(self.table, self._names, columns)), len(columns[0])

    @property
    def names(self) -> list[str]:
        """The columns it fills, in their order."""
        return list(self._names)

    async def write(self, session: AsyncSession, rows: Encoded, *, into: str | None = None) -> None:
        """Write these rows, by COPY; `into` another table with these columns."""
        if rows:
            await copy_encoded(session, self.table, self._names, rows, into=into)

    def _packed(
        self, chain_id: int, logs: Sequence[WireLog], blocks: Sequence[Block]
    ) -> bytes | None:
        """Return all rows laid out at once; None where a column or a value has no fixed width."""
        words = self._decoder.words(logs)
        if words is None:
            return None
        fields: list[packed.Field] = []
        for name in self._names:
            kind = self.table.c[name].type
            at = self._arguments.get(name)
            if at is not None:
                field = argument_field(self._decoder.event.inputs[at], words[at], kind)
            else:
                values = self._places[name](chain_id, logs, blocks)
                field = place_field(values, kind)
            if field is None:
                return None
            fields.append(field)
        return packed.rows_of(fields)
