"""Who makes the pictures, and who does while that one is away."""

from __future__ import annotations

from causeway.apps.glisk.generators.builtin import BuiltinGenerator
from causeway.apps.glisk.generators.protocol import (
    ContentRefused,
    Finished,
    GenerationLost,
    GenerationRequest,
    Generator,
    ImageSource,
    Started,
)
from causeway.apps.glisk.generators.replicate import ReplicateGenerator
from causeway.apps.glisk.generators.selfhosted import Automatic1111Generator, CogGenerator
from causeway.apps.glisk.settings import GliskSettings
from causeway.base.clock import SYSTEM_CLOCK, Clock

__all__ = [
    "ContentRefused",
    "Finished",
    "GenerationLost",
    "GenerationRequest",
    "Generator",
    "Generators",
    "Started",
    "build_generators",
]

#: Failures of the first generator in a row after which the fallback is asked.
OUTAGE_AFTER = 5

#: While the fallback is asked, the first one is tried again this often, seconds.
PROBE_EVERY_S = 15.0


class Generators:
    """The generator that is asked, and the one for when it is away."""

    def __init__(
        self, primary: Generator, fallback: Generator | None = None, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._primary = primary
        self._fallback = fallback
        self._clock = clock
        self._failures = 0
        self._probe_at = 0.0

    @property
    def has_fallback(self) -> bool:
        """Whether there is another to ask."""
        return self._fallback is not None

    def choose(self) -> Generator:
        """Return who makes the next picture."""
        if self._fallback is None or self._failures < OUTAGE_AFTER:
            return self._primary
        if self._clock.monotonic() >= self._probe_at:
            self._probe_at = self._clock.monotonic() + PROBE_EVERY_S
            return self._primary
        return self._fallback

    def named(self, name: str) -> Generator:
        """Return the generator with that name; the first one when it is not set up any more."""
        if self._fallback is not None and self._fallback.name == name:
            return self._fallback
        return self._primary

    def report(self, generator: Generator, *, well: bool) -> None:
        """Say whether a generator answered: five failures of the first in a row are an outage."""
        if generator is not self._primary:
            return
        self._failures = 0 if well else self._failures + 1
        if self._failures == OUTAGE_AFTER:
            self._probe_at = self._clock.monotonic() + PROBE_EVERY_S

    async def aclose(self) -> None:
        """Close the connections of both."""
        await self._primary.aclose()
        if self._fallback is not None:
            await self._fallback.aclose()


def build_generators(settings: GliskSettings) -> Generators:
    """Return the generators that the settings choose."""
    images = ImageSource(
        settings.image_url_allowed_hosts, allow_insecure=settings.glisk_allow_insecure_image_urls
    )
    timeout_s = settings.generation_timeout_seconds
    own: Generator | None = None
    if settings.selfhosted_image_api_url is not None:
        kind = (
            Automatic1111Generator if settings.image_provider == "automatic1111" else CogGenerator
        )
        own = kind(settings.selfhosted_image_api_url, images, timeout_s)
    token = settings.replicate_api_token
    wanted = settings.image_provider
    if wanted in ("auto", "replicate") and token is not None:
        replicate = ReplicateGenerator(
            token=token.get_secret_value(),
            base_url=settings.replicate_base_url,
            model=settings.replicate_model_version,
            images=images,
            timeout_s=timeout_s,
            extra_input=settings.replicate_input_json,
        )
        return Generators(replicate, own)
    if wanted in ("auto", "selfhosted", "automatic1111") and own is not None:
        return Generators(own)
    return Generators(BuiltinGenerator())
