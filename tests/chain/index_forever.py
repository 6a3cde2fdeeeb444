"""Readers of every kind of source in a process of their own, to be killed.

Run as `python -m tests.chain.index_forever DATABASE_URL MAX_RANGE URL...`; says `reading` when they
have begun.
"""

from __future__ import annotations

import asyncio
import sys

from causeway.base import logging
from causeway.indexing.indexer import Indexer
from causeway.store.engine import Database
from tests.chain.ledger import Book, chain_at
from tests.chain.paper import CHAIN_ID, CONTRACT
from tests.chain.test_indexer_stories import Shelf


async def main() -> None:
    """Follow the chain until killed."""
    database_url, max_range, first, *more = sys.argv[1:]
    logging.configure("CRITICAL")
    database = Database(database_url)
    chain = chain_at(first, CHAIN_ID, *more)
    sources = [*Shelf("shelf").sources(), Book("book").source("book", CONTRACT, 1)]
    stop = asyncio.Event()
    readers = [
        Indexer(
            database,
            chain,
            source,
            max_range=int(max_range),
            poll_interval_s=0.02,
            patience_s=0.1,
            patience_polls=2,
        )
        for source in sources
    ]
    sys.stdout.write("reading\n")
    sys.stdout.flush()
    await asyncio.gather(*(one.run(stop) for one in readers))


if __name__ == "__main__":
    asyncio.run(main())
