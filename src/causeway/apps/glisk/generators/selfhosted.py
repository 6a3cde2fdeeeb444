"""Generators of one's own: a Cog server, or Automatic1111's web UI; both answer with a picture."""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

from causeway.apps.glisk.generators.protocol import (
    ContentRefused,
    Finished,
    GenerationLost,
    GenerationRequest,
    ImageSource,
    Started,
)
from causeway.base.errors import ConfigurationError, PermanentError, ProviderUnavailable
from causeway.base.http import HttpClient, Response

#: Pictures come inside the answer, as text.
MAX_ANSWER_BYTES = 40 * 1024 * 1024


class _Direct:
    """A generator that answers with the picture: there is nothing to resume, and nothing to pay."""

    def __init__(self, name: str, url: str, images: ImageSource, timeout_s: float) -> None:
        self.name = name
        self.model: str | None = None
        self._images = images
        self._client = HttpClient(
            name=name, base_url=url, timeout_s=timeout_s, max_response_bytes=MAX_ANSWER_BYTES
        )

    async def wait(self, external_id: str) -> Finished:
        """There is nothing to wait for."""
        raise GenerationLost(f"{self.name} keeps no generations: {external_id}")

    async def find_orphan(self, request: GenerationRequest, *, since: datetime) -> str | None:
        """There is nothing to find."""
        return None

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _judge(self, answer: Response) -> None:
        if answer.status in (401, 403, 404):
            raise ConfigurationError(
                f"{self.name} refuses us ({answer.status})", hint="check SELFHOSTED_IMAGE_API_URL"
            )
        if not answer.ok:
            raise PermanentError(
                f"{self.name} refuses the prompt ({answer.status}): {answer.text(150)}"
            )


class CogGenerator(_Direct):
    """A model packaged with Cog: `POST /predictions`, answered with a `data:` address."""

    def __init__(self, url: str, images: ImageSource, timeout_s: float = 300.0) -> None:
        super().__init__("selfhosted", url, images, timeout_s)

    async def start(self, request: GenerationRequest) -> Started | Finished:
        """Have a picture made and return it."""
        answer = await self._client.request(
            "POST",
            "/predictions",
            json={"input": {"prompt": request.prompt, "seed": request.seed}},
        )
        self._judge(answer)
        told = cast("dict[str, Any]", answer.json())
        if told.get("status") == "failed":
            error = str(told.get("error") or "")
            if "nsfw" in error.lower():
                raise ContentRefused(f"the generator refused the prompt: {error[:200]}")
            raise GenerationLost(f"the generator failed: {error[:200]}")
        output = told.get("output")
        if isinstance(output, list) and output:
            output = cast("list[object]", output)[0]
        if not isinstance(output, str):
            raise ProviderUnavailable("the generator answered without a picture")
        content, facts = await self._images.download(output)
        metrics = cast("dict[str, Any]", told.get("metrics") or {})
        return Finished(
            content=content,
            facts=facts,
            url=None if output.startswith("data:") else output,
            model="cog",
            predict_time_s=metrics.get("predict_time"),
        )


class Automatic1111Generator(_Direct):
    """Stable Diffusion web UI: `POST /sdapi/v1/txt2img`, answered with base64 pictures."""

    def __init__(self, url: str, images: ImageSource, timeout_s: float = 300.0) -> None:
        super().__init__("automatic1111", url, images, timeout_s)

    async def start(self, request: GenerationRequest) -> Started | Finished:
        """Have a picture made and return it."""
        answer = await self._client.request(
            "POST",
            "/sdapi/v1/txt2img",
            json={"prompt": request.prompt, "seed": request.seed, "batch_size": 1, "n_iter": 1},
        )
        self._judge(answer)
        told = cast("dict[str, Any]", answer.json())
        pictures = cast("list[object]", told.get("images") or [])
        if not pictures:
            raise ProviderUnavailable("the generator answered without a picture")
        payload = str(pictures[0]).rpartition(",")[2]
        content, facts = await self._images.download(f"data:image/png;base64,{payload}")
        return Finished(content=content, facts=facts, url=None, model="automatic1111")
