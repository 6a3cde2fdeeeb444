"""Webhooks: hints that something is there sooner, through the same door as everything else."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
import structlog
from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse

from causeway.apps.glisk import mints
from causeway.apps.glisk.context import Ctx
from causeway.apps.glisk.deliveries import parse
from causeway.auth.webhooks import check_hex_hmac, check_standard_webhook
from causeway.base.errors import InvalidInput, TooLarge
from causeway.runtime.problems import problem

log = structlog.get_logger(__name__)
router = APIRouter(prefix="/webhooks", tags=["webhooks"])

MAX_BODY_BYTES = 1024 * 1024


async def _body(request: Request) -> bytes:
    """Read the raw body, at most a mebibyte of it, whatever the headers promise."""
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > MAX_BODY_BYTES:
            raise TooLarge(f"the body is larger than {MAX_BODY_BYTES} bytes")
    return bytes(content)


@router.post("/alchemy")
async def alchemy(
    request: Request,
    ctx: Ctx,
    x_alchemy_signature: Annotated[str | None, Header()] = None,
) -> JSONResponse:
    """Take a delivery: its signature is checked, its blocks are read from the chain and applied."""
    body = await _body(request)
    check_hex_hmac(ctx.settings.alchemy_webhook_secret, body, x_alchemy_signature)
    try:
        delivery = parse(_json(body))
    except InvalidInput as error:
        return _bad_request(error)
    status, answer = await mints.take(ctx, delivery)
    return JSONResponse(answer, status_code=status)


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"body: not JSON ({error})") from None


def _bad_request(error: InvalidInput) -> JSONResponse:
    fields = [{"path": f.path, "value": f.value, "allowed": f.allowed} for f in error.fields]
    return problem(400, "urn:causeway:problem:invalid-input", error.message, errors=fields)


@router.post("/replicate")
async def replicate(request: Request, ctx: Ctx) -> dict[str, str]:
    """Take Replicate's word that a prediction has ended, as a hint to look sooner."""
    body = await _body(request)
    secret = ctx.settings.replicate_webhook_secret
    check_standard_webhook([secret] if secret else [], request.headers, body, now=ctx.clock.now())
    if ctx.ring is not None:
        await ctx.ring("image")
    return {"status": "accepted"}
