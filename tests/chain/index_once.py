"""An indexer in a process of its own, to be killed: follows a ledger until the block given.

Run as `python -m tests.chain.index_once DATABASE_URL RPC_URL CHAIN_ID CONTRACT TO_BLOCK MAX_RANGE`;
a chain id that is no number is a network of Starknet.
"""

from __future__ import annotations

import asyncio
import sys

from causeway.indexing.indexer import Indexer
from causeway.store.engine import Database
from tests.chain.ledger import Book, chain_at


async def main() -> None:
    """Step until the block is applied and nothing is left to undo."""
    database_url, rpc_url, chain_id, contract, to_block, max_range = sys.argv[1:]
    database = Database(database_url)
    if chain_id.isdigit():
        chain, book = chain_at(rpc_url, int(chain_id)), Book("book")
    else:
        # Imported here: it needs the extra packages, and takes a while.
        from tests.starknet_world import StarknetBook, starknet_at

        chain, book = starknet_at(rpc_url, chain_id), StarknetBook("book")
    source = book.source("ledger", contract, 1)
    one = Indexer(database, chain, source, max_range=int(max_range), patience_s=0.0)
    quiet = 0
    while quiet < 4:
        progress = await one.step()
        done = progress.applied_to is not None and progress.applied_to.number == int(to_block)
        quiet = quiet + 1 if done and not progress.undone else 0
    await chain.close()
    await database.close()


if __name__ == "__main__":
    asyncio.run(main())
