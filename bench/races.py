"""`make bench NAME=races`: what ghost races cost."""

from __future__ import annotations

from typing import Any

from bench.races_kernel import measure


async def run() -> dict[str, Any]:
    """Return the cost of one fix beside a plain search for the nearest point."""
    return measure()
