"""`python -m causeway.sandbox`: the stand-ins until SIGTERM or Ctrl+C.

Prints one JSON line with its addresses as soon as it answers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from causeway.sandbox.server import SandboxServer
from causeway.sandbox.settings import SandboxSettings


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(prog="python -m causeway.sandbox", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 (default): one from the system")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--state", type=Path, help="file that keeps predictions and pins")
    parser.add_argument(
        "--settings",
        type=SandboxSettings.model_validate_json,
        default=SandboxSettings(),
        help='JSON of settings to change, as {"latency_s": 2}',
    )
    asyncio.run(_serve(parser.parse_args()))


async def _serve(arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with SandboxServer.start(
        arguments.port,
        host=arguments.host,
        state=arguments.state,
        settings=arguments.settings,
    ) as sandbox:
        sys.stdout.write(json.dumps({**sandbox.addresses(), "pid": os.getpid()}) + "\n")
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    main()
