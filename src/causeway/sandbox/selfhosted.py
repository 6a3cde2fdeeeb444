"""Stand-ins for image generators people run themselves: Cog's HTTP API and Automatic1111's.

Cog: `POST /selfhosted/predictions`, and `PUT /selfhosted/predictions/{id}`, which does the work
once for an id however often it is sent. Automatic1111: `POST /automatic1111/sdapi/v1/txt2img`.
"""

from __future__ import annotations

import base64
import json
import random
import re
from typing import Any, cast

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from causeway.sandbox.faults import Fault
from causeway.sandbox.models import MODELS
from causeway.sandbox.picture import picture
from causeway.sandbox.prediction import data_uri, error_text, output_file, output_format
from causeway.sandbox.state import Prediction
from causeway.sandbox.world import Refused, World, instant, route

_MODEL = "sandbox/data-uri"
_MAX_PX = 2048


def refusal(status: int, seconds: float = 1) -> Response:
    """Return the answer of that status in the words of a small Python server."""
    headers = {"Retry-After": str(max(1, round(seconds)))} if status == 429 else {}
    texts = {409: "Already running a prediction", 503: "Not ready", 429: "Too many requests"}
    return JSONResponse({"detail": texts.get(status, "Internal Server Error")}, status, headers)


class SelfHosted:
    """The `/selfhosted` and `/automatic1111` paths."""

    def __init__(self, world: World) -> None:
        self._world = world

    def mount(self, app: FastAPI) -> None:
        """Add the paths."""
        route(app, "/selfhosted/health-check", self._health, "GET")
        route(app, "/selfhosted/predictions", self._predict, "POST")
        route(app, "/selfhosted/predictions/{prediction_id}", self._predict_once, "PUT")
        route(app, "/automatic1111/sdapi/v1/txt2img", self._text_to_image, "POST")

    async def _health(self) -> Response:
        return JSONResponse({"status": "READY", "setup": {"status": "succeeded"}})

    async def _predict(self, request: Request) -> Response:
        return await self._run(request, None)

    async def _predict_once(self, request: Request, prediction_id: str) -> Response:
        known = self._world.state.prediction_by_key("selfhosted", prediction_id)
        return self._show(known) if known else await self._run(request, prediction_id)

    async def _run(self, request: Request, key: str | None) -> Response:
        body = await _json(request)
        given = body.get("input")
        if not isinstance(given, dict):
            return _missing(["body", "input"])
        sent = cast(dict[str, Any], given)
        if "prompt" not in sent:
            return _missing(["body", "input", "prompt"])
        problems = MODELS[_MODEL].problems(
            sent, refuse_unknown=self._world.settings.refuse_unknown_input
        )
        if problems:
            details = [
                {"loc": ["body", *p.field.split(".")], "msg": p.description, "type": p.type}
                for p in problems
            ]
            return JSONResponse({"detail": details}, 422)
        prediction = self._record(
            request, "selfhosted", sent, sent["prompt"], sent.get("seed"), key
        )
        # Cog works on one request until it is done, and only then answers.
        await self._world.pause(prediction.latency_s)
        return self._show(prediction)

    async def _text_to_image(self, request: Request) -> Response:
        body = await _json(request)
        prompt, seed = body.get("prompt", ""), body.get("seed", -1)
        width, height = body.get("width", 512), body.get("height", 512)
        if not isinstance(prompt, str) or isinstance(seed, bool) or not isinstance(seed, int):
            return _a1111_error(422, "prompt must be text and seed a whole number")
        for side in (width, height):
            if isinstance(side, bool) or not isinstance(side, int) or not 8 <= side <= _MAX_PX:
                return _a1111_error(422, f"width and height must be 8 to {_MAX_PX}")
        sent_seed = None if seed == -1 else seed
        prediction = self._record(request, "automatic1111", body, prompt, sent_seed, None)
        await self._world.pause(prediction.latency_s)
        if prediction.outcome == "fail":
            return _a1111_error(500, error_text(prediction) or "")
        data = picture(
            prompt,
            prediction.used_seed,
            width=cast(int, width),
            height=cast(int, height),
            # Its censor paints over what it does not like.
            black=prediction.outcome in ("black", "nsfw"),
        )
        info = {
            "prompt": prompt,
            "all_prompts": [prompt],
            "seed": prediction.used_seed,
            "all_seeds": [prediction.used_seed],
            "width": width,
            "height": height,
            "sampler_name": body.get("sampler_name", "Euler"),
            "steps": body.get("steps", 50),
        }
        parameters = {**body, "seed": seed, "width": width, "height": height}
        images = [base64.b64encode(data).decode()]
        return JSONResponse({"images": images, "parameters": parameters, "info": json.dumps(info)})

    def _record(
        self,
        request: Request,
        service: str,
        sent: dict[str, Any],
        prompt: str,
        seed: int | None,
        key: str | None,
    ) -> Prediction:
        settings = self._world.settings
        fault: Fault | None = self._world.work_fault(request, "selfhosted")
        outcome = fault.kind if fault else "ok"
        if fault is None and re.search(
            rf"\b{re.escape(settings.forbidden_word)}\b", prompt, re.IGNORECASE
        ):
            outcome = "nsfw"
        number = random.getrandbits(64)
        return self._world.state.add_prediction(
            Prediction(
                id=f"{service}-{number:016x}",
                service=service,
                model=_MODEL,
                version="",
                input=sent,
                prompt=prompt,
                seed=seed,
                used_seed=random.randrange(2**31) if seed is None else seed,  # noqa: S311
                key=key or request.headers.get("idempotency-key"),
                created_at=self._world.now(),
                latency_s=settings.latency_s,
                outcome=outcome,
                error=fault.error if fault else None,
            )
        )

    def _show(self, prediction: Prediction) -> Response:
        error = error_text(prediction)
        output = None
        if error is None:
            data = output_file(prediction, 0, self._world.settings)
            output = data_uri(data, output_format(prediction))
        started, ended = prediction.created_at, prediction.created_at + prediction.latency_s
        return JSONResponse(
            {
                "input": prediction.input,
                "output": output,
                "id": prediction.key,
                "version": None,
                "created_at": None,
                "started_at": instant(started),
                "completed_at": instant(ended),
                "logs": f"Using seed: {prediction.used_seed}\n",
                "error": error,
                "status": "succeeded" if error is None else "failed",
                "metrics": {"predict_time": prediction.latency_s},
            }
        )


async def _json(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.body())
    except ValueError as error:
        raise Refused(_missing(["body"])) from error
    if not isinstance(body, dict):
        raise Refused(_missing(["body"]))
    return cast(dict[str, Any], body)


def _missing(where: list[str]) -> Response:
    problem = {"loc": where, "msg": "field required", "type": "value_error.missing"}
    return JSONResponse({"detail": [problem]}, 422)


def _a1111_error(status: int, text: str) -> Response:
    body = {"error": "HTTPException", "detail": text, "body": "", "errors": text}
    return JSONResponse(body, status)
