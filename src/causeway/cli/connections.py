"""`causeway connections`: who is connected to what, ending it, and changing the keys."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from causeway.base import logging
from causeway.base.clock import iso
from causeway.base.errors import NotFound
from causeway.base.settings import KernelSettings, load
from causeway.connections.rotation import Rotated, rotate
from causeway.connections.vault import Connection, Vault, list_connections
from causeway.runtime.installation import open_database
from causeway.store.encryption import load_keyring
from causeway.store.encryption import new_key as fresh_key

commands = typer.Typer(
    no_args_is_help=True,
    help="People's links to other services, and the keys they are kept under.",
)
console = Console()


def _kernel() -> KernelSettings:
    kernel = load(KernelSettings)
    logging.configure("ERROR", kernel.log_format)
    return kernel


@commands.command("list")
def list_(
    app: Annotated[str | None, typer.Option(help="Only this app's.")] = None,
    provider: Annotated[str | None, typer.Option(help="Only those to this provider.")] = None,
) -> None:
    """Show who is connected to what; tokens are never shown."""

    async def found(kernel: KernelSettings) -> Sequence[Connection]:
        async with open_database(kernel) as database:
            return await list_connections(database, app=app, provider=provider)

    table = Table(
        "app", "provider", "subject", "account", "kind", "scopes", "connected", "state", box=None
    )
    for c in asyncio.run(found(_kernel())):
        account = f"{c.account.name or '?'} ({c.account.id})" if c.account else "–"
        state = f"refused since {iso(c.rejected_at)}: {c.rejected_why}" if c.rejected_at else "ok"
        scopes = " ".join(c.scopes) or "–"
        connected = iso(c.connected_at.replace(microsecond=0))
        table.add_row(c.app, c.provider, c.subject, account, c.kind, scopes, connected, state)
    console.print(table)


@commands.command()
def revoke(
    app: Annotated[str, typer.Argument(help="The app, as `list` shows it.")],
    provider: Annotated[str, typer.Argument(help="The provider: github, wakatime, …")],
    subject: Annotated[str, typer.Argument(help="Whose: a wallet's address.")],
) -> None:
    """Delete a connection; the app tells the provider in the background."""

    async def removed(kernel: KernelSettings) -> bool:
        async with open_database(kernel) as database:
            vault = Vault(database, load_keyring(kernel), app)
            return await vault.remove(provider, subject)

    if not asyncio.run(removed(_kernel())):
        raise NotFound(
            f"{app} has no {provider} connection of {subject}",
            hint="see: causeway connections list",
        )
    console.print(
        f"{provider} of {subject} is deleted; {provider} will be told to revoke the token"
    )


@commands.command("rotate-key")
def rotate_key() -> None:
    """Encrypt every token under the first key of CAUSEWAY_ENCRYPTION_KEYS.

    Put the new key before the old one, start everything again, run this, and take the old key away
    when it says that nothing is left under it.
    """

    async def rotated(kernel: KernelSettings) -> Rotated:
        async with open_database(kernel) as database:
            return await rotate(database, load_keyring(kernel))

    kernel = _kernel()
    done = asyncio.run(rotated(kernel))
    ring = load_keyring(kernel)
    console.print(f"{done.rows} rows now under key {ring.current}, {done.already} were before")
    if done.unreadable:
        console.print(f"{done.unreadable} rows are under a key that is not here, or damaged")
        raise SystemExit(2)
    if others := ", ".join(ring.ids[1:]):
        console.print(f"nothing is left under {others}: it can be taken away")


@commands.command("new-key")
def new_key() -> None:
    """Print a fresh key for CAUSEWAY_ENCRYPTION_KEYS; it is kept nowhere."""
    typer.echo(fresh_key())
