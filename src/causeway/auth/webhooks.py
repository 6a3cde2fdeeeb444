"""Signatures of webhook deliveries, checked over the raw bytes of the body.

Two forms: the hex HMAC some services put into one header (Alchemy's `X-Alchemy-Signature`), and
Standard Webhooks (https://www.standardwebhooks.com), which also binds an id and a time. Several
secrets may be valid at once, so that one can be replaced without losing deliveries. Every secret
is tried and every comparison takes the same time, whatever differs.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from pydantic import SecretStr

from causeway.base.errors import NotAuthenticated

#: How far a Standard Webhooks timestamp may be from our clock, either way.
TOLERANCE = timedelta(minutes=5)

_HEX_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_SECONDS = re.compile(r"[0-9]{1,12}")
_PREFIX = "whsec_"


def check_hex_hmac(secrets: Sequence[SecretStr], body: bytes, signature: str | None) -> None:
    """Accept `body` only with a hex HMAC-SHA256 of it under one of `secrets`.

    The secrets are used as they are written (Alchemy's `whsec_…` included); hex digits of any
    case. Raises `NotAuthenticated` when the signature is missing or wrong, and always when there
    is no secret: an HMAC with an empty key is what anybody can compute.
    """
    keys = [secret.get_secret_value().encode() for secret in _set(secrets)]
    given = (signature or "").strip()
    if _HEX_SHA256.fullmatch(given) is None:
        raise NotAuthenticated("the webhook's signature is missing or malformed")
    claimed = bytes.fromhex(given)
    if not _any_equal([hmac.digest(key, body, hashlib.sha256) for key in keys], [claimed]):
        raise NotAuthenticated("the webhook's signature is wrong")


def check_standard_webhook(
    secrets: Sequence[SecretStr],
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: datetime,
    tolerance: timedelta = TOLERANCE,
) -> str:
    """Accept `body` only with a valid Standard Webhooks signature; return its `webhook-id`.

    `headers` are looked up by their lower-case names (any case with Starlette's). Of the
    signatures in `webhook-signature`, separated by spaces, those of version `v1` count: base64 of
    HMAC-SHA256 over `id.timestamp.body`. Secrets are base64, with or without `whsec_`.

    Raises `NotAuthenticated` as `check_hex_hmac` does, and for a timestamp further than
    `tolerance` from `now`. The id is for the caller to remember: within the tolerance a recorded
    delivery can be sent again.
    """
    keys = [key for key in map(_standard_key, _set(secrets)) if key]
    if not keys:
        raise NotAuthenticated("no usable webhook secret is configured: nothing can be accepted")
    delivery = headers.get("webhook-id") or ""
    stamp = headers.get("webhook-timestamp") or ""
    if not delivery or _SECONDS.fullmatch(stamp) is None:
        raise NotAuthenticated("the webhook's id or timestamp is missing or malformed")
    claimed = list(_signatures(headers.get("webhook-signature") or ""))
    message = f"{delivery}.{stamp}.".encode() + body
    if not _any_equal([hmac.digest(key, message, hashlib.sha256) for key in keys], claimed):
        raise NotAuthenticated("the webhook's signature is missing or wrong")
    if abs(int(stamp) - now.timestamp()) > tolerance.total_seconds():
        raise NotAuthenticated("the webhook's timestamp is too far from our clock")
    return delivery


def _set(secrets: Sequence[SecretStr]) -> list[SecretStr]:
    present = [secret for secret in secrets if secret.get_secret_value().strip()]
    if not present:
        raise NotAuthenticated("no webhook secret is configured: nothing can be accepted")
    return present


def _any_equal(expected: Sequence[bytes], claimed: Sequence[bytes]) -> bool:
    # No early end: how long this takes must not tell which secret was nearly right.
    found = False
    for ours in expected:
        for theirs in claimed:
            found |= hmac.compare_digest(ours, theirs)
    return found


def _standard_key(secret: SecretStr) -> bytes:
    return _base64(secret.get_secret_value().strip().removeprefix(_PREFIX))


def _signatures(header: str) -> list[bytes]:
    parts = (part.partition(",") for part in header.split())
    return [_base64(value) for version, _, value in parts if version == "v1"]


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
