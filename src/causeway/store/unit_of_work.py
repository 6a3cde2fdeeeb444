"""The unit of work: one transaction with an app's repositories on it.

    async with uow_factory() as uow:
        token = await uow.tokens.get_by_id(42)
        await uow.commit()

Leaving the block without `commit()` rolls back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from causeway.base.errors import Bug
from causeway.store.engine import Database


class UnitOfWork:
    """One transaction. An app's own subclass adds its repositories in `opened`."""

    session: AsyncSession

    def __init__(self, database: Database) -> None:
        self._database = database
        self._is_open = False

    def opened(self, session: AsyncSession) -> None:
        """Put the repositories on the new session; called once, when the block is entered."""

    async def __aenter__(self) -> Self:
        if self._is_open:
            raise Bug("this unit of work is open already; make another from the factory")
        self._is_open = True
        self.session = self._database.sessions()
        self.opened(self.session)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_open = False
        # Shielded: a task that is cancelled here would leave its connection in the transaction.
        await asyncio.shield(asyncio.ensure_future(self.session.close()))

    async def snapshot(self) -> None:
        """See the database as it is at one moment in everything that is read from now on.

        For answers put together from several queries, so that no half of somebody else's change
        is shown. To be called before the first query.
        """
        await self.session.connection(execution_options={"isolation_level": "REPEATABLE READ"})

    async def commit(self) -> None:
        """Make what was done lasting."""
        await self.session.commit()

    async def rollback(self) -> None:
        """Forget what was done since the last commit."""
        await self.session.rollback()


U = TypeVar("U", bound=UnitOfWork)


def create_uow_factory(kind: Callable[[Database], U], database: Database) -> Callable[[], U]:
    """Return a function that makes a new unit of work of that kind at each call."""
    return lambda: kind(database)
