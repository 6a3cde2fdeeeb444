"""GLISK: mints become images, pinned content and on-chain reveals."""

from __future__ import annotations

from causeway.app import App
from causeway.apps.glisk import models
from causeway.apps.glisk.checks import checks
from causeway.apps.glisk.cli import commands
from causeway.apps.glisk.context import Services
from causeway.apps.glisk.loops import loops, schedules
from causeway.apps.glisk.routes import admin, authors, health, webhooks
from causeway.apps.glisk.services import chains, services, signers
from causeway.apps.glisk.settings import GliskSettings
from causeway.apps.glisk.sources import sources
from causeway.apps.glisk.stages import stages

app: App[GliskSettings, Services] = App(
    name="glisk",
    title="GLISK",
    settings=GliskSettings,
    metadata=models.metadata,
    migrations="causeway.apps.glisk:migrations",
    services=services,
    routers=(health.router, webhooks.router, admin.router, authors.router),
    chains=chains,
    sources=sources,
    signers=signers,
    stages=stages,
    loops=loops,
    schedules=schedules,
    checks=checks,
    commands=commands,
    terminal=frozenset({"revealed", "failed"}),
)
