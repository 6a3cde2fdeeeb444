"""The web application: the routes of every app, errors as problems, request ids, metrics.

One app is served at `/`, exactly as its specification says; several at `/<app>/`, by prefixed
routers (a mounted sub-application would hide its routes from the metrics).
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware

import causeway
from causeway.app import AnyApp, AnyContext
from causeway.base.ids import uuid7
from causeway.base.settings import Settings
from causeway.ops import health, metrics
from causeway.runtime import problems, relaying
from causeway.store.engine import Database

log = structlog.get_logger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def create_api(
    apps: Sequence[AnyApp],
    contexts: Mapping[str, AnyContext],
    database: Database,
    *,
    lifespan: Callable[[], Any] | None = None,
) -> FastAPI:
    """Return the web application of these apps; `lifespan` runs around it when given."""

    @asynccontextmanager
    async def around(_api: FastAPI) -> AsyncGenerator[None]:
        if lifespan is None:
            yield
        else:
            async with lifespan():
                yield

    alone = len(apps) == 1
    api = FastAPI(
        title=apps[0].title if alone else "Causeway",
        version=causeway.__version__,
        lifespan=around,
    )
    api.state.contexts = contexts
    api.state.database = database
    problems.install(api)
    api.include_router(health.router)
    api.include_router(metrics.router)
    if any(app.signers is not None for app in apps):
        api.include_router(relaying.router)
    for app in apps:
        prefix = "" if alone else f"/{app.name}"
        for router in app.routers:
            api.include_router(router, prefix=prefix)
    _admit_frontends(api, [contexts[app.name].settings for app in apps])
    api.middleware("http")(_observe)
    return api


def _admit_frontends(api: FastAPI, settings: Sequence[Settings]) -> None:
    """Let pages of the apps' `cors_origins` call, and of origins that a pattern fits as a whole.

    Never with credentials: nothing here reads a cookie.
    """
    origins = {o for one in settings for o in getattr(one, "cors_origins", ())}
    patterns = [p for one in settings if (p := getattr(one, "cors_origin_pattern", None))]
    if not origins and not patterns:
        return
    api.add_middleware(
        CORSMiddleware,
        allow_origins=sorted(origins),
        allow_origin_regex="|".join(f"(?:{pattern})" for pattern in patterns) or None,
        allow_methods=["GET", "POST", "PATCH", "DELETE"],
        allow_headers=["Content-Type", "Authorization"],
    )


async def _observe(
    request: Request, call_next: Callable[[Request], Awaitable[Response]]
) -> Response:
    """Give the request an id (or keep the caller's), log it, count it and time it."""
    given = request.headers.get("X-Request-ID", "")
    request_id = given if _REQUEST_ID.fullmatch(given) else str(uuid7())
    started = time.perf_counter()
    with structlog.contextvars.bound_contextvars(request_id=request_id):
        response = await call_next(request)
        seconds = time.perf_counter() - started
        route = request.scope.get("route")
        path = str(getattr(route, "path", "unmatched"))
        metrics.REQUESTS.labels(request.method, path, response.status_code).inc()
        metrics.REQUEST_SECONDS.labels(request.method, path).observe(seconds)
        if path not in ("/livez", "/readyz", "/metrics"):
            log.info(
                "request",
                method=request.method,
                path=request.url.path,
                status=response.status_code,
                milliseconds=round(seconds * 1000, 1),
            )
    response.headers["X-Request-ID"] = request_id
    return response
