"""`causeway mobs alerts …`: rules as a file, and rules tried on history."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from causeway.apps.mobs.alerts import files
from causeway.apps.mobs.alerts.preview import MOST_STEPS, STEP_S, preview
from causeway.apps.mobs.context import MobsContext
from causeway.apps.mobs.terminal import Json, console, print_json, run
from causeway.base.errors import InvalidInput

alerts = typer.Typer(no_args_is_help=True, help="Alert rules.")

File = Annotated[Path, typer.Argument(help="A file made by `export`.", exists=True, dir_okay=False)]


@alerts.command("export")
def alerts_export() -> None:
    """Print all rules as JSON, the same for the same rules; contracts by their addresses."""

    async def work(ctx: MobsContext) -> int:
        async with ctx.database.sessions() as session:
            typer.echo(files.written(await files.stored(session)), nl=False)
        return 0

    run(work)


@alerts.command("diff")
def alerts_diff(file: File, as_json: Json = False) -> None:
    """Say what a file would change; exit 1 when anything."""
    wanted = files.read(file.read_bytes())

    async def work(ctx: MobsContext) -> int:
        async with ctx.database.sessions() as session:
            found = files.compare(await files.stored(session), wanted)
        _show(found, as_json=as_json)
        return 1 if found else 0

    run(work)


@alerts.command("apply")
def alerts_apply(
    file: File,
    check: Annotated[bool, typer.Option("--check", help="Only say what would change.")] = False,
    as_json: Json = False,
) -> None:
    """Have exactly the rules of a file, known by their names; those that stay keep their events."""
    if check:
        alerts_diff(file, as_json)
        return
    wanted = files.read(file.read_bytes())

    async def work(ctx: MobsContext) -> int:
        async with ctx.database.transaction() as session:
            now = int(ctx.clock.now().timestamp())
            found = await files.apply(session, wanted, now)
        _show(found, as_json=as_json)
        return 0

    run(work)


def _show(found: files.Difference, *, as_json: bool) -> None:
    if as_json:
        changed = {
            name: [{"field": f, "from": old, "to": new} for f, old, new in fields]
            for name, fields in found.changed.items()
        }
        print_json({"added": found.added, "removed": found.removed, "changed": changed})
        return
    for name in found.added:
        console.print(f"+ {name}", highlight=False)
    for name in found.removed:
        console.print(f"- {name}", highlight=False)
    for name, fields in found.changed.items():
        for field, old, new in fields:
            console.print(f"~ {name}: {field} {old} → {new}", highlight=False, markup=False)


@alerts.command("test")
def alerts_test(
    file: File,
    start: Annotated[str, typer.Option("--from", help="Unix seconds, or a date and time.")],
    end: Annotated[str, typer.Option("--to", help="Unix seconds, or a date and time.")],
    as_json: Json = False,
) -> None:
    """Tell what the rules of a file would have done; exit 1 when any would have fired."""
    wanted = files.read(file.read_bytes())
    start_ts, end_ts = _instant(start), _instant(end)
    if not 0 < (end_ts - start_ts) // STEP_S <= MOST_STEPS:
        raise InvalidInput("--to must be after --from, at most 7 days")

    async def work(ctx: MobsContext) -> int:
        found: list[dict[str, Any]] = []
        async with ctx.database.sessions() as session:
            for rule in wanted:
                whole = await files.whole(session, rule)
                seen = await preview(
                    session, whole, start_ts, end_ts, forks=ctx.settings.fork_times()
                )
                found.append({"name": rule["name"], **seen.view()})
        if as_json:
            print_json(found)
        else:
            table = Table("rule", "episodes", "minutes firing", "first", box=None)
            for one in found:
                first = str(one["transitions"][0]["at"]) if one["transitions"] else ""
                table.add_row(
                    str(one["name"]), str(one["episodes"]), str(one["minutes_firing"]), first
                )
            console.print(table)
        return 1 if any(one["episodes"] for one in found) else 0

    run(work)


def _instant(given: str) -> int:
    if given.isdigit():
        return int(given)
    try:
        at = datetime.fromisoformat(given)
    except ValueError:
        raise InvalidInput(f"{given!r} is neither Unix seconds nor a date and time") from None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())
