from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OctKey
from pydantic import SecretStr

from causeway.auth.claims import Expected, TokenRefused, WrongRole
from causeway.auth.jwt import MAX_TOKEN, Tokens
from causeway.base.errors import CausewayError, ConfigurationError
from tests.connections import HandClock
from tests.token_issuer import NOON, SECRET, USER, claims, shared, sign

ISSUER = "https://project.example/auth/v1"


def tokens(clock: HandClock | None = None, **more: Any) -> Tokens:
    expected = Expected(issuer=ISSUER)
    return Tokens(secret=SecretStr(SECRET), expected=expected, clock=clock or HandClock(), **more)


async def refusal(token: str, check: Tokens | None = None) -> str:
    with pytest.raises(TokenRefused) as refused:
        await (check or tokens()).check(token)
    assert token not in str(refused.value)
    return str(refused.value.problem_code)


async def test_a_good_token_says_who_is_asking() -> None:
    found = await tokens().check(shared(claims(is_anonymous=True)))
    assert str(found.subject) == USER
    assert found.role == "authenticated"
    assert found.is_anonymous
    assert found.expires_at.timestamp() == NOON + 3600
    assert found.raw["email"] == "runner@example.org"
    assert "example.org" not in repr(found)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"exp": NOON - 10}, "EXPIRED"),
        ({"exp": 0}, "EXPIRED"),
        ({"exp": None}, "MALFORMED_TOKEN"),
        ({"exp": "1793534400"}, "MALFORMED_TOKEN"),
        ({"exp": True}, "MALFORMED_TOKEN"),
        ({"exp": 1e300}, "MALFORMED_TOKEN"),
        ({"exp": -1}, "MALFORMED_TOKEN"),
        ({"nbf": NOON + 11}, "MALFORMED_TOKEN"),
        ({"iat": NOON + 11}, "MALFORMED_TOKEN"),
        ({"aud": "anon"}, "WRONG_AUDIENCE"),
        ({"aud": None}, "WRONG_AUDIENCE"),
        ({"aud": ["other"]}, "WRONG_AUDIENCE"),
        ({"aud": {"authenticated": 1}}, "WRONG_AUDIENCE"),
        ({"iss": "https://other.example/auth/v1"}, "WRONG_ISSUER"),
        ({"iss": None}, "WRONG_ISSUER"),
        ({"iss": f"{ISSUER}/"}, "WRONG_ISSUER"),
        ({"sub": None}, "MALFORMED_TOKEN"),
        ({"sub": "me"}, "MALFORMED_TOKEN"),
        ({"sub": f"urn:uuid:{USER}"}, "MALFORMED_TOKEN"),
        ({"sub": USER.replace("-", "")}, "MALFORMED_TOKEN"),
        ({"role": None}, "MALFORMED_TOKEN"),
        ({"user_metadata": {"name": "a\0b"}}, "MALFORMED_TOKEN"),
    ],
)
async def test_each_claim_is_checked(changes: dict[str, Any], code: str) -> None:
    assert await refusal(shared(claims(**changes))) == code


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": NOON - 9},
        {"nbf": NOON + 10},
        {"iat": NOON + 9.5},
        {"aud": ["other", "authenticated"]},
        {"sub": USER.upper()},
        {"iat": None},
    ],
)
async def test_clocks_ten_seconds_apart_and_other_spellings_pass(changes: dict[str, Any]) -> None:
    assert str((await tokens().check(shared(claims(**changes)))).subject) == USER


@pytest.mark.parametrize("role", ["anon", "service_role", "postgres", ""])
async def test_a_token_of_nobody_or_of_the_service_is_not_one_of_a_person(role: str) -> None:
    with pytest.raises(WrongRole) as refused:
        await tokens().check(shared(claims(role=role, sub=None)))
    assert refused.value.problem_code == "WRONG_ROLE"


async def test_a_token_expires_by_the_clock() -> None:
    clock = HandClock()
    check, token = tokens(clock), shared(claims())
    clock.move(3609)
    await check.check(token)
    clock.move(1)
    assert await refusal(token, check) == "EXPIRED"


@pytest.mark.parametrize(
    "token",
    ["", ".", "..", "a.b", "a.b.c.d", "....", "é.é.é", "a b.c.d", "\0.\0.\0", "Bearer x.y.z"],
)
async def test_what_is_no_token_is_malformed(token: str) -> None:
    with pytest.raises(TokenRefused) as refused:
        await tokens().check(token)
    assert refused.value.problem_code == "MALFORMED_TOKEN"


@pytest.mark.parametrize("payload", [b"", b"[]", b"1", b'"x"', b"{", b'{"exp": NaN}', b"\xff"])
async def test_claims_that_are_no_object_are_malformed(payload: bytes) -> None:
    assert await refusal(shared(payload)) == "MALFORMED_TOKEN"


async def test_a_token_that_is_too_long_is_not_read() -> None:
    assert await refusal(shared(claims(note="x" * MAX_TOKEN))) == "MALFORMED_TOKEN"


def by_hand(header: object, signature: bytes = b"") -> str:
    parts = (json.dumps(header).encode(), json.dumps(claims()).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


@pytest.mark.parametrize("name", ["none", "None", "NONE", "", "hs256", "HS512", "HS384", "PS256"])
async def test_no_other_algorithm_is_accepted(name: str) -> None:
    assert await refusal(by_hand({"alg": name})) == "BAD_SIGNATURE"
    assert await refusal(by_hand({"alg": name}, b"x" * 32)) == "BAD_SIGNATURE"


@pytest.mark.parametrize("header", [{}, {"alg": None}, {"alg": ["HS256"]}, [], "HS256", 1])
async def test_a_header_without_an_algorithm_is_malformed(header: object) -> None:
    assert await refusal(by_hand(header)) == "MALFORMED_TOKEN"


async def test_an_extension_that_must_be_understood_is_refused() -> None:
    token = by_hand({"alg": "HS256", "crit": ["exp"], "exp": NOON})
    assert await refusal(token) == "MALFORMED_TOKEN"


async def test_a_key_inside_the_token_is_not_believed() -> None:
    key = ECKey.generate_key("P-256")
    header = {"alg": "ES256", "jwk": key.as_dict(private=False), "jku": "http://127.0.0.1:1/"}
    assert await refusal(sign(claims(), key, header)) == "BAD_SIGNATURE"


async def test_another_secret_is_another_signature() -> None:
    assert await refusal(shared(claims(), SECRET + "!")) == "BAD_SIGNATURE"
    assert await refusal(by_hand({"alg": "HS256"})) == "BAD_SIGNATURE"


@given(data=st.data())
async def test_a_token_that_was_changed_anywhere_is_refused(data: st.DataObject) -> None:
    token = shared(claims())
    at = data.draw(st.integers(0, len(token)))
    to = min(len(token), at + data.draw(st.integers(0, 3)))
    changed = token[:at] + data.draw(st.text(max_size=3)) + token[to:]
    if changed == token:
        return
    with pytest.raises(CausewayError) as refused:
        await tokens().check(changed)
    assert isinstance(refused.value, TokenRefused)
    assert refused.value.problem_code in {"MALFORMED_TOKEN", "BAD_SIGNATURE"}


async def test_a_token_has_one_spelling() -> None:
    """Decoders skip what is no base64, and the spare bits of a last letter."""
    token = shared(claims())
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    # 32 bytes of signature leave two spare bits in the last letter.
    twins = [token[:-1] + letters[letters.index(token[-1]) ^ bits] for bits in (1, 2, 3)]
    for other in (*twins, token + "=", token + "\n", token.replace(".", ".!", 1), f" {token}"):
        assert await refusal(other) == "MALFORMED_TOKEN"


@given(
    payload=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(list(claims())), inner),
    )
)
async def test_whatever_a_signed_token_says_is_judged_never_a_fault(payload: Any) -> None:
    body = json.dumps(claims() | payload if isinstance(payload, dict) else payload).encode()
    try:
        found = await tokens().check(shared(body))
    except (TokenRefused, WrongRole):
        return
    assert found.role == "authenticated"


@pytest.mark.parametrize(
    ("secret", "wrong"),
    [
        ("short", "5 bytes"),
        ("-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE", "another kind"),
        ('{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ"}', "JSON Web Key"),
    ],
)
def test_a_secret_that_is_none_is_refused_at_the_start(secret: str, wrong: str) -> None:
    with pytest.raises(ConfigurationError, match=wrong) as refused:
        Tokens(secret=SecretStr(secret))
    assert secret not in str(refused.value)


def test_what_could_never_be_accepted_is_said_at_the_start() -> None:
    with pytest.raises(ConfigurationError, match="no token could be accepted"):
        Tokens()
    with pytest.raises(ConfigurationError, match="RS256 needs a JWKS address"):
        Tokens(secret=SecretStr(SECRET), algorithms=["HS256", "RS256"])
    with pytest.raises(ConfigurationError, match="'none' is not one of"):
        Tokens(secret=SecretStr(SECRET), algorithms=["none"])


def test_a_secret_is_in_no_repr() -> None:
    assert SECRET not in repr(tokens())
    assert SECRET not in repr(vars(tokens()))
    assert isinstance(tokens()._secret, OctKey)
