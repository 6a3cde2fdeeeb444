"""Relayers in processes of their own, which may be killed: `python -m tests.faults.relay`.

Reads one JSON object a line: `{"start": {...}}` forks a relayer and answers with its pid,
`{"wait": pid}` answers with the signal (or 0) that ended it. The imports are made once.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import sys
from contextlib import suppress
from typing import Any

from causeway.base import faults, logging
from causeway.chains.evm.signer import LocalSigner
from causeway.relayer.lane import RelayerSettings
from causeway.relayer.relayer import Relayer
from causeway.store.engine import Database
from tests.chain.reveals import chain_at, reveal_kind


async def relay(config: dict[str, Any]) -> None:
    """Run a relayer until SIGTERM."""
    database = Database(config["database"], pool_size=3)
    chain = chain_at(config["rpc"], config["chain_id"])
    kind = reveal_kind(config["contract"], **config["kind"])
    settings = RelayerSettings(**config["settings"])
    signer = LocalSigner.from_private_key(config["key"])
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await Relayer(database, chain, signer, [kind], settings=settings).run(stop)
    await chain.close()
    await database.close()


def start(config: dict[str, Any]) -> int:
    """Fork a relayer that ends itself at the fault point it is given; return its pid."""
    pid = os.fork()
    if pid:
        return pid
    os.environ["CAUSEWAY_FAULT"] = config["fault"]
    importlib.reload(faults)
    status = 1
    with suppress(KeyboardInterrupt):
        asyncio.run(relay(config))
        status = 0
    os._exit(status)


def main() -> None:
    """Serve the lines of standard input."""
    logging.configure("WARNING", "json")
    for line in sys.stdin:
        command = json.loads(line)
        if "start" in command:
            answer = start(command["start"])
        else:
            _, status = os.waitpid(command["wait"], 0)
            answer = os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
