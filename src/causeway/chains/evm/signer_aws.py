"""AWS KMS as a signer: keys of spec ECC_SECG_P256K1 with usage SIGN_VERIFY.

Two calls of its JSON API (`Sign`, `GetPublicKey`), signed with Signature Version 4. The permissions
`kms:Sign` and `kms:GetPublicKey` on the key are all that is needed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast
from urllib.parse import quote, urlsplit

import orjson
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from causeway.base.clock import SYSTEM_CLOCK, Clock
from causeway.base.errors import ConfigurationError, ProviderUnavailable, RateLimited
from causeway.base.http import HttpClient, Response
from causeway.chains.evm.aws_credentials import AwsCredentials, CredentialSource
from causeway.chains.evm.signer_remote import read_public_key

#: A key id, an ARN of a key or an alias, or `alias/NAME`.
_KEY = re.compile(r"[A-Za-z0-9:/_-]{1,2048}")
_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d")

#: What KMS answers with 400 though asking again may do.
_LATER = ("KMSInternalException", "DependencyTimeoutException", "KeyUnavailableException")
_SLOWER = ("ThrottlingException", "LimitExceededException", "RequestLimitExceeded")
#: Credentials that have run out: fetched anew once.
_STALE = ("ExpiredTokenException", "ExpiredToken", "UnrecognizedClientException")


def authorization(
    credentials: AwsCredentials,
    *,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    region: str,
    service: str,
    at: datetime,
) -> dict[str, str]:
    """Return the headers that sign a request (Signature Version 4); all given ones are signed.

    `url` may have no query: none of the calls here has one.
    """
    parts = urlsplit(url)
    stamp = at.strftime("%Y%m%dT%H%M%SZ")
    made = {"host": parts.netloc, "x-amz-date": stamp}
    if credentials.session_token is not None:
        made["x-amz-security-token"] = credentials.session_token.get_secret_value()
    signed = {name.lower(): " ".join(value.split()) for name, value in headers.items()} | made
    names = ";".join(sorted(signed))
    canonical = "\n".join(
        (
            method,
            quote(parts.path or "/"),
            "",
            *(f"{name}:{signed[name]}" for name in sorted(signed)),
            "",
            names,
            hashlib.sha256(body).hexdigest(),
        )
    )
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    to_sign = (
        f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    )
    key = ("AWS4" + credentials.secret_access_key.get_secret_value()).encode()
    for part in scope.split("/"):
        key = _mac(key, part)
    made["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={credentials.access_key_id}/{scope}, "
        f"SignedHeaders={names}, Signature={_mac(key, to_sign).hex()}"
    )
    return made


def _mac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


class AwsKmsKey:
    """A key in AWS KMS."""

    def __init__(
        self,
        key_id: str,
        *,
        region: str,
        credentials: CredentialSource,
        endpoint: str | None = None,
        clock: Clock = SYSTEM_CLOCK,
        timeout_s: float = 10.0,
    ) -> None:
        """`endpoint` replaces the region's own address (VPC endpoints, FIPS, tests)."""
        if not _REGION.fullmatch(region):
            raise ConfigurationError(f"{region!r} is no AWS region; one is written like eu-west-1")
        if not _KEY.fullmatch(key_id):
            raise ConfigurationError(f"{key_id!r} is no id, ARN or alias of an AWS KMS key")
        self._key_id = key_id
        self._region = region
        self._credentials = credentials
        self._clock = clock
        self._url = (endpoint or f"https://kms.{region}.amazonaws.com").rstrip("/") + "/"
        self._http = HttpClient(name="aws-kms", base_url=self._url, timeout_s=timeout_s)

    @property
    def name(self) -> str:
        """`aws-kms:REGION/KEY`."""
        return f"aws-kms:{self._region}/{self._key_id}"

    async def public_key(self) -> EllipticCurvePublicKey:
        """Return its public half."""
        answer = await self._call("GetPublicKey", {"KeyId": self._key_id})
        usage = answer.get("KeyUsage")
        if usage != "SIGN_VERIFY":
            raise ConfigurationError(f"{self.name} is for {usage}, not for SIGN_VERIFY")
        return read_public_key(self._bytes(answer, "PublicKey"), self.name)

    async def sign_digest(self, digest: bytes) -> bytes:
        """Sign 32 bytes; return the signature in DER."""
        wanted = {
            "KeyId": self._key_id,
            "Message": base64.b64encode(digest).decode(),
            "MessageType": "DIGEST",
            "SigningAlgorithm": "ECDSA_SHA_256",
        }
        return self._bytes(await self._call("Sign", wanted), "Signature")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()
        await self._credentials.aclose()

    async def _call(self, operation: str, wanted: dict[str, str]) -> dict[str, Any]:
        answer = await self._once(operation, wanted)
        if _kind(answer) in _STALE and self._credentials.forget():
            answer = await self._once(operation, wanted)
        if not answer.ok:
            raise self._error(operation, answer)
        found: dict[str, Any] = answer.json()
        return found

    async def _once(self, operation: str, wanted: dict[str, str]) -> Response:
        headers = {
            "content-type": "application/x-amz-json-1.1",
            "x-amz-target": f"TrentService.{operation}",
        }
        signature = authorization(
            await self._credentials.get(),
            method="POST",
            url=self._url,
            headers=headers,
            body=orjson.dumps(wanted),  # what the client will send
            region=self._region,
            service="kms",
            at=self._clock.now(),
        )
        del signature["host"]  # the client writes it itself, the same
        given = {"Content-Type": headers.pop("content-type"), **headers, **signature}
        return await self._http.request("POST", "/", json=wanted, headers=given)

    def _error(self, operation: str, answer: Response) -> Exception:
        kind = _kind(answer)
        if kind in _SLOWER:
            return RateLimited(f"{self.name}: {kind}")
        if kind in _LATER:
            return ProviderUnavailable(f"{self.name}: {kind}")
        return ConfigurationError(
            f"{self.name} refuses {operation}: {kind} {_said(answer)}".strip(),
            hint="check the key's state, and the permissions kms:Sign and kms:GetPublicKey on it",
        )

    def _bytes(self, answer: dict[str, Any], field: str) -> bytes:
        try:
            return base64.b64decode(str(answer[field]), validate=True)
        except (KeyError, ValueError):
            raise ProviderUnavailable(f"{self.name} answered without {field}") from None


def _body(answer: Response) -> dict[str, Any]:
    try:
        found = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _kind(answer: Response) -> str:
    """Return the name of an error, without its namespace; empty for a success."""
    return "" if answer.ok else str(_body(answer).get("__type", answer.status)).rpartition("#")[2]


def _said(answer: Response) -> str:
    found = _body(answer)
    return str(found.get("message") or found.get("Message") or "")[:200]
