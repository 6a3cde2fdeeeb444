"""A stand-in for Google Cloud KMS: a real secp256k1 key behind `asymmetricSign` and `publicKey`.

Beside it are the places where programs get their access tokens: the metadata server, and the token
endpoint for service accounts, which checks the claim's signature. Tokens run out.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import reduce
from typing import Any, cast

import orjson
from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from causeway.base.clock import SYSTEM_CLOCK, Clock
from causeway.sandbox.kms_aws import curve_key, sign_digest

VERSION = "projects/demo/locations/europe/keyRings/relayer/cryptoKeys/keeper/cryptoKeyVersions/1"
EMAIL = "keeper@demo.iam.gserviceaccount.com"


def checksum(content: bytes) -> str:
    """Return the CRC-32C of some bytes, bit by bit, as Google writes it."""

    def shifted(value: int, _bit: int) -> int:
        return (value >> 1) ^ (0x82F63B78 * (value & 1))

    value = 0xFFFFFFFF
    for byte in content:
        value = reduce(shifted, range(8), value ^ byte)
    return str(value ^ 0xFFFFFFFF)


class GcpKmsServer:
    """The stand-in. Change its attributes at any time."""

    def __init__(self, private_key: str | None = None, *, clock: Clock = SYSTEM_CLOCK) -> None:
        """Hold `private_key` (hex), or a new one."""
        self.url = ""
        self.version = VERSION
        self.curve_key = curve_key(private_key)
        self.algorithm = "EC_SIGN_SECP256K1_SHA256"
        #: What the next calls are answered with instead: `quota`, `internal`, `disabled`, `denied`,
        #: `cut`, `garbage`, `other_key`, `damaged_digest`, `damaged_answer`, `stale_token`.
        self.faults: list[str] = []
        self.calls: list[str] = []
        self.tokens_given = 0
        self.lifetime = timedelta(hours=1)
        self.account_key = rsa.generate_private_key(65537, 2048)
        self._clock = clock
        self._tokens: dict[str, datetime] = {}

    @classmethod
    @asynccontextmanager
    async def start(
        cls, private_key: str | None = None, *, clock: Clock = SYSTEM_CLOCK
    ) -> AsyncGenerator[GcpKmsServer]:
        """Serve on a port of the loopback until the block is left."""
        server = cls(private_key, clock=clock)
        app = web.Application()
        app.router.add_get("/v1/{name:.+}/publicKey", server.public_key)
        app.router.add_post("/v1/{name:.+}:asymmetricSign", server.asymmetric_sign)
        path = "/computeMetadata/v1/instance/service-accounts/default/token"
        app.router.add_get(path, server.of_machine)
        app.router.add_post("/token", server.of_account)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield server
        finally:
            await runner.cleanup()

    def key_file(self) -> bytes:
        """Return the key file of the service account that may sign here."""
        pem = self.account_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return orjson.dumps(
            {
                "type": "service_account",
                "client_email": EMAIL,
                "private_key": pem.decode(),
                "token_uri": f"{self.url}/token",
            }
        )

    async def public_key(self, request: web.Request) -> web.StreamResponse:
        """Answer `GET …/publicKey`."""
        refused, fault = self._refused(request)
        if refused is not None:
            return refused
        self.calls.append("publicKey")
        pem = self.curve_key.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )
        return web.json_response(
            {
                "pem": pem.decode(),
                "algorithm": self.algorithm,
                "pemCrc32c": "1" if fault == "damaged_answer" else checksum(pem),
                "name": self.version,
                "protectionLevel": "HSM",
            }
        )

    async def asymmetric_sign(self, request: web.Request) -> web.StreamResponse:
        """Answer `POST …:asymmetricSign`."""
        refused, fault = self._refused(request)
        if refused is not None:
            return refused
        body = cast("dict[str, Any]", orjson.loads(await request.read()))
        digest = base64.b64decode(body["digest"]["sha256"], validate=True)
        if fault == "damaged_digest":
            digest = hashlib.sha256(digest).digest()
        if len(digest) != 32:
            return _error(400, "INVALID_ARGUMENT", "digest must be 32 bytes")
        verified = checksum(digest) == body.get("digestCrc32c")
        if not verified and fault != "damaged_digest":
            return _error(400, "INVALID_ARGUMENT", "The checksum did not match")
        self.calls.append("asymmetricSign")
        key = curve_key(None) if fault == "other_key" else self.curve_key
        made = b"garbage" if fault == "garbage" else sign_digest(key, digest)
        return web.json_response(
            {
                "signature": base64.b64encode(made).decode(),
                "signatureCrc32c": "1" if fault == "damaged_answer" else checksum(made),
                "verifiedDigestCrc32c": verified,
                "name": self.version,
                "protectionLevel": "HSM",
            }
        )

    def _refused(self, request: web.Request) -> tuple[web.StreamResponse | None, str]:
        fault = self.faults.pop(0) if self.faults else ""
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        until = self._tokens.get(token)
        if fault == "stale_token" or until is None or until <= self._clock.now():
            return _error(401, "UNAUTHENTICATED", "invalid authentication credentials"), fault
        if request.match_info["name"] != self.version:
            return _error(404, "NOT_FOUND", "CryptoKeyVersion not found."), fault
        match fault:
            case "quota":
                return _error(429, "RESOURCE_EXHAUSTED", "Quota exceeded"), fault
            case "internal":
                return _error(500, "INTERNAL", "Internal error"), fault
            case "disabled":
                return _error(400, "FAILED_PRECONDITION", f"{self.version} is DISABLED."), fault
            case "denied":
                return _error(403, "PERMISSION_DENIED", "useToSign denied"), fault
            case "cut":
                assert request.transport is not None  # noqa: S101 - it is connected
                request.transport.abort()
                return web.Response(), fault
            case _:
                return None, fault

    # Where tokens come from

    async def of_machine(self, request: web.Request) -> web.Response:
        """Answer as the metadata server."""
        if request.headers.get("Metadata-Flavor") != "Google":
            return web.Response(status=403)
        return self._token()

    async def of_account(self, request: web.Request) -> web.Response:
        """Exchange a service account's claim (RFC 7523)."""
        form = await request.post()
        head, _, signature = str(form.get("assertion", "")).rpartition(".")
        try:
            self.account_key.public_key().verify(
                _decoded(signature), head.encode(), padding.PKCS1v15(), SHA256()
            )
            claim = orjson.loads(_decoded(head.partition(".")[2]))
        except (InvalidSignature, ValueError):
            return web.json_response({"error": "invalid_grant"}, status=400)
        now = self._clock.now().timestamp()
        right = (
            form.get("grant_type") == "urn:ietf:params:oauth:grant-type:jwt-bearer"
            and claim["iss"] == EMAIL
            and claim["aud"] == f"{self.url}/token"
            and "cloudkms" in claim["scope"]
            and claim["iat"] - 60 <= now < claim["exp"] <= claim["iat"] + 3600
        )
        if not right:
            return web.json_response({"error": "invalid_grant"}, status=400)
        return self._token()

    def _token(self) -> web.Response:
        made = "ya29." + secrets.token_urlsafe(40)
        self.tokens_given += 1
        self._tokens[made] = self._clock.now() + self.lifetime
        return web.json_response(
            {
                "access_token": made,
                "expires_in": int(self.lifetime.total_seconds()),
                "token_type": "Bearer",
            }
        )


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _error(status: int, name: str, message: str) -> web.Response:
    said = {"code": status, "message": message, "status": name}
    return web.json_response({"error": said}, status=status)
