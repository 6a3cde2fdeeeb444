"""Google Cloud KMS as a signer: key versions of algorithm EC_SIGN_SECP256K1_SHA256 (HSM).

Two calls of its REST API (`asymmetricSign`, `publicKey`), with checksums both ways so that a digest
that was damaged on the way is not signed. The role `cloudkms.signerVerifier` on the key is needed.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, cast

import orjson
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import SecretStr

from causeway.base.clock import SYSTEM_CLOCK, Clock
from causeway.base.errors import ConfigurationError, ProviderUnavailable
from causeway.base.http import HttpClient, Response
from causeway.base.logging import conceal
from causeway.chains.evm.signer_remote import read_public_key

ENDPOINT = "https://cloudkms.googleapis.com"
ALGORITHM = "EC_SIGN_SECP256K1_SHA256"
_SCOPE = "https://www.googleapis.com/auth/cloudkms"
_NAME = re.compile(
    r"projects/[^/\s]+/locations/[^/\s]+/keyRings/[^/\s]+/cryptoKeys/[^/\s]+/cryptoKeyVersions/\d+"
)
#: A token is fetched anew this long before it runs out.
_EARLY = timedelta(seconds=60)


def crc32c(content: bytes) -> int:
    """Return the CRC-32C (Castagnoli) of some bytes."""
    table, value = _table(), 0xFFFFFFFF
    for byte in content:
        value = table[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


@cache
def _table() -> tuple[int, ...]:
    found: list[int] = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        found.append(value)
    return tuple(found)


class GcpTokens:
    """Access tokens: of a service account's key file, else of the machine's own account."""

    def __init__(self, environment: Mapping[str, str], *, clock: Clock = SYSTEM_CLOCK) -> None:
        """Read `GOOGLE_APPLICATION_CREDENTIALS`; without it the metadata server is asked."""
        self._clock = clock
        self._kept: tuple[SecretStr, datetime] | None = None
        host = environment.get("GCE_METADATA_HOST", "metadata.google.internal")
        self._http = HttpClient(name="gcp-tokens", base_url=f"http://{host}", timeout_s=5.0)
        file = environment.get("GOOGLE_APPLICATION_CREDENTIALS")
        self._account = None if not file else _ServiceAccount.read(Path(file))

    def __repr__(self) -> str:
        return "GcpTokens()"

    async def get(self) -> str:
        """Return a token that is good now."""
        now = self._clock.now()
        if self._kept is None or self._kept[1] - _EARLY <= now:
            answer = await self._ask(now)
            if not answer.ok:
                said = answer.text() if self._account is None else f"status {answer.status}"
                raise ConfigurationError(f"Google gives no access token: {said}", hint=_HINT)
            found: dict[str, Any] = answer.json()
            try:
                until = now + timedelta(seconds=int(found["expires_in"]))
                self._kept = SecretStr(str(found["access_token"])), until
                conceal(str(found["access_token"]))
            except (KeyError, ValueError, TypeError):
                raise ProviderUnavailable("Google answered without an access token") from None
        return self._kept[0].get_secret_value()

    def forget(self) -> None:
        """Forget a token that was refused."""
        self._kept = None

    async def _ask(self, now: datetime) -> Response:
        if self._account is not None:
            form = {
                "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
                "assertion": self._account.assertion(now),
            }
            return await self._http.request("POST", self._account.token_uri, data=form)
        path = "/computeMetadata/v1/instance/service-accounts/default/token"
        try:
            return await self._http.request("GET", path, headers={"Metadata-Flavor": "Google"})
        except ProviderUnavailable:
            raise ConfigurationError("there are no Google credentials", hint=_HINT) from None

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()


class _ServiceAccount:
    """A service account's key file, which signs for access tokens (RFC 7523)."""

    def __init__(self, email: str, token_uri: str, key: RSAPrivateKey) -> None:
        self.token_uri = token_uri
        self._email = email
        self._key = key

    @classmethod
    def read(cls, path: Path) -> _ServiceAccount:
        """Read the file; the errors say what is wrong with it and nothing of what is in it."""
        where = f"GOOGLE_APPLICATION_CREDENTIALS {path}"
        try:
            found: Any = orjson.loads(path.read_bytes())
        except OSError as error:
            raise ConfigurationError(f"{where}: {error.strerror}") from None
        except orjson.JSONDecodeError:
            raise ConfigurationError(f"{where} is not JSON") from None
        content = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
        if content.get("type") != "service_account":
            raise ConfigurationError(f"{where} is no key file of a service account")
        try:
            key = load_pem_private_key(str(content["private_key"]).encode(), None)
            email, token_uri = str(content["client_email"]), str(content["token_uri"])
        except (KeyError, ValueError, TypeError):
            key, email, token_uri = None, "", ""
        if not isinstance(key, RSAPrivateKey):
            raise ConfigurationError(f"{where} lacks a readable private_key")
        return cls(email, token_uri, key)

    def assertion(self, now: datetime) -> str:
        """Return the signed claim (JWT, RS256)."""
        issued = int(now.timestamp())
        claim = {
            "iss": self._email,
            "scope": _SCOPE,
            "aud": self.token_uri,
            "iat": issued,
            "exp": issued + 3600,
        }
        signed = f"{_part({'alg': 'RS256', 'typ': 'JWT'})}.{_part(claim)}"
        return f"{signed}.{_base64url(self._key.sign(signed.encode(), PKCS1v15(), SHA256()))}"


def _part(value: dict[str, Any]) -> str:
    return _base64url(orjson.dumps(value))


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


class GcpKmsKey:
    """A version of a key in Google Cloud KMS."""

    def __init__(
        self,
        version: str,
        tokens: GcpTokens,
        *,
        endpoint: str = ENDPOINT,
        timeout_s: float = 10.0,
    ) -> None:
        """`version` is its whole name, `projects/…/cryptoKeyVersions/1`."""
        if not _NAME.fullmatch(version):
            raise ConfigurationError(
                f"{version!r} is no key version; one is written projects/P/locations/L/keyRings/R/"
                "cryptoKeys/K/cryptoKeyVersions/1"
            )
        self._version = version
        self._tokens = tokens
        self._http = HttpClient(name="gcp-kms", base_url=endpoint, timeout_s=timeout_s)

    @property
    def name(self) -> str:
        """`gcp-kms:` and its whole name."""
        return f"gcp-kms:{self._version}"

    async def public_key(self) -> EllipticCurvePublicKey:
        """Return its public half."""
        answer = await self._call("GET", "/publicKey", None)
        algorithm = answer.get("algorithm")
        if algorithm != ALGORITHM:
            raise ConfigurationError(f"{self.name} is for {algorithm}, not for {ALGORITHM}")
        pem = str(answer.get("pem", "")).encode()
        self._check(pem, answer, "pemCrc32c")
        return read_public_key(pem, self.name)

    async def sign_digest(self, digest: bytes) -> bytes:
        """Sign 32 bytes; return the signature in DER."""
        wanted = {
            "digest": {"sha256": base64.b64encode(digest).decode()},
            "digestCrc32c": str(crc32c(digest)),
        }
        answer = await self._call("POST", ":asymmetricSign", wanted)
        if answer.get("verifiedDigestCrc32c") is not True or answer.get("name") != self._version:
            raise ProviderUnavailable(f"{self.name}: the digest was damaged on its way")
        try:
            signature = base64.b64decode(str(answer["signature"]), validate=True)
        except (KeyError, binascii.Error):
            raise ProviderUnavailable(f"{self.name} answered without a signature") from None
        self._check(signature, answer, "signatureCrc32c")
        return signature

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()
        await self._tokens.aclose()

    def _check(self, content: bytes, answer: dict[str, Any], field: str) -> None:
        if str(answer.get(field)) != str(crc32c(content)):
            raise ProviderUnavailable(f"{self.name}: the answer was damaged on its way")

    async def _call(self, method: str, what: str, wanted: Any) -> dict[str, Any]:
        answer = await self._once(method, what, wanted)
        if answer.status == 401:
            self._tokens.forget()
            answer = await self._once(method, what, wanted)
        if not answer.ok:
            raise ConfigurationError(
                f"{self.name} refuses: {answer.status} {answer.text()}",
                hint="check that the version is enabled, and the role cloudkms.signerVerifier",
            )
        found: dict[str, Any] = answer.json()
        return found

    async def _once(self, method: str, what: str, wanted: Any) -> Response:
        headers = {"Authorization": f"Bearer {await self._tokens.get()}"}
        return await self._http.request(
            method, f"/v1/{self._version}{what}", json=wanted, headers=headers
        )


_HINT = "set GOOGLE_APPLICATION_CREDENTIALS to a key file, or give the machine a service account"
