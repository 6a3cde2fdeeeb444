"""A stand-in for Neynar's Farcaster API, version 2: accounts by address and id, casts of a user.

One API key, so many requests a minute of each endpoint. Casts come newest first, in pages whose
cursor is opaque.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from datetime import datetime
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from causeway.sandbox.limits import MinuteWindow
from causeway.sandbox.world import Refused, World, instant_ms, route

_MOST_ADDRESSES = 350
_MOST_FIDS = 100
_MOST_CASTS = 150
_MESSAGES = {
    401: ("Unauthorized", "Incorrect or missing API key"),
    404: ("NotFound", "No users found"),
    429: ("RateLimited", "Rate limit exceeded"),
}


def refusal(status: int, seconds: float = 1) -> Response:
    """Return the answer of that status in Neynar's words."""
    code, message = _MESSAGES.get(status, ("InternalServerError", "Something went wrong"))
    headers = {"Retry-After": str(max(1, round(seconds)))} if status == 429 else {}
    return JSONResponse({"code": code, "message": message}, status, headers)


class Neynar:
    """The `/neynar` paths."""

    def __init__(self, world: World) -> None:
        self._world = world

    def mount(self, app: FastAPI) -> None:
        """Add the paths."""
        base = "/neynar/v2/farcaster"
        for path, endpoint in (
            ("/user/bulk-by-address", self._by_address),
            ("/user/bulk", self._by_id),
            ("/verification/by-address", self._verification),
            ("/feed/user/casts", self._casts),
        ):
            # With and without the final slash, as there.
            route(app, f"{base}{path}", endpoint, "GET")
            route(app, f"{base}{path}/", endpoint, "GET")

    async def _by_address(self, request: Request) -> Response:
        self._admit(request)
        wanted = [a.lower() for a in request.query_params.get("addresses", "").split(",") if a]
        if not wanted or len(wanted) > _MOST_ADDRESSES:
            return _invalid(f"addresses: 1 to {_MOST_ADDRESSES}")
        known = self._accounts()
        found = {
            address: [_user(fid) for fid in known[address]]
            for address in wanted
            if address in known
        }
        return JSONResponse(found) if found else refusal(404)

    async def _by_id(self, request: Request) -> Response:
        self._admit(request)
        wanted = request.query_params.get("fids", "").split(",")
        if len(wanted) > _MOST_FIDS or not all(fid.isdigit() for fid in wanted):
            return _invalid(f"fids: 1 to {_MOST_FIDS} numbers")
        known = self._known()
        return JSONResponse({"users": [_user(int(fid)) for fid in wanted if int(fid) in known]})

    async def _verification(self, request: Request) -> Response:
        self._admit(request)
        fids = self._accounts().get(request.query_params.get("address", "").lower())
        return JSONResponse({"users": [_user(fid) for fid in fids]}) if fids else refusal(404)

    async def _casts(self, request: Request) -> Response:
        self._admit(request)
        query = request.query_params
        limit = query.get("limit", "25")
        if not query.get("fid", "").isdigit() or not limit.isdigit():
            return _invalid("fid and limit: numbers")
        if not 1 <= int(limit) <= _MOST_CASTS:
            return _invalid(f"limit: 1 to {_MOST_CASTS}")
        fid = int(query["fid"])
        if fid not in self._known():
            return refusal(404)
        start = _place(query["cursor"]) if "cursor" in query else 0
        if start is None:
            return _invalid("cursor")
        fault = self._world.work_fault(request, "neynar")
        newest = sorted(self._world.settings.neynar_casts.get(fid, ()), reverse=True)
        end = start + int(limit)
        page = [_cast(fid, at, len(newest) - n) for n, at in enumerate(newest)][start:end]
        cursor = _cursor(end) if end < len(newest) else None
        if fault is not None:
            cursor = _cursor(0)
        return JSONResponse({"casts": page, "next": {"cursor": cursor}})

    def _admit(self, request: Request) -> None:
        settings = self._world.settings
        given = request.headers.get("x-api-key", "").encode()
        if not hmac.compare_digest(given, settings.neynar_api_key.encode()):
            raise Refused(refusal(401))
        path = request.url.path.rstrip("/")
        window = self._world.limits.neynar.setdefault(path, MinuteWindow())
        now = self._world.now()
        if not window.take(now, settings.neynar_per_minute):
            raise Refused(refusal(429, window.ends_at - now))

    def _accounts(self) -> dict[str, tuple[int, ...]]:
        return {a.lower(): fids for a, fids in self._world.settings.neynar_accounts.items() if fids}

    def _known(self) -> set[int]:
        settings = self._world.settings
        return {fid for fids in settings.neynar_accounts.values() for fid in fids} | set(
            settings.neynar_casts
        )


def _user(fid: int) -> dict[str, Any]:
    return {
        "object": "user",
        "fid": fid,
        "username": f"user-{fid}",
        "display_name": f"User {fid}",
        "follower_count": 0,
        "verifications": [],
    }


def _cast(fid: int, at: datetime, number: int) -> dict[str, Any]:
    digest = hashlib.sha256(f"{fid} {number} {at}".encode()).hexdigest()
    return {
        "object": "cast",
        "hash": f"0x{digest[:40]}",
        "author": {"object": "user_dehydrated", "fid": fid, "username": f"user-{fid}"},
        "text": f"cast {number}",
        "timestamp": instant_ms(at.timestamp()),
        "embeds": [],
        "parent_hash": None,
        "replies": {"count": 0},
        "reactions": {"likes_count": 0, "recasts_count": 0},
    }


def _cursor(place: int) -> str:
    return base64.urlsafe_b64encode(orjson.dumps({"place": place})).decode()


def _place(cursor: str) -> int | None:
    try:
        return int(orjson.loads(base64.urlsafe_b64decode(cursor))["place"])
    except (binascii.Error, ValueError, KeyError, TypeError):
        return None


def _invalid(what: str) -> Response:
    return JSONResponse({"code": "InvalidField", "message": f"Invalid {what}"}, 400)
