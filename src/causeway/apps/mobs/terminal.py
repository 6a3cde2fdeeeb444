"""What the commands of M-OBS have in common: an opened installation, and JSON for programs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console

from causeway.apps.mobs.context import MobsContext
from causeway.base import logging
from causeway.base.settings import KernelSettings, load

console = Console()
#: Where progress is shown: what a program reads stays clean.
aside = Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@asynccontextmanager
async def opened() -> AsyncGenerator[MobsContext]:
    """Open the installation until the block is left."""
    # Imported here: the runtime imports the apps it finds.
    from causeway.runtime.discover import find_apps
    from causeway.runtime.installation import open_installation

    kernel = load(KernelSettings)
    logging.configure("ERROR", kernel.log_format)
    async with open_installation(find_apps(["mobs"]), kernel) as installation:
        yield installation.contexts["mobs"]


def run(work: Callable[[MobsContext], Awaitable[int]]) -> None:
    """Do a command's work and exit with what it returns."""

    async def main() -> int:
        async with opened() as ctx:
            return await work(ctx)

    raise SystemExit(asyncio.run(main()))


def print_json(value: Any) -> None:
    """Print JSON."""
    console.print_json(orjson.dumps(value, default=str).decode())


def tell(sentence: str, value: Any, *, as_json: bool) -> None:
    """Say what was done: to people in a sentence, to programs as JSON."""
    if as_json:
        print_json(value)
    else:
        console.print(sentence, highlight=False, markup=False)
