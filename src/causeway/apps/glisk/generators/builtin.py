"""The generator that needs nobody: it really draws, from the prompt and the token's seed."""

from __future__ import annotations

import asyncio
from datetime import datetime

from causeway.apps.glisk.art import draw
from causeway.apps.glisk.generators.protocol import (
    Finished,
    GenerationLost,
    GenerationRequest,
    Started,
)
from causeway.apps.glisk.images import examine


class BuiltinGenerator:
    """Draws deterministic glitch art in this process."""

    name = "builtin"
    model: str | None = "causeway/glitch-1"

    async def start(self, request: GenerationRequest) -> Started | Finished:
        """Draw the picture."""
        content = await asyncio.to_thread(draw, request.prompt, request.seed)
        return Finished(content=content, facts=examine(content), url=None, model=self.model)

    async def wait(self, external_id: str) -> Finished:
        """There is nothing to wait for."""
        raise GenerationLost(f"nothing was begun under {external_id}")

    async def find_orphan(self, request: GenerationRequest, *, since: datetime) -> str | None:
        """There is nothing to find."""
        return None

    async def aclose(self) -> None:
        """There is nothing to close."""
