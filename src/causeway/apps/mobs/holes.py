"""Blocks that are missing between others: written down, and forgotten when they are there."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

#: What a hole is called that nobody made on purpose.
FOUND = "found missing"


async def find(session: AsyncSession) -> list[tuple[int, int]]:
    """Compare the known holes with the stored blocks; return those there are now, by block.

    A hole that was filled in part keeps its reason. One that ends above the newest block was made
    by an operator who skipped ahead, and stays until the scanner is past it.
    """
    known = {
        (first, last): reason
        for first, last, reason in await session.execute(
            text("SELECT first_block, last_block, reason FROM mobs.block_holes")
        )
    }
    count, lowest, highest = (
        await session.execute(text("SELECT count(*), min(number), max(number) FROM mobs.blocks"))
    ).one()
    gaps: list[tuple[int, int]] = []
    if count and count != highest - lowest + 1:
        rows = await session.execute(
            text(
                "SELECT number + 1, next - 1 FROM (SELECT number, lead(number) OVER "
                "(ORDER BY number) AS next FROM mobs.blocks) AS b WHERE next > number + 1"
            )
        )
        gaps = [(first, last) for first, last in rows]
    ahead = [hole for hole in known if count and hole[1] >= highest]
    if set(gaps) | set(ahead) == set(known):
        return sorted(known)
    now = {gap: _reason(gap, known) for gap in gaps} | {hole: known[hole] for hole in ahead}
    await session.execute(text("DELETE FROM mobs.block_holes"))
    if now:
        await session.execute(
            text(
                "INSERT INTO mobs.block_holes (first_block, last_block, reason) "
                "VALUES (:first, :last, :reason) ON CONFLICT DO NOTHING"
            ),
            [
                {"first": first, "last": last, "reason": reason}
                for (first, last), reason in now.items()
            ],
        )
    return sorted(now)


def _reason(gap: tuple[int, int], known: dict[tuple[int, int], str]) -> str:
    for (first, last), reason in known.items():
        if first <= gap[1] and gap[0] <= last:
            return reason
    return FOUND
