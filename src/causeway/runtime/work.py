"""The worker of a process: every app's stages, loops, schedules, readers and relayers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from causeway.app import AnyApp, AnyContext
from causeway.base.errors import ConfigurationError
from causeway.indexing.indexer import Indexer
from causeway.pipelines.loops import LeasedLoop
from causeway.pipelines.worker import PipelineWorker, Work
from causeway.relayer.relayer import Relayer
from causeway.runtime.installation import Installation
from causeway.store.lease import Lease


class Worker:
    """Does the work of an installation until it is told to stop."""

    def __init__(self, pipelines: PipelineWorker, relayers: Sequence[Relayer]) -> None:
        self._pipelines = pipelines
        self._relayers = relayers

    async def run(self, stop: asyncio.Event) -> None:
        """Work; a part that fails ends all, loudly."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pipelines.run(stop))
            for relayer in self._relayers:
                group.create_task(relayer.run(stop))


def create_worker(installation: Installation, only: Sequence[str] | None = None) -> Worker:
    """Return the worker; `only` names the stages that it works on, and nothing else then.

    Raises `ConfigurationError` for a stage that no app has.
    """
    work: list[Work] = []
    relayers: list[Relayer] = []
    names: set[str] = set()
    for app in installation.apps:
        ctx = installation.contexts[app.name]
        stages = [s for s in app.stages(ctx.settings) if not only or s.name in only]
        names.update(stage.name for stage in stages)
        if only:
            work.append(Work(app.name, ctx, stages))
            continue
        work.append(
            Work(
                app.name,
                ctx,
                stages,
                [*app.loops(ctx.settings), *_readers(app, ctx)],
                app.schedules(ctx.settings),
            )
        )
        relayers += ctx.relayers.values()
    unknown = [name for name in only or () if name not in names]
    if unknown:
        raise ConfigurationError(f"no app here has a stage named {', '.join(unknown)}")
    kernel = installation.kernel
    pipelines = PipelineWorker(
        installation.database,
        installation.bells,
        work,
        poll_only=kernel.poll_only,
        grace_s=kernel.grace_s,
    )
    return Worker(pipelines, relayers)


def _readers(app: AnyApp, ctx: AnyContext) -> list[LeasedLoop]:
    """Return a loop for each source: one process reads, all may."""
    return [
        LeasedLoop(
            name=f"indexing:{name}",
            interval_s=0.0,
            work=_Reader(app, indexer),
        )
        for name, indexer in ctx.indexers.items()
    ]


class _Reader:
    """Follows a source while the lease is ours, and rings for the work that facts brought."""

    def __init__(self, app: AnyApp, indexer: Indexer) -> None:
        self._app = app
        self._indexer = indexer

    async def __call__(self, ctx: AnyContext, _lease: Lease) -> None:
        """Follow the chain until the loop is stopped or its lease is lost."""

        async def ring() -> None:
            for stage in self._app.stages(ctx.settings):
                if ctx.ring is not None:
                    await ctx.ring(stage.name)

        feeds = ctx.chains[self._indexer.source.chain].feeds
        told = [asyncio.ensure_future(feed.run(self._indexer.wake)) for feed in feeds]
        try:
            await self._indexer.run(asyncio.Event(), on_facts=ring)
        finally:
            for task in told:
                task.cancel()
            await asyncio.gather(*told, return_exceptions=True)
