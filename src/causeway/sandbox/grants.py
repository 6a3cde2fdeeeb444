"""What an OAuth stand-in has handed out: codes good once, tokens, refresh tokens."""

from __future__ import annotations

import base64
import hashlib
import secrets
from dataclasses import dataclass

CODE_LIFETIME_S = 600.0


@dataclass(frozen=True)
class Grant:
    """What somebody allowed: who, what, and where the browser goes."""

    who: str
    scope: str
    redirect_uri: str
    challenge: str | None
    expires_at: float


@dataclass
class Pair:
    """An access token and its refresh token, if any; a revoked one is gone."""

    who: str
    scope: str
    access: str
    refresh: str | None
    expires_at: float | None


class Grants:
    """The memory of one provider's authorization server."""

    def __init__(self) -> None:
        self._codes: dict[str, Grant] = {}
        self._pairs: list[Pair] = []
        #: How often a refresh token was presented that was worth nothing.
        self.wasted_refreshes = 0

    def code(
        self, who: str, scope: str, redirect_uri: str, challenge: str | None, now: float
    ) -> str:
        """Return a new code."""
        code = secrets.token_hex(10)
        self._codes[code] = Grant(who, scope, redirect_uri, challenge, now + CODE_LIFETIME_S)
        return code

    def redeem(self, code: str, verifier: str | None, now: float) -> Grant | None:
        """Take a code back; None when it is unknown, used, too old or somebody else's."""
        grant = self._codes.pop(code, None)
        if grant is None or grant.expires_at < now:
            return None
        if grant.challenge is not None:
            digest = hashlib.sha256((verifier or "").encode()).digest()
            if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != grant.challenge:
                return None
        return grant

    def issue(self, pair: Pair) -> Pair:
        """Remember new tokens."""
        self._pairs.append(pair)
        return pair

    def holder(self, access: str, now: float) -> Pair | None:
        """Return whose token that is, None when it is none any more."""
        for pair in self._pairs:
            if secrets.compare_digest(pair.access.encode(), access.encode()):
                return pair if pair.expires_at is None or pair.expires_at > now else None
        return None

    def refresh(self, token: str) -> Pair | None:
        """Take a refresh token back with its access token; None when it is worth nothing."""
        for pair in self._pairs:
            if pair.refresh == token:
                self._pairs.remove(pair)
                return pair
        self.wasted_refreshes += 1
        return None

    def live(self) -> list[Pair]:
        """Return the tokens that were not taken back, whether expired or not."""
        return list(self._pairs)

    def revoke(self, token: str) -> bool:
        """Take tokens back; return whether there were any."""
        before = len(self._pairs)
        self._pairs = [pair for pair in self._pairs if token not in (pair.access, pair.refresh)]
        return len(self._pairs) < before
