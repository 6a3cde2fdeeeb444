"""Motify's view of what the runtime gives it, and the dependencies of its routes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from causeway.app import Context, context_of
from causeway.apps.motify.contract import Contract
from causeway.apps.motify.models import Settlement
from causeway.apps.motify.outages import Outages
from causeway.apps.motify.settings import MotifySettings
from causeway.auth.bearer import check_admin
from causeway.base.errors import ConfigurationError
from causeway.base.http import HttpClient
from causeway.chains.evm.abi import Abi
from causeway.chains.protocol import Block
from causeway.connections.access import Connections
from causeway.connections.github import GitHub
from causeway.connections.neynar import Neynar
from causeway.connections.vault import Vault
from causeway.connections.wakatime import WakaTime
from causeway.store.encryption import Keyring, load_keyring

#: The one chain Motify reads, by the name it is configured under.
CHAIN = "base"
SOURCE = "motify"
#: Challenges of another contract than the one configured are looked at again after this, seconds.
ELSEWHERE_S = 3600.0


@dataclass
class Services:
    """Clients that live as long as the process."""

    github: GitHub
    wakatime: WakaTime
    neynar: Neynar | None
    #: Where reminders go; None when nowhere is set.
    reminders: HttpClient | None
    abi: Abi
    #: Made from the database and the keys when they are first needed.
    keyring: Keyring | None = None
    connections: Connections | None = None
    outages: Outages = field(default_factory=Outages)
    #: The newest final block that was seen, and when (monotonic seconds).
    final: tuple[float, Block] | None = None
    #: When accounts were tried for `readiness`, by provider and wallet (monotonic seconds).
    tried: dict[tuple[str, str], deque[float]] = field(
        default_factory=dict[tuple[str, str], deque[float]]
    )


MotifyContext = Context[MotifySettings, Services]
Ctx = Annotated[MotifyContext, Depends(context_of("motify"))]


def connections_of(ctx: MotifyContext) -> Connections:
    """Return people's connections; `ConfigurationError` where no key to read them is set."""
    services = ctx.services
    if services.connections is None:
        providers = {"github": services.github, "wakatime": services.wakatime}
        vault = Vault(ctx.database, keyring_of(ctx), "motify")
        services.connections = Connections(vault, providers, clock=ctx.clock)
    return services.connections


def keyring_of(ctx: MotifyContext) -> Keyring:
    """Return the keys of tokens at rest."""
    if ctx.services.keyring is None:
        ctx.services.keyring = load_keyring(ctx.kernel)
    return ctx.services.keyring


def contract_of(ctx: MotifyContext) -> Contract:
    """Return the contract; `ConfigurationError` when none is configured."""
    address = ctx.settings.contract
    if address is None or CHAIN not in ctx.chains:
        raise ConfigurationError(ctx.settings.missing())
    return Contract(ctx.chains[CHAIN], address, ctx.services.abi)


def place_of(ctx: MotifyContext) -> dict[str, object]:
    """Return which chain and contract this installation is about, as SQL is asked with it."""
    return {"chain": ctx.settings.chain_id, "contract": ctx.settings.contract}


def is_here(ctx: MotifyContext, settlement: Settlement) -> bool:
    """Say whether a challenge is of the contract that is configured.

    One of another contract, which was configured before, has an id that means another one here.
    """
    return (settlement.chain_id, settlement.contract_address) == (
        ctx.settings.chain_id,
        ctx.settings.contract,
    )


def admin_only(request: Request, ctx: Ctx) -> None:
    """Let only operators pass: a bearer token when one is set, else peers on this machine."""
    check_admin(request, ctx.settings.admin_token)
