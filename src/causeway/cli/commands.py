"""The commands of `causeway`; each app adds its own under its name."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from causeway.app import AnyApp
from causeway.base import logging
from causeway.base.settings import KernelSettings, Settings, describe, load
from causeway.cli import connections, index, relayer
from causeway.cli.backfills import bars
from causeway.relayer.settings import RelayerEnvironment
from causeway.runtime import discover

Apps = Annotated[
    list[str] | None,
    typer.Argument(metavar="[APP]...", help="Which apps; all that are installed when none."),
]

console = Console()


def build() -> typer.Typer:
    """Return the command with a sub-command for every installed app that has commands."""
    cli = typer.Typer(
        name="causeway",
        help="What happened elsewhere becomes what happens next, exactly once.",
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    cli.command(help="Serve the API and do the work, in one process.")(run)
    cli.command(help="Serve the API only.")(serve)
    cli.command(help="Do the work only; start as many as you like, on any machine.")(work)
    cli.command(help="Bring the database's tables up to date.")(migrate)
    cli.command(help="Check database, chains, keys and services, and say how to mend what fails.")(
        doctor
    )
    cli.command(help="Ask the chains' providers, and show how each does and why.")(chains)
    cli.command(help="Show every setting in force and where its value came from.")(config)
    cli.command(help="Watch an app at work on a chain of your own, end to end.")(demo)
    cli.add_typer(index.commands, name="index", help="How far the sources are; compare and mend.")
    cli.add_typer(relayer.commands, name="relayer", help="What is sent to chains, and its switch.")
    cli.add_typer(connections.commands, name="connections")
    for app in discover.find_apps():
        if app.commands is not None:
            cli.add_typer(app.commands, name=app.name, help=f"{app.title}: its own commands.")
    return cli


def run(
    apps: Apps = None,
    host: Annotated[str | None, typer.Option(help="Address to serve on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to serve on; 0 takes a free one.")] = None,
) -> None:
    """Serve the API and do the work, in one process."""
    _serve(apps, host, port, api=True, worker=True)


def serve(
    apps: Apps = None,
    host: Annotated[str | None, typer.Option(help="Address to serve on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to serve on; 0 takes a free one.")] = None,
) -> None:
    """Serve the API only."""
    _serve(apps, host, port, api=True, worker=False)


def work(
    apps: Apps = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="STAGE", help="Only this stage; repeatable.")
    ] = None,
) -> None:
    """Do the work only; start as many as you like, on any machine."""
    _serve(apps, None, None, api=False, worker=True, only=only)


def _serve(
    names: list[str] | None,
    host: str | None,
    port: int | None,
    *,
    api: bool,
    worker: bool,
    only: list[str] | None = None,
) -> None:
    from causeway.runtime.process import run_process

    found = discover.find_apps(names or ())
    kernel = load(KernelSettings)
    overrides = {k: v for k, v in (("host", host), ("port", port)) if v is not None}
    kernel = kernel.model_copy(update=overrides)
    screen = Console(stderr=True)
    if not worker or not screen.is_terminal or kernel.log_format == "json":
        logging.configure(kernel.log_level, kernel.log_format)
        run_process(found, kernel, api=api, worker=worker, only=only)
        return
    with bars(screen) as stream:
        logging.configure(kernel.log_level, kernel.log_format, stream)
        run_process(found, kernel, api=api, worker=worker, only=only)


def migrate(
    apps: Apps = None,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit 1 when something is pending.")
    ] = False,
) -> None:
    """Bring the database's tables up to date."""
    from causeway.runtime.installation import migrate_all

    found = discover.find_apps(apps or ())
    kernel = load(KernelSettings)
    logging.configure("WARNING", kernel.log_format)
    lines = asyncio.run(migrate_all(found, kernel, apply=not check))
    table = Table("schema", "before", "now", box=None)
    for line in lines:
        table.add_row(line.name, line.before or "empty", line.after or "empty")
    console.print(table)
    if check and any(line.pending for line in lines):
        raise SystemExit(1)


def doctor(apps: Apps = None) -> None:
    """Check database, chains, keys and services, and say how to mend what fails."""
    from causeway.runtime.doctor import examine

    found = discover.find_apps(apps or ())
    kernel = load(KernelSettings)
    logging.configure("ERROR", kernel.log_format)
    results = asyncio.run(examine(found, kernel))
    for result in results:
        mark = "[green]ok  [/green]" if result.ok else "[red]FAIL[/red]"
        console.print(f"{mark} {result.name}: {result.detail}", highlight=False)
        if not result.ok and result.fix:
            console.print(f"       → {result.fix}", highlight=False)
    if not all(result.ok for result in results):
        raise SystemExit(1)


def chains(
    apps: Apps = None,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="How often to ask.")] = 5,
) -> None:
    """Ask the chains' providers, and show how each does and why."""
    from causeway.cli.chains import show_chains

    raise SystemExit(show_chains(discover.find_apps(apps or ()), load(KernelSettings), rounds))


def config(apps: Apps = None) -> None:
    """Show every setting in force and where its value came from, secrets hidden."""
    _show("kernel", load(KernelSettings))
    _show("relayer", load(RelayerEnvironment))
    found: list[AnyApp] = discover.find_apps(apps or ())
    for app in found:
        _show(app.title, load(app.settings))


def _show(title: str, settings: Settings) -> None:
    table = Table("variable", "value", "from", "what it is", title=title, title_justify="left")
    for row in describe(settings):
        style = "" if row.origin == "default" else "bold"
        table.add_row(row.name, row.value, row.origin, row.description, style=style)
    console.print(table)


def demo(
    app: Annotated[
        Literal["glisk", "motify", "mobs"] | None,
        typer.Option(help="Whose story; without it those of glisk and motify, one by one."),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave it running at the end.")] = False,
    tokens: Annotated[int, typer.Option(min=3, max=500, help="How many tokens to mint.")] = 25,
    faults: Annotated[
        bool, typer.Option(help="Cause a reorganisation and kill a worker on the way.")
    ] = True,
) -> None:
    """Watch an app at work on a chain of your own, end to end."""
    from causeway.cli.demo import run_demo, run_mobs_demo, run_motify_demo

    if app == "mobs":
        raise SystemExit(run_mobs_demo(keep=keep))
    if app != "motify":
        # Only the last of several can be left running.
        code = run_demo(keep=keep and app is not None, tokens=tokens, faults=faults)
        if code or app is not None:
            raise SystemExit(code)
        console.print()
    raise SystemExit(run_motify_demo(keep=keep, faults=faults))
