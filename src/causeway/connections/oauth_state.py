"""The `state` and the PKCE verifier of an OAuth authorization, between its two requests.

Kept in the database, so that the callback may reach any process; used once; bound to an action
and a subject (RFC 6749 section 10.12, RFC 7636 with S256).
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from dataclasses import dataclass, field

from sqlalchemy import text

from causeway.base.errors import NotAuthenticated
from causeway.store.engine import Database

#: Seconds from the start of an authorization to its callback.
LIFETIME_S = 300.0


class AuthorizationExpired(NotAuthenticated):
    """This authorization came back too late; start it again."""


@dataclass(frozen=True)
class Started:
    """What goes into the authorization URL."""

    state: str
    #: PKCE, base64url of the verifier's SHA-256.
    code_challenge: str
    code_challenge_method: str = "S256"


@dataclass(frozen=True)
class Returned:
    """What was kept for the callback."""

    subject: str
    #: For the token request, as `code_verifier`.
    verifier: str = field(repr=False)


async def start(
    database: Database, action: str, subject: str, *, lifetime_s: float = LIFETIME_S
) -> Started:
    """Begin an authorization of `subject` for `action`; good for `lifetime_s` seconds."""
    state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(48)
    async with database.transaction() as session:
        # Nobody else clears the table: every start takes some old rows away. For an hour a late
        # callback is still told that it is late.
        await session.execute(
            text(
                """
                DELETE FROM causeway.auth_oauth_states WHERE state_sha256 IN (
                    SELECT state_sha256 FROM causeway.auth_oauth_states
                    WHERE expires_at < clock_timestamp() - interval '1 hour'
                    LIMIT 20 FOR UPDATE SKIP LOCKED
                )
                """
            )
        )
        await session.execute(
            text(
                """
                INSERT INTO causeway.auth_oauth_states
                    (state_sha256, action, subject, verifier, expires_at)
                VALUES (:state, :action, :subject, :verifier,
                    clock_timestamp() + make_interval(secs => :seconds))
                """
            ),
            {
                "state": _digest(state),
                "action": action,
                "subject": subject,
                "verifier": verifier,
                "seconds": lifetime_s,
            },
        )
    return Started(state, _challenge(verifier))


async def consume(database: Database, action: str, state: str) -> Returned:
    """Take back what belongs to `state`; it can never be taken again, by any process.

    Raises `NotAuthenticated` when the state is unknown, was used, or is for another action (then
    it is left for its own), and `AuthorizationExpired`, one of those, when it came too late.
    """
    async with database.transaction() as session:
        row = (
            await session.execute(
                text(
                    """
                    DELETE FROM causeway.auth_oauth_states
                    WHERE state_sha256 = :state AND action = :action
                    RETURNING subject, verifier, expires_at > clock_timestamp() AS in_time
                    """
                ),
                {"state": _digest(state), "action": action},
            )
        ).one_or_none()
    if row is None:
        raise NotAuthenticated("this authorization is unknown, was used or has expired")
    if not row.in_time:
        raise AuthorizationExpired
    return Returned(row.subject, row.verifier)


def _digest(state: str) -> str:
    return hashlib.sha256(state.encode(errors="replace")).hexdigest()


def _challenge(verifier: str) -> str:
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
