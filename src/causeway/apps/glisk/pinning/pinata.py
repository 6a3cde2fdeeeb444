"""Pinata's pinning API."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson
from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from causeway.apps.glisk.pinning.protocol import MAX_CAR_BYTES, PinResult, prove
from causeway.apps.glisk.settings import GliskSettings
from causeway.base.errors import ConfigurationError, PermanentError, RateLimited
from causeway.base.http import HttpClient, Response


class PinataPinner:
    """Pins at Pinata; a JWT, or an API key with its secret, opens it."""

    name = "pinata"

    def __init__(self, settings: GliskSettings) -> None:
        if settings.pinata_jwt is not None:
            headers = {"Authorization": f"Bearer {settings.pinata_jwt.get_secret_value()}"}
        else:
            key, secret = settings.pinata_api_key, settings.pinata_api_secret
            headers = {
                "pinata_api_key": key.get_secret_value() if key else "",
                "pinata_secret_api_key": secret.get_secret_value() if secret else "",
            }
        self._client = HttpClient(
            name="pinata", base_url=settings.pinata_base_url, timeout_s=60, headers=headers
        )
        self._gateway = HttpClient(
            name="ipfs-gateway",
            base_url=settings.gateway_url,
            timeout_s=60,
            max_response_bytes=MAX_CAR_BYTES,
        )
        self._limit = RateLimitItemPerMinute(settings.pinata_rate_per_minute)
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    async def pin_file(
        self, content: bytes, *, name: str, content_type: str, keyvalues: Mapping[str, str]
    ) -> PinResult:
        """Pin bytes as a file."""
        return await self._pin(
            "/pinning/pinFileToIPFS",
            data={
                "pinataOptions": '{"cidVersion":1}',
                "pinataMetadata": _metadata(name, keyvalues),
            },
            files={"file": (name, content, content_type)},
        )

    async def pin_json(
        self, content: bytes, *, name: str, keyvalues: Mapping[str, str]
    ) -> PinResult:
        """Pin a JSON document; Pinata writes it out in its own way, so the CID must be proved."""
        return await self._pin(
            "/pinning/pinJSONToIPFS",
            json={
                "pinataContent": orjson.loads(content),
                "pinataOptions": {"cidVersion": 1},
                "pinataMetadata": {"name": name, "keyvalues": dict(keyvalues)},
            },
        )

    async def _pin(self, path: str, **body: Any) -> PinResult:
        if not await self._limiter.hit(self._limit, "pinata"):
            # Below the provider's limit by ourselves, rather than told by it.
            raise RateLimited("our own limit of uploads a minute", retry_after_s=2.0)
        answer = await self._client.request("POST", path, **body)
        if not answer.ok:
            raise _refusal(answer)
        told = answer.json()
        cid = told.get("IpfsHash") if isinstance(told, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        if not isinstance(cid, str) or not re.fullmatch(r"[A-Za-z0-9]{20,200}", cid):
            raise PermanentError(f"pinata answered without a CID: {answer.text()}")
        return PinResult(cid, int(told.get("PinSize") or 0), bool(told.get("isDuplicate")))  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]

    async def prove(self, result: PinResult, content: bytes) -> str:
        """Prove that a CID is of our bytes; see `causeway.apps.glisk.pinning.protocol.prove`."""
        return await prove(self._gateway, result, content)

    async def check(self) -> None:
        """Raise when the credentials are not accepted."""
        answer = await self._client.request("GET", "/data/testAuthentication")
        if not answer.ok:
            raise _refusal(answer)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()
        await self._gateway.aclose()


def _metadata(name: str, keyvalues: Mapping[str, str]) -> str:
    return orjson.dumps({"name": name, "keyvalues": dict(keyvalues)}).decode()


def _refusal(answer: Response) -> PermanentError | ConfigurationError:
    """Return what an answer that is not 2xx means: ours to mend, or this content's fault."""
    reason = _reason(answer)
    if answer.status in (401, 402, 403):
        hints = {
            401: "check PINATA_JWT, or PINATA_API_KEY and PINATA_API_SECRET",
            402: "the Pinata account must be paid for",
            403: "the Pinata key may not pin, or the plan's limit is reached",
        }
        return ConfigurationError(
            f"pinata refuses our credentials ({answer.status} {reason})", hint=hints[answer.status]
        )
    if answer.status == 413:
        return PermanentError("pinata: the file is too large")
    return PermanentError(f"pinata refuses the upload ({answer.status} {reason})")


def _reason(answer: Response) -> str:
    try:
        error = orjson.loads(answer.body).get("error")
    except (orjson.JSONDecodeError, AttributeError):
        return answer.text(100)
    if isinstance(error, dict):
        return str(error.get("reason") or error.get("details") or "")[:200]  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]
    return str(error)[:200]
