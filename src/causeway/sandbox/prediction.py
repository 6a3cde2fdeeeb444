"""How far a prediction is at a given moment, and how the API shows it.

Nothing runs in the background: a prediction's whole life follows from when it was created, how
long it takes, how it ends and whether it was cancelled, so it goes on through a restart.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from typing import Any, Literal, cast

from causeway.sandbox.models import MODELS
from causeway.sandbox.picture import Format, Painter, picture
from causeway.sandbox.settings import SandboxSettings
from causeway.sandbox.state import Prediction
from causeway.sandbox.world import instant

Status = Literal["starting", "processing", "succeeded", "failed", "canceled", "aborted"]

#: Texts of real refusals; which one a prompt gets depends on the prompt.
REFUSALS = (
    "The input or output was flagged as sensitive. Please try again with different inputs. (E005)",
    "NSFW content detected. Try running it again, or try a different prompt.",
    "All generated images contained NSFW content. Try running it again with a different prompt.",
)
_OUT_OF_MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB (GPU 0; 79.15 GiB total capacity)"
_MIME_TYPES = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}


@dataclass(frozen=True, slots=True)
class Progress:
    """A prediction as it stands."""

    status: Status
    started_at: float | None
    #: When the output is there, shortly before the end; None: never.
    output_at: float | None
    #: When it has ended or will end; infinite when it never does.
    ends_at: float
    over: bool
    has_output: bool
    #: Input, output and files are deleted.
    removed: bool


def progress(prediction: Prediction, now: float, output_lifetime_s: float) -> Progress:
    """Return how far `prediction` is at `now`, seconds since 1970."""
    created = prediction.created_at
    starts = created + prediction.latency_s / 4
    natural_end = math.inf if prediction.outcome == "stuck" else created + prediction.latency_s
    deadline = math.inf if prediction.deadline_s is None else created + prediction.deadline_s
    asked = math.inf if prediction.canceled_at is None else prediction.canceled_at
    stop = min(deadline, asked)
    end = min(natural_end, stop)
    stopped = stop < natural_end
    good = prediction.outcome in ("ok", "black", "drop_output")
    output_at = None
    if good and not stopped and prediction.outcome != "drop_output":
        output_at = created + prediction.latency_s * 0.9
    over = now >= end
    status: Status
    if not over:
        status = "starting" if now < starts else "processing"
    elif stopped:
        # A deadline that passes before the start costs nothing and has a name of its own.
        status = "aborted" if stop < starts and deadline < asked else "canceled"
    elif good:
        status = "succeeded"
    else:
        status = "canceled" if prediction.outcome == "canceled" else "failed"
    removed = over and (now >= end + output_lifetime_s or prediction.outcome == "drop_output")
    return Progress(
        status=status,
        started_at=starts if now >= starts and starts <= end else None,
        output_at=output_at,
        ends_at=end,
        over=over,
        has_output=output_at is not None and now >= output_at and not removed,
        removed=removed,
    )


def error_text(prediction: Prediction) -> str | None:
    """Return why a prediction fails, None when it does not."""
    if prediction.outcome == "nsfw":
        return prediction.error or REFUSALS[len(prediction.prompt) % len(REFUSALS)]
    if prediction.outcome == "fail":
        return prediction.error or _OUT_OF_MEMORY
    return None


def output_format(prediction: Prediction) -> Format:
    """Return the file type that was asked for, or the model's own."""
    model = MODELS.get(prediction.model)
    default = model.default_format if model else "png"
    return cast(Format, prediction.input.get("output_format", default))


def output_count(prediction: Prediction) -> int:
    """Return how many pictures were asked for."""
    count = prediction.input.get("num_outputs", 1)
    return count if isinstance(count, int) else 1


def output_file(
    prediction: Prediction, index: int, settings: SandboxSettings, painter: Painter | None = None
) -> bytes:
    """Return the `index`-th picture of a prediction."""
    if painter is not None and prediction.outcome != "black":
        return painter(prediction.prompt, prediction.used_seed + index, settings.picture_px)
    wide, _, high = str(prediction.input.get("aspect_ratio", "1:1")).partition(":")
    ratio = int(wide) / int(high)
    longer = settings.picture_px
    width, height = (longer, longer / ratio) if ratio >= 1 else (longer * ratio, longer)
    return picture(
        prediction.prompt,
        prediction.used_seed + index,
        width=max(1, round(width)),
        height=max(1, round(height)),
        fmt=output_format(prediction),
        black=prediction.outcome == "black",
    )


def mime_type(fmt: str) -> str:
    """Return the media type of a file ending."""
    return _MIME_TYPES[fmt]


def data_uri(data: bytes, fmt: str) -> str:
    """Return `data` as a `data:` URI."""
    return f"data:{mime_type(fmt)};base64,{base64.b64encode(data).decode()}"


def show(
    prediction: Prediction, now: float, settings: SandboxSettings, *, url: str
) -> dict[str, Any]:
    """Return the prediction object of the API; `url` is the sandbox's own address."""
    at = progress(prediction, now, settings.output_lifetime_s)
    api = f"{url}/replicate/v1/predictions/{prediction.id}"
    metrics: dict[str, float] = {}
    if at.over:
        metrics["total_time"] = round(at.ends_at - prediction.created_at, 6)
        if at.started_at is not None:
            metrics["predict_time"] = round(at.ends_at - at.started_at, 6)
    return {
        "id": prediction.id,
        "model": prediction.model,
        "version": prediction.version,
        "input": {} if at.removed else prediction.input,
        "logs": "" if at.started_at is None else f"Using seed: {prediction.used_seed}\n",
        "output": _output(prediction, settings, url) if at.has_output else None,
        "data_removed": at.removed,
        "error": error_text(prediction) if at.over and at.status == "failed" else None,
        "source": "api",
        "status": at.status,
        "created_at": instant(prediction.created_at),
        "started_at": instant(at.started_at),
        "completed_at": instant(at.ends_at) if at.over else None,
        "metrics": metrics,
        "urls": {"cancel": f"{api}/cancel", "get": api, "web": f"{url}/p/{prediction.id}"},
    }


def _output(prediction: Prediction, settings: SandboxSettings, url: str) -> list[str] | str:
    fmt = output_format(prediction)
    model = MODELS.get(prediction.model)
    if model is not None and model.output == "data":
        return data_uri(output_file(prediction, 0, settings), fmt)
    base = f"{url}/delivery/{prediction.id}"
    urls = [f"{base}/out-{index}.{fmt}" for index in range(output_count(prediction))]
    return urls[0] if model is not None and model.output == "url" else urls
