"""One process: the API, the work, or both, until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import structlog
import uvicorn
from prometheus_client import start_http_server

from causeway.app import AnyApp
from causeway.base.errors import ConfigurationError
from causeway.base.settings import KernelSettings
from causeway.runtime.installation import Installation, open_installation
from causeway.runtime.web import create_api
from causeway.runtime.work import create_worker

log = structlog.get_logger(__name__)


_GC = (200_000, 20, 50)


def run_process(
    apps: Sequence[AnyApp],
    kernel: KernelSettings,
    *,
    api: bool,
    worker: bool,
    only: Sequence[str] | None = None,
) -> None:
    """Run until SIGTERM or SIGINT; what is in hand is finished or released within the grace."""
    try:
        import uvloop

        loop_factory = uvloop.new_event_loop
    except ImportError:
        loop_factory = None
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(_run(apps, kernel, api=api, worker=worker, only=only))


async def _run(
    apps: Sequence[AnyApp],
    kernel: KernelSettings,
    *,
    api: bool,
    worker: bool,
    only: Sequence[str] | None,
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # A backfill makes millions of small objects that hold no cycles: with Python's own thresholds
    # the collector would walk them again and again, for a fifth of the time.
    gc.freeze()
    gc.set_threshold(*_GC)
    async with AsyncExitStack() as stack:
        listening = listen(kernel.host, kernel.port) if api else None
        installation = await stack.enter_async_context(open_installation(apps, kernel))
        if listening is not None:
            await stack.enter_async_context(serving(installation, listening, kernel.grace_s))
        elif kernel.metrics_port is not None:
            server, _ = start_http_server(kernel.metrics_port, kernel.host)
            stack.callback(server.shutdown)
        if worker:
            await stack.enter_async_context(working(installation, only))
        log.info(
            "started",
            apps=[app.name for app in apps],
            api=None if listening is None else _address_of(listening),
            worker=worker,
            pid=os.getpid(),
        )
        await stop.wait()
        log.info("stopping", grace_s=kernel.grace_s)


def _address_of(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def listen(host: str, port: int) -> socket.socket:
    """Bind a socket at once, so that a taken port is the first thing said; port 0 takes any."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named so that asyncio turns delayed answers (Nagle) off.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise ConfigurationError(
            f"cannot serve on {host}:{port}: {error.strerror}",
            hint="choose another with --port, or 0 for any free one",
        ) from None
    return sock


@asynccontextmanager
async def serving(
    installation: Installation, listening: socket.socket, grace_s: float
) -> AsyncGenerator[None]:
    """Serve the API inside the block."""
    config = uvicorn.Config(
        create_api(installation.apps, installation.contexts, installation.database),
        log_config=None,
        access_log=False,
        proxy_headers=False,  # forwarded headers never make a peer local
        server_header=False,
        timeout_graceful_shutdown=max(1, int(grace_s)),
        lifespan="off",
    )
    server = uvicorn.Server(config)
    # `_serve` is `serve` without the signal handlers: signals are ours, both parts stop together.
    task = asyncio.create_task(server._serve([listening]))
    try:
        yield
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def working(
    installation: Installation, only: Sequence[str] | None = None
) -> AsyncGenerator[None]:
    """Do the work inside the block."""
    stop = asyncio.Event()
    worker = create_worker(installation, only)
    task = asyncio.create_task(worker.run(stop))
    try:
        yield
    finally:
        stop.set()
        await task
