"""`causeway motify …`: what operators do by hand. Exit 0 done, 1 error or a challenge failed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from eth_utils.address import is_address
from rich.console import Console
from rich.table import Table
from sqlalchemy import func, select

from causeway.apps.motify import explaining, ordering, processing
from causeway.apps.motify.context import MotifyContext
from causeway.apps.motify.models import Incident, Score, Settlement
from causeway.base import logging
from causeway.base.errors import ConfigurationError, Field, InvalidInput
from causeway.base.settings import KernelSettings, load

commands = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
console = Console()

ChallengeId = Annotated[int, typer.Argument(min=0, help="The challenge's id on chain.")]
Wallet = Annotated[str, typer.Argument(help="The participant's address.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
By = Annotated[str, typer.Option(help="Who orders it; kept.")]
Why = Annotated[str, typer.Option(help="Why; kept.")]


@asynccontextmanager
async def _opened(*, work: bool = False) -> AsyncGenerator[MotifyContext]:
    # Imported here: the runtime imports the apps it finds.
    from causeway.runtime.discover import find_apps
    from causeway.runtime.installation import open_installation
    from causeway.runtime.process import working

    kernel = load(KernelSettings)
    logging.configure("ERROR", kernel.log_format)
    async with open_installation(find_apps(["motify"]), kernel) as installation:
        ctx: MotifyContext = installation.contexts["motify"]
        if not work:
            yield ctx
            return
        if not ctx.chains:
            raise ConfigurationError(ctx.settings.missing())
        async with working(installation):
            yield ctx


def _run(job: Callable[[MotifyContext], Awaitable[int]], *, work: bool = False) -> None:
    async def main() -> int:
        async with _opened(work=work) as ctx:
            return await job(ctx)

    raise SystemExit(asyncio.run(main()))


def _print(value: Any) -> None:
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


@commands.command()
def process(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Declare nothing.")] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Longest pass, seconds.")] = 900,
) -> None:
    """Do everything that is due, once, and print the report; for a cron."""
    if dry_run:
        os.environ["SEND_TX"] = "false"

    async def job(ctx: MotifyContext) -> int:
        began = ctx.clock.now()
        quiet = await processing.until_quiet(ctx, timeout)
        done = await processing.report(ctx, began)
        _print(done.report | {"finished": quiet})
        return 1 if done.failed or not quiet else 0

    _run(job, work=True)


@commands.command("list")
def list_challenges(as_json: Json = False) -> None:
    """List the challenges that have begun, and what each waits for."""

    async def job(ctx: MotifyContext) -> int:
        async with ctx.database.sessions() as session:
            rows = (
                await session.execute(
                    select(Settlement, func.count(Score.id))
                    .outerjoin(Score, Score.settlement_id == Settlement.id)
                    .where(
                        Settlement.chain_id == ctx.settings.chain_id,
                        Settlement.contract_address == ctx.settings.contract,
                    )
                    .group_by(Settlement.id)
                    .order_by(Settlement.challenge_id)
                )
            ).all()
        found: list[dict[str, Any]] = [
            {
                "challenge_id": int(one.challenge_id),
                "status": one.status,
                "participants": people,
                "goal": f"{one.api_type} {one.goal_type} {one.goal_amount}",
                "end_time": one.end_time,
                "waits_for": one.last_error,
            }
            for one, people in rows
        ]
        if as_json:
            _print(found)
            return 0
        table = Table("id", "status", "people", "goal", "waits for", box=None)
        for one in found:
            table.add_row(
                str(one["challenge_id"]),
                one["status"],
                str(one["participants"]),
                one["goal"],
                one["waits_for"] or "–",
            )
        console.print(table)
        return 0

    _run(job)


@commands.command()
def explain(
    challenge_id: Annotated[int | None, typer.Argument(min=0, help="Challenge id.")] = None,
    wallet: Annotated[str | None, typer.Argument(help="The participant's address.")] = None,
    file: Annotated[
        Path | None, typer.Option(help="Exported evidence; needs no database and no chain.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compute a verdict again from its evidence, and say it in words."""
    if file is not None:
        try:
            given = orjson.loads(file.read_bytes())
        except (OSError, orjson.JSONDecodeError) as error:
            raise InvalidInput(f"{file}: {error}") from None
        _show(explaining.imported(given), as_json=as_json)
        return
    if challenge_id is None or wallet is None:
        raise InvalidInput("name a challenge and a wallet, or a --file")
    address = _address(wallet)

    async def job(ctx: MotifyContext) -> int:
        _show(await explaining.prove(ctx, challenge_id, address), as_json=as_json)
        return 0

    _run(job)


def _show(proved: explaining.Proved, *, as_json: bool) -> None:
    lines = explaining.explain(proved)
    if as_json:
        _print(explaining.exported(proved))
        return
    table = Table(box=None, show_header=False)
    for name, value in lines:
        table.add_row(name, value)
    console.print(table)


@commands.command()
def rule(
    challenge_id: ChallengeId,
    by: By,
    why: Why,
    api_type: Annotated[str | None, typer.Option(help="github, wakatime or farcaster.")] = None,
    goal_type: Annotated[str | None, typer.Option(help="For example CONTRIBUTION_PER_DAY.")] = None,
    goal_amount: Annotated[int | None, typer.Option(min=0)] = None,
    percent_ppm: Annotated[
        int | None, typer.Option(help="One share for everybody, 0 to 1000000.")
    ] = None,
) -> None:
    """Set the rule of a challenge whose goal nobody defined."""

    async def job(ctx: MotifyContext) -> int:
        _print(
            await ordering.set_rule(
                ctx,
                challenge_id,
                by=by,
                why=why,
                api_type=api_type,
                goal_type=goal_type,
                goal_amount=goal_amount,
                ppm=percent_ppm,
            )
        )
        return 0

    _run(job)


@commands.command("declare-late")
def declare_late(challenge_id: ChallengeId, by: By, why: Why) -> None:
    """Declare although the seven days are over: a race with people's timeout refunds."""

    async def job(ctx: MotifyContext) -> int:
        status = await ordering.declare_late(ctx, challenge_id, by=by, why=why)
        console.print(f"challenge {challenge_id} is {status}")
        return 0

    _run(job)


@commands.command("link-farcaster")
def link_farcaster(wallet: Wallet, fid: Annotated[int, typer.Argument(min=1)], by: By) -> None:
    """Say which Farcaster account is a wallet's, in place of the one Neynar tells of."""

    async def job(ctx: MotifyContext) -> int:
        address = _address(wallet)
        await ordering.link_farcaster(ctx, address, fid, by=by)
        console.print(f"{address} is Farcaster account {fid}")
        return 0

    _run(job)


@commands.command()
def retry() -> None:
    """Take up again what failed for an error of ours."""

    async def job(ctx: MotifyContext) -> int:
        console.print(f"{await ordering.retry_failed(ctx)} taken up again")
        return 0

    _run(job)


@commands.command()
def incidents(as_json: Json = False) -> None:
    """List what an operator should look at."""

    async def job(ctx: MotifyContext) -> int:
        async with ctx.database.sessions() as session:
            rows = (
                await session.scalars(
                    select(Incident)
                    .where(Incident.resolved_at.is_(None))
                    .order_by(Incident.raised_at)
                )
            ).all()
        if as_json:
            _print(
                [
                    {"kind": r.kind, "subject": r.subject, "since": r.raised_at, "detail": r.detail}
                    for r in rows
                ]
            )
            return 0
        table = Table("since", "what", "about", "detail", box=None)
        for row in rows:
            detail = ", ".join(f"{name} {value}" for name, value in row.detail.items())
            table.add_row(f"{row.raised_at:%Y-%m-%d %H:%M}", row.kind, row.subject, detail)
        console.print(table if rows else "none are open")
        return 0

    _run(job)


def _address(text: str) -> str:
    if not is_address(text):
        raise InvalidInput(fields=[Field("wallet", text[:60], "an address, 0x and 40 hex digits")])
    return text.lower()
