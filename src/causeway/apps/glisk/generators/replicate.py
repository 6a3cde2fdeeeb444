"""Replicate's predictions API."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any, cast
from urllib.parse import urlsplit

import orjson
import structlog

from causeway.apps.glisk.generators.protocol import (
    ContentRefused,
    Finished,
    GenerationLost,
    GenerationRequest,
    ImageSource,
    Started,
)
from causeway.base.clock import SYSTEM_CLOCK, Clock
from causeway.base.errors import ConfigurationError, PermanentError, RateLimited, TransientError
from causeway.base.http import HttpClient, Response

log = structlog.get_logger(__name__)

#: How often a prediction is asked about: from the first to the last of these, seconds.
FIRST_POLL_S, LAST_POLL_S = 0.5, 5.0

#: When a 429 does not say how long, seconds.
DEFAULT_PAUSE_S = 10.0

#: Pages of recent predictions that are looked through for one that was never heard of.
ORPHAN_PAGES = 5

#: Whole words that tell a refusal by the content policy, in a prediction's `error` only.
_REFUSED = re.compile(
    r"\bNSFW\b|\bflagged as sensitive\b|\(E005\)|\bcontent policy\b|\bsafety\b|\binappropriate\b",
    re.IGNORECASE,
)
_SECONDS = re.compile(r"(?:in|~)\s*(\d+)\s*s(?:econds?)?\b", re.IGNORECASE)

Prediction = dict[str, Any]


class ReplicateGenerator:
    """Makes pictures at Replicate."""

    name = "replicate"

    def __init__(
        self,
        *,
        token: str,
        base_url: str,
        model: str,
        images: ImageSource,
        timeout_s: float = 300.0,
        extra_input: str = "{}",
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.model: str | None = model
        self._base_url = base_url.rstrip("/")
        self._client = HttpClient(
            name="replicate", base_url=base_url, headers={"Authorization": f"Bearer {token}"}
        )
        self._images = images
        self._timeout_s = timeout_s
        self._extra_input: dict[str, Any] = orjson.loads(extra_input)
        self._clock = clock

    async def start(self, request: GenerationRequest) -> Started | Finished:
        """Create a prediction. There is no idempotency key: store the id before anything else."""
        full: dict[str, Any] = {
            "prompt": request.prompt,
            "num_outputs": 1,
            "output_format": "png",
            "seed": request.seed,
            **self._extra_input,
        }
        answer = await self._create(full)
        if answer.status == 422:
            # Some models refuse fields they do not know: the prompt alone is understood by all.
            answer = await self._create({"prompt": request.prompt})
        if not answer.ok:
            raise _refusal(answer)
        prediction = cast("Prediction", answer.json())
        return Started(str(prediction["id"]))

    async def _create(self, wanted: dict[str, Any]) -> Response:
        model = self.model or ""
        pinned = re.fullmatch(r"(?:[\w.-]+/[\w.-]+:)?[0-9a-f]{64}", model)
        path = "/predictions" if pinned else f"/models/{model}/predictions"
        body: dict[str, Any] = {"input": wanted}
        if pinned:
            body["version"] = model
        return await self._ask("POST", path, json=body, headers={"Cancel-After": "5m"})

    async def _ask(self, method: str, path: str, **more: Any) -> Response:
        try:
            return await self._client.request(method, path, **more)
        except RateLimited as error:
            if error.retry_after_s is not None:
                raise
            found = _SECONDS.search(str(error.context.get("text", "")))
            pause_s = float(found.group(1)) if found else DEFAULT_PAUSE_S
            raise RateLimited(
                "replicate asks to slow down", retry_after_s=pause_s, service="replicate"
            ) from None

    async def wait(self, external_id: str) -> Finished:
        """Ask about a prediction until it has ended; one that takes too long is cancelled."""
        deadline = self._clock.monotonic() + self._timeout_s
        pause_s = FIRST_POLL_S
        while True:
            prediction = await self._get(external_id)
            if (url := _output(prediction)) is not None:
                return await self._finish(prediction, url)
            self._judge(prediction)
            if self._clock.monotonic() + pause_s > deadline:
                await self._ask("POST", f"/predictions/{external_id}/cancel")
                raise GenerationLost(
                    f"the prediction {external_id} was cancelled after {self._timeout_s:g} s"
                )
            await self._clock.sleep(pause_s)
            pause_s = min(pause_s * 1.5, LAST_POLL_S)

    async def _get(self, external_id: str) -> Prediction:
        answer = await self._ask("GET", f"/predictions/{external_id}")
        if answer.status == 404:
            raise GenerationLost(f"replicate does not know the prediction {external_id} any more")
        if not answer.ok:
            raise _refusal(answer)
        return cast("Prediction", answer.json())

    def _judge(self, prediction: Prediction) -> None:
        """Raise when a prediction has ended without a picture."""
        status, told = prediction.get("status"), str(prediction.get("error") or "")
        if status == "failed":
            if _REFUSED.search(told):
                raise ContentRefused(f"the content policy refused the prompt: {told[:200]}")
            raise GenerationLost(f"the prediction failed: {told[:200] or 'without a reason'}")
        if status in ("canceled", "aborted"):
            raise GenerationLost(f"the prediction was {status} by the platform")
        if prediction.get("data_removed") or status == "succeeded":
            raise GenerationLost("the prediction's output was deleted")

    async def _finish(self, prediction: Prediction, url: str) -> Finished:
        content, facts = await self._images.download(url)
        metrics = cast("dict[str, object]", prediction.get("metrics") or {})
        seconds = metrics.get("predict_time")
        return Finished(
            content=content,
            facts=facts,
            url=None if url.startswith("data:") else url,
            model=str(prediction.get("model") or self.model),
            predict_time_s=float(seconds) if isinstance(seconds, int | float) else None,
        )

    async def find_orphan(self, request: GenerationRequest, *, since: datetime) -> str | None:
        """Look through recent predictions for one with this prompt and seed, newest first."""
        path: str | None = "/predictions"
        for _ in range(ORPHAN_PAGES):
            answer = await self._ask("GET", path)
            if not answer.ok:
                raise _refusal(answer)
            page = cast("dict[str, Any]", answer.json())
            for prediction in cast("list[Prediction]", page.get("results") or []):
                if _created(prediction) < since - timedelta(seconds=5):
                    return None
                wanted = cast("dict[str, object]", prediction.get("input") or {})
                if wanted.get("prompt") == request.prompt and wanted.get("seed") == request.seed:
                    return str(prediction["id"])
            path = self._ours(page.get("next"))
            if path is None:
                return None
        return None

    def _ours(self, url: object) -> str | None:
        """Return an address we were given only when it is at the configured origin."""
        if not isinstance(url, str) or not url:
            return None
        there, here = urlsplit(url), urlsplit(self._base_url)
        if (there.scheme, there.netloc) != (here.scheme, here.netloc):
            return None
        return url

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _created(prediction: Prediction) -> datetime:
    return datetime.fromisoformat(str(prediction["created_at"]).replace("Z", "+00:00"))


def _output(prediction: Prediction) -> str | None:
    """Return the first output; with a waiting answer it may be there before the end."""
    output = prediction.get("output")
    if isinstance(output, list) and output:
        output = cast("list[object]", output)[0]
    return output if isinstance(output, str) and output else None


def _refusal(answer: Response) -> PermanentError | ConfigurationError | TransientError:
    """Return what an answer that is not 2xx means."""
    try:
        told = orjson.loads(answer.body)
        detail = str(told.get("detail") or told.get("title") or "")[:200]
    except (orjson.JSONDecodeError, AttributeError):
        detail = answer.text(100)
    hints = {
        401: "check REPLICATE_API_TOKEN",
        402: "the Replicate account has no credit left",
        403: "the Replicate token may not do this",
        404: "check REPLICATE_MODEL_VERSION",
    }
    if answer.status in hints:
        return ConfigurationError(
            f"replicate refuses us ({answer.status} {detail})", hint=hints[answer.status]
        )
    return PermanentError(f"replicate refuses the request ({answer.status} {detail})")
