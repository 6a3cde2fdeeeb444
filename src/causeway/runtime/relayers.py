"""An app's relayers, with the signers and the limits that the installation sets."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace

from causeway.app import AnyApp, AnyContext, ChainConfig, CheckResult
from causeway.base.errors import ConfigurationError
from causeway.base.settings import load
from causeway.chains.evm.signer import Signer
from causeway.chains.evm.signer_open import open_signer
from causeway.relayer import pauses, views
from causeway.relayer.account import ether
from causeway.relayer.relayer import Relayer
from causeway.relayer.settings import RelayerEnvironment

#: Another process takes a dead relayer's work over after this, seconds.
LEASE_S = 6.0


async def open_relayers(
    stack: AsyncExitStack, app: AnyApp, ctx: AnyContext, chains: Mapping[str, ChainConfig]
) -> None:
    """Open the signers that are set for an app, and make its relayers."""
    if app.signers is None:
        return
    environment = load(RelayerEnvironment)
    signers: dict[str, tuple[Signer, ...]] = {}
    for chain in chains:
        references = environment.references(app.name, chain)
        if references:
            opened = [await open_signer(one, os.environ, stack) for one in references]
            signers[chain] = tuple(opened)
    ctx.signers = signers
    for config in app.signers(ctx):
        settings = replace(
            environment.limit(config.settings),
            poll_s=chains[config.chain].poll_s,
            poll_only=ctx.kernel.poll_only or not ctx.database.has_own_session,
            lease_s=LEASE_S,
        )
        ctx.relayers[config.chain] = Relayer(
            ctx.database,
            ctx.chains[config.chain],
            config.signer,
            config.kinds,
            clock=ctx.clock,
            settings=settings,
            on_notice=config.on_notice,
        )


def check_accounts(contexts: Iterable[AnyContext]) -> None:
    """Refuse one account on one chain for two apps: each would take the other's nonces for lost."""
    owners: dict[tuple[int, str], str] = {}
    for ctx in contexts:
        for relayer in ctx.relayers.values():
            for address in relayer.addresses:
                key = (relayer.lane.chain.chain_id, address)
                other = owners.setdefault(key, ctx.app)
                if other != ctx.app:
                    raise ConfigurationError(
                        f"{other} and {ctx.app} both sign with {address} on chain {key[0]}",
                        hint="give each app an account of its own",
                    )


async def examine(ctx: AnyContext) -> list[CheckResult]:
    """Return what `causeway doctor` says of an app's accounts: low, on hold, stopped, paused."""
    found: list[CheckResult] = []
    for chain, relayer in ctx.relayers.items():
        for address in relayer.addresses:
            name = f"{ctx.app}: account {address} on {chain}"
            async with ctx.database.transaction() as session:
                view = await relayer.account_view(session, address)
                gate = await pauses.gate_of(session, relayer.lane.chain.chain_id, address, ctx.app)
            if not gate.may_plan:
                how = "lift it with `causeway relayer resume`"
                found.append(CheckResult(name, False, str(gate), how))
            found.append(_funds(name, view))
    return found


def _funds(name: str, view: views.AccountView | None) -> CheckResult:
    if view is None or view.balance_wei is None:
        return CheckResult(name, True, "has not been used yet")
    held = f"holds {ether(view.balance_wei)}"
    if view.mode != "run":
        return CheckResult(name, False, f"{held}; {view.mode}: {view.reason}", "see the reason")
    enough = view.low_since is None
    return CheckResult(name, enough, held, None if enough else "send it more")
