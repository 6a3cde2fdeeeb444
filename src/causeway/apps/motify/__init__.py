"""Motify: stakes on goals, scored from people's other apps and declared on chain."""

from __future__ import annotations

from causeway.app import App
from causeway.apps.motify import models
from causeway.apps.motify.checks import checks
from causeway.apps.motify.cli import commands
from causeway.apps.motify.context import Services
from causeway.apps.motify.loops import loops, schedules
from causeway.apps.motify.routes import challenges, health, jobs, oauth, stats, wakatime
from causeway.apps.motify.services import chains, services, signers
from causeway.apps.motify.settings import MotifySettings
from causeway.apps.motify.sources import sources
from causeway.apps.motify.stages import stages

app: App[MotifySettings, Services] = App(
    name="motify",
    title="Motify",
    settings=MotifySettings,
    metadata=models.metadata,
    migrations="causeway.apps.motify:migrations",
    services=services,
    routers=(
        health.router,
        oauth.router,
        wakatime.router,
        stats.router,
        jobs.router,
        challenges.router,
    ),
    chains=chains,
    sources=sources,
    signers=signers,
    stages=stages,
    loops=loops,
    schedules=schedules,
    checks=checks,
    commands=commands,
    terminal=frozenset({"archived", "frozen", "sent", "failed"}),
)
