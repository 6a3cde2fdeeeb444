"""What a cron or an operator calls with `CRON_SECRET`; errors in the shape of the original.

Nothing here sends a transaction.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Coroutine
from typing import Any

import structlog
from fastapi import APIRouter, Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from sqlalchemy.exc import OperationalError

from causeway.apps.motify import preview, processing
from causeway.apps.motify.context import Ctx
from causeway.apps.motify.read_now import read_now
from causeway.apps.motify.schemas import ChallengeId
from causeway.auth.bearer import check_local, is_loopback
from causeway.base.errors import CausewayError, ConfigurationError, NotAllowed, NotAuthenticated
from causeway.base.logging import redact_text
from causeway.base.settings import given
from causeway.runtime.problems import status_of

log = structlog.get_logger(__name__)

_CLOSED = "set CRON_SECRET, and send it as x-cron-secret, to open /jobs"


class JobRoute(APIRoute):
    """A route whose errors are `{"ok": false, "error": "…"}`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, wrapped."""
        handler = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handler(request)
            except RequestValidationError as error:
                told = "; ".join(f"{item['loc'][-1]}: {item['msg']}" for item in error.errors())
                return _error(422, told)
            except CausewayError as error:
                return _error(status_of(error), error.message)
            except OperationalError as error:
                log.error("job_without_database", error=error)
                return _error(500, "the database does not answer")
            except Exception as error:
                log.error("job_failed", exc_info=error)
                return _error(500, "an error of ours; it was logged")

        return answer


def _error(status: int, told: str) -> Response:
    return JSONResponse({"ok": False, "error": told}, status)


def cron_only(request: Request, ctx: Ctx) -> None:
    """Let pass who knows the secret; without one, only development on this machine."""
    secret = ctx.settings.cron_secret
    if secret is None or not secret.get_secret_value():
        _check_development(request, ctx)
        return
    presented = request.headers.get("x-cron-secret", "")
    # Digests, because compare_digest tells the length of what it compares.
    if not hmac.compare_digest(_digest(presented), _digest(secret.get_secret_value())):
        raise NotAuthenticated("unauthorized")


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _check_development(request: Request, ctx: Ctx) -> None:
    host = ctx.kernel.host
    if ctx.settings.env.lower() != "development" or not (host == "localhost" or is_loopback(host)):
        raise ConfigurationError(_CLOSED)
    try:
        check_local(request)
    except NotAllowed:
        raise ConfigurationError(_CLOSED) from None


router = APIRouter(
    prefix="/jobs", tags=["jobs"], route_class=JobRoute, dependencies=[Depends(cron_only)]
)


@router.post("/index-and-cache")
async def index_and_cache(ctx: Ctx) -> dict[str, Any]:
    """Read the chain to its head, and say what is known and what is due."""
    await read_now(ctx)
    index, details = await processing.index_report(ctx)
    return {"ok": True, "index": index, "details": details}


@router.post("/declare-preview/{challenge_id}")
async def declare_preview(
    ctx: Ctx, challenge_id: ChallengeId, include_items: bool = False
) -> JSONResponse:
    """Return what would be declared now, exactly; nothing is sent and no score is changed."""
    # Stakes may be larger than what other writers of JSON take for a number.
    return JSONResponse(await preview.preview(ctx, challenge_id, include_items=include_items))


@router.get("/debug-config")
async def debug_config(ctx: Ctx) -> dict[str, Any]:
    """Return how the settings that decide about sending were written and understood."""
    return {
        "ok": True,
        "env": {name: _shown(given(name)) for name in ("SEND_TX", "TX_SEND")},
        "send_eval": ctx.settings.send_tx,
        "default_percent_ppm": ctx.settings.default_percent_ppm,
    }


def _shown(value: str | None) -> str | None:
    # Longer than any way to say yes or no: perhaps a key in the wrong place.
    return value if value is None or len(value) <= 8 else f"{redact_text(value)[:3]}…"
