"""A process that says when it is ready, waits for a line, and has one signed message accepted."""

from __future__ import annotations

import asyncio
import sys

from causeway.auth.signed_once import SignedOnce
from causeway.base.errors import NotAuthenticated
from causeway.store.engine import Database


async def main(url: str, wallet: str, message: str, timestamp: str, signature: str) -> str:
    database = Database(url)
    try:
        await database.ping()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
        await SignedOnce(database).accept(
            None,
            wallet=wallet,
            messages=[message],
            timestamp=int(timestamp),
            signature=signature,
        )
    except NotAuthenticated as refusal:
        return refusal.message
    finally:
        await database.close()
    return "accepted"


if __name__ == "__main__":
    sys.stdout.write(asyncio.run(main(*sys.argv[1:])) + "\n")
