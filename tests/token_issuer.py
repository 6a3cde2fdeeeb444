"""An issuer of tokens: keys of its own, and a JWKS endpoint over HTTP that can be made to fail."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from joserfc import jws
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

USER = "0197a2b0-0000-7000-8000-000000000001"
SECRET = "a shared secret that is long enough for HS256"
#: What `tests.connections.HandClock` begins at: 2026-11-01 12:00 UTC.
NOON = 1_793_534_400

AnyKey = ECKey | OctKey | OKPKey | RSAKey


def claims(**changes: Any) -> dict[str, Any]:
    """Return the claims of a good token; None takes one away."""
    good: dict[str, Any] = {
        "sub": USER,
        "aud": "authenticated",
        "role": "authenticated",
        "iss": "https://project.example/auth/v1",
        "iat": NOON - 60,
        "exp": NOON + 3600,
        "email": "runner@example.org",
        "is_anonymous": False,
    }
    return {name: value for name, value in (good | changes).items() if value is not None}


def sign(payload: bytes | Mapping[str, Any], key: AnyKey, header: Mapping[str, Any]) -> str:
    """Return a token, whatever it says."""
    body = payload if isinstance(payload, bytes) else _json(payload)
    registry = jws.JWSRegistry(algorithms=[str(header["alg"])], strict_check_header=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)  # EdDSA by its name of before RFC 9864
        return jws.serialize_compact(dict(header), body, key, registry=registry)


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value).encode()


def shared(payload: bytes | Mapping[str, Any], secret: str = SECRET) -> str:
    """Return a token signed with the shared secret."""
    return sign(payload, OctKey.import_key(secret), {"alg": "HS256", "typ": "JWT"})


def make_key(algorithm: str) -> ECKey | RSAKey | OKPKey:
    """Return a new key for an algorithm."""
    if algorithm == "ES256":
        return ECKey.generate_key("P-256")
    if algorithm == "RS256":
        return RSAKey.generate_key(2048)
    return OKPKey.generate_key("Ed25519")


@dataclass
class Issuer:
    """Keys by id, what the endpoint serves, and how often it was asked."""

    url: str = ""
    keys: dict[str, tuple[str, ECKey | RSAKey | OKPKey]] = field(
        default_factory=dict[str, tuple[str, ECKey | RSAKey | OKPKey]]
    )
    asked: int = 0
    status: int = 200
    #: Served in place of the keys.
    body: bytes | None = None
    #: Further members of the set, as they are.
    others: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    #: Answers wait for it when it is not set.
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, key_id: str, algorithm: str = "ES256") -> None:
        """Make a key and serve it."""
        self.keys[key_id] = (algorithm, make_key(algorithm))

    def token(self, key_id: str, payload: Mapping[str, Any] | None = None) -> str:
        """Return a token signed with one of the keys."""
        algorithm, key = self.keys[key_id]
        return sign(payload or claims(), key, {"alg": algorithm, "kid": key_id, "typ": "JWT"})

    def public(self, key_id: str) -> dict[str, Any]:
        """Return a key as it is served."""
        algorithm, key = self.keys[key_id]
        public: dict[str, Any] = dict(key.as_dict(private=False))
        return public | {"kid": key_id, "alg": algorithm, "use": "sig"}

    async def serve(self, _request: web.Request) -> web.Response:
        """Answer with the key set."""
        self.asked += 1
        await self.gate.wait()
        if self.body is not None:
            return web.Response(status=self.status, body=self.body)
        served = [self.public(key_id) for key_id in self.keys]
        return web.json_response({"keys": [*self.others, *served]}, status=self.status)


@asynccontextmanager
async def token_issuer() -> AsyncGenerator[Issuer]:
    """Serve until the block is left."""
    issuer = Issuer()
    issuer.gate.set()
    app = web.Application()
    app.router.add_get("/auth/v1/.well-known/jwks.json", issuer.serve)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    issuer.url = f"http://{host}:{port}/auth/v1/.well-known/jwks.json"
    try:
        yield issuer
    finally:
        await runner.cleanup()
