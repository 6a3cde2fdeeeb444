"""A stand-in for Pinata's pinning API (`/pinning`, `/data`).

Content is imported as Pinata does it: `cidVersion` 1 as kubo with raw leaves, 0 as the UnixFS of
2015. The blocks are served by the gateway of the sandbox.
"""

from __future__ import annotations

import hashlib
import json
import mimetypes
import secrets
from typing import Any, cast

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException

from causeway.sandbox.dag import KUBO_V1, UNIXFS_V0_2015
from causeway.sandbox.javascript import stringify
from causeway.sandbox.state import Pin
from causeway.sandbox.storing import store
from causeway.sandbox.world import Refused, World, instant_ms, route

_REASONS = {
    401: ("INVALID_CREDENTIALS", "Invalid/expired credentials"),
    402: ("PAYMENT_REQUIRED", "Your account has been disabled. Please update your billing details"),
    403: ("NO_SCOPES_FOUND", "This key does not have the required scopes associated with it"),
    404: ("NOT_FOUND", "The requested resource was not found"),
    429: ("RATE_LIMITED", "Rate limit exceeded"),
    500: ("INTERNAL_SERVER_ERROR", "An unexpected error occurred"),
}
_TOO_LARGE = (
    "<html>\r\n<head><title>413 Request Entity Too Large</title></head>\r\n<body>\r\n"
    "<center><h1>413 Request Entity Too Large</h1></center>\r\n<hr><center>nginx</center>\r\n"
    "</body>\r\n</html>\r\n"
)
_WELCOME = "Congratulations! You are communicating with the Pinata API!"
_MAX_KEYVALUES = 10


def refusal(status: int, seconds: float = 1) -> Response:
    """Return the answer of that status in Pinata's words."""
    if status == 400:
        return invalid_route()
    if status == 413:
        return Response(_TOO_LARGE, 413, media_type="text/html")
    if status not in _REASONS:
        return JSONResponse({"error": f"Request failed with status code {status}"}, status)
    reason, details = _REASONS[status]
    headers = {"Retry-After": str(max(1, round(seconds)))} if status == 429 else {}
    return JSONResponse({"error": {"reason": reason, "details": details}}, status, headers)


def invalid_route() -> Response:
    """Return the answer to a path or method Pinata does not have."""
    return _bad("INVALID_ROUTES", "The requested route/method does not exist")


class Pinata:
    """The `/pinata` paths."""

    def __init__(self, world: World) -> None:
        self._world = world

    def mount(self, app: FastAPI) -> None:
        """Add the paths."""
        route(app, "/pinata/data/testAuthentication", self._test, "GET")
        route(app, "/pinata/data/pinList", self._list, "GET")
        route(app, "/pinata/pinning/pinFileToIPFS", self._pin_file, "POST")
        route(app, "/pinata/pinning/pinJSONToIPFS", self._pin_json, "POST")
        route(app, "/pinata/pinning/unpin/{cid}", self._unpin, "DELETE")

    async def _test(self, request: Request) -> Response:
        headers = self._admit(request, scope=None)
        return JSONResponse({"message": _WELCOME}, headers=headers)

    async def _pin_file(self, request: Request) -> Response:
        headers = self._admit(request, scope="pinFileToIPFS")
        self._not_too_large(int(request.headers.get("content-length") or 0))
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            return _bad("INVALID_CONTENT_TYPE", "The content type must be multipart/form-data")
        try:
            async with request.form() as form:
                files = [part for part in form.getlist("file") if isinstance(part, UploadFile)]
                options = _object_text("pinataOptions", form.get("pinataOptions"))
                metadata = _object_text("pinataMetadata", form.get("pinataMetadata"))
                if len(files) != 1:
                    found = "No file" if not files else "More than one file and/or directory"
                    return JSONResponse({"error": f"{found} was provided for pinning"}, 400)
                data = await files[0].read()
                name, mime_type = files[0].filename, files[0].content_type
        except (MultiPartException, ValueError):
            return JSONResponse({"error": "Unexpected end of form"}, 400)
        self._not_too_large(len(data))
        mime_type = mime_type or mimetypes.guess_type(name or "")[0] or "application/octet-stream"
        return self._pin(request, data, options, {"name": name, **metadata}, mime_type, headers)

    async def _pin_json(self, request: Request) -> Response:
        headers = self._admit(request, scope="pinJSONToIPFS")
        try:
            body = json.loads(await request.body(), parse_constant=_no_constant)
        except ValueError:
            return _bad("INVALID_JSON", "The request body is not valid JSON")
        if not isinstance(body, dict):
            return _bad("INVALID_JSON", "The request body must be a JSON object")
        document = cast(dict[str, Any], body)
        # The oldest form of this call has no envelope: the whole body is the content.
        content = document["pinataContent"] if "pinataContent" in document else document
        if not isinstance(content, dict | list):
            return _bad("INVALID_PINATA_CONTENT", "pinataContent must be an object")
        options = _object("pinataOptions", document.get("pinataOptions"))
        metadata = _object("pinataMetadata", document.get("pinataMetadata"))
        data = stringify(cast(object, content)).encode("utf-8", "replace")
        return self._pin(request, data, options, metadata, "application/json", headers)

    def _pin(
        self,
        request: Request,
        data: bytes,
        options: dict[str, Any],
        metadata: dict[str, Any],
        mime_type: str,
        headers: dict[str, str],
    ) -> Response:
        version = options.get("cidVersion", 0)
        if isinstance(version, bool) or version not in (0, 1, "0", "1"):
            return _bad("INVALID_PINATA_OPTIONS", '"cidVersion" must be one of [0, 1]')
        name, keyvalues = _checked_metadata(metadata)
        profile = KUBO_V1 if int(version) == 1 else UNIXFS_V0_2015
        dag = store(self._world.state, data, profile, self._world.work_fault(request, "pinata"))
        pin, held = self._world.state.add_pin(
            "pinata",
            str(dag.root),
            size=dag.cumulative_bytes,
            at=self._world.now(),
            name=name,
            keyvalues=keyvalues,
            mime_type=mime_type,
        )
        answer: dict[str, object] = {
            "IpfsHash": pin.cid,
            "PinSize": pin.size,
            "Timestamp": instant_ms(pin.pinned_at),
        }
        if held:
            answer["isDuplicate"] = True
        return JSONResponse(answer, headers=headers)

    async def _unpin(self, request: Request, cid: str) -> Response:
        headers = self._admit(request, scope="unpin")
        if not self._world.state.remove_pin("pinata", cid, self._world.now()):
            return _bad(
                "CURRENT_USER_HAS_NOT_PINNED_CID", f"The current user has not pinned the cid: {cid}"
            )
        return PlainTextResponse("OK", headers=headers)

    async def _list(
        self,
        request: Request,
        status: str = "all",
        hashContains: str = "",
        cid: str = "",
        pageLimit: int = 10,
        pageOffset: int = 0,
    ) -> Response:
        headers = self._admit(request, scope="pinList")
        if status not in ("all", "pinned", "unpinned") or not 1 <= pageLimit <= 1000:
            return _bad("INVALID_QUERY", "status or pageLimit is not valid")
        name = request.query_params.get("metadata[name]", "")
        rows = [
            pin
            for pin in self._world.state.pins("pinata")
            if hashContains in pin.cid
            and cid in ("", pin.cid)
            and name in (pin.name or "")
            and (status == "all" or (status == "pinned") == (pin.unpinned_at is None))
        ]
        page = rows[pageOffset : pageOffset + pageLimit]
        body = {"count": len(rows), "rows": [_row(pin) for pin in page]}
        return JSONResponse(body, headers=headers)

    def _admit(self, request: Request, *, scope: str | None) -> dict[str, str]:
        """Check rate, credentials and scope; return the headers every answer carries."""
        settings, now = self._world.settings, self._world.now()
        data = request.url.path.startswith("/pinata/data/")
        limit = settings.pinata_data_per_minute if data else settings.pinata_per_minute
        limits = self._world.limits
        window = limits.pinata_data if data else limits.pinning
        within = window.take(now, limit)
        headers = {
            "X-RateLimit-Limit": str(limit),
            "X-RateLimit-Remaining": str(max(0, limit - window.used)),
            "X-RateLimit-Reset": str(int(window.ends_at) + 1),
        }
        if not within:
            response = refusal(429, window.ends_at - now)
            response.headers.update(headers)
            raise Refused(response)
        authorization = request.headers.get("authorization")
        if authorization is not None:
            good = _same(authorization, f"Bearer {settings.pinata_jwt}")
            scopeless = _same(authorization, f"Bearer {settings.pinata_jwt_without_scopes}")
        else:
            key = request.headers.get("pinata_api_key", "")
            secret = request.headers.get("pinata_secret_api_key", "")
            good = _same(key, settings.pinata_api_key) and _same(secret, settings.pinata_api_secret)
            scopeless = False
        if not good and not scopeless:
            raise Refused(refusal(401))
        if scopeless and scope is not None:
            raise Refused(refusal(403))
        return headers

    def _not_too_large(self, size: int) -> None:
        if size > self._world.settings.pinata_max_bytes:
            raise Refused(refusal(413))


def _no_constant(name: str) -> object:
    # Python reads NaN and Infinity; no other JSON reader does.
    raise ValueError(f"{name} is not JSON")


def _same(given: str, wanted: str) -> bool:
    return secrets.compare_digest(given.encode(), wanted.encode())


def _bad(reason: str, details: str) -> Response:
    return JSONResponse({"error": {"reason": reason, "details": details}}, 400)


def _object(name: str, value: object) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Refused(_bad(f"INVALID_{name.upper()}", f"{name} must be an object"))
    return cast(dict[str, Any], value)


def _object_text(name: str, value: object) -> dict[str, Any]:
    if value is None:
        return {}
    try:
        return _object(name, json.loads(str(value)))
    except ValueError as error:
        raise Refused(_bad(f"INVALID_{name.upper()}", f"{name} must be valid JSON")) from error


def _checked_metadata(metadata: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    name = metadata.get("name")
    keyvalues = _object("keyvalues", metadata.get("keyvalues"))
    if name is not None and not isinstance(name, str):
        raise Refused(_bad("INVALID_METADATA_NAME", "name must be a string"))
    if len(keyvalues) > _MAX_KEYVALUES:
        raise Refused(_bad("INVALID_METADATA_KEYVALUES", "keyvalues: at most 10 are allowed"))
    for key, value in keyvalues.items():
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            text = f"{key}: only strings and numbers are allowed"
            raise Refused(_bad("INVALID_METADATA_KEYVALUES", text))
    return name, keyvalues


def _row(pin: Pin) -> dict[str, object]:
    digest = hashlib.sha256(pin.cid.encode()).hexdigest()
    return {
        "id": f"{digest[:8]}-{digest[8:12]}-4{digest[13:16]}-a{digest[17:20]}-{digest[20:32]}",
        "ipfs_pin_hash": pin.cid,
        "size": pin.size,
        "user_id": "00000000-0000-4000-a000-000000000000",
        "date_pinned": instant_ms(pin.pinned_at),
        "date_unpinned": None if pin.unpinned_at is None else instant_ms(pin.unpinned_at),
        "metadata": {"name": pin.name, "keyvalues": pin.keyvalues or None},
        "regions": [
            {"regionId": "FRA1", "currentReplicationCount": 1, "desiredReplicationCount": 1}
        ],
        "mime_type": pin.mime_type,
        "number_of_files": 1,
    }
