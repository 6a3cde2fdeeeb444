"""Leases: one holder at a time, by the database's clock, and a fence that shows who is late."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text

from causeway.base.errors import LeaseLost
from causeway.store.engine import Database
from causeway.store.lease import Lease, acquire, guard, release, renew


async def run_out(database: Database, name: str) -> None:
    """Let the lease run out, as time would."""
    async with database.transaction() as session:
        await session.execute(
            text("UPDATE causeway.leases SET expires_at = now() - interval '1 s' WHERE name = :n"),
            {"n": name},
        )


async def taken(database: Database, name: str, holder: str) -> Lease:
    lease = await acquire(database, name, holder, 30)
    assert lease is not None
    return lease


async def holds(database: Database, lease: Lease) -> bool:
    try:
        async with database.transaction() as session:
            await guard(session, lease)
    except LeaseLost:
        return False
    return True


async def test_a_second_holder_waits_until_the_first_gives_it_back(database: Database) -> None:
    first = await taken(database, "loop", "one")
    assert await acquire(database, "loop", "two", 30) is None
    await release(database, first)
    second = await taken(database, "loop", "two")
    assert second.fence > first.fence
    assert not await holds(database, first)


async def test_names_do_not_know_of_one_another(database: Database) -> None:
    await taken(database, "one loop", "one")
    await taken(database, "another loop", "two")


async def test_the_fence_stays_while_it_is_renewed_in_time(database: Database) -> None:
    first = await taken(database, "loop", "one")
    assert await taken(database, "loop", "one") == first
    await renew(database, first, 30)
    assert await holds(database, first)


async def test_a_late_holder_finds_that_somebody_took_over(database: Database) -> None:
    late = await taken(database, "loop", "one")
    await run_out(database, "loop")
    assert not await holds(database, late)
    new = await taken(database, "loop", "two")
    assert new.fence == late.fence + 1
    assert not await holds(database, late)
    assert await holds(database, new)
    with pytest.raises(LeaseLost):
        await renew(database, late, 30)
    await release(database, late)  # changes nothing
    assert await holds(database, new)


async def test_a_holder_who_comes_back_too_late_gets_a_new_fence(database: Database) -> None:
    first = await taken(database, "loop", "one")
    await run_out(database, "loop")
    with pytest.raises(LeaseLost):
        await renew(database, first, 30)
    again = await taken(database, "loop", "one")
    assert again.fence == first.fence + 1
    assert not await holds(database, first)


async def test_one_of_many_who_come_at_once_gets_it(database: Database) -> None:
    leases = await asyncio.gather(
        *(acquire(database, "loop", f"holder {n}", 30) for n in range(12))
    )
    winners = [lease for lease in leases if lease is not None]
    assert len(winners) == 1
    assert await holds(database, winners[0])
    await run_out(database, "loop")
    leases = await asyncio.gather(
        *(acquire(database, "loop", f"holder {n}", 30) for n in range(12))
    )
    assert sum(lease is not None for lease in leases) == 1


async def test_nobody_takes_over_while_a_guarded_transaction_is_open(database: Database) -> None:
    first = await taken(database, "loop", "one")
    async with database.sessions() as session:
        await guard(session, first)
        # Even if the lease runs out now, what is written under it is committed before anybody
        # else holds it: the row cannot change until this transaction ends.
        async with database.sessions() as other:
            await other.execute(text("SET LOCAL lock_timeout = '100ms'"))
            with pytest.raises(Exception, match="lock timeout"):
                await other.execute(text("UPDATE causeway.leases SET holder = 'two'"))
    await run_out(database, "loop")
    await taken(database, "loop", "two")
