"""Fetching a file from an address somebody else gave us, without becoming their tool.

The host must be one of those allowed, every address it resolves to must be public, and the
connection is made to the address that was checked, so that a name cannot change in between.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

import httpx2

from causeway.base.errors import PermanentError, ProviderUnavailable
from causeway.base.http import retry_after_s

MAX_BYTES = 20 * 1024 * 1024

#: Resolves a host name to addresses.
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


class Gone(PermanentError):
    """The file is not there any more."""


class Refused(PermanentError):
    """The address is not one that may be fetched."""


@dataclass(frozen=True)
class Fetched:
    """A file, read whole."""

    body: bytes
    content_type: str
    #: Where it came from in the end; `data:` for one that came inside its address.
    url: str


async def resolve_by_system(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host as the system's resolver gives them."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


async def fetch_public(
    url: str,
    *,
    allowed_hosts: Sequence[str],
    allow_insecure: bool = False,
    max_bytes: int = MAX_BYTES,
    timeout_s: float = 30.0,
    max_redirects: int = 3,
    resolve: Resolve = resolve_by_system,
) -> Fetched:
    """Return the file at `url`, at most `max_bytes` of it and within `timeout_s` in all.

    `allowed_hosts` may hold wildcards (`*.replicate.delivery`). `allow_insecure` admits http and
    private addresses, for a sandbox on this machine. `data:` addresses are decoded.

    Raises `Refused`, `Gone` (404, 410), `PermanentError` (too large, other 4xx) or
    `ProviderUnavailable` (no answer, 5xx, 429).
    """
    if url.startswith("data:"):
        return _decode_data_url(url, max_bytes)
    try:
        async with asyncio.timeout(timeout_s):
            for _ in range(max_redirects + 1):
                answer = await _get(url, allowed_hosts, allow_insecure, max_bytes, resolve)
                if isinstance(answer, Fetched):
                    return answer
                url = urljoin(url, answer)
    except TimeoutError:
        raise ProviderUnavailable(f"the file did not arrive within {timeout_s:g} s") from None
    raise Refused(f"more than {max_redirects} redirects")


async def _get(
    url: str,
    allowed_hosts: Sequence[str],
    allow_insecure: bool,
    max_bytes: int,
    resolve: Resolve,
) -> Fetched | str:
    """Return the file, or where it has moved to."""
    target = await _check(url, allowed_hosts, allow_insecure, resolve)
    # The connection goes to the checked address; Host and the certificate's name stay the host's.
    request = httpx2.Request(
        "GET",
        target.pinned_url,
        headers={"Host": target.host_header, "Accept": "image/*, */*;q=0.5"},
        extensions={"sni_hostname": target.host},
    )
    async with httpx2.AsyncClient(follow_redirects=False, trust_env=False, verify=_tls()) as client:
        try:
            answer = await client.send(request, stream=True)
            try:
                if answer.status_code in (301, 302, 303, 307, 308):
                    return str(answer.headers.get("location", ""))
                _judge(answer.status_code, target.host, dict(answer.headers))
                body = bytearray()
                async for part in answer.aiter_bytes():
                    body += part
                    if len(body) > max_bytes:
                        raise PermanentError(
                            f"the file at {target.host} is larger than {max_bytes} bytes"
                        )
            finally:
                await answer.aclose()
        except httpx2.HTTPError as error:
            raise ProviderUnavailable(
                f"{target.host} did not give the file: {type(error).__name__}"
            ) from None
    return Fetched(bytes(body), str(answer.headers.get("content-type", "")), url)


@cache
def _tls() -> ssl.SSLContext:
    """Read the machine's certificates once: they take longer than most downloads."""
    return ssl.create_default_context()


@dataclass(frozen=True)
class _Target:
    host: str
    host_header: str
    pinned_url: str


async def _check(
    url: str, allowed_hosts: Sequence[str], allow_insecure: bool, resolve: Resolve
) -> _Target:
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip(".").lower(), parts.port
    except ValueError:
        raise Refused("the address cannot be read") from None
    if parts.scheme not in (("https", "http") if allow_insecure else ("https",)):
        raise Refused(f"only https is fetched, not {parts.scheme or 'nothing'!r}")
    if not host or parts.username is not None:
        raise Refused("an address with a host and without a user name is needed")
    if not any(fnmatchcase(host, pattern.lower()) for pattern in allowed_hosts):
        raise Refused(f"{host} is not one of the hosts images may come from")
    port = port or (443 if parts.scheme == "https" else 80)
    try:
        addresses = await resolve(host, port)
    except OSError:
        raise ProviderUnavailable(f"{host} cannot be resolved") from None
    if not addresses:
        raise ProviderUnavailable(f"{host} has no address")
    if not allow_insecure:
        for address in addresses:
            if not is_public(address):
                raise Refused(f"{host} is at {address}, which is not a public address")
    pinned = f"[{addresses[0]}]" if ":" in addresses[0] else addresses[0]
    query = f"?{parts.query}" if parts.query else ""
    default = (parts.scheme, port) in (("https", 443), ("http", 80))
    return _Target(
        host=host,
        host_header=host if default else f"{host}:{port}",
        pinned_url=f"{parts.scheme}://{pinned}:{port}{parts.path or '/'}{query}",
    )


def is_public(address: str) -> bool:
    """Say whether an address is on the public Internet: not ours, not local, not shared."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is not None:
            return is_public(str(inner))
        if ip in ipaddress.ip_network("64:ff9b::/96"):  # NAT64 carries an IPv4 address
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def _judge(status: int, host: str, headers: dict[str, str]) -> None:
    if status == 200:
        return
    if status in (404, 410):
        raise Gone(f"the file is not at {host} any more ({status})")
    if status in (408, 425, 429) or status >= 500:
        raise ProviderUnavailable(f"{host} answered {status}", retry_after_s=retry_after_s(headers))
    raise PermanentError(f"{host} answered {status} instead of the file")


def _decode_data_url(url: str, max_bytes: int) -> Fetched:
    """Return what a `data:` address (RFC 2397) carries."""
    head, comma, payload = url[5:].partition(",")
    if not comma:
        raise PermanentError("the data address carries nothing")
    if len(payload) > max_bytes * 4 // 3 + 4:
        raise PermanentError(f"the file in the address is larger than {max_bytes} bytes")
    content_type, _, encoding = head.rpartition(";")
    if encoding == "base64":
        try:
            body = base64.b64decode(unquote_to_bytes(payload), validate=True)
        except (binascii.Error, ValueError):
            raise PermanentError("the data address is not valid base64") from None
    else:
        content_type, body = head, unquote_to_bytes(payload)
    return Fetched(body, content_type, "data:")
