"""What M-OBS reads: every block of its chain."""

from __future__ import annotations

from collections.abc import Sequence

from causeway.apps.mobs import partitions
from causeway.apps.mobs.context import CHAIN, SOURCE, MobsContext
from causeway.apps.mobs.scanner import Scanner
from causeway.indexing.source import BlockSource


async def sources(ctx: MobsContext) -> Sequence[BlockSource]:
    """Return the one source; none when the block scanner is not enabled here."""
    if "block_scanner" not in ctx.settings.worker_enabled_pipelines or CHAIN not in ctx.chains:
        return ()
    # Before anybody reads or writes: a day that is there is locked by nobody.
    await partitions.ahead(ctx.database, int(ctx.clock.now().timestamp()))
    scanner = Scanner(ctx.settings, ctx.services.watched, ctx.clock)
    start = ctx.settings.start_block
    behind = start.removeprefix("latest").removeprefix("-") or "0"
    return (
        BlockSource(
            name=SOURCE,
            chain=CHAIN,
            start_block=int(start) if start.isdigit() else 0,
            behind_head=None if start.isdigit() else int(behind),
            apply=scanner.apply,
            on_undone=scanner.undone,
            batch=ctx.settings.block_batch_size,
        ),
    )
