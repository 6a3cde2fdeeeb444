from __future__ import annotations

from causeway.store.engine import Database
from causeway.store.lease import acquire


async def test_a_second_holder_waits(database: Database) -> None:
    assert await acquire(database, "a", "one", 30)
    assert await acquire(database, "a", "two", 30) is None
