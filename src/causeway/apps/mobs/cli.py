"""`causeway mobs …`: what operators do by hand. Exit 0 fine, 1 found problems, 2 wrong use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.progress import Progress, TimeRemainingColumn
from rich.table import Table
from sqlalchemy import text

from causeway.apps.mobs import tracing, upkeep, verification
from causeway.apps.mobs.context import CHAIN, SOURCE, MobsContext
from causeway.apps.mobs.decoding import Decoder
from causeway.apps.mobs.partitions import day_name
from causeway.apps.mobs.probing import round_of_probes
from causeway.base import logging
from causeway.base.errors import NotFound, PermanentError
from causeway.base.settings import KernelSettings, load
from causeway.chains.evm.abi import Abi
from causeway.indexing import checkpoint

commands = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
providers = typer.Typer(no_args_is_help=True, help="RPC providers.")
contracts = typer.Typer(no_args_is_help=True, help="Watched contracts.")
alerts = typer.Typer(no_args_is_help=True, help="Alert rules.")
commands.add_typer(providers, name="providers")
commands.add_typer(contracts, name="contracts")
commands.add_typer(alerts, name="alerts")
console = Console()

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
First = Annotated[int, typer.Argument(min=0, help="First block.")]
Last = Annotated[int, typer.Argument(min=0, help="Last block.")]


@asynccontextmanager
async def _opened() -> AsyncGenerator[MobsContext]:
    # Imported here: the runtime imports the apps it finds.
    from causeway.runtime.discover import find_apps
    from causeway.runtime.installation import open_installation

    kernel = load(KernelSettings)
    logging.configure("ERROR", kernel.log_format)
    async with open_installation(find_apps(["mobs"]), kernel) as installation:
        yield installation.contexts["mobs"]


def _run(work: Callable[[MobsContext], Awaitable[int]]) -> None:
    async def main() -> int:
        async with _opened() as ctx:
            return await work(ctx)

    raise SystemExit(asyncio.run(main()))


def _print(value: Any) -> None:
    console.print_json(orjson.dumps(value, default=str).decode())


@asynccontextmanager
async def _progress(first: int, last: int, what: str) -> AsyncGenerator[Callable[[int], None]]:
    with Progress(*Progress.get_default_columns(), TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task(what, total=last - first + 1)
        yield lambda reached: bar.update(task, completed=reached - first + 1)


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
            _print(shown)
        else:
            table = Table(box=None, show_header=False)
            for name, value in shown.items():
                table.add_row(name, str(value))
            console.print(table)
        return 1 if holes or shown["problem"] or place is None else 0

    _run(work)


@commands.command()
def verify(first: First, last: Last, as_json: Json = False) -> None:
    """Compare stored blocks with the chain: counts and hashes, block by block."""

    async def work(ctx: MobsContext) -> int:
        async with _progress(first, last, "comparing") as told:
            found = await verification.verify(ctx, first, last, told)
        if as_json:
            _print([{"block": one.number, "problem": one.what} for one in found])
        else:
            for one in found:
                console.print(f"block {one.number}: {one.what}")
            console.print(f"{last - first + 1} blocks compared, {len(found)} differ")
        return 1 if found else 0

    _run(work)


@commands.command()
def repair(first: First, last: Last) -> None:
    """Write anew what differs from the chain."""

    async def work(ctx: MobsContext) -> int:
        async with _progress(first, last, "comparing") as told:
            found = await verification.verify(ctx, first, last, told)
        done = await verification.repair(ctx, found)
        console.print(f"{done} blocks written anew")
        return 0

    _run(work)


@commands.command()
def backfill(first: First, last: Last) -> None:
    """Read history beside the head; what is there already is not read again."""

    async def work(ctx: MobsContext) -> int:
        async with _progress(first, last, "reading") as told:
            done = await verification.backfill(ctx, first, last, told)
        console.print(f"{done} blocks written")
        return 0

    _run(work)


@commands.command()
def seek(
    block: Annotated[int, typer.Argument(min=1, help="The next block to read.")],
    yes: Annotated[bool, typer.Option("--yes", help="Skip blocks without asking.")] = False,
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
        console.print(f"the next block is {block}")
        return 0

    _run(work)


@commands.command()
def trace(tx_hash: Annotated[str, typer.Argument(help="Transaction hash.")]) -> None:
    """Find out now why a stored transaction failed."""

    async def work(ctx: MobsContext) -> int:
        async with ctx.database.transaction() as session:
            await ctx.services.watched.refresh(session)
            row = (
                await session.execute(
                    text(
                        "SELECT block_number, tx_index, block_timestamp, hash, status "
                        "FROM mobs.txs WHERE hash = :hash"
                    ),
                    {"hash": bytes.fromhex(tx_hash.removeprefix("0x"))},
                )
            ).first()
        if row is None:
            raise NotFound(f"there is no transaction {tx_hash}")
        if row[4] == 1:
            console.print("it did not fail")
            return 0
        await tracing.one(ctx, tracing.Failure(row[0], row[1], row[2], bytes(row[3]), 0))
        async with ctx.database.sessions() as session:
            reason = await session.scalar(
                text("SELECT error_decoded FROM mobs.txs WHERE hash = :hash"), {"hash": row[3]}
            )
        console.print(str(reason), highlight=False, markup=False)
        return 0

    _run(work)


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
        _print({"decoded": found.text, "params": found.params, "candidates": found.candidates})
    else:
        console.print(found.text, highlight=False, markup=False)


@commands.command()
def retention(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False,
) -> None:
    """Drop the days that retention lets go."""

    async def work(ctx: MobsContext) -> int:
        for table, day in await upkeep.too_old(ctx):
            console.print(f"{table} {day_name(day)}")
        if not dry_run:
            await upkeep.retain_now(ctx)
        return 0

    _run(work)


@providers.command("list")
def provider_list(as_json: Json = False) -> None:
    """List the providers with their scores and reasons."""

    async def work(ctx: MobsContext) -> int:
        async with ctx.database.sessions() as session:
            rows = (
                (
                    await session.execute(
                        text("SELECT * FROM mobs.rpc_endpoints ORDER BY score DESC")
                    )
                )
                .mappings()
                .all()
            )
        if as_json:
            names = ("id", "name", "url", "status", "score", "deductions", "is_active")
            _print([{name: row[name] for name in names} for row in rows])
            return 0
        table = Table("id", "name", "url", "status", "score", "why", box=None)
        for row in rows:
            why = "; ".join(f"−{d['points']} {d['reason']}" for d in row["deductions"])
            table.add_row(
                str(row["id"]), row["name"], row["url"], row["status"], str(row["score"]), why
            )
        console.print(table)
        return 0

    _run(work)


@providers.command("probe")
def provider_probe() -> None:
    """Probe every provider now, and what it can do."""

    async def work(ctx: MobsContext) -> int:
        probes = await round_of_probes(ctx, deep=True)
        for one in probes:
            console.print(
                f"{one.provider.name}: {one.error or 'ok'}, {one.latency_ms} ms, block {one.height}"
            )
        return 1 if any(one.error for one in probes) else 0

    _run(work)


@contracts.command("add")
def contract_add(
    address: Annotated[str, typer.Argument(help="Contract address.")],
    name: Annotated[str, typer.Option(help="What to call it.")],
    abi: Annotated[Path | None, typer.Option(help="ABI file.")] = None,
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
        console.print(f"contract {made}")
        return 0

    _run(work)


_RULE = (
    *("name", "description", "alert_type", "conditions", "threshold", "window_minutes"),
    *("cooldown_minutes", "for_minutes", "severity", "no_data", "is_enabled", "channels"),
)


@alerts.command("export")
def alerts_export() -> None:
    """Print all rules as JSON, the same for the same rules; contracts by their addresses."""

    async def work(ctx: MobsContext) -> int:
        typer.echo(orjson.dumps(await _exported(ctx), option=orjson.OPT_INDENT_2).decode())
        return 0

    _run(work)


async def _exported(ctx: MobsContext) -> list[dict[str, Any]]:
    async with ctx.database.sessions() as session:
        rows = (
            (
                await session.execute(
                    text(
                        "SELECT a.*, ARRAY(SELECT '0x' || encode(c.address, 'hex') FROM "
                        "mobs.contracts AS c WHERE c.id = ANY(a.contract_ids) ORDER BY 1) AS "
                        "contracts FROM mobs.alerts AS a ORDER BY name, id"
                    )
                )
            )
            .mappings()
            .all()
        )
    return [
        {name: str(row[name]) if name == "threshold" else row[name] for name in _RULE}
        | {"contracts": row["contracts"]}
        for row in rows
    ]


@alerts.command("apply")
def alerts_apply(
    file: Annotated[Path, typer.Argument(help="A file made by `export`.")],
    check: Annotated[bool, typer.Option("--check", help="Only say what would change.")] = False,
) -> None:
    """Have exactly the rules of a file, known by their names."""
    from causeway.apps.mobs.alerts.rules import check as check_rule

    wanted: list[dict[str, Any]] = orjson.loads(file.read_bytes())
    for rule in wanted:
        check_rule(rule["alert_type"], rule["conditions"])

    async def work(ctx: MobsContext) -> int:
        here = {rule["name"]: rule for rule in await _exported(ctx)}
        names = {rule["name"] for rule in wanted}
        changed = [rule for rule in wanted if here.get(rule["name"]) != rule]
        gone = [name for name in here if name not in names]
        for rule in changed:
            console.print(f"{'change' if rule['name'] in here else 'add'} {rule['name']}")
        for name in gone:
            console.print(f"remove {name}")
        if check:
            return 1 if changed or gone else 0
        async with ctx.database.transaction() as session:
            for name in [*gone, *(rule["name"] for rule in changed)]:
                await session.execute(
                    text("DELETE FROM mobs.alerts WHERE name = :name"), {"name": name}
                )
            for rule in changed:
                values = dict(rule) | {
                    "conditions": orjson.dumps(rule["conditions"]).decode(),
                    "channels": orjson.dumps(rule["channels"]).decode(),
                    "contracts": [bytes.fromhex(one[2:]) for one in rule["contracts"]],
                }
                await session.execute(
                    text(
                        f"INSERT INTO mobs.alerts ({', '.join(_RULE)}, contract_ids) VALUES "
                        "(:name, :description, :alert_type, CAST(:conditions AS jsonb), "
                        "CAST(:threshold AS numeric), :window_minutes, :cooldown_minutes, "
                        ":for_minutes, :severity, :no_data, :is_enabled, "
                        "CAST(:channels AS jsonb), ARRAY(SELECT id FROM mobs.contracts "
                        "WHERE address = ANY(:contracts)))"
                    ),
                    values,
                )
        return 0

    _run(work)
