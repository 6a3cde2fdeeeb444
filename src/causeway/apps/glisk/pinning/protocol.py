"""What a pinner is, and how its word is checked."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from causeway.apps.glisk.cids import matches, prove_car
from causeway.base.errors import CausewayError, PermanentError
from causeway.base.http import HttpClient

MAX_CAR_BYTES = 64 * 1024 * 1024


class CidMismatch(PermanentError):
    """The CID we were told is not of our bytes."""


@dataclass(frozen=True)
class PinResult:
    """What a provider said it pinned."""

    cid: str
    size: int
    duplicate: bool = False


class Pinner(Protocol):
    """A provider that keeps content on IPFS. Pinning the same bytes again is safe."""

    @property
    def name(self) -> str:
        """`pinata` or `kubo`."""
        ...

    async def pin_file(
        self, content: bytes, *, name: str, content_type: str, keyvalues: Mapping[str, str]
    ) -> PinResult:
        """Pin bytes as a file."""
        ...

    async def pin_json(
        self, content: bytes, *, name: str, keyvalues: Mapping[str, str]
    ) -> PinResult:
        """Pin the JSON document that these bytes are."""
        ...

    async def prove(self, result: PinResult, content: bytes) -> str:
        """Return how the CID is known to be of `content`: a profile's name, or `car`.

        Raises `CidMismatch` when it is not.
        """
        ...

    async def check(self) -> None:
        """Raise when the credentials are not accepted."""
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


async def prove(gateway: HttpClient, result: PinResult, content: bytes) -> str:
    """Prove a CID by computing it, or else by fetching its blocks and rebuilding the file."""
    profile = await asyncio.to_thread(matches, result.cid, content)
    if profile is not None:
        return profile
    mismatch = CidMismatch(
        f"the provider says {result.cid}, which is under no known import of our "
        f"{len(content)} bytes",
        hint="it is never put on chain; look at the provider's import settings",
    )
    try:
        answer = await gateway.request(
            "GET",
            f"/ipfs/{result.cid}?format=car",
            headers={"Accept": "application/vnd.ipld.car"},
        )
    except CausewayError:
        raise mismatch from None
    if not answer.ok or not await asyncio.to_thread(prove_car, answer.body, result.cid, content):
        raise mismatch
    return "car"
