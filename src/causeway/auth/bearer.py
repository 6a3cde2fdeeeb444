"""Shared secrets in `Authorization: Bearer`, and "only from this machine" without one."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Callable

from fastapi import Request
from pydantic import SecretStr

from causeway.base.errors import NotAllowed, NotAuthenticated

#: Headers that proxies add: who sends one speaks for somebody else.
_FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


def check_bearer(request: Request, token: SecretStr | str) -> None:
    """Let pass only who presents `token` as a bearer token (RFC 6750).

    Raises `NotAuthenticated` (401) when none is presented and `NotAllowed` (403) when it is
    another one, or when `token` is empty. The comparison takes the same time whatever differs.
    """
    scheme, _, presented = request.headers.get("authorization", "").strip().partition(" ")
    presented = presented.strip()
    if scheme.lower() != "bearer" or not presented:
        raise NotAuthenticated("present the token: Authorization: Bearer …")
    wanted = token.get_secret_value() if isinstance(token, SecretStr) else token
    # Digests, because compare_digest tells the length of what it compares.
    same = hmac.compare_digest(_digest(presented), _digest(wanted))
    if not (same and wanted):
        raise NotAllowed("that is not the token")


def check_local(request: Request) -> None:
    """Let pass only a peer on this machine, by the address of its socket.

    No header makes a peer local. A request that a proxy on this machine passes on is not from
    this machine, and neither is one a web page of another origin makes in a browser here (by its
    own name for us, DNS rebinding, or by ours). Raises `NotAllowed` (403).
    """
    if request.client is None or not is_loopback(request.client.host):
        raise NotAllowed("only from this machine, unless a token is set", hint=_HINT)
    if any(name in request.headers for name in _FORWARDED):
        raise NotAllowed("this came through a proxy: not from this machine", hint=_HINT)
    other_page = request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
    if other_page or not _is_private_name(request.url.hostname or ""):
        raise NotAllowed("this was asked for by a page of another site", hint=_HINT)


_HINT = "set the token and present it as Authorization: Bearer"


def check_admin(request: Request, token: SecretStr | str | None) -> None:
    """Let operators pass: with `token` set, its bearers from anywhere; else peers on this machine.

    An empty token counts as none. Raises what `check_bearer` and `check_local` raise. The server
    must run with proxy headers off (uvicorn: `proxy_headers=False`), or it would put a forwarded
    address where the peer's belongs.
    """
    value = token.get_secret_value() if isinstance(token, SecretStr) else token
    if value:
        check_bearer(request, value)
    else:
        check_local(request)


def admin_access(
    token_setting: Callable[[Request], SecretStr | str | None],
) -> Callable[[Request], None]:
    """Return a FastAPI dependency that lets only operators pass (see `check_admin`).

    `token_setting` finds the token in force, from what the application keeps in its state.
    """

    def dependency(request: Request) -> None:
        check_admin(request, token_setting(request))

    return dependency


def is_loopback(host: str) -> bool:
    """Say whether an address is the machine itself: 127.0.0.0/8, ::1, or the former mapped."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _is_private_name(host: str) -> bool:
    # An address, or a name of one word: nobody else can have such a name point here.
    name = host.strip("[]").rstrip(".").lower()
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return "." not in name or name.endswith(".localhost")
    return True


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
