"""Stand-ins for an IPFS gateway (`/ipfs`) and for kubo's RPC (`/kubo/api/v0`).

Both work on real blocks under real CIDs; the gateway serves whatever any service of the sandbox
has stored. kubo's RPC answers POST only, as the real one does.
"""

from __future__ import annotations

import json
import re
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from multiformats import CID
from starlette.datastructures import UploadFile

from causeway.sandbox.dag import ImportProfile, MissingBlock, car, parse_cid, read
from causeway.sandbox.storing import store
from causeway.sandbox.world import Refused, World, route

_VERSION = {
    "Version": "0.39.0",
    "Commit": "",
    "Repo": "18",
    "System": "amd64/linux",
    "Golang": "go1.25.4",
}
_CAR = "application/vnd.ipld.car"
_RAW = "application/vnd.ipld.raw"
_MAX_CHUNK_BYTES = 1024 * 1024


def gateway_refusal(status: int, seconds: float = 1) -> Response:
    """Return the answer of that status of a gateway: one line of text."""
    texts = {404: "ipfs: content not found\n", 504: "ipfs resolve: context deadline exceeded\n"}
    headers = {"Retry-After": str(max(1, round(seconds)))} if status == 429 else {}
    return PlainTextResponse(texts.get(status, f"{status}\n"), status, headers)


def kubo_refusal(status: int, seconds: float = 1) -> Response:
    """Return the answer of that status in kubo's words."""
    if status in (403, 404, 405):
        names = {403: "Forbidden", 404: "page not found", 405: "Method Not Allowed"}
        return PlainTextResponse(f"{status} - {names[status]}\n", status)
    headers = {"Retry-After": str(max(1, round(seconds)))} if status == 429 else {}
    body = {"Message": f"the node answers {status}", "Code": 0, "Type": "error"}
    return JSONResponse(body, status, headers)


class Gateway:
    """The `/ipfs` paths."""

    def __init__(self, world: World) -> None:
        self._world = world

    def mount(self, app: FastAPI) -> None:
        """Add the paths."""
        route(app, "/ipfs/{cid}", self._get, "GET", "HEAD")

    async def _get(self, request: Request, cid: str, format: str = "") -> Response:
        try:
            root = parse_cid(cid)
        except ValueError:
            return PlainTextResponse(f"invalid path: {cid[:80]}: invalid CID\n", 400)
        if self._world.work_fault(request, "gateway") is not None:
            return gateway_refusal(self._world.settings.gateway_unknown_status)
        accept = request.headers.get("accept", "")
        try:
            if format == "car" or _CAR in accept:
                data, mime_type = (
                    car(root, self._world.state.block),
                    f"{_CAR}; version=1; order=dfs",
                )
            elif format == "raw" or _RAW in accept:
                block = self._world.state.block(bytes(root.digest))
                if block is None:
                    raise MissingBlock(cid)
                data, mime_type = block, _RAW
            else:
                data = read(root, self._world.state.block)
                mime_type = _sniff(data)
        except MissingBlock:
            return gateway_refusal(self._world.settings.gateway_unknown_status)
        headers = {
            "ETag": f'"{cid}"',
            "X-Ipfs-Path": f"/ipfs/{cid}",
            "X-Ipfs-Roots": cid,
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "public, max-age=29030400, immutable",
        }
        return Response(data, headers=headers, media_type=mime_type)


class Kubo:
    """The `/kubo/api/v0` paths."""

    def __init__(self, world: World) -> None:
        self._world = world

    def mount(self, app: FastAPI) -> None:
        """Add the paths."""
        for command, endpoint in {
            "add": self._add,
            "cat": self._cat,
            "version": self._version,
            "pin/add": self._pin_add,
            "pin/ls": self._pin_ls,
            "pin/rm": self._pin_rm,
            "dag/export": self._dag_export,
        }.items():
            route(app, f"/kubo/api/v0/{command}", endpoint, "POST")

    async def _add(self, request: Request) -> Response:
        query = request.query_params
        profile = _profile(dict(query))
        fault = self._world.work_fault(request, "kubo")
        lines: list[str] = []
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            return _error("file argument 'path' is required")
        async with request.form() as form:
            files = [part for _, part in form.multi_items() if isinstance(part, UploadFile)]
            if not files:
                return _error("file argument 'path' is required")
            for file in files:
                dag = store(self._world.state, await file.read(), profile, fault)
                cid = str(dag.root)
                if _flag(dict(query), "pin", default=True):
                    size = dag.cumulative_bytes
                    self._world.state.add_pin("kubo", cid, size=size, at=self._world.now())
                name = file.filename or cid
                lines.append(
                    json.dumps({"Name": name, "Hash": cid, "Size": str(dag.cumulative_bytes)})
                )
        headers = {"X-Chunked-Output": "1", "Trailer": "X-Stream-Error"}
        body = "".join(f"{line}\n" for line in lines)
        return Response(body, headers=headers, media_type="application/json")

    async def _cat(self, arg: str) -> Response:
        data = self._read(_cid(arg))
        return Response(data, headers={"X-Stream-Output": "1"}, media_type="text/plain")

    async def _dag_export(self, arg: str) -> Response:
        try:
            data = car(_cid(arg), self._world.state.block)
        except MissingBlock:
            return _error("block was not found locally (offline): ipld: could not find " + arg)
        return Response(data, media_type=_CAR)

    async def _version(self) -> Response:
        return JSONResponse(_VERSION)

    async def _pin_add(self, arg: str) -> Response:
        cid = _cid(arg)
        data = self._read(cid)
        self._world.state.add_pin("kubo", str(cid), size=len(data), at=self._world.now())
        return JSONResponse({"Pins": [str(cid)]})

    async def _pin_rm(self, arg: str) -> Response:
        cid = str(_cid(arg))
        if not self._world.state.remove_pin("kubo", cid, self._world.now()):
            return _error("not pinned or pinned indirectly")
        return JSONResponse({"Pins": [cid]})

    async def _pin_ls(self, arg: str | None = None) -> Response:
        pinned = [pin.cid for pin in self._world.state.pins("kubo") if pin.unpinned_at is None]
        if arg is not None:
            cid = str(_cid(arg))
            if cid not in pinned:
                return _error(f"path '{arg}' is not pinned")
            pinned = [cid]
        return JSONResponse({"Keys": {cid: {"Name": "", "Type": "recursive"} for cid in pinned}})

    def _read(self, cid: CID) -> bytes:
        try:
            return read(cid, self._world.state.block)
        except MissingBlock as error:
            text = f"block was not found locally (offline): ipld: could not find {cid}"
            raise Refused(_error(text)) from error


def _error(message: str, status: int = 500) -> Response:
    return JSONResponse({"Message": message, "Code": 0, "Type": "error"}, status)


def _cid(arg: str) -> CID:
    text = arg.removeprefix("/ipfs/").removeprefix("ipfs://")
    try:
        return parse_cid(text)
    except ValueError as error:
        raise Refused(_error(f"invalid path {arg[:80]!r}: invalid CID")) from error


def _flag(query: dict[str, Any], name: str, *, default: bool) -> bool:
    text = query.get(name)
    if text is None:
        return default
    if text.lower() not in ("true", "false", "1", "0"):
        raise Refused(_error(f'invalid value for option "{name}"', 400))
    return text.lower() in ("true", "1")


def _profile(query: dict[str, Any]) -> ImportProfile:
    version = query.get("cid-version", "0")
    chunker = re.fullmatch(r"size-(\d+)", query.get("chunker", "size-262144"))
    if version not in ("0", "1"):
        raise Refused(_error(f"unsupported CID version: {version}"))
    if chunker is None or not 1 <= int(chunker[1]) <= _MAX_CHUNK_BYTES:
        raise Refused(_error("unrecognized chunker option"))
    number = int(version)
    raw_leaves = _flag(query, "raw-leaves", default=number == 1)
    return ImportProfile("asked for", number, raw_leaves, int(chunker[1]))


def _sniff(data: bytes) -> str:
    """Return the content type as gateways guess it, from the first bytes."""
    for start, mime_type in (
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"GIF8", "image/gif"),
    ):
        if data.startswith(start):
            return mime_type
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    try:
        text = data[:4096].decode("utf-8", "strict" if len(data) <= 4096 else "ignore")
    except UnicodeDecodeError:
        return "application/octet-stream"
    return "application/json" if text.lstrip()[:1] in ("{", "[") else "text/plain; charset=utf-8"
