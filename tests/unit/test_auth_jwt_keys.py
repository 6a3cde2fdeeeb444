from __future__ import annotations

import asyncio
import base64
import hmac
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import httpx2
import pytest
from fastapi import Depends, FastAPI
from joserfc.errors import SecurityWarning
from joserfc.jwk import OctKey, RSAKey
from pydantic import SecretStr

from causeway.auth.claims import Claims, TokenRefused
from causeway.auth.jwks import RemoteKeys
from causeway.auth.jwt import Tokens, user_from
from causeway.base.errors import ProviderUnavailable
from causeway.runtime import problems
from tests.connections import HandClock
from tests.token_issuer import NOON, SECRET, USER, Issuer, claims, shared, sign, token_issuer


@dataclass
class World:
    issuer: Issuer
    clock: HandClock
    keys: RemoteKeys
    tokens: Tokens

    async def code(self, token: str) -> str:
        with pytest.raises(TokenRefused) as refused:
            await self.tokens.check(token)
        return str(refused.value.problem_code)


@pytest.fixture
async def world() -> AsyncGenerator[World]:
    clock = HandClock()
    async with token_issuer() as issuer:
        issuer.add("first")
        keys = RemoteKeys(issuer.url, clock=clock)
        yield World(issuer, clock, keys, Tokens(keys=keys, clock=clock))
        await keys.aclose()


@pytest.mark.parametrize("algorithm", ["ES256", "RS256", "EdDSA"])
async def test_a_token_is_checked_with_the_key_it_names(world: World, algorithm: str) -> None:
    world.issuer.add("mine", algorithm)
    found = await world.tokens.check(world.issuer.token("mine"))
    assert str(found.subject) == USER
    _, key = world.issuer.keys["mine"]
    _, other = world.issuer.keys["first"]
    header = {"alg": algorithm, "kid": "first"}
    assert await world.code(sign(claims(), key, header)) == "BAD_SIGNATURE"
    header = {"alg": "ES256", "kid": "mine"}
    assert await world.code(sign(claims(), other, header)) == "BAD_SIGNATURE"


async def test_a_thousand_tokens_ask_the_issuer_once(world: World) -> None:
    token = world.issuer.token("first")
    for _ in range(100):
        await world.tokens.check(token)
    world.clock.move(599)
    await world.tokens.check(token)
    assert world.issuer.asked == 1


async def test_keys_are_fetched_again_after_ten_minutes(world: World) -> None:
    token = world.issuer.token("first")
    await world.tokens.check(token)
    del world.issuer.keys["first"]
    world.clock.move(599)
    assert str((await world.tokens.check(token)).subject) == USER
    world.clock.move(1)
    assert await world.code(token) == "UNKNOWN_KEY"
    assert world.issuer.asked == 2


async def test_a_rotation_is_noticed_with_the_first_token(world: World) -> None:
    await world.tokens.check(world.issuer.token("first"))
    world.issuer.add("second", "EdDSA")
    world.clock.move(30)
    await world.tokens.check(world.issuer.token("second"))
    await world.tokens.check(world.issuer.token("first"))
    assert world.issuer.asked == 2


async def test_invented_key_ids_make_us_ask_once_in_thirty_seconds(world: World) -> None:
    _, key = world.issuer.keys["first"]
    await world.tokens.check(world.issuer.token("first"))
    for second in range(61):
        invented = sign(claims(), key, {"alg": "ES256", "kid": f"invented-{second}"})
        assert await world.code(invented) == "UNKNOWN_KEY"
        world.clock.move(1)
    assert world.issuer.asked == 3


async def test_of_many_at_once_one_asks_and_the_others_wait(world: World) -> None:
    world.issuer.gate.clear()
    token = world.issuer.token("first")
    given_up = asyncio.create_task(world.tokens.check(token))
    waiting = [asyncio.create_task(world.tokens.check(token)) for _ in range(50)]
    async with asyncio.timeout(5):
        while not world.issuer.asked:
            await asyncio.sleep(0.01)
    given_up.cancel()  # who goes away takes nothing from the others
    world.issuer.gate.set()
    found = await asyncio.gather(*waiting)
    assert {str(one.subject) for one in found} == {USER}
    assert world.issuer.asked == 1


async def test_without_the_endpoint_kept_keys_go_on_for_a_day(world: World) -> None:
    token = world.issuer.token("first", claims(exp=NOON + 200_000))
    await world.tokens.check(token)
    world.issuer.status, world.issuer.body = 500, b"oops"
    world.clock.move(86_399)
    await world.tokens.check(token)
    state = world.tokens.keys_state
    assert state is not None
    assert (state.is_failing, state.keys) == (True, 1)
    world.clock.move(2)
    with pytest.raises(ProviderUnavailable):
        await world.tokens.check(token)
    world.issuer.status, world.issuer.body = 200, None
    world.clock.move(30)
    await world.tokens.check(token)
    assert not world.keys.state.is_failing


async def test_a_key_that_cannot_be_asked_about_is_not_called_unknown(world: World) -> None:
    await world.tokens.check(world.issuer.token("first"))
    world.issuer.add("second")
    world.issuer.status, world.issuer.body = 503, b""
    world.clock.move(30)
    with pytest.raises(ProviderUnavailable):
        await world.tokens.check(world.issuer.token("second"))


@pytest.mark.parametrize("body", [b"", b"[]", b'{"keys": 1}', b"<html>", b"x" * 300_000])
async def test_an_answer_that_is_no_key_set_takes_no_key_away(world: World, body: bytes) -> None:
    await world.tokens.check(world.issuer.token("first"))
    world.issuer.body = body
    world.clock.move(600)
    await world.tokens.check(world.issuer.token("first"))
    assert world.keys.state.is_failing


async def test_an_endpoint_that_never_answered_is_no_verdict() -> None:
    keys = RemoteKeys("http://127.0.0.1:9/jwks.json")
    tokens = Tokens(keys=keys)
    async with token_issuer() as issuer:
        issuer.add("first")
        with pytest.raises(ProviderUnavailable):
            await tokens.check(issuer.token("first"))
    await keys.aclose()


async def test_a_public_key_is_no_secret(world: World) -> None:
    """Algorithm confusion: HS256 with what everybody can read as its key."""
    world.issuer.add("rsa", "RS256")
    both = Tokens(secret=SecretStr(SECRET), keys=world.keys, clock=world.clock)
    _, key = world.issuer.keys["rsa"]
    assert isinstance(key, RSAKey)
    pem = key.as_pem(private=False)
    for public in (pem, pem.strip(), str(world.issuer.public("rsa")["n"]).encode()):
        # By hand: the library refuses to sign with such a key.
        header = b'{"alg":"HS256","kid":"rsa"}'
        signed = f"{_base64(header)}.{_base64(json.dumps(claims()).encode())}"
        forged = f"{signed}.{_base64(hmac.digest(public, signed.encode(), 'sha256'))}"
        assert await world.code(forged) == "BAD_SIGNATURE"
        with pytest.raises(TokenRefused, match="signature is wrong"):
            await both.check(forged)
    await both.check(shared(claims()))
    await both.check(world.issuer.token("rsa"))


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


async def test_keys_that_are_not_for_checking_signatures_are_not_used(world: World) -> None:
    secret = OctKey.import_key(SECRET)
    with pytest.warns(SecurityWarning):
        weak = dict(RSAKey.generate_key(1024, auto_kid=False).as_dict(private=False))
    encrypting = world.issuer.public("first") | {"kid": "enc", "use": "enc"}
    signing = world.issuer.public("first") | {"kid": "ops", "key_ops": ["sign"]}
    other = world.issuer.public("first") | {"kid": "alg", "alg": "ES384"}
    world.issuer.others = [
        {"kty": "oct", "k": _base64(SECRET.encode()), "kid": "oct", "alg": "HS256"},
        weak | {"kid": "weak"},
        encrypting,
        signing,
        other,
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "broken"},
        {"kid": "empty"},
    ]
    await world.tokens.check(world.issuer.token("first"))
    assert world.keys.state.keys == 1
    assert await world.code(sign(claims(), secret, {"alg": "HS256", "kid": "oct"})) == (
        "BAD_SIGNATURE"
    )
    for key_id in ("enc", "ops", "alg"):
        token = sign(claims(), world.issuer.keys["first"][1], {"alg": "ES256", "kid": key_id})
        assert await world.code(token) == "UNKNOWN_KEY"
    no_kid = sign(claims(), world.issuer.keys["first"][1], {"alg": "ES256"})
    assert await world.code(no_kid) == "UNKNOWN_KEY"


async def test_a_route_is_told_who_asks_and_a_client_why_not(world: World) -> None:
    api = FastAPI()
    problems.install(api)
    everybody = user_from(lambda _connection: world.tokens)
    signed_in = user_from(lambda _connection: world.tokens, anonymous=False)

    async def me(user: Claims = Depends(everybody)) -> str:
        return str(user.subject)

    async def change(user: Claims = Depends(signed_in)) -> str:
        return str(user.subject)

    api.get("/me")(me)
    api.post("/change")(change)
    transport = httpx2.ASGITransport(api)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:

        async def asked(header: str | None, path: str = "/me") -> httpx2.Response:
            headers = {} if header is None else {"Authorization": header}
            method = "GET" if path == "/me" else "POST"
            return await client.request(method, path, headers=headers)

        good = world.issuer.token("first")
        assert (await asked(f"Bearer {good}")).json() == USER
        for header in (None, "", "Basic abc", "Bearer"):
            answer = await asked(header)
            assert answer.status_code == 401
            assert answer.json()["code"] == "MISSING_TOKEN"
            assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
        for token, status, code in (
            (good[:-3] + "AAA", 401, "BAD_SIGNATURE"),
            (world.issuer.token("first", claims(exp=1)), 401, "EXPIRED"),
            (world.issuer.token("first", claims(role="service_role")), 403, "WRONG_ROLE"),
        ):
            answer = await asked(f"Bearer {token}")
            assert (answer.status_code, answer.json()["code"]) == (status, code)
            assert token not in answer.text
        nameless = world.issuer.token("first", claims(is_anonymous=True))
        assert (await asked(f"Bearer {nameless}")).status_code == 200
        assert (await asked(f"Bearer {nameless}", "/change")).json()["code"] == "SIGN_IN_NEEDED"
    schemes = api.openapi()["components"]["securitySchemes"]
    assert schemes["HTTPBearer"]["bearerFormat"] == "JWT"
