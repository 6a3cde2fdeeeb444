"""Structured logs: one JSON object a line, or coloured text on a terminal; secrets taken out.

Ids that belong to everything said for a while (request, token, transaction) are bound with
`structlog.contextvars.bound_contextvars(token_id=42)`.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Literal

import orjson
import structlog

#: Names whose values are never written, whatever they hold.
_SECRET_NAMES = re.compile(
    r"(authori[sz]ation|private_?key|secret|passwo?r?d|token(?!_id|s|_count|_uri)$|api_?key|jwt|"
    r"raw_tx|raw$|mnemonic|cookie)",
    re.IGNORECASE,
)

#: Values that look like secrets wherever they stand: credentials and keys inside addresses.
_SECRET_VALUES = (
    (re.compile(r"(\w+://)[^/\s:@]+:[^/\s@]+@"), r"\1***@"),
    (re.compile(r"(https?://[^/\s]+/v[23]/)[A-Za-z0-9_-]{16,}"), r"\1***"),
    (re.compile(r"\b(r8_|whsec_|Bearer\s+)[A-Za-z0-9._+/=-]{8,}"), r"\1***"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*"), "***"),
    (re.compile(r"([?&](?:api_?key|key|token|secret|signature)=)[^&\s]+", re.IGNORECASE), r"\1***"),
)


def redact_text(text: str) -> str:
    """Return `text` with everything that looks like a credential replaced by `***`."""
    for pattern, replacement in _SECRET_VALUES:
        text = pattern.sub(replacement, text)
    return text


def _redact(value: Any, name: str = "") -> Any:
    if name and _SECRET_NAMES.search(name):
        return "***"
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, dict):
        return {k: _redact(v, str(k)) for k, v in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, list | tuple):
        return [_redact(v) for v in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, BaseException):
        return redact_text(f"{type(value).__name__}: {value}")
    return value


def redact_event(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Structlog processor: take secrets out of every value of a log line."""
    return {name: _redact(value, name) for name, value in event.items()}


def _dump(value: object, **_: object) -> str:
    return orjson.dumps(value, default=str).decode()


def configure(
    level: str = "INFO", format_: Literal["auto", "json", "pretty"] = "auto", stream: Any = None
) -> None:
    """Set up logging for the process, also for libraries that use the standard module."""
    stream = stream or sys.stderr
    pretty = format_ == "pretty" or (format_ == "auto" and stream.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    last: list[Any]
    if pretty:
        last = [
            structlog.processors.format_exc_info,
            redact_event,
            structlog.dev.ConsoleRenderer(colors=stream.isatty()),
        ]
    else:
        last = [
            structlog.processors.format_exc_info,
            redact_event,
            structlog.processors.JSONRenderer(
                serializer=_dump,
            ),
        ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level)),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # These say at INFO what we already say ourselves, or what nobody reads.
    for chatty in ("httpx2", "httpcore", "uvicorn.access", "procrastinate", "alembic", "psycopg"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
