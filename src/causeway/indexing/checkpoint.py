"""The checkpoint of a source: read, moved forward, moved back. It is the only serialisation.

Whoever moves the row from the place it read applies the facts between, in the same transaction;
a second process that read the same place finds the row moved and drops its work.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.chains.protocol import Block
from causeway.indexing.models import AppliedBlock, Checkpoint, UndoEntry
from causeway.indexing.source import AnySource, CodeReader, find_deployment_block
from causeway.store.engine import Database


class CheckpointMoved(Exception):
    """Another process moved the checkpoint meanwhile; this work is dropped."""


async def load(session: AsyncSession, source: str) -> Checkpoint | None:
    """Return the checkpoint of a source, None before its first step."""
    return await session.scalar(select(Checkpoint).where(Checkpoint.source == source))


async def first_block(
    database: Database, chain: CodeReader, source: str, address: str
) -> int | None:
    """Return where reading a contract begins: where it began before, else its deployment.

    None when there is no contract at the address.
    """
    async with database.sessions() as session:
        before = await load(session, source)
    if before is not None:
        return before.start_block
    return await find_deployment_block(chain, address)


async def begin(
    session: AsyncSession, source: AnySource, chain_id: int, before: Block
) -> Checkpoint:
    """Put the checkpoint on the block before the start block; return it, or the one there is."""
    added = await session.scalar(
        insert(Checkpoint)
        .values(
            source=source.name,
            chain_id=chain_id,
            start_block=before.number + 1,
            number=before.number,
            hash=before.hash,
            timestamp=before.timestamp,
            final_number=-1,
            head_number=before.number,
        )
        .on_conflict_do_nothing()
        .returning(Checkpoint.source)
    )
    if added is not None:
        await keep_blocks(session, source.name, [before])
    return await session.get_one(Checkpoint, source.name)


async def move(
    session: AsyncSession, old: Checkpoint, to: Block, *, head_number: int, final_number: int
) -> None:
    """Move the checkpoint from where it was read; `CheckpointMoved` when it is not there now."""
    moved = await session.scalar(
        update(Checkpoint)
        .where(
            Checkpoint.source == old.source,
            Checkpoint.number == old.number,
            Checkpoint.hash == old.hash,
        )
        .values(
            number=to.number,
            hash=to.hash,
            timestamp=to.timestamp,
            head_number=head_number,
            final_number=max(final_number, old.final_number),
            problem=None,
            updated_at=func.clock_timestamp(),
        )
        .returning(Checkpoint.source)
        .execution_options(synchronize_session=False)
    )
    if moved is None:
        raise CheckpointMoved(old.source)


async def seek(session: AsyncSession, source: str, to: Block) -> None:
    """Put the checkpoint on this block, wherever it was: what lies between is not read.

    For operators. What was applied above `to` stays as it is; undo entries are forgotten.
    """
    await session.execute(
        update(Checkpoint)
        .where(Checkpoint.source == source)
        .values(
            number=to.number,
            hash=to.hash,
            timestamp=to.timestamp,
            final_number=to.number,
            problem=None,
            updated_at=func.clock_timestamp(),
        )
        .execution_options(synchronize_session=False)
    )
    await session.execute(delete(UndoEntry).where(UndoEntry.source == source))
    await drop_blocks(session, source, above=-2)
    await keep_blocks(session, source, [to])


async def tell_problem(session: AsyncSession, source: str, problem: str) -> None:
    """Note on the checkpoint why it does not go on; the next move clears it."""
    await session.execute(
        update(Checkpoint)
        .where(Checkpoint.source == source)
        .values(problem=problem, updated_at=func.clock_timestamp())
        .execution_options(synchronize_session=False)
    )


async def keep_blocks(session: AsyncSession, source: str, blocks: Sequence[Block]) -> None:
    """Remember applied blocks, to look for a fork among them later."""
    row = insert(AppliedBlock)
    await session.execute(
        row.on_conflict_do_update(
            index_elements=[AppliedBlock.source, AppliedBlock.number],
            set_={name: row.excluded[name] for name in ("hash", "parent_hash", "timestamp")},
        ),
        [
            {
                "source": source,
                "number": block.number,
                "hash": block.hash,
                "parent_hash": block.parent_hash,
                "timestamp": block.timestamp,
            }
            for block in blocks
        ],
    )


async def kept_blocks(session: AsyncSession, source: str) -> list[Block]:
    """Return the remembered blocks, newest first."""
    rows = await session.scalars(
        select(AppliedBlock)
        .where(AppliedBlock.source == source)
        .order_by(AppliedBlock.number.desc())
    )
    return [Block(row.number, row.hash, row.parent_hash, row.timestamp) for row in rows]


async def drop_blocks(
    session: AsyncSession, source: str, *, above: int | None = None, below: int | None = None
) -> None:
    """Forget blocks above a number (undone) or below one (nobody will look for a fork there)."""
    statement = delete(AppliedBlock).where(AppliedBlock.source == source)
    if above is not None:
        statement = statement.where(AppliedBlock.number > above)
    if below is not None:
        statement = statement.where(AppliedBlock.number < below)
    await session.execute(statement.execution_options(synchronize_session=False))
