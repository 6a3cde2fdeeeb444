"""The watched contracts and their ABIs, kept in memory and read again when they change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.mobs.decoding import Decoder
from causeway.base.errors import InvalidInput
from causeway.chains.evm.abi import Abi


@dataclass
class Watched:
    """Watched contracts by address, and a decoder that knows their ABIs."""

    by_address: dict[bytes, int] = field(default_factory=dict[bytes, int])
    decoder: Decoder = field(default_factory=Decoder)
    _version: str | None = None

    async def refresh(self, session: AsyncSession) -> None:
        """Read contracts and error signatures again if any was added, changed or removed."""
        version = repr(
            (
                await session.execute(
                    text(
                        # Every change of a row gives it another xmin, whoever makes it.
                        "SELECT (SELECT ARRAY[count(*), sum(xmin::text::bigint), max(id)] "
                        "FROM mobs.contracts), (SELECT ARRAY[count(*), sum(xmin::text::bigint)] "
                        "FROM mobs.error_signatures)"
                    )
                )
            ).one()
        )
        if version == self._version:
            return
        rows = await session.execute(
            text("SELECT id, address, abi_json FROM mobs.contracts WHERE is_watched ORDER BY id")
        )
        abis: dict[bytes, Abi] = {}
        by_address: dict[bytes, int] = {}
        for contract_id, address, abi_json in rows:
            by_address[bytes(address)] = contract_id
            if abi_json:
                try:
                    abis[bytes(address)] = Abi.from_json(abi_json)
                except InvalidInput:
                    continue  # refused when it was given; an older one may lie here
        signatures = await session.scalars(text("SELECT signature FROM mobs.error_signatures"))
        self.by_address = by_address
        self.decoder = Decoder(abis, tuple(signatures))
        self._version = version

    def forget(self) -> None:
        """Read everything again at the next refresh."""
        self._version = None

    @property
    def names(self) -> Mapping[bytes, int]:
        """Contract ids by address."""
        return self.by_address
