"""M-OBS: which provider can be trusted, what fails and why, how the chain behaves."""

from __future__ import annotations

from causeway.app import App
from causeway.apps.mobs import models
from causeway.apps.mobs.cli import commands
from causeway.apps.mobs.context import Services
from causeway.apps.mobs.loops import loops
from causeway.apps.mobs.routes import (
    alerts,
    chain,
    contracts,
    health,
    metrics,
    providers,
    silences,
    transactions,
)
from causeway.apps.mobs.services import chains, services
from causeway.apps.mobs.settings import MobsSettings
from causeway.apps.mobs.sources import sources

app: App[MobsSettings, Services] = App(
    name="mobs",
    title="M-OBS",
    settings=MobsSettings,
    metadata=models.metadata,
    migrations="causeway.apps.mobs:migrations",
    services=services,
    routers=(
        health.router,
        metrics.router,
        providers.router,
        transactions.router,
        contracts.router,
        alerts.router,
        silences.router,
        chain.router,
    ),
    chains=chains,
    sources=sources,
    loops=loops,
    commands=commands,
)
