"""The host Replicate serves finished files from, until they are deleted."""

from __future__ import annotations

import asyncio

from fastapi import FastAPI, Request, Response

from causeway.sandbox.picture import bomb
from causeway.sandbox.prediction import (
    mime_type,
    output_count,
    output_file,
    output_format,
    progress,
)
from causeway.sandbox.world import World, route


def refusal(status: int, seconds: float = 1) -> Response:
    """Return the answer of that status of the host of files."""
    headers = {"Retry-After": str(round(seconds))} if status == 429 else {}
    return Response(f"{status}\n", status, headers, media_type="text/plain")


class Delivery:
    """The `/delivery` paths; no credentials are asked for, the address is the secret."""

    def __init__(self, world: World) -> None:
        self._world = world

    def mount(self, app: FastAPI) -> None:
        """Add the paths."""
        route(app, "/delivery/{prediction_id}/{file}", self._file, "GET", "HEAD")

    async def _file(self, request: Request, prediction_id: str, file: str) -> Response:
        prediction = self._world.state.prediction(prediction_id)
        if prediction is None or prediction.service != "replicate":
            return refusal(404)
        at = progress(prediction, self._world.now(), self._world.settings.output_lifetime_s)
        fmt = output_format(prediction)
        names = [f"out-{index}.{fmt}" for index in range(output_count(prediction))]
        if file not in names or not at.has_output:
            return refusal(404)
        fault = self._world.work_fault(request, "delivery")
        if fault is not None and fault.kind == "drop_output":
            return refusal(404)
        world = self._world
        data = await asyncio.to_thread(
            output_file, prediction, names.index(file), world.settings, world.painter
        )
        if fault is not None and fault.kind == "bomb":
            data = bomb()
        return Response(data, media_type=mime_type(fmt))
