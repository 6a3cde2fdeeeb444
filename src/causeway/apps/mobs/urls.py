"""Addresses of providers and channels: what of them may be shown, and what may be kept."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import urlsplit

from causeway.base.errors import InvalidInput

#: What looks like a key: 20 characters and more of base62, with the dashes some have.
_KEY = re.compile(
    r"[A-Za-z0-9_-]*[A-Za-z0-9]{20,}[A-Za-z0-9_-]*|[A-Za-z0-9]{16,}[_-][A-Za-z0-9_-]*"
)


def masked(url: str) -> str:
    """Return an address as it may be shown: user, query and path parts like keys are `…`."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    if parts.port:
        host += f":{parts.port}"
    if parts.username or parts.password:
        host = f"…@{host}"
    path = "/".join("…" if _KEY.fullmatch(one) else one for one in parts.path.split("/"))
    query = "?…" if parts.query else ""
    return f"{parts.scheme}://{host}{path}{query}"


def digest(url: str) -> bytes:
    """Return what an address is known by in the database."""
    return hashlib.sha256(url.encode()).digest()


def keyless(url: str) -> str:
    """Return an address that may lie in the database; `InvalidInput` when it holds a key."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise InvalidInput("url must be an http or https address")
    if masked(url) != url:
        raise InvalidInput(
            "url holds a key or a password, which is not kept in the database; "
            "put it into MANTLE_RPC_ENDPOINTS"
        )
    return url
