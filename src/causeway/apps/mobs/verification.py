"""Comparing what is stored with the chain, and mending what differs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.mobs import partitions
from causeway.apps.mobs.context import CHAIN, MobsContext
from causeway.apps.mobs.scanner import Scanner, mark_dirty
from causeway.base.errors import PermanentError
from causeway.chains.evm.blocks import FullBlock, full_blocks

#: Blocks compared at once.
_AT_ONCE = 20

#: Told how far it is: the block that was reached.
Told = Callable[[int], None]


@dataclass(frozen=True)
class Difference:
    """A block that is not stored as the chain has it."""

    number: int
    what: str


async def verify(ctx: MobsContext, first: int, last: int, told: Told) -> list[Difference]:
    """Return every block of the range that is missing, doubled or different; hashes and counts."""
    found: list[Difference] = []

    async def look(session: AsyncSession, blocks: Sequence[FullBlock]) -> None:
        for block in blocks:
            why = await _differs(session, block)
            if why is not None:
                found.append(Difference(block.block.number, why))

    await _each(ctx, first, last, look, told)
    return found


async def _differs(session: AsyncSession, block: FullBlock) -> str | None:
    number = {"number": block.block.number}
    stored = (
        await session.execute(
            text("SELECT hash, tx_count FROM mobs.blocks WHERE number = :number"), number
        )
    ).all()
    if not stored:
        return "missing"
    if len(stored) > 1:
        return f"stored {len(stored)} times"
    if "0x" + bytes(stored[0][0]).hex() != block.block.hash:
        return "of another branch"
    kept = await _kept(session, block.timestamp)
    rows = (
        await session.execute(
            text(
                "SELECT tx_index, hash, status, gas_used FROM mobs.txs "
                "WHERE block_number = :number AND block_timestamp = :timestamp ORDER BY tx_index"
            ),
            number | {"timestamp": block.timestamp},
        )
    ).all()
    wanted = [
        (index, tx.hash.lower(), int(receipt.status != "0x0"), int(receipt.gas_used, 16))
        for index, (tx, receipt) in enumerate(zip(block.transactions, block.receipts, strict=True))
        if int(receipt.status != "0x0") in kept
    ]
    here = [(index, "0x" + bytes(h).hex(), status, gas) for index, h, status, gas in rows]
    if here == wanted:
        return None
    if len(here) != len(wanted):
        return f"has {len(here)} transactions, the chain {len(wanted)}"
    bad = next(at for at, (a, b) in enumerate(zip(here, wanted, strict=True)) if a != b)
    return f"transaction {bad} is stored differently"


async def _kept(session: AsyncSession, at: int) -> set[int]:
    """Return the statuses whose transactions of this time retention has not let go."""
    day = partitions.day_name(at // partitions.DAY_S)
    there = await session.scalars(
        text(
            "SELECT relname FROM pg_class WHERE relnamespace = 'mobs'::regnamespace "
            "AND relname = ANY(:names)"
        ),
        {"names": [f"txs_failed_{day}", f"txs_ok_{day}"]},
    )
    return {int(name.startswith("txs_ok")) for name in there}


async def repair(ctx: MobsContext, differences: Sequence[Difference]) -> int:
    """Write these blocks anew, each in one transaction; return how many."""
    scanner = Scanner(ctx.settings, ctx.services.watched, ctx.clock)
    for one in differences:
        (block,) = await full_blocks(ctx.chains[CHAIN], [one.number])
        async with ctx.database.transaction() as session:
            await forget(session, one.number)
            await scanner.write(session, [block])
    return len(differences)


async def forget(session: AsyncSession, number: int) -> None:
    """Delete a block with its transactions; their minutes are computed again."""
    values = {"number": number}
    times = list(
        await session.scalars(
            text("DELETE FROM mobs.blocks WHERE number = :number RETURNING timestamp"), values
        )
    )
    times += await session.scalars(
        text("DELETE FROM mobs.txs WHERE block_number = :number RETURNING block_timestamp"), values
    )
    await session.execute(text("DELETE FROM mobs.tx_traces WHERE block_number = :number"), values)
    await session.execute(text("DELETE FROM mobs.trace_queue WHERE block_number = :number"), values)
    await mark_dirty(session, times)


async def backfill(ctx: MobsContext, first: int, last: int, told: Told) -> int:
    """Read history that is not stored yet, beside the head; return how many blocks were written.

    It may be stopped and started again: what is there already is not read.
    """
    scanner = Scanner(ctx.settings, ctx.services.watched, ctx.clock)
    written = 0

    async def write(session: AsyncSession, blocks: Sequence[FullBlock]) -> None:
        nonlocal written
        await scanner.write(session, blocks)
        written += len(blocks)

    await _each(ctx, first, last, write, told, only_missing=True)
    async with ctx.database.transaction() as session:
        await session.execute(
            text(
                "DELETE FROM mobs.block_holes WHERE first_block >= :first AND last_block <= :last"
            ),
            {"first": first, "last": last},
        )
    return written


async def _each(
    ctx: MobsContext,
    first: int,
    last: int,
    work: Callable[[AsyncSession, Sequence[FullBlock]], Awaitable[None]],
    told: Told,
    *,
    only_missing: bool = False,
) -> None:
    if CHAIN not in ctx.chains:
        raise PermanentError("no provider is configured (MANTLE_RPC_ENDPOINTS)")
    if first > last:
        raise PermanentError(f"the range begins at {first}, after its end {last}")
    for at in range(first, last + 1, _AT_ONCE):
        numbers = list(range(at, min(at + _AT_ONCE, last + 1)))
        if only_missing:
            async with ctx.database.sessions() as session:
                there = set(
                    await session.scalars(
                        text("SELECT number FROM mobs.blocks WHERE number = ANY(:numbers)"),
                        {"numbers": numbers},
                    )
                )
            numbers = [number for number in numbers if number not in there]
        if numbers:
            blocks = await full_blocks(ctx.chains[CHAIN], numbers)
            async with ctx.database.transaction() as session:
                await work(session, blocks)
        told(min(at + _AT_ONCE - 1, last))
