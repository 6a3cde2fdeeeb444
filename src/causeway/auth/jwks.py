"""Public keys of a token issuer, fetched from its JWKS endpoint (RFC 7517) and kept.

Keys are kept for ten minutes. A key id that is not among them makes us look again, at most once in
thirty seconds, so that a rotation is noticed at once and an invented id costs the issuer nothing.
Of many requests that need the keys at the same time one asks and the others wait. While the
endpoint is away, what was fetched goes on for a day.

Only what verifies signatures is taken: P-256, RSA of 2048 bits and more, Ed25519. A symmetric key
in such a document is never used, and each key serves the one algorithm of its kind, so that no
public key can ever be somebody's HMAC secret.
"""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64decode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import structlog
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from causeway.base.clock import SYSTEM_CLOCK, Clock
from causeway.base.errors import CausewayError, ProviderUnavailable
from causeway.base.http import HttpClient

log = structlog.get_logger(__name__)

FRESH_S = 600.0
AGAIN_S = 30.0
STALE_S = 24 * 3600.0

#: For an answer, seconds; a person is waiting.
TIMEOUT_S = 5.0
_MAX_BYTES = 256 * 1024
_MIN_RSA_BITS = 2048

PublicKey = ECKey | RSAKey | OKPKey


@dataclass(frozen=True)
class VerifyingKey:
    """A public key and the one algorithm it serves."""

    algorithm: str
    key: PublicKey


@dataclass(frozen=True)
class KeysState:
    """What is known of the endpoint, for health pages."""

    keys: int
    #: Since the keys were last fetched, seconds; None: never.
    age_s: float | None
    #: Whether the last attempt failed, so that keys may be out of date.
    is_failing: bool
    error: str | None


class RemoteKeys:
    """The keys of one issuer."""

    def __init__(self, url: str, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._http = HttpClient(
            name="jwks", base_url=url, timeout_s=TIMEOUT_S, max_response_bytes=_MAX_BYTES
        )
        self._clock = clock
        self._keys: Mapping[str, VerifyingKey] = {}
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._error: str | None = None
        self._flight: asyncio.Task[None] | None = None

    async def aclose(self) -> None:
        """Close the connections."""
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.gather(self._flight, return_exceptions=True)
        await self._http.aclose()

    @property
    def state(self) -> KeysState:
        """How many keys there are, and how old."""
        return KeysState(len(self._keys), self._age_s(), self._error is not None, self._error)

    async def find(self, key_id: str) -> VerifyingKey | None:
        """Return the key with that id; None when the issuer has no such key.

        Raises `ProviderUnavailable` when that cannot be known: the endpoint is away and the key is
        not among those kept, or they are older than a day.
        """
        if self._is_due(self._age_s(), FRESH_S) or key_id not in self._keys:
            await self._refresh()
        age_s = self._age_s()
        found = self._keys.get(key_id)
        if age_s is None or age_s > STALE_S or (found is None and self._error is not None):
            raise ProviderUnavailable(
                "the keys that tokens are checked with cannot be fetched; try again later",
                retry_after_s=AGAIN_S,
            )
        return found

    def _age_s(self) -> float | None:
        return None if self._fetched_at is None else self._clock.monotonic() - self._fetched_at

    @staticmethod
    def _is_due(age_s: float | None, after_s: float) -> bool:
        return age_s is None or age_s >= after_s

    async def _refresh(self) -> None:
        """Fetch, or wait for who is fetching; nothing when it was tried a moment ago."""
        if self._flight is None:
            tried = None if self._tried_at is None else self._clock.monotonic() - self._tried_at
            if not self._is_due(tried, AGAIN_S):
                return
            self._flight = asyncio.create_task(self._fetch())
            self._flight.add_done_callback(self._landed)
        # Shielded: a request that is given up must not take the answer from the others.
        await asyncio.shield(self._flight)

    def _landed(self, _flight: asyncio.Task[None]) -> None:
        self._flight = None

    async def _fetch(self) -> None:
        self._tried_at = self._clock.monotonic()
        try:
            answer = await self._http.request("GET", "", headers={"Accept": "application/json"})
            if not answer.ok:
                raise ProviderUnavailable(f"jwks answered {answer.status}")
            self._keys = dict(_usable(answer.json()))
        except CausewayError as error:
            self._error = error.message
            log.warning("keys_not_fetched", error=error, keys=len(self._keys), age_s=self._age_s())
        else:
            self._error = None
            self._fetched_at = self._clock.monotonic()


def _usable(document: object) -> Iterator[tuple[str, VerifyingKey]]:
    """Yield the keys of a document by their ids; `ProviderUnavailable` when it is no key set."""
    listed = cast("dict[str, Any]", document).get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise ProviderUnavailable("jwks answered with something that is no key set")
    for item in cast("list[object]", listed):
        if isinstance(item, dict) and (key := read_key(cast("dict[str, Any]", item))) is not None:
            yield cast("dict[str, Any]", item)["kid"], key


def read_key(jwk: Mapping[str, Any]) -> VerifyingKey | None:
    """Return the key of one JWK; None, with a line in the log, when it is not one we verify with.

    Private parts, should a document hold any, are left out.
    """
    kind = (jwk.get("kty"), jwk.get("crv"))
    operations = jwk.get("key_ops")
    for_signatures = jwk.get("use", "sig") == "sig" and (
        operations is None or (isinstance(operations, list) and "verify" in operations)
    )
    key_id = jwk.get("kid")
    found: VerifyingKey | None = None
    if for_signatures and isinstance(key_id, str) and key_id:
        try:
            found = _key(kind, jwk)
        except (JoseError, KeyError, TypeError, ValueError):
            found = None
    if found is None or jwk.get("alg", found.algorithm) != found.algorithm:
        log.warning("key_not_usable", kid=str(key_id)[:80], kind=str(kind)[:80])
        return None
    return found


def _key(kind: tuple[object, object], jwk: Mapping[str, Any]) -> VerifyingKey | None:
    def only(*names: str) -> dict[str, Any]:
        return {name: jwk[name] for name in names if name in jwk}

    if kind == ("EC", "P-256"):
        return VerifyingKey("ES256", ECKey.import_key(only("kty", "crv", "x", "y")))
    if kind == ("OKP", "Ed25519"):
        return VerifyingKey("EdDSA", OKPKey.import_key(only("kty", "crv", "x")))
    if kind[0] == "RSA" and len(urlsafe_b64decode(jwk["n"] + "==")) * 8 >= _MIN_RSA_BITS:
        return VerifyingKey("RS256", RSAKey.import_key(only("kty", "n", "e")))
    return None
