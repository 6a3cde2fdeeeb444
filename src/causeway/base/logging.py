"""Structured logs: one JSON object a line, or coloured text on a terminal; secrets taken out.

Ids that belong to everything said for a while (request, token, transaction) are bound with
`structlog.contextvars.bound_contextvars(token_id=42)`.

Secrets are found three ways: by the name of a value (`api_key=`), by how they look (a bearer
token, a password inside an address), and by being one that was read from the settings, which
tells `conceal`; the last also finds a private key in somebody else's exception.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from datetime import date
from typing import Any, Literal, cast
from urllib.parse import parse_qsl, quote, urlsplit

import orjson
import structlog

#: Names whose values are never written, whatever they hold.
_SECRET_NAMES = re.compile(
    r"(authori[sz]ation|private[-_]?key|secret|passwo?r?d|passphrase|token$|api[-_]?key|jwt|"
    r"(signing|encryption|vault|master|access|webhook)[-_]?key|raw[-_]tx|raw$|mnemonic|"
    r"credential|cookie|code[-_]verifier|dsn$)",
    re.IGNORECASE,
)

#: Words that announce a secret inside a text: `PASSWORD=…`, `"api_key": "…"`.
_ANNOUNCED = (
    r"(?:[\w-]*(?:password|passwd|passphrase|secret|api[-_]?key|private[-_]?key|mnemonic|jwt)"
    r"[\w-]*|[\w-]*(?:access|refresh|auth|admin|bearer|api)[-_]token|authorization|set-cookie)"
)

#: Values that look like secrets wherever they stand.
_SECRET_VALUES: tuple[tuple[re.Pattern[str], str], ...] = (
    # user and password inside an address; a password may hold an @ itself
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^/?#\s\"'<>]*@", re.IGNORECASE), r"\1***@"),
    # keys that RPC providers want in the path: Alchemy, Infura, QuickNode, Ankr and their like
    (re.compile(r"((?:https?|wss?)://[^/\s]+/v[123]/)[A-Za-z0-9_-]{16,}"), r"\1***"),
    (
        re.compile(
            r"((?:https?|wss?)://[^/\s]*(?:quiknode\.pro|ankr\.com|blastapi\.io|chainstack\.com"
            r"|nodereal\.io|getblock\.io|blockpi\.network)(?:/[a-z0-9_]{1,15})*/)"
            r"[A-Za-z0-9_-]{16,}"
        ),
        r"\1***",
    ),
    (re.compile(r"\b(Bearer\s+)[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE), r"\1***"),
    (re.compile(r"\b(Basic\s+)(?=[^\s\d=]*[\d=])[A-Za-z0-9+/=]{6,}"), r"\1***"),
    (re.compile(r"\b(r8_|whsec_|waka_|sk-|gh[opsur]_|github_pat_)[A-Za-z0-9._+/=-]{6,}"), r"\1***"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}(?:\.[A-Za-z0-9_-]*)?"), "***"),
    (
        re.compile(
            r"([?&](?:[\w-]*(?:key|token|secret|signature|password|verifier)|code|state)=)[^&\s\"']+",
            re.IGNORECASE,
        ),
        r"\1***",
    ),
    (
        re.compile(rf"(\b{_ANNOUNCED}[\"']\s*[=:]\s*b?([\"']))(?:(?!\2).)+", re.IGNORECASE),
        r"\1***",
    ),
    (re.compile(rf"(\b{_ANNOUNCED}=b?)(?:'[^']*'|\"[^\"]*\"|[^\s\"',;&)]+)", re.I), r"\1***"),
    (re.compile(r"(\b(?:authorization|cookie): ?)\S[^\r\n]*", re.IGNORECASE), r"\1***"),
    (
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END[^-]*-----|\Z)", re.DOTALL),
        "***",
    ),
)

#: Secrets that were read from the settings: they are taken out wherever they turn up.
_concealed: set[str] = set()
_concealed_pattern: re.Pattern[str] | None = None

#: Shorter ones are not looked for: they would blot out ordinary words.
MIN_CONCEALED = 8


def conceal(*secrets: str) -> None:
    """Take these values out of everything that is written from now on.

    Of an address only what opens it is secret: password, keys in its path and in its query. A
    private key is found with and without `0x` and in any case.
    """
    global _concealed_pattern  # one set for the process, as its log is
    found = {part for secret in secrets for part in _parts(secret) if len(part) >= MIN_CONCEALED}
    if found <= _concealed:
        return
    _concealed.update(found)
    # The longest first, so that no half of a secret stays behind.
    words = sorted(_concealed, key=len, reverse=True)
    _concealed_pattern = re.compile("|".join(re.escape(word) for word in words), re.IGNORECASE)


def _parts(secret: str) -> set[str]:
    if "://" not in secret:
        bare = secret.strip().removeprefix("0x")
        return {bare, quote(bare, safe="")}
    try:
        address = urlsplit(secret)
        password = address.password or ""
    except ValueError:
        return {secret}
    keys = {p for p in address.path.split("/") if len(p) >= 16}
    keys |= {value for _, value in parse_qsl(address.query) if len(value) >= 16}
    return {password, *keys}


def redact_text(text: str) -> str:
    """Return `text` with everything that is, or looks like, a credential replaced by `***`."""
    if _concealed_pattern is not None:
        text = _concealed_pattern.sub("***", text)
    for pattern, replacement in _SECRET_VALUES:
        text = pattern.sub(replacement, text)
    return text


def _redact(value: object, name: str = "") -> Any:
    if name and _SECRET_NAMES.search(name):
        return "***"
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        # Amounts in wei are larger than JSON's writer takes.
        return int(value) if -(2**63) <= value < 2**63 else str(value)
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, bytes | bytearray):
        return f"<{len(value)} bytes>"
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return {redact_text(str(k)): _redact(v, str(k)) for k, v in items}
    if isinstance(value, list | tuple | set | frozenset):
        return [_redact(v) for v in cast("list[object]", value)]
    if isinstance(value, BaseException):
        return redact_text(f"{type(value).__name__}: {value}")
    if isinstance(value, date):
        return value.isoformat()
    # Whatever else it is, its text is what would be written.
    return redact_text(str(value))


def redact_event(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Structlog processor: take secrets out of every value of a log line."""
    return {name: _redact(value, name) for name, value in event.items()}


def _dump(value: object, **_: object) -> str:
    try:
        return orjson.dumps(value, default=str).decode()
    except TypeError:  # a text that is not Unicode, such as half of a surrogate pair
        return json.dumps(value, default=str)


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
