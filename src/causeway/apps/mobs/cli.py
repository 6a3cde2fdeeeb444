"""`causeway mobs …`: what operators do by hand. Exit 0 fine, 1 found problems, 2 wrong use."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.progress import Progress, TimeRemainingColumn
from rich.table import Table
from sqlalchemy import text

from causeway.apps.mobs import tracing, upkeep, verification
from causeway.apps.mobs.cli_alerts import alerts
from causeway.apps.mobs.cli_providers import providers
from causeway.apps.mobs.context import CHAIN, SOURCE, MobsContext
from causeway.apps.mobs.decoding import Decoder
from causeway.apps.mobs.partitions import day_name
from causeway.apps.mobs.terminal import Json, aside, console, print_json, run, tell
from causeway.base.errors import InvalidInput, NotFound, PermanentError
from causeway.chains.evm.abi import Abi
from causeway.indexing import checkpoint

commands = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
contracts = typer.Typer(no_args_is_help=True, help="Watched contracts.")
commands.add_typer(providers, name="providers")
commands.add_typer(contracts, name="contracts")
commands.add_typer(alerts, name="alerts")
First = Annotated[int | None, typer.Argument(min=0, help="First block; or --from.")]
Last = Annotated[int | None, typer.Argument(min=0, help="Last block; or --to.")]
From = Annotated[int | None, typer.Option("--from", min=0, help="First block.")]
To = Annotated[int | None, typer.Option("--to", min=0, help="Last block.")]


def _blocks(first: int | None, last: int | None, begin: int | None, end: int | None) -> range:
    """Return the blocks that were named, as two places or as options.

    Raises `typer.BadParameter` unless each end was named once.
    """
    ends: list[int] = []
    for name, place, option in (("--from", first, begin), ("--to", last, end)):
        if place is not None and option is not None:
            raise typer.BadParameter(f"{name} was given twice: {place} and {option}")
        found = option if place is None else place
        if found is None:
            raise typer.BadParameter(f"{name} is missing: a block number of 0 or more")
        ends.append(found)
    return range(ends[0], ends[1] + 1)


@asynccontextmanager
async def _progress(blocks: range, what: str) -> AsyncGenerator[Callable[[int], None]]:
    with Progress(*Progress.get_default_columns(), TimeRemainingColumn(), console=aside) as bar:
        task = bar.add_task(what, total=len(blocks))
        yield lambda reached: bar.update(task, completed=reached - blocks.start + 1)


@commands.command()
def status(as_json: Json = False) -> None:
    """Show the pipelines, how far they are, holes and queues; exit 1 if anything is wrong."""

    async def work(ctx: MobsContext) -> int:
        async with ctx.database.sessions() as session:
            states = {
                key: (value, at)
                for key, value, at in await session.execute(
                    text("SELECT key, value, updated_at FROM mobs.worker_state ORDER BY key")
                )
            }
            place = (
                await session.execute(
                    text(
                        "SELECT number, head_number, problem FROM causeway.checkpoints "
                        "WHERE source = :source"
                    ),
                    {"source": SOURCE},
                )
            ).first()
            holes = (
                await session.execute(text("SELECT first_block, last_block FROM mobs.block_holes"))
            ).all()
            queue = await session.scalar(text("SELECT count(*) FROM mobs.trace_queue"))
        now = int(ctx.clock.now().timestamp())
        shown = {
            "applied_block": None if place is None else place[0],
            "head_block": None if place is None else place[1],
            "problem": None if place is None else place[2],
            "trace_queue": queue,
            "holes": [list(hole) for hole in holes],
            "seconds_since": {key: now - at for key, (_, at) in states.items()},
        }
        if as_json:
            print_json(shown)
        else:
            table = Table(box=None, show_header=False)
            for name, value in shown.items():
                table.add_row(name, str(value))
            console.print(table)
        return 1 if holes or shown["problem"] or place is None else 0

    run(work)


@commands.command()
def verify(
    first: First = None,
    last: Last = None,
    begin: From = None,
    end: To = None,
    as_json: Json = False,
) -> None:
    """Compare stored blocks with the chain: counts and hashes, block by block."""
    blocks = _blocks(first, last, begin, end)

    async def work(ctx: MobsContext) -> int:
        async with _progress(blocks, "comparing") as told:
            found = await verification.verify(ctx, blocks.start, blocks.stop - 1, told)
        if as_json:
            print_json([{"block": one.number, "problem": one.what} for one in found])
        else:
            for one in found:
                console.print(f"block {one.number}: {one.what}")
            console.print(f"{len(blocks)} blocks compared, {len(found)} differ")
        return 1 if found else 0

    run(work)


@commands.command()
def repair(
    first: First = None,
    last: Last = None,
    begin: From = None,
    end: To = None,
    as_json: Json = False,
) -> None:
    """Write anew what differs from the chain."""
    blocks = _blocks(first, last, begin, end)

    async def work(ctx: MobsContext) -> int:
        async with _progress(blocks, "comparing") as told:
            found = await verification.verify(ctx, blocks.start, blocks.stop - 1, told)
        done = await verification.repair(ctx, found)
        tell(f"{done} blocks written anew", {"written": done}, as_json=as_json)
        return 0

    run(work)


@commands.command()
def backfill(
    first: First = None,
    last: Last = None,
    begin: From = None,
    end: To = None,
    as_json: Json = False,
) -> None:
    """Read history beside the head; what is there already is not read again."""
    blocks = _blocks(first, last, begin, end)

    async def work(ctx: MobsContext) -> int:
        async with _progress(blocks, "reading") as told:
            done = await verification.backfill(ctx, blocks.start, blocks.stop - 1, told)
        tell(f"{done} blocks written", {"written": done}, as_json=as_json)
        return 0

    run(work)


@commands.command()
def seek(
    block: Annotated[int, typer.Argument(min=1, help="The next block to read.")],
    yes: Annotated[bool, typer.Option("--yes", help="Skip blocks without asking.")] = False,
    as_json: Json = False,
) -> None:
    """Move the scanner; blocks that are skipped become a recorded hole."""

    async def work(ctx: MobsContext) -> int:
        async with ctx.database.sessions() as session:
            place = await checkpoint.load(session, SOURCE)
        if place is None:
            raise NotFound("nothing was read yet; set START_BLOCK instead")
        skipped = block - 1 - place.number
        if skipped > 0 and not yes and not typer.confirm(f"Skip {skipped} blocks?"):
            return 2
        (before,) = await ctx.chains[CHAIN].look(block - 1)
        if before is None:
            raise NotFound(f"the chain has no block {block - 1} yet")
        async with ctx.database.transaction() as session:
            await checkpoint.seek(session, SOURCE, before)
            if skipped > 0:
                await session.execute(
                    text(
                        "INSERT INTO mobs.block_holes (first_block, last_block, reason) VALUES "
                        "(:first, :last, 'skipped by an operator') ON CONFLICT DO NOTHING"
                    ),
                    {"first": place.number + 1, "last": block - 1},
                )
            else:
                for number in range(block, place.number + 1):
                    await verification.forget(session, number)
        told = {"next_block": block, "skipped": max(0, skipped)}
        tell(f"the next block is {block}", told, as_json=as_json)
        return 0

    run(work)


@commands.command()
def trace(
    tx_hash: Annotated[str, typer.Argument(help="Transaction hash.")], as_json: Json = False
) -> None:
    """Find out now why a stored transaction failed."""
    try:
        wanted = bytes.fromhex(tx_hash.removeprefix("0x"))
    except ValueError:
        wanted = b""
    if len(wanted) != 32:
        raise InvalidInput(f"{tx_hash[:80]!r} is no transaction hash; allowed is 0x and 64 digits")

    async def work(ctx: MobsContext) -> int:
        async with ctx.database.transaction() as session:
            await ctx.services.watched.refresh(session)
            row = (
                await session.execute(
                    text(
                        "SELECT block_number, tx_index, block_timestamp, hash, status "
                        "FROM mobs.txs WHERE hash = :hash"
                    ),
                    {"hash": wanted},
                )
            ).first()
        if row is None:
            raise NotFound(f"there is no transaction {tx_hash}")
        if row[4] == 1:
            tell("it did not fail", {"status": "success"}, as_json=as_json)
            return 0
        await tracing.one(ctx, tracing.Failure(row[0], row[1], row[2], bytes(row[3]), 0))
        async with ctx.database.sessions() as session:
            found = (
                await session.execute(
                    text(
                        "SELECT error_decoded, error_source, error_origin, trace_state "
                        "FROM mobs.txs WHERE hash = :hash"
                    ),
                    {"hash": row[3]},
                )
            ).one()
        told = {
            "status": "failed",
            "decoded": found[0],
            "source": found[1],
            "origin": found[2],
            "trace_state": found[3],
        }
        tell(found[0] or f"not known ({found[3]})", told, as_json=as_json)
        return 0 if found[0] else 1

    run(work)


@commands.command()
def decode(
    data: Annotated[str, typer.Argument(help="Revert data, 0x and hex digits.")],
    abi: Annotated[Path | None, typer.Option(help="ABI file of the contract.")] = None,
    as_json: Json = False,
) -> None:
    """Decode revert data without a database or a chain."""
    try:
        raw = bytes.fromhex(data.removeprefix("0x"))
    except ValueError:
        console.print("data is not hex; allowed is 0x and an even number of hex digits")
        raise SystemExit(2) from None
    abis = {} if abi is None else {bytes(20): Abi.from_json(abi)}
    found = Decoder(abis).error(raw)
    if as_json:
        print_json({"decoded": found.text, "params": found.params, "candidates": found.candidates})
    else:
        console.print(found.text, highlight=False, markup=False)


@commands.command()
def retention(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False,
    as_json: Json = False,
) -> None:
    """Drop the days that retention lets go."""

    async def work(ctx: MobsContext) -> int:
        days = [(table, day_name(day)) for table, day in await upkeep.too_old(ctx)]
        told = [{"table": table, "day": day} for table, day in days]
        lines = "\n".join(f"{table} {day}" for table, day in days)
        tell(lines or "nothing is too old", told, as_json=as_json)
        if not dry_run:
            await upkeep.retain_now(ctx)
        return 0

    run(work)


@contracts.command("add")
def contract_add(
    address: Annotated[str, typer.Argument(help="Contract address.")],
    name: Annotated[str, typer.Option(help="What to call it.")],
    abi: Annotated[Path | None, typer.Option(help="ABI file.")] = None,
    as_json: Json = False,
) -> None:
    """Watch a contract."""
    from causeway.apps.mobs.abis import check_abi
    from causeway.apps.mobs.routes.contracts import address_of

    entries: Any = None if abi is None else orjson.loads(abi.read_bytes())
    if isinstance(entries, dict):
        entries = entries.get("abi")  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if entries is not None:
        check_abi(entries)  # pyright: ignore[reportUnknownArgumentType]

    async def work(ctx: MobsContext) -> int:
        async with ctx.database.transaction() as session:
            made = await session.scalar(
                text(
                    "INSERT INTO mobs.contracts (address, name, abi_json) VALUES (:address, :name, "
                    "CAST(:abi AS jsonb)) ON CONFLICT DO NOTHING RETURNING id"
                ),
                {
                    "address": address_of(address),
                    "name": name,
                    "abi": None if entries is None else orjson.dumps(entries).decode(),
                },
            )
        if made is None:
            raise PermanentError(f"{address} is watched already")
        tell(f"contract {made}", {"id": made}, as_json=as_json)
        return 0

    run(work)
