"""`causeway mobs providers …`: which there are, how they are, and asking them now."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from sqlalchemy import text

from causeway.apps.mobs.context import MobsContext
from causeway.apps.mobs.probing import round_of_probes
from causeway.apps.mobs.providers import add, remove
from causeway.apps.mobs.terminal import Json, console, print_json, run, tell

providers = typer.Typer(no_args_is_help=True, help="RPC providers.")


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
            print_json([{name: row[name] for name in names} for row in rows])
            return 0
        table = Table("id", "name", "url", "status", "score", "why", box=None)
        for row in rows:
            why = "; ".join(f"−{d['points']} {d['reason']}" for d in row["deductions"])
            table.add_row(
                str(row["id"]), row["name"], row["url"], row["status"], str(row["score"]), why
            )
        console.print(table)
        return 0

    run(work)


@providers.command("probe")
def provider_probe(as_json: Json = False) -> None:
    """Probe every provider now, and what it can do."""

    async def work(ctx: MobsContext) -> int:
        probes = await round_of_probes(ctx, deep=True)
        told = [
            {
                "name": one.provider.name,
                "error": one.error,
                "latency_ms": one.latency_ms,
                "block": one.height,
            }
            for one in probes
        ]
        lines = "\n".join(
            f"{one['name']}: {one['error'] or 'ok'}, {one['latency_ms']} ms, block {one['block']}"
            for one in told
        )
        tell(lines, told, as_json=as_json)
        return 1 if any(one.error for one in probes) else 0

    run(work)


@providers.command("add")
def provider_add(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    url: Annotated[str, typer.Argument(help="Its address, without a key in it.")],
    as_json: Json = False,
) -> None:
    """Watch a provider and read from it; one with a key belongs into MANTLE_RPC_ENDPOINTS."""

    async def work(ctx: MobsContext) -> int:
        async with ctx.database.transaction() as session:
            row = await add(session, name, url, ctx.settings.chain_id)
        tell(f"provider {row['id']}", {"id": row["id"]}, as_json=as_json)
        return 0

    run(work)


@providers.command("remove")
def provider_remove(
    name: Annotated[str, typer.Argument(help="Its name or number.")],
    as_json: Json = False,
) -> None:
    """Remove a provider with its samples; one of the settings comes back with the next probe."""

    async def work(ctx: MobsContext) -> int:
        async with ctx.database.transaction() as session:
            await remove(session, name)
        tell(f"{name} is removed", {"removed": name}, as_json=as_json)
        return 0

    run(work)
