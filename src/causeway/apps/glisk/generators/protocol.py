"""What makes pictures: begun, waited for and found again, so that none is paid for twice."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from causeway.apps.glisk.images import ImageFacts, examine
from causeway.base.errors import PermanentError, TransientError
from causeway.base.fetch import Gone, fetch_public


class ContentRefused(PermanentError):
    """The generator refuses the prompt by its content policy."""


class GenerationLost(TransientError):
    """This generation will never have an answer; another must be begun."""


@dataclass(frozen=True)
class GenerationRequest:
    """What is asked for."""

    prompt: str
    seed: int
    token_id: int


@dataclass(frozen=True)
class Started:
    """A generation that is under way, under the generator's own id."""

    external_id: str


@dataclass(frozen=True)
class Finished:
    """A picture, downloaded and examined."""

    content: bytes
    facts: ImageFacts
    #: Where it came from; None when it came inside the answer.
    url: str | None
    model: str | None
    #: Seconds that are paid for.
    predict_time_s: float | None = None


class Generator(Protocol):
    """A service that makes pictures."""

    @property
    def name(self) -> str:
        """`replicate`, `selfhosted`, `automatic1111` or `builtin`."""
        ...

    @property
    def model(self) -> str | None:
        """The model that is asked."""
        ...

    async def start(self, request: GenerationRequest) -> Started | Finished:
        """Begin a picture. May cost money: store the id before anything else."""
        ...

    async def wait(self, external_id: str) -> Finished:
        """Return the picture that was begun under an id, waiting for it."""
        ...

    async def find_orphan(self, request: GenerationRequest, *, since: datetime) -> str | None:
        """Return the id of a generation that was begun for this request and never heard of."""
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


@dataclass(frozen=True)
class ImageSource:
    """From where pictures may be downloaded."""

    allowed_hosts: tuple[str, ...]
    #: For the sandbox only: http, and addresses on this machine.
    allow_insecure: bool = False

    async def download(self, url: str) -> tuple[bytes, ImageFacts]:
        """Return a picture's bytes and what they are; `GenerationLost` when it is gone."""
        try:
            fetched = await fetch_public(
                url, allowed_hosts=self.allowed_hosts, allow_insecure=self.allow_insecure
            )
        except Gone as error:
            raise GenerationLost(f"the picture was deleted: {error.message}") from None
        return fetched.body, examine(fetched.body)
