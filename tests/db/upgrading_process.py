"""A process that brings lines up to date; started by test_migrate, several at once.

Arguments: the database's address, then `kernel` or a folder with migrations.
"""

from __future__ import annotations

import asyncio
import sys

from sqlalchemy import MetaData

from causeway.store.engine import Database
from causeway.store.migrate import MigrationLine, kernel_line, upgrade


async def main(url: str, what: str) -> None:
    database = Database(url)
    line = kernel_line() if what == "kernel" else MigrationLine("t", "t", MetaData("t"), what)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    try:
        await upgrade(database, [line])
    finally:
        await database.close()


asyncio.run(main(*sys.argv[1:]))
