"""Errors as RFC 9457 problem details over HTTP and as exit codes on the command line.

This is the one table that knows both the error classes and the statuses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError, OperationalError
from starlette.exceptions import HTTPException

from causeway.base import errors

log = structlog.get_logger(__name__)

#: Error class -> (HTTP status, exit code). The nearest ancestor in the list counts.
STATUSES: Mapping[type[errors.CausewayError], tuple[int, int]] = {
    errors.InvalidInput: (422, 1),
    errors.InvalidStateTransition: (409, 1),
    errors.NotFound: (404, 1),
    errors.Conflict: (409, 1),
    errors.NotAuthenticated: (401, 1),
    errors.NotAllowed: (403, 1),
    errors.SignatureInvalid: (400, 1),
    errors.TooLarge: (413, 1),
    errors.TransactionReverted: (409, 1),
    errors.PermanentError: (400, 1),
    errors.RateLimited: (429, 1),
    errors.TransientError: (503, 1),
    errors.ConfigurationError: (503, 1),
    errors.CausewayError: (500, 1),
}

MEDIA_TYPE = "application/problem+json"


def status_of(error: errors.CausewayError) -> int:
    """Return the HTTP status of an error."""
    return next(STATUSES[kind][0] for kind in type(error).__mro__ if kind in STATUSES)


def exit_code_of(error: errors.CausewayError) -> int:
    """Return the exit code of an error on the command line."""
    return next(STATUSES[kind][1] for kind in type(error).__mro__ if kind in STATUSES)


def problem_type(error: errors.CausewayError) -> str:
    """Return the stable `type` of an error: `urn:causeway:problem:not-found`."""
    name = type(error).__name__
    dashed = re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()
    return f"urn:causeway:problem:{dashed}"


def problem(
    status: int,
    type_: str,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    **members: Any,
) -> JSONResponse:
    """Return a problem document as an answer."""
    body = {"type": type_, "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return JSONResponse(
        body | members, status_code=status, media_type=MEDIA_TYPE, headers=dict(headers or {})
    )


def of_error(error: errors.CausewayError) -> JSONResponse:
    """Return the problem document of one of our errors."""
    members: dict[str, Any] = {}
    if isinstance(error, errors.InvalidInput) and error.fields:
        members["errors"] = [
            {"field": f.path, "path": f.path, "value": f.value, "allowed": f.allowed}
            for f in error.fields
        ]
    if error.hint:
        members["hint"] = error.hint
    if error.problem_code:
        members["code"] = error.problem_code
    headers: dict[str, str] = {}
    if isinstance(error, errors.TransientError) and error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    if isinstance(error, errors.NotAuthenticated):
        headers["WWW-Authenticate"] = error.challenge
    return problem(status_of(error), problem_type(error), error.message, headers=headers, **members)


def _path(location: tuple[Any, ...]) -> str:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path


def install(api: FastAPI) -> None:
    """Make every error of the application a problem document."""

    @api.exception_handler(errors.CausewayError)
    async def _ours(_request: Request, error: errors.CausewayError) -> JSONResponse:
        if isinstance(error, errors.Bug):
            log.error("bug", error=error)
        return of_error(error)

    @api.exception_handler(RequestValidationError)
    async def _input(_request: Request, error: RequestValidationError) -> JSONResponse:
        fields = [
            {
                "field": str(item["loc"][-1]) if item["loc"] else "",
                "path": _path(tuple(item["loc"])),
                "value": None if item.get("input") is None else str(item["input"])[:200],
                "allowed": str(item["msg"]),
            }
            for item in error.errors()
        ]
        detail = "; ".join(f"{f['path']}: {f['allowed']}" for f in fields)
        return problem(422, "urn:causeway:problem:invalid-input", detail, errors=fields)

    @api.exception_handler(HTTPException)
    async def _http(_request: Request, error: HTTPException) -> JSONResponse:
        return problem(error.status_code, "about:blank", str(error.detail), headers=error.headers)

    @api.exception_handler(DBAPIError)
    async def _database(_request: Request, error: DBAPIError) -> JSONResponse:
        if isinstance(error, OperationalError) or error.connection_invalidated:
            # The driver's words may hold an address or a user name: they go to the log only.
            log.error("database_unavailable", error=error)
            return problem(
                503,
                "urn:causeway:problem:database-unavailable",
                "the database does not answer; try again",
                headers={"Retry-After": "1"},
            )
        log.error("database_error", exc_info=error)
        return problem(500, "urn:causeway:problem:bug", "an error of ours; it was logged")

    @api.exception_handler(Exception)
    async def _unknown(_request: Request, error: Exception) -> JSONResponse:
        log.error("unhandled_error", exc_info=error)
        return problem(500, "urn:causeway:problem:bug", "an error of ours; it was logged")

    _ = (_ours, _input, _http, _database, _unknown)
