"""Contracts that other contracts make: found in the events of their factory, then read too.

What was found is kept in `causeway.discovered` with its block, so that a reorg forgets it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.base.errors import Bug, ConfigurationError
from causeway.chains.errors import UndecodableLog
from causeway.chains.evm.ranges import in_order
from causeway.chains.logs import LogChain, LogRange, WireLog
from causeway.chains.protocol import Block, LogFilter
from causeway.indexing.models import Discovered
from causeway.indexing.source import Source

#: Addresses asked for in one filter; more are asked for in several.
_ADDRESSES_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class _Merged:
    """The logs of a range that were asked for in parts."""

    headers: Mapping[int, Block]
    logs: Mapping[int, Sequence[WireLog]]
    proved: bool


class Family:
    """The factories of a source and what they made so far."""

    def __init__(self, chain: LogChain, source: Source) -> None:
        if source.factory is None:
            raise Bug("a family needs a factory")
        self._source = source
        self._event = source.abi.event(source.factory.event)
        self._decoder = chain.decoder(self._event)
        names = [one.name for one in self._event.inputs]
        if source.factory.argument not in names:
            raise ConfigurationError(
                f"source {source.name!r}: event {self._event.name} has no argument "
                f"{source.factory.argument!r}"
            )
        self._argument = names.index(source.factory.argument)
        self._factories = tuple(source.abi.address(address) for address in source.factory.addresses)
        self._own = tuple(source.abi.address(address) for address in source.addresses)
        #: Known contracts; None: not read from the database yet.
        self._known: set[str] | None = None

    def forget(self) -> None:
        """Read what is known again: somebody else may have found more."""
        self._known = None

    async def load(self, session: AsyncSession) -> None:
        """Read what was found before."""
        if self._known is None:
            found = await session.scalars(
                select(Discovered.address).where(Discovered.source == self._source.name)
            )
            self._known = set(found)

    @property
    def known(self) -> set[str]:
        """The contracts found so far."""
        if self._known is None:
            raise Bug("what the factory made was not read yet")
        return self._known

    def wanted_addresses(self) -> frozenset[str]:
        """Return every address whose events are wanted now."""
        return frozenset(self.known) | frozenset(self._own) | frozenset(self._factories)

    def children(self, logs: Mapping[int, Sequence[WireLog]]) -> list[tuple[str, int]]:
        """Return the contracts that these logs tell of, each with its block; they are known now."""
        found: list[tuple[str, int]] = []
        for number, wires in logs.items():
            for wire in wires:
                if wire.address in self._factories and wire.topics[:1] == (self._event.topic0,):
                    child = self._child(wire)
                    if child not in self.known:
                        self.known.add(child)
                        found.append((child, number))
        return found

    async def read(
        self,
        chain: LogChain,
        wanted: LogFilter,
        first: int,
        last: int,
        *,
        last_hash: str | None = None,
    ) -> LogRange:
        """Return the logs of a range: the factory's, and those of everything it ever made.

        With `last_hash` block `last` must be that one, as `read_range` has it.
        """
        factory = LogFilter(self._factories, (self._event.topic0,))
        own = [LogFilter(self._own, wanted.topics)] if self._own else []
        of_factory = LogFilter(self._factories, wanted.topics)
        began = await chain.read_range([factory], first, last, last_hash=last_hash)
        new = {
            self._child(w)
            for wires in began.logs.values()
            for w in wires
            if w.topics[:1] == (self._event.topic0,)
        }
        addresses = sorted(self.known | new)
        asked = [
            LogFilter(tuple(addresses[at : at + _ADDRESSES_AT_ONCE]), wanted.topics)
            for at in range(0, len(addresses), _ADDRESSES_AT_ONCE)
        ]
        # The same last block, so that both answers are of one chain.
        rest = await chain.read_range(
            [*own, of_factory, *asked], first, last, last_hash=began.headers[last].hash
        )
        merged: dict[int, list[WireLog]] = {}
        for number in sorted({*began.logs, *rest.logs}):
            both = [*began.logs.get(number, ()), *rest.logs.get(number, ())]
            merged[number] = in_order(number, both, several=True)
        return _Merged(rest.headers, merged, proved=began.proved and rest.proved)

    async def keep(self, session: AsyncSession, children: Sequence[tuple[str, int]]) -> None:
        """Note new contracts, in the transaction that applies their blocks."""
        if children:
            await session.execute(
                insert(Discovered).on_conflict_do_nothing(),
                [
                    {"source": self._source.name, "address": address, "block_number": number}
                    for address, number in children
                ],
            )

    async def undo(self, session: AsyncSession, above: int) -> None:
        """Forget the contracts that blocks above this one made."""
        await session.execute(
            delete(Discovered).where(
                Discovered.source == self._source.name, Discovered.block_number > above
            )
        )
        self.forget()

    def _child(self, wire: WireLog) -> str:
        try:
            return str(self._decoder.decode(wire.topics, wire.data)[self._argument]).lower()
        except UndecodableLog as error:
            raise ConfigurationError(
                f"source {self._source.name!r}: the ABI does not fit its factory: {error}"
            ) from error
