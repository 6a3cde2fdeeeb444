"""How a browser that comes back from a provider is told what became of it.

A redirect to the frontend, or, where frontend and backend have one origin, a page that writes the
result where the frontend looks for it. Neither the address nor anything that is kept on the way
holds a token, a code or a state.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Any, Literal
from urllib.parse import quote, urlencode

from fastapi import Response
from fastapi.responses import HTMLResponse, RedirectResponse

from causeway.connections.errors import FailureCode

ErrorCode = FailureCode | Literal["database_error"]

#: The frontend's name for it in its localStorage; it takes one that is at most 30 s old.
_STORED_AS = "oauth_result"
_HEADERS = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
_LONGEST_NAME = 50


@dataclass(frozen=True)
class Result:
    """What became of an authorization."""

    provider: str
    #: None: it is connected.
    error: ErrorCode | None = None
    #: Whose account it is now, lower case; shown to this browser only, never in an address.
    wallet: str | None = None


def redirect(frontend_url: str, result: Result) -> Response:
    """Return the redirect to the frontend's page for results."""
    return RedirectResponse(_target(frontend_url, result), status_code=303, headers=_HEADERS)


def page(frontend_url: str, result: Result, now: datetime) -> Response:
    """Return a page that stores the result and goes on; its link works without scripts."""
    target = _target(frontend_url, result)
    nonce = secrets.token_urlsafe(18)
    stored: dict[str, Any] = {
        "success": result.error is None,
        "provider": result.provider,
        "timestamp": int(now.timestamp() * 1000),
    }
    if result.error is not None:
        stored["error"] = result.error
    if result.wallet is not None:
        stored["wallet_address"] = result.wallet
    said = "The account is connected." if result.error is None else "The account is not connected."
    content = f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Motify</title></head>
<body>
<p>{said} <a href="{escape(target)}">Continue</a></p>
<script nonce="{nonce}">
try {{ localStorage.setItem({_script(_STORED_AS)}, JSON.stringify({_script(stored)})); }} catch {{}}
location.replace({_script(target)});
</script>
</body>
</html>
"""
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return HTMLResponse(content, headers=_HEADERS | {"Content-Security-Policy": policy})


def _target(frontend_url: str, result: Result) -> str:
    query = {
        "success": "true" if result.error is None else "false",
        # Anybody may write anything in the callback's address.
        "provider": result.provider[:_LONGEST_NAME],
    }
    if result.error is not None:
        query["error"] = result.error
    return f"{frontend_url}/oauth/result?{urlencode(query, quote_via=quote)}"


def _script(value: Any) -> str:
    """Return a value as JSON that can stand in a script: nothing ends the script or its line."""
    text = json.dumps(value)  # ASCII only, so U+2028 and U+2029 are escaped, too
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
