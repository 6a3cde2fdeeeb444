"""`causeway index …`: how far the sources are, whether their rows are the chain's, and mending."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from causeway.base import logging
from causeway.base.clock import SYSTEM_CLOCK, iso
from causeway.base.errors import InvalidInput, NotFound
from causeway.base.settings import KernelSettings, load
from causeway.chains.evm.chain import EvmChain
from causeway.cli.backfills import duration
from causeway.indexing.progress import SourceStatus, statuses, time_left_s
from causeway.indexing.source import Source
from causeway.indexing.verifying import Comparison, verify
from causeway.runtime import discover
from causeway.runtime.installation import Installation, open_database, open_installation
from causeway.store import migrate
from causeway.store.engine import Database

commands = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
console = Console()

#: Between two looks that a rate is taken from, seconds.
_RATE_OVER_S = 1.0

#: What `verify` and `repair` end with, besides 0 and the 1 of any other error.
_PARTLY, _DIFFERENT, _NO_SOURCE = 2, 3, 4
_EXIT_CODES = (
    "Exit codes: 0 all rows are the chain's, 1 it could not be done, 2 the newest blocks could not "
    "be compared (the provider has others there), 3 rows differ, 4 there is no such source."
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Name = Annotated[str, typer.Argument(metavar="SOURCE", help="As `causeway index status` has it.")]
First = Annotated[int | None, typer.Option("--from", min=0, help="The first block; its start.")]
Last = Annotated[int | None, typer.Option("--to", min=0, help="The last block; its newest.")]
Provider = Annotated[
    str | None,
    typer.Option(help="Ask this one (`causeway chains`); else the last of the list."),
]


@commands.command("status")
def status(as_json: Json = False) -> None:
    """Show how far every source is, how fast it goes and how long it will take."""
    logging.configure("ERROR")
    before, now = asyncio.run(_twice())
    earlier = {one.source: one for one in before}
    rows = [(one, time_left_s(earlier.get(one.source, one), one, _RATE_OVER_S)) for one in now]
    if as_json:
        shown = [
            asdict(one)
            | {"moved_at": iso(one.moved_at), "behind": one.behind, "seconds_left": left}
            for one, left in rows
        ]
        console.print_json(json.dumps(shown))
        return
    table = Table("source", "chain", "applied", "head", "behind", "time left", "effects", "state")
    for one, left in rows:
        table.add_row(
            one.source,
            str(one.chain_id),
            f"{one.applied:,}",
            f"{one.head:,}",
            f"{one.behind:,}",
            "-" if not one.behind else "stands still" if left is None else duration(left),
            str(one.waiting),
            one.problem or "well",
        )
    console.print(table)


@commands.command("verify", epilog=_EXIT_CODES)
def verify_command(
    source: Name,
    first: First = None,
    last: Last = None,
    provider: Provider = None,
    as_json: Json = False,
) -> None:
    """Compare the rows of a source with the chain.

    Blocks that can still be replaced are compared with the blocks that were applied: of a provider
    on another fork nothing is said about them.
    """
    _compare(source, first, last, provider, as_json=as_json, repair=False)


@commands.command("repair", epilog=_EXIT_CODES)
def repair_command(
    source: Name,
    first: First = None,
    last: Last = None,
    provider: Provider = None,
    as_json: Json = False,
) -> None:
    """Have the rows of final blocks be the chain's again, where they differ.

    Exit code 3 is not used: what differed is mended.
    """
    _compare(source, first, last, provider, as_json=as_json, repair=True)


def _compare(
    name: str,
    first: int | None,
    last: int | None,
    provider: str | None,
    *,
    as_json: bool,
    repair: bool,
) -> None:
    logging.configure("ERROR")
    try:
        done = asyncio.run(_compared(name, first, last, provider, repair))
    except _NoSource as error:
        typer.echo(f"causeway: {error.message}", err=True)
        raise SystemExit(_NO_SOURCE) from None
    found = done.differences
    if as_json:
        console.print_json(json.dumps(asdict(done)))
    else:
        for one in found:
            console.print(
                f"{one.table} block {one.block}: {one.missing} missing, {one.extra} too many",
                highlight=False,
            )
        said = "mended" if repair else "different"
        console.print(f"{len(found)} blocks {said}" if found else "all rows are the chain's")
        if done.left_out is not None:
            console.print(
                f"compared up to block {done.compared_to} only: {done.left_out}", highlight=False
            )
    if found and not repair:
        raise SystemExit(_DIFFERENT)
    if done.left_out is not None:
        raise SystemExit(_PARTLY)


class _NoSource(NotFound):
    """There is no such source."""


async def _compared(
    name: str, first: int | None, last: int | None, provider: str | None, repair: bool
) -> Comparison:
    kernel = load(KernelSettings)
    async with open_installation(discover.find_apps(()), kernel) as installation:
        source, chain = _source(installation, name)
        _ask(chain, provider)
        async with installation.database.transaction() as session:
            known = {one.source: one for one in await statuses(session)}
        if name not in known:
            raise _NoSource(f"source {name!r} has not begun")
        begin = source.start_block if first is None else first
        newest = min(known[name].final, known[name].applied) if repair else known[name].applied
        end = newest if last is None else last
        screen = Console(stderr=True)
        with Progress(console=screen, transient=True, disable=not screen.is_terminal) as progress:
            task = progress.add_task(name, total=max(1, end - begin + 1))
            return await verify(
                installation.database,
                chain,
                source,
                begin,
                end,
                told=lambda block: progress.update(task, completed=block - begin + 1),
                repair=repair,
            )


def _source(installation: Installation, name: str) -> tuple[Source, EvmChain]:
    names: list[str] = []
    for app in installation.apps:
        ctx = installation.contexts[app.name]
        for indexer in ctx.indexers.values():
            names.append(indexer.source.name)
            if indexer.source.name == name:
                if not isinstance(indexer.source, Source):
                    raise InvalidInput(
                        f"source {name!r} keeps whole blocks in its app's own form: "
                        f"see `causeway {app.name} verify`"
                    )
                return indexer.source, ctx.chains[indexer.source.chain]
    raise _NoSource(f"there is no source {name!r}; there are {', '.join(sorted(names))}")


def _ask(chain: EvmChain, provider: str | None) -> None:
    """Have the chain read from another provider than the one that is asked as a rule."""
    endpoints = list(chain.pool.endpoints)
    if provider is None:
        chain.pool.arrange(endpoints[::-1])
        return
    wanted = [one for one in endpoints if one.name == provider]
    if not wanted:
        raise NotFound(
            f"there is no provider {provider!r}; there are {', '.join(e.name for e in endpoints)}"
        )
    chain.pool.arrange(wanted)


async def _twice() -> tuple[list[SourceStatus], list[SourceStatus]]:
    async with _database() as database:
        async with database.transaction() as session:
            before = await statuses(session)
        if any(one.behind for one in before):
            await SYSTEM_CLOCK.sleep(_RATE_OVER_S)
        async with database.transaction() as session:
            return before, await statuses(session)


@asynccontextmanager
async def _database() -> AsyncGenerator[Database]:
    async with open_database(load(KernelSettings)) as database:
        await migrate.upgrade(database, [migrate.kernel_line()])
        yield database
