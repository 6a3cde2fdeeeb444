"""Large answers, written as JSON at once instead of being walked through first."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import Response


def large(answer: Any) -> Response:
    """Return JSON-ready data as an answer."""
    return Response(orjson.dumps(answer), media_type="application/json")
