"""A stand-in for AWS KMS: a real secp256k1 key, and requests whose signature is really checked.

Answers `TrentService.Sign` and `TrentService.GetPublicKey` as KMS does, with its errors. Beside
them are the places where programs on AWS find their credentials (a container's agent, an instance's
metadata service, version 2), which hand out temporary ones that the stand-in then asks for.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from urllib.parse import unquote

import orjson
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from causeway.base.clock import SYSTEM_CLOCK, Clock

#: A request is refused when its time is further away.
SKEW = timedelta(minutes=15)

_PREFIX = "com.amazonaws.kms#"
_PARTS = {"Credential", "SignedHeaders", "Signature"}


class _Refused(Exception):
    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(kind)
        self.answer = web.json_response(
            {"__type": kind, "message": message},
            status=status,
            content_type="application/x-amz-json-1.1",
        )


def _wrong(message: str) -> _Refused:
    return _Refused(400, "InvalidSignatureException", message)


class AwsKmsServer:
    """The stand-in. Change its attributes at any time."""

    def __init__(self, private_key: str | None = None, *, clock: Clock = SYSTEM_CLOCK) -> None:
        """Hold `private_key` (hex), or a new one."""
        self.url = ""
        self.region = "eu-west-1"
        self.key_id = "1234abcd-12ab-34cd-56ef-1234567890ab"
        self.alias = "alias/keeper"
        self.curve_key = curve_key(private_key)
        #: Secrets by access key id, and the session token that belongs to it.
        self.secrets: dict[str, tuple[str, str | None]] = {
            "AKIDEXAMPLE": ("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", None)
        }
        #: What the next calls are answered with instead: `throttled`, `internal`, `disabled`,
        #: `denied`, `cut`, `garbage`, `other_key`, `other_digest`.
        self.faults: list[str] = []
        #: Operations that were answered, in order.
        self.calls: list[str] = []
        self.key_spec, self.key_usage = "ECC_SECG_P256K1", "SIGN_VERIFY"
        #: How long temporary credentials are good for.
        self.lifetime = timedelta(hours=6)
        self._clock = clock
        self._sessions: set[str] = set()

    @classmethod
    @asynccontextmanager
    async def start(
        cls, private_key: str | None = None, *, clock: Clock = SYSTEM_CLOCK
    ) -> AsyncGenerator[AwsKmsServer]:
        """Serve on a port of the loopback until the block is left."""
        server = cls(private_key, clock=clock)
        app = web.Application()
        app.router.add_post("/", server.handle)
        app.router.add_put("/latest/api/token", server.session)
        roles = "/latest/meta-data/iam/security-credentials/"
        app.router.add_get(roles, server.role)
        app.router.add_get(roles + "keeper", server.of_role)
        app.router.add_get("/container", server.of_container)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield server
        finally:
            await runner.cleanup()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one call of KMS."""
        body = await request.read()
        try:
            self._authenticate(request, body)
            operation = request.headers.get("X-Amz-Target", "").removeprefix("TrentService.")
            return self._answer(request, operation, cast("dict[str, Any]", orjson.loads(body)))
        except _Refused as refused:
            return refused.answer

    def _answer(
        self, request: web.Request, operation: str, body: dict[str, Any]
    ) -> web.StreamResponse:
        fault = self.faults.pop(0) if self.faults else ""
        match fault:
            case "throttled":
                raise _Refused(400, "ThrottlingException", "Rate exceeded")
            case "internal":
                raise _Refused(500, _PREFIX + "KMSInternalException", "")
            case "unavailable":
                raise _Refused(400, _PREFIX + "KeyUnavailableException", "try later")
            case "disabled":
                raise _Refused(400, "DisabledException", f"{self._arn()} is disabled.")
            case "denied":
                raise _Refused(400, "AccessDeniedException", "not authorized to perform: kms:Sign")
            case "cut":
                assert request.transport is not None  # noqa: S101 - it is connected
                request.transport.abort()
                return web.Response()
            case _:
                pass
        if body.get("KeyId") not in (self.key_id, self.alias, self._arn()):
            raise _Refused(400, "NotFoundException", f"Key '{body.get('KeyId')}' does not exist")
        self.calls.append(operation)
        if operation == "GetPublicKey":
            return _json(self._public_key())
        if operation == "Sign":
            return _json(self._signature(body, fault))
        raise _Refused(400, "UnknownOperationException", operation)

    def _public_key(self) -> dict[str, Any]:
        spki = self.curve_key.public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )
        return {
            "KeyId": self._arn(),
            "PublicKey": base64.b64encode(spki).decode(),
            "KeySpec": self.key_spec,
            "CustomerMasterKeySpec": self.key_spec,
            "KeyUsage": self.key_usage,
            "SigningAlgorithms": ["ECDSA_SHA_256"],
        }

    def _signature(self, body: dict[str, Any], fault: str) -> dict[str, Any]:
        if body.get("SigningAlgorithm") != "ECDSA_SHA_256":
            raise _Refused(400, "ValidationException", "SigningAlgorithm")
        if body.get("MessageType") != "DIGEST":
            raise _Refused(400, "ValidationException", "here only digests are signed")
        digest = base64.b64decode(str(body.get("Message")))
        if len(digest) != 32:
            raise _Refused(400, "ValidationException", "Digest is invalid length for algorithm")
        key = curve_key(None) if fault == "other_key" else self.curve_key
        if fault == "other_digest":
            digest = hashlib.sha256(digest).digest()
        made = b"garbage" if fault == "garbage" else sign_digest(key, digest)
        return {
            "KeyId": self._arn(),
            "Signature": base64.b64encode(made).decode(),
            "SigningAlgorithm": "ECDSA_SHA_256",
        }

    def _arn(self) -> str:
        return f"arn:aws:kms:{self.region}:111122223333:key/{self.key_id}"

    def _authenticate(self, request: web.Request, body: bytes) -> None:
        """Refuse a request whose Signature Version 4 is not right, as AWS words it."""
        given = request.headers.get("Authorization", "")
        scheme, _, rest = given.partition(" ")
        parts: dict[str, str] = {}
        for part in rest.split(","):
            name, _, value = part.strip().partition("=")
            parts[name] = value
        if scheme != "AWS4-HMAC-SHA256" or set(parts) != _PARTS:
            raise _Refused(400, "MissingAuthenticationTokenException", "Missing Token")
        access_key, *scope = parts["Credential"].split("/")
        secret, token = self.secrets.get(access_key, ("", None))
        if not secret or token != request.headers.get("X-Amz-Security-Token"):
            raise _Refused(400, "UnrecognizedClientException", "The security token is invalid.")
        stamp = request.headers.get("X-Amz-Date", "")
        if scope != [stamp[:8], self.region, "kms", "aws4_request"]:
            raise _wrong("Credential should be scoped to a valid region")
        at = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        if abs(self._clock.now() - at) > SKEW:
            raise _wrong("Signature expired")
        names = parts["SignedHeaders"].split(";")
        must = {"host", "x-amz-date", "x-amz-target"}
        if token is not None:
            must.add("x-amz-security-token")
        if names != sorted(names) or not must <= set(names):
            raise _wrong("not all headers that must be are signed")
        lines = [request.method, unquote(request.path), request.query_string]
        lines += [f"{name}:{request.headers[name].strip()}" for name in names]
        lines += ["", ";".join(names), hashlib.sha256(body).hexdigest()]
        canonical = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        key = b"AWS4" + secret.encode()
        for one in scope:
            key = hmac.digest(key, one.encode(), "sha256")
        text = "\n".join(("AWS4-HMAC-SHA256", stamp, "/".join(scope), canonical))
        wanted = hmac.digest(key, text.encode(), "sha256").hex()
        if not hmac.compare_digest(wanted, parts["Signature"]):
            raise _wrong("The request signature we calculated does not match")

    # Where credentials come from

    async def session(self, request: web.Request) -> web.Response:
        """Answer `PUT /latest/api/token`."""
        if not request.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "").isdigit():
            return web.Response(status=400)
        made = secrets.token_urlsafe(40)
        self._sessions.add(made)
        return web.Response(text=made)

    async def role(self, request: web.Request) -> web.Response:
        """Answer with the name of the instance's role."""
        if request.headers.get("X-aws-ec2-metadata-token") not in self._sessions:
            return web.Response(status=401)
        return web.Response(text="keeper")

    async def of_role(self, request: web.Request) -> web.Response:
        """Answer with the role's credentials."""
        if request.headers.get("X-aws-ec2-metadata-token") not in self._sessions:
            return web.Response(status=401)
        return self._temporary()

    async def of_container(self, request: web.Request) -> web.Response:
        """Answer as a container's agent."""
        if request.headers.get("Authorization") != "agent-token":
            return web.Response(status=403)
        return self._temporary()

    def _temporary(self) -> web.Response:
        access_key, secret, token = (secrets.token_urlsafe(15) for _ in range(3))
        self.secrets[access_key] = (secret, token)
        return web.json_response(
            {
                "Code": "Success",
                "Type": "AWS-HMAC",
                "AccessKeyId": access_key,
                "SecretAccessKey": secret,
                "Token": token,
                "Expiration": (self._clock.now() + self.lifetime).strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
        )


def curve_key(private_key: str | None) -> ec.EllipticCurvePrivateKey:
    """Return the key with that number (hex), or a new one."""
    if private_key is None:
        return ec.generate_private_key(ec.SECP256K1())
    return ec.derive_private_key(int(private_key, 16), ec.SECP256K1())


def sign_digest(key: ec.EllipticCurvePrivateKey, digest: bytes) -> bytes:
    """Sign 32 bytes as key services do: in DER, with the s that comes."""
    return key.sign(digest, ec.ECDSA(Prehashed(SHA256())))


def _json(value: dict[str, Any]) -> web.Response:
    return web.json_response(value, content_type="application/x-amz-json-1.1")
