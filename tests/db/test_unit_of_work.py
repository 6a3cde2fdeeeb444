"""One transaction with an app's repositories on it."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.base.errors import Bug
from causeway.store.engine import Database
from causeway.store.unit_of_work import UnitOfWork, create_uow_factory


class Leases:
    """A repository over a table that is there."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, name: str) -> None:
        await self._session.execute(
            text("INSERT INTO causeway.leases VALUES (:name, 'test', 1, now())"), {"name": name}
        )

    async def names(self) -> set[str]:
        return set(await self._session.scalars(text("SELECT name FROM causeway.leases")))


class Work(UnitOfWork):
    """A unit of work with one repository."""

    def opened(self, session: AsyncSession) -> None:
        self.leases = Leases(session)


async def names(database: Database) -> set[str]:
    async with Work(database) as uow:
        return await uow.leases.names()


async def test_what_was_committed_lasts(database: Database) -> None:
    factory = create_uow_factory(Work, database)
    async with factory() as uow:
        await uow.leases.add("a")
        await uow.commit()
        await uow.leases.add("b")
        await uow.commit()
    assert await names(database) == {"a", "b"}


async def test_what_was_not_committed_is_gone(database: Database) -> None:
    async with Work(database) as uow:
        await uow.leases.add("a")
    assert await names(database) == set()


async def test_an_error_rolls_back_and_is_passed_on(database: Database) -> None:
    async def fail() -> None:
        async with Work(database) as uow:
            await uow.leases.add("a")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await names(database) == set()


async def test_rollback_forgets_only_what_was_done_since_the_last_commit(
    database: Database,
) -> None:
    async with Work(database) as uow:
        await uow.leases.add("a")
        await uow.commit()
        await uow.leases.add("b")
        await uow.rollback()
        await uow.commit()
    assert await names(database) == {"a"}


async def test_two_units_of_work_do_not_see_one_another_before_the_commit(
    database: Database,
) -> None:
    factory = create_uow_factory(Work, database)
    async with factory() as one, factory() as other:
        await one.leases.add("a")
        assert await other.leases.names() == set()
        await one.commit()
        assert await other.leases.names() == {"a"}


async def test_a_repository_kept_after_the_block_writes_nothing_in_silence(
    database: Database,
) -> None:
    async with Work(database) as uow:
        pass
    with pytest.raises(InvalidRequestError):
        await uow.leases.add("late")


async def test_a_unit_of_work_is_not_opened_twice_at_once(database: Database) -> None:
    async with Work(database) as uow:
        with pytest.raises(Bug):
            async with uow:
                pass
    async with uow:  # one after the other is fine
        await uow.leases.add("a")
        await uow.commit()
    assert await names(database) == {"a"}


async def test_a_cancelled_unit_of_work_gives_its_connection_back(database: Database) -> None:
    inside = asyncio.Event()

    async def work() -> None:
        async with Work(database) as uow:
            await uow.leases.add("a")
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await names(database) == set()
    assert "Checked out connections: 0" in database.engine.pool.status()


async def test_a_snapshot_shows_one_moment_whatever_others_commit(database: Database) -> None:
    async with Work(database) as reader:
        await reader.snapshot()
        assert await reader.leases.names() == set()
        async with Work(database) as writer:
            await writer.leases.add("a")
            await writer.commit()
        assert await reader.leases.names() == set()
    assert await names(database) == {"a"}
