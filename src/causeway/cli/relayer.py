"""`causeway relayer …`: what was sent to chains, and the switch that stops it."""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar
from uuid import UUID

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.base import logging
from causeway.base.clock import SYSTEM_CLOCK, iso
from causeway.base.errors import ConfigurationError, Field, InvalidInput, NotFound
from causeway.base.settings import KernelSettings, load
from causeway.relayer import pauses, schemas, views
from causeway.relayer.account import ether
from causeway.relayer.models import TRANSACTION_STATES
from causeway.relayer.pauses import Scope

commands = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
console = Console()

T = TypeVar("T")

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
App = Annotated[str | None, typer.Option(help="Only this app; all when none.")]
Chain = Annotated[int | None, typer.Option(min=1, help="Only the chain with this id.")]
Account = Annotated[str | None, typer.Option(help="Only this account.")]


def _with_ledger(work: Callable[[AsyncSession], Awaitable[T]]) -> T:
    """Do something in one transaction of the database."""

    async def main() -> T:
        from causeway.runtime.installation import open_database
        from causeway.store import migrate

        kernel = load(KernelSettings)
        logging.configure("ERROR", kernel.log_format)
        async with open_database(kernel) as database:
            (line,) = await migrate.status(database, [migrate.kernel_line()])
            if line.pending:
                raise ConfigurationError(
                    "the database is not up to date", hint="run `causeway migrate` first"
                )
            async with database.transaction() as session:
                return await work(session)

    return asyncio.run(main())


def _print_json(value: BaseModel) -> None:
    console.print_json(value.model_dump_json())


@commands.command(name="list")
def list_(
    app: App = None,
    chain: Chain = None,
    account: Account = None,
    state: Annotated[
        list[str] | None,
        typer.Option(help=f"One of {', '.join(TRANSACTION_STATES)}; repeatable."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Newest first, at most.")] = 20,
    as_json: Json = False,
) -> None:
    """Show transactions, the newest first."""
    for one in state or ():
        if one not in TRANSACTION_STATES:
            allowed = f"one of {', '.join(TRANSACTION_STATES)}"
            raise InvalidInput(fields=[Field("--state", one, allowed)])

    async def work(session: AsyncSession) -> list[views.TransactionView]:
        return await views.transactions_of(
            session,
            app,
            states=tuple(state or ()),
            chain_id=chain,
            sender=Scope.of(sender=account).sender,
            limit=limit,
        )

    lines = [schemas.line(view) for view in _with_ledger(work)]
    if as_json:
        _print_json(schemas.TransactionList(transactions=lines, next_cursor=None))
        return
    table = Table("created", "id", "kind", "chain", "nonce", "units", "state", "reason", box=None)
    for one in lines:
        table.add_row(
            iso(one.created_at)[:19],
            str(one.id),
            f"{one.app}.{one.kind}",
            str(one.chain_id),
            "" if one.nonce is None else str(one.nonce),
            str(one.units),
            one.state,
            one.reason,
        )
    console.print(table)


@commands.command()
def show(
    transaction_id: Annotated[UUID, typer.Argument(help="Its id, as `list` shows it.")],
    as_json: Json = False,
) -> None:
    """Show one transaction: intent, who asked, attempts, receipt, cost, and its story."""

    async def work(session: AsyncSession) -> views.TransactionView | None:
        return await views.transaction_view(session, transaction_id)

    view = _with_ledger(work)
    if view is None:
        raise NotFound(f"there is no transaction {transaction_id}")
    page = schemas.page(view)
    if as_json:
        _print_json(page)
        return
    console.print(f"{page.app}.{page.kind} {page.id}: {page.state}", style="bold", highlight=False)
    console.print(page.reason, highlight=False)
    table = Table("what", "", box=None, show_header=False)
    table.add_row("asked for by", page.requested_by or "-")
    table.add_row("from", f"{page.account}, nonce {'-' if page.nonce is None else page.nonce}")
    table.add_row("to", f"{page.intent.to} {page.intent.selector} on chain {page.chain_id}")
    table.add_row("value", ether(page.intent.value_wei))
    table.add_row("units", "\n".join(f"{u.key}: {u.state}" for u in page.intent.units))
    for one in page.attempts:
        offer = (
            f"at most {one.max_fee_per_gas_wei} wei a gas, tip {one.max_priority_fee_per_gas_wei}"
        )
        table.add_row(f"attempt {one.n}", f"{one.hash} ({one.purpose}, {one.state})\n{offer}")
    if page.receipt is not None:
        found = page.receipt
        table.add_row("block", f"{found.block_number} {found.block_hash}")
        table.add_row("gas", f"{found.gas_used} of {page.intent.gas_limit}")
    if page.cost_wei is not None:
        table.add_row("cost", ether(page.cost_wei))
    for event in page.story:
        detail = ", ".join(f"{name} {value}" for name, value in event.detail.items())
        table.add_row(iso(event.at)[:19], f"{event.what} {detail}".strip())
    console.print(table)


@commands.command()
def accounts(as_json: Json = False) -> None:
    """Show the accounts that sign, what they wait for, and what is paused."""

    async def work(session: AsyncSession) -> schemas.AccountList:
        return schemas.account_list(await views.accounts(session), await pauses.in_force(session))

    found = _with_ledger(work)
    if as_json:
        _print_json(found)
        return
    table = Table("chain", "account", "balance", "mode", "reason", box=None)
    for one in found.accounts:
        balance = "" if one.balance_wei is None else ether(one.balance_wei)
        low = " (low)" if one.low_since is not None else ""
        table.add_row(str(one.chain_id), one.sender, balance + low, one.mode, one.reason or "")
        for wait in one.waits:
            table.add_row("", "", "", f"{wait.app}.{wait.kind} waits", wait.reason)
    console.print(table)
    for pause_ in found.pauses:
        scope = Scope(pause_.app, pause_.chain_id, pause_.account)
        why = f": {pause_.reason}" if pause_.reason else ""
        console.print(
            f"paused ({pause_.mode}) by {pause_.by}, {scope}, since {iso(pause_.since)[:19]}{why}",
            highlight=False,
        )


@commands.command()
def pause(
    app: App = None,
    chain: Chain = None,
    account: Account = None,
    mode: Annotated[
        str,
        typer.Option(
            help="no-new: plan nothing new; no-sign: sign nothing; "
            "cancel-open: and cancel what is not mined."
        ),
    ] = "no-sign",
    reason: Annotated[str | None, typer.Option(help="Why; shown wherever it holds.")] = None,
) -> None:
    """Stop sending: everything, or one app, chain or account. Nothing new is signed after this."""
    scope = Scope.of(app, chain, account)

    async def work(session: AsyncSession) -> None:
        now = SYSTEM_CLOCK.now()
        await pauses.pause(session, scope, mode, reason=reason, by=getpass.getuser(), now=now)

    _with_ledger(work)
    console.print(f"paused ({mode}): {scope}", highlight=False)


@commands.command()
def resume(app: App = None, chain: Chain = None, account: Account = None) -> None:
    """End the pause of exactly this scope."""
    scope = Scope.of(app, chain, account)

    async def work(session: AsyncSession) -> tuple[bool, list[pauses.Pause]]:
        return await pauses.resume(session, scope), await pauses.in_force(session)

    ended, left = _with_ledger(work)
    if not ended:
        in_force = "; ".join(str(one.scope) for one in left) or "nothing"
        raise NotFound(f"nothing is paused for {scope}", hint=f"paused: {in_force}")
    console.print(f"resumed: {scope}", highlight=False)
    for one in left:
        console.print(f"still paused ({one.mode}): {one.scope}", highlight=False)
