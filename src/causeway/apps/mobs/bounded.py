"""Answers that never hang, also when nothing comes back from the database.

A statement has its own limit there. Where not even the error comes back, a request that is given up
would still wait for its connection to be cleaned up; so it is left to that, and answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute

from causeway.base.errors import TransientError

#: A question may take so long, seconds; trying a rule on a week of history is many.
QUESTION_S = 8.0
CHANGE_S = 60.0

#: Requests that were answered and are still being given up.
_leaving: set[asyncio.Task[Any]] = set()


class DatabaseAway(TransientError):
    """The database does not answer; try again."""


class BoundedRoute(APIRoute):
    """A route that answers with 503 after a while."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler with its limit."""
        handler = super().get_route_handler()

        async def bounded(request: Request) -> Response:
            limit_s = QUESTION_S if request.method == "GET" else CHANGE_S
            return await within(limit_s, handler(request))

        return bounded


async def within(seconds: float, work: Coroutine[Any, Any, Response]) -> Response:
    """Return what the work comes to; raise `DatabaseAway` after so long and leave it behind."""
    task = asyncio.create_task(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
        if done:
            return task.result()
    finally:
        if not task.done():
            task.cancel()
            _leaving.add(task)
            task.add_done_callback(_left)
    raise DatabaseAway(retry_after_s=1)


def _left(task: asyncio.Task[Any]) -> None:
    _leaving.discard(task)
    if not task.cancelled():
        task.exception()  # nobody waits for it any more


def router(tag: str) -> APIRouter:
    """Return a router whose answers are bounded."""
    return APIRouter(tags=[tag], route_class=BoundedRoute)
