"""Serves the metrics that the other rooms measure, in Prometheus' text format."""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest

router = APIRouter(tags=["operations"])

REQUESTS = Counter(
    "causeway_http_requests_total", "HTTP requests answered", ["method", "route", "status"]
)
REQUEST_SECONDS = Histogram(
    "causeway_http_request_seconds", "Time to answer a request", ["method", "route"]
)


@router.get("/metrics", include_in_schema=False)
async def metrics() -> Response:
    """Return every metric of this process."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
