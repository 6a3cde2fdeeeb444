"""JSON Web Tokens of people (RFC 7519): checked here, without asking the issuer for each request.

    tokens = Tokens(secret=settings.supabase_jwt_secret, keys=RemoteKeys(jwks_url))
    current_user = user_from(lambda connection: connection.app.state.tokens)

    @router.get("/runs")
    async def runs(user: Annotated[Claims, Depends(current_user)]) -> ...

The algorithms are those that are configured, never the one a token asks for: HS256 with the shared
secret only, ES256, RS256 and EdDSA with the key of the issuer that the header's `kid` names. A
token has one form: what is not exactly the base64url that a signer writes is refused.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Annotated, Any, NoReturn, cast

import orjson
from fastapi import Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from joserfc.errors import JoseError
from joserfc.jwk import OctKey
from joserfc.jws import JWSRegistry
from pydantic import SecretStr
from starlette.requests import HTTPConnection, Request

from causeway.auth.claims import Claims, Expected, SignInNeeded, TokenRefused, read_claims
from causeway.auth.jwks import KeysState, PublicKey, RemoteKeys
from causeway.base.clock import SYSTEM_CLOCK, Clock
from causeway.base.errors import Bug, ConfigurationError

#: Longer ones are refused unread, characters. Supabase's stay below 2,000.
MAX_TOKEN = 8192

#: RFC 7518, section 3.2: a key of HS256 has at least the size of its hash, bytes.
MIN_SECRET_BYTES = 32

SHARED = "HS256"
PUBLIC = ("ES256", "RS256", "EdDSA")


class Tokens:
    """The check of tokens, with the keys in force; made once a process."""

    def __init__(
        self,
        *,
        secret: SecretStr | None = None,
        keys: RemoteKeys | None = None,
        algorithms: Collection[str] | None = None,
        expected: Expected | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Accept HS256 with a `secret`, the others with `keys`, and of those only `algorithms`.

        Raises `ConfigurationError` when nothing could ever be accepted, and for a secret that is
        too short or is a key of another kind.
        """
        possible = ([SHARED] if secret is not None else []) + (list(PUBLIC) if keys else [])
        wanted = set(possible if algorithms is None else algorithms)
        problems: list[str] = []
        if not wanted:
            problems.append("no shared secret and no JWKS address: no token could be accepted")
        for name in sorted(wanted - set(possible)):
            needs = {SHARED: "the shared secret"} | dict.fromkeys(PUBLIC, "a JWKS address")
            problems.append(
                f"algorithm {name} needs {needs[name]}"
                if name in needs
                else f"algorithm {name!r} is not one of {SHARED}, {', '.join(PUBLIC)}"
            )
        self._secret: OctKey | None = None
        if secret is not None and SHARED in wanted:
            value = secret.get_secret_value().encode()
            if problem := _unfit(value):
                problems.append(f"the shared secret of HS256 {problem}")
            else:
                self._secret = OctKey.import_key(value)
        if problems:
            raise ConfigurationError(problems)
        self.algorithms = frozenset(wanted)
        self._keys = keys
        self._expected = expected or Expected()
        self._clock = clock

    @property
    def keys_state(self) -> KeysState | None:
        """What is known of the issuer's keys; None when only the shared secret is in force."""
        return None if self._keys is None else self._keys.state

    async def check(self, token: str) -> Claims:
        """Return whom a token is of.

        Raises `TokenRefused` with its code, `WrongRole` for a token that is no person's, and
        `ProviderUnavailable` when the key to check it with cannot be had. The token itself is in no
        error.
        """
        header, payload, signature = _parts(token)
        key = await self._key_for(header)
        algorithm = JWSRegistry.algorithms[str(header["alg"])]
        signed = token.rpartition(".")[0].encode()
        try:
            algorithm.check_key(key)
            is_good = algorithm.verify(signed, signature, key)
        except (JoseError, ValueError):
            is_good = False
        if not is_good:
            raise TokenRefused("BAD_SIGNATURE", "the token's signature is wrong")
        return read_claims(payload, self._expected, self._clock.now())

    async def _key_for(self, header: Mapping[str, Any]) -> OctKey | PublicKey:
        name = header.get("alg")
        if not isinstance(name, str):
            _malformed("its header names no algorithm")
        if name not in self.algorithms:
            raise TokenRefused("BAD_SIGNATURE", "the token's algorithm is not accepted here")
        if name == SHARED and self._secret is not None:
            return self._secret
        if self._keys is None:
            raise Bug("an algorithm was accepted without its keys")
        key_id = header.get("kid")
        if not isinstance(key_id, str) or not key_id:
            raise TokenRefused("UNKNOWN_KEY", "the token does not say which key it is signed with")
        found = await self._keys.find(key_id)
        if found is None:
            raise TokenRefused("UNKNOWN_KEY", "the token is signed with a key nobody knows")
        if found.algorithm != name:
            raise TokenRefused("BAD_SIGNATURE", "the token's key is for another algorithm")
        return found.key


def _unfit(secret: bytes) -> str | None:
    """Say what is wrong with a shared secret, if anything; never what it is."""
    if b"-----BEGIN" in secret or secret.startswith((b"ssh-", b"ecdsa-")):
        return "is a key of another kind; a public key is no secret"
    try:
        is_jwk = isinstance(json.loads(secret), dict)
    except ValueError:
        is_jwk = False
    if is_jwk:
        return "is a JSON Web Key; write the secret itself"
    if len(secret) < MIN_SECRET_BYTES:
        return f"has {len(secret)} bytes; at least {MIN_SECRET_BYTES} are allowed"
    return None


def _parts(token: str) -> tuple[dict[str, Any], bytes, bytes]:
    """Return header, payload and signature of a token in its compact form (RFC 7515, 7.1)."""
    if len(token) > MAX_TOKEN:
        _malformed(f"it is longer than {MAX_TOKEN} characters")
    parts = token.split(".")
    if len(parts) != 3:
        _malformed("it does not have three parts")
    header, payload, signature = (_decoded(part) for part in parts)
    try:
        fields = orjson.loads(header)
    except orjson.JSONDecodeError:
        _malformed("its header is not JSON")
    if not isinstance(fields, dict):
        _malformed("its header is no object")
    # An extension that must be understood (RFC 7515, 4.1.11), and we understand none.
    if "crit" in fields:
        _malformed("its header demands an extension")
    return cast("dict[str, Any]", fields), payload, signature


def _decoded(part: str) -> bytes:
    # Python skips what is no base64 and the last letter's spare bits: one token, many spellings.
    try:
        raw = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except (binascii.Error, ValueError):
        _malformed("it is not base64url")
    if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != part:
        _malformed("it is not base64url")
    return raw


def _malformed(what: str) -> NoReturn:
    raise TokenRefused("MALFORMED_TOKEN", f"the token is malformed: {what}")


#: Names the scheme in the OpenAPI document; what is wrong is said by us.
_SCHEME = HTTPBearer(auto_error=False, bearerFormat="JWT")


def user_from(
    tokens_of: Callable[[HTTPConnection], Tokens], *, anonymous: bool = True
) -> Callable[..., Awaitable[Claims]]:
    """Return a FastAPI dependency: whom the request's bearer token is of.

    With `anonymous` false somebody who signed in anonymously is refused (403): for everything but
    reading what is public. Raises what `Tokens.check` raises.
    """

    async def dependency(
        request: Request,
        given: Annotated[HTTPAuthorizationCredentials | None, Security(_SCHEME)],
    ) -> Claims:
        if given is None:
            raise TokenRefused("MISSING_TOKEN", "present the token: Authorization: Bearer …")
        claims = await tokens_of(request).check(given.credentials.strip())
        if claims.is_anonymous and not anonymous:
            raise SignInNeeded("sign in first; anonymously one may only read what is public")
        return claims

    return dependency
