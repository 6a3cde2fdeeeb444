"""What a token says about a person, and the checks that need no key.

Names are those of RFC 7519 and of Supabase Auth, whose tokens these are: `role` is the PostgreSQL
role a request works under, `is_anonymous` marks somebody who signed in without saying who they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NoReturn, cast
from uuid import UUID

import orjson

from causeway.base.errors import NotAllowed, NotAuthenticated

#: How far two clocks may be apart, seconds.
LEEWAY_S = 10.0

#: The last second of the year 9999: no later time can be shown.
_LAST_SECOND = 253_402_300_799


class TokenRefused(NotAuthenticated):
    """The token is not accepted; `problem_code` says why, in one word of a fixed list."""

    challenge = 'Bearer error="invalid_token"'

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        #: MISSING_TOKEN, MALFORMED_TOKEN, BAD_SIGNATURE, UNKNOWN_KEY, EXPIRED, WRONG_AUDIENCE or
        #: WRONG_ISSUER.
        self.problem_code = code


class WrongRole(NotAllowed):
    """The token is good, and not one of a person."""

    problem_code = "WRONG_ROLE"


class SignInNeeded(NotAllowed):
    """Somebody who signed in anonymously may only read what is public."""

    problem_code = "SIGN_IN_NEEDED"


@dataclass(frozen=True)
class Expected:
    """What a token must say."""

    audience: str = "authenticated"
    #: None: any issuer that signs with our keys.
    issuer: str | None = None
    role: str = "authenticated"
    leeway_s: float = LEEWAY_S


@dataclass(frozen=True)
class Claims:
    """A person, as a checked token describes them."""

    subject: UUID
    role: str
    expires_at: datetime
    issued_at: datetime | None
    is_anonymous: bool
    #: All that the token says, for `request.jwt.claims`. Holds an e-mail address: never logged.
    raw: Mapping[str, Any] = field(repr=False)


def read_claims(payload: bytes, expected: Expected, now: datetime) -> Claims:
    """Check the payload of a token whose signature is good; return what it says.

    Raises `TokenRefused` with the code, and `WrongRole` for tokens of nobody (`anon`) or of the
    service itself.
    """
    raw = _object(payload)
    at = now.timestamp()
    expires = _instant(raw, "exp")
    if expires is None:
        _malformed("exp is missing")
    if at >= expires + expected.leeway_s:
        raise TokenRefused("EXPIRED", "the token has expired; sign in or refresh it")
    for name in ("nbf", "iat"):
        begins = _instant(raw, name)
        if begins is not None and begins > at + expected.leeway_s:
            _malformed(f"{name} is in the future")
    _check_audience(raw.get("aud"), expected.audience)
    if expected.issuer is not None and raw.get("iss") != expected.issuer:
        raise TokenRefused("WRONG_ISSUER", "the token was made by another issuer")
    role = raw.get("role")
    if not isinstance(role, str):
        _malformed("role is missing")
    if role != expected.role:
        raise WrongRole(f"this needs a token of a person (role {expected.role})")
    issued = _instant(raw, "iat")
    return Claims(
        subject=_subject(raw.get("sub")),
        role=role,
        expires_at=datetime.fromtimestamp(expires, UTC),
        issued_at=None if issued is None else datetime.fromtimestamp(issued, UTC),
        is_anonymous=raw.get("is_anonymous") is True,
        raw=raw,
    )


def _object(payload: bytes) -> dict[str, Any]:
    try:
        raw = orjson.loads(payload)
    except orjson.JSONDecodeError:
        _malformed("its claims are not JSON")
    if not isinstance(raw, dict):
        _malformed("its claims are no object")
    # PostgreSQL keeps no NUL in JSON: better refused here than an error in every query.
    if b"\\u0000" in orjson.dumps(raw):
        _malformed("its claims hold a NUL")
    return cast("dict[str, Any]", raw)


def _instant(raw: Mapping[str, Any], name: str) -> float | None:
    """Return a NumericDate (RFC 7519, section 2): seconds, with or without a fraction."""
    value = raw.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        _malformed(f"{name} is not a number of seconds")
    if not 0 <= value <= _LAST_SECOND:
        _malformed(f"{name} is outside the years 1970 to 9999")
    return float(value)


def _check_audience(given: object, wanted: str) -> None:
    audiences = cast("list[object]", given) if isinstance(given, list) else [given]
    if wanted not in audiences:
        raise TokenRefused("WRONG_AUDIENCE", f"the token is not for the audience {wanted}")


def _subject(given: object) -> UUID:
    # Only the form PostgreSQL prints: `UUID` would also take braces, prefixes and no dashes.
    try:
        subject = UUID(given) if isinstance(given, str) else None
    except ValueError:
        subject = None
    if subject is None or str(subject) != str(given).lower():
        _malformed("sub is not a UUID")
    return subject


def _malformed(what: str) -> NoReturn:
    raise TokenRefused("MALFORMED_TOKEN", f"the token is malformed: {what}")
