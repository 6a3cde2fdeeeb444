"""An installation: settings, database and apps put together, ready to serve or to work."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog

from causeway.app import AnyApp, AnyContext, ChainConfig, Context
from causeway.base.errors import ConfigurationError, TransientError
from causeway.base.settings import KernelSettings, Settings, load
from causeway.chains.budget import Budget, budgets_from
from causeway.chains.cache import FinalAnswers
from causeway.chains.kept import KeptAnswers
from causeway.chains.pool import Endpoint, ProviderPool, SecretUrl
from causeway.chains.report import show
from causeway.indexing.indexer import Indexer
from causeway.pipelines.bells import Bells
from causeway.runtime import relayers
from causeway.store import migrate
from causeway.store.embedded import EmbeddedPostgres
from causeway.store.engine import Database

log = structlog.get_logger(__name__)


@dataclass
class Installation:
    """Everything that is needed to serve the apps or to do their work."""

    kernel: KernelSettings
    database: Database
    apps: list[AnyApp]
    bells: Bells
    contexts: dict[str, AnyContext] = field(default_factory=dict[str, AnyContext])


def load_settings(apps: Sequence[AnyApp], kernel: KernelSettings) -> dict[str, Settings]:
    """Read every app's settings; `ConfigurationError` lists all that is wrong at once."""
    problems: list[str] = []
    settings: dict[str, Settings] = {}
    for app in apps:
        try:
            settings[app.name] = load(app.settings)
        except ConfigurationError as error:
            problems += [f"{app.name}: {problem}" for problem in error.problems]
    if kernel.environment == "production":
        if kernel.database_url is None:
            problems.append("DATABASE_URL: production needs a database of its own")
        for name, one in settings.items():
            problems += [f"{name}: {line}" for line in one.missing_for_production()]
    if problems:
        raise ConfigurationError(problems)
    return settings


def lines_of(apps: Sequence[AnyApp]) -> list[migrate.MigrationLine]:
    """Return the migration lines of the kernel and of these apps, in the order they run."""
    return [
        migrate.kernel_line(),
        *(
            migrate.MigrationLine(app.name, str(app.metadata.schema), app.metadata, app.migrations)
            for app in apps
        ),
    ]


@asynccontextmanager
async def open_database(kernel: KernelSettings) -> AsyncGenerator[Database]:
    """Open the database that is configured, or the embedded one of the data folder."""
    async with AsyncExitStack() as stack:
        if kernel.database_url is not None:
            url = kernel.database_url.get_secret_value()
        else:
            server = await stack.enter_async_context(EmbeddedPostgres.open(kernel.data_dir))
            url = server.url
        database = Database(url, pool_size=kernel.database_pool)
        stack.push_async_callback(database.close)
        yield database


@asynccontextmanager
async def open_installation(
    apps: Sequence[AnyApp], kernel: KernelSettings
) -> AsyncGenerator[Installation]:
    """Open everything: settings checked, database up and migrated, chains and relayers made.

    Raises `ConfigurationError` for what must be mended first. A chain that does not answer yet is
    no reason not to start: its readers go on trying.
    """
    settings = load_settings(apps, kernel)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(kernel))
        await migrate.upgrade(database, lines_of(apps))
        bells = await stack.enter_async_context(Bells.open(database))
        installation = Installation(kernel, database, list(apps), bells)
        for app in apps:
            installation.contexts[app.name] = await _context(
                stack, app, settings[app.name], installation
            )
        relayers.check_accounts(installation.contexts.values())
        yield installation


async def _context(
    stack: AsyncExitStack, app: AnyApp, settings: Settings, installation: Installation
) -> AnyContext:
    services: Any = await stack.enter_async_context(app.services(settings))
    chains: dict[str, Any] = {}
    configs = {config.name: config for config in app.chains(settings)}
    for config in configs.values():
        chains[config.name] = await _chain(stack, config, installation)

    async def ring(stage: str) -> None:
        await installation.bells.ring(app.name, stage)

    ctx: AnyContext = Context(
        app=app.name,
        settings=settings,
        kernel=installation.kernel,
        database=installation.database,
        services=services,
        chains=chains,
        ring=ring,
    )
    if app.sources is not None:
        for source in await app.sources(ctx):
            config = configs[source.chain]
            ctx.indexers[source.name] = Indexer(
                installation.database,
                chains[source.chain],
                source,
                poll_interval_s=config.poll_s,
                max_range=config.log_range,
            )
    await relayers.open_relayers(stack, app, ctx, configs)
    return ctx


async def _chain(stack: AsyncExitStack, config: ChainConfig, installation: Installation) -> Any:
    urls = [url.get_secret_value() for url in config.rpc_urls]
    told = [url for url in urls if url.startswith(("ws://", "wss://"))]
    asked = [url for url in urls if url not in told]
    # Of each process its own: what an endpoint refuses all the same teaches every one of them.
    budgets = budgets_from(installation.kernel.rpc_budgets)
    names = [f"{config.name}-{number}" for number in range(1, len(asked) + 1)]
    endpoints = [
        Endpoint(SecretUrl(url), name, budgets.get(name, Budget()))
        for name, url in zip(names, asked, strict=True)
    ]
    pool = ProviderPool(endpoints, timeout_s=config.timeout_s)
    stack.push_async_callback(pool.close)
    show(pool)
    pool.final_answers = FinalAnswers(KeptAnswers(installation.database, config.chain_id))
    chain = config.opens(config.name, config.chain_id, pool)
    chain.feeds = tuple(
        chain.feed_type(SecretUrl(url, ("ws", "wss")), f"{config.name}-{number}")
        for number, url in enumerate(told, 1)
    )
    try:
        await chain.verify()
    except TransientError as error:
        log.warning("chain_not_verified_yet", chain=config.name, error=error)
    return chain


@dataclass(frozen=True)
class Moved:
    """A migration line before and after."""

    name: str
    before: str | None
    after: str | None
    pending: int


async def migrate_all(
    apps: Sequence[AnyApp], kernel: KernelSettings, *, apply: bool = True
) -> list[Moved]:
    """Bring all lines up to date (or only look, with `apply` false) and say what moved."""
    lines = lines_of(apps)
    async with open_database(kernel) as database:
        before = {s.name: s for s in await migrate.status(database, lines)}
        if apply:
            await migrate.upgrade(database, lines)
        return [
            Moved(s.name, before[s.name].current, s.current, s.pending)
            for s in await migrate.status(database, lines)
        ]
