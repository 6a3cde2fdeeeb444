"""Stand-ins for Farcaster's name services: the fname registry and a hub's HTTP API.

Names are what `farcaster_transfers` says, a list of (name, from fid, to fid) in order; fid 0 is
nobody. Names with a dot (ENS) are known to the hub alone. The on-chain registries are contracts:
see `contracts/test/FarcasterRegistries.sol`.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from causeway.sandbox.world import World, route

_OWNER = "0x8773442740C17C9d0F0B87022c722F9a136206eD"
_TIMESTAMP = 1628882891
_PAGE = 100


def refusal(status: int, seconds: float = 1) -> Response:
    """Return the answer of that status in words of these services."""
    headers = {"Retry-After": str(max(1, round(seconds)))} if status == 429 else {}
    return JSONResponse({"error": "unavailable", "code": status}, status, headers)


class Farcaster:
    """The `/fnames` and `/hub` paths."""

    def __init__(self, world: World) -> None:
        self._world = world

    def mount(self, app: FastAPI) -> None:
        """Add the paths."""
        route(app, "/fnames/transfers", self._transfers, "GET")
        route(app, "/fnames/transfers/current", self._current, "GET")
        route(app, "/hub/v1/userNameProofsByFid", self._proofs, "GET")

    async def _transfers(self, request: Request) -> Response:
        found = self._matching(request)
        first = request.query_params.get("from_id", "0")
        if not first.isdigit():
            return JSONResponse({"error": "Validation failed", "code": "INVALID"}, 400)
        return JSONResponse({"transfers": [t for t in found if t["id"] > int(first)][:_PAGE]})

    async def _current(self, request: Request) -> Response:
        found = self._matching(request)
        if not found or found[-1]["to"] == 0:
            return JSONResponse({"error": "Could not resolve current name"}, 404)
        return JSONResponse({"transfer": found[-1]})

    async def _proofs(self, request: Request) -> Response:
        wanted = request.query_params.get("fid", "")
        if not wanted.isdigit():
            body = {"errCode": "bad_request.validation_failure", "details": "fid must be a number"}
            return JSONResponse(body, 400)
        holders: dict[str, int] = {}
        for name, _, to in self._world.settings.farcaster_transfers:
            holders[name] = to
        proofs = [
            {
                "timestamp": _TIMESTAMP,
                "name": name,
                "owner": _OWNER.lower(),
                "signature": "",
                "fid": fid,
                "type": "USERNAME_TYPE_ENS_L1" if "." in name else "USERNAME_TYPE_FNAME",
            }
            for name, fid in holders.items()
            if fid == int(wanted)
        ]
        return JSONResponse({"proofs": proofs})

    def _matching(self, request: Request) -> list[dict[str, Any]]:
        name, fid = request.query_params.get("name"), request.query_params.get("fid")
        return [
            {
                "id": number,
                "timestamp": _TIMESTAMP + number,
                "username": username,
                "owner": _OWNER,
                "from": sender,
                "to": receiver,
                "user_signature": "0x",
                "server_signature": "0x",
            }
            for number, (username, sender, receiver) in enumerate(
                self._world.settings.farcaster_transfers, start=1
            )
            if "." not in username
            and name in (None, username)
            and (fid is None or fid in (str(sender), str(receiver)))
        ]
