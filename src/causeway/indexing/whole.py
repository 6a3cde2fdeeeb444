"""Reading whole blocks with their transactions and receipts, and handing them to the app."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from causeway.chains.evm.blocks import FullBlock, full_blocks
from causeway.chains.evm.chain import EvmChain
from causeway.chains.protocol import Block
from causeway.indexing import undo
from causeway.indexing.ahead import ReadAhead
from causeway.indexing.reading import ChainMoved, Stretch, follows
from causeway.indexing.source import BlockSource
from causeway.indexing.span import Span

#: So many times the batch goes into one transaction where blocks are small: each transaction has
#: statements that cost as much for one block as for forty.
_SMALL = 4


class BlockReading:
    """Implements `causeway.indexing.reading.Reading` for a `BlockSource`."""

    def __init__(self, chain: EvmChain, source: BlockSource) -> None:
        self._chain = chain
        self._source = source
        self._ahead = ReadAhead[list[FullBlock]](
            self._read,
            lambda found: sum(len(one.transactions) for one in found),
            Span(_SMALL * source.batch, source.batch),
            1,
        )

    def read_ahead(self, ranges: int) -> None:
        """Read so many ranges at once from now on."""
        self._ahead.at_once = ranges

    async def rest(self, *, forget: bool = False) -> None:
        """Stop reading ahead."""
        await self._ahead.drop()

    async def prepare(self, session: AsyncSession) -> None:
        """Nothing has to be known."""

    async def final(self, after: Block, up_to: int) -> Stretch[list[FullBlock]]:
        """Read blocks above `after` up to `up_to` or fewer, all of them final."""
        return await self._stretch(after, up_to, replaceable=False)

    async def tip(self, after: Block, head: Block) -> Stretch[list[FullBlock]]:
        """Read blocks above `after` up to the head or fewer; they may still be replaced."""
        return await self._stretch(after, head.number, replaceable=True)

    async def apply(self, session: AsyncSession, stretch: Stretch[list[FullBlock]]) -> None:
        """Hand the blocks over, in the transaction that moves the checkpoint."""
        source = self._source
        if not (stretch.replaceable and source.derived):
            await source.apply(session, stretch.content)
            return
        for full in stretch.content:
            await undo.note_changes(session, source.name, full.block.number)
            await source.apply(session, [full])
        await undo.note_changes(session, source.name, None)

    async def undo(self, session: AsyncSession, above: int) -> int:
        """Nothing: the source's `on_undone` deletes what `apply` wrote."""
        return 0

    async def _read(self, first: int, last: int) -> list[FullBlock]:
        return await full_blocks(self._chain, range(first, last + 1), traces=self._source.traces)

    async def _stretch(
        self, after: Block, up_to: int, *, replaceable: bool
    ) -> Stretch[list[FullBlock]]:
        found = await self._ahead.next(after.number + 1, up_to)
        blocks = tuple([full.block for full in found])
        try:
            follows(after, blocks)
        except ChainMoved:
            await self._ahead.drop()
            raise
        kept = blocks if replaceable else blocks[-1:]
        return Stretch(blocks[-1], kept, found, {"block": len(found)}, replaceable)
