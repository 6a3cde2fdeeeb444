"""Typed challenges that count once, for one site, chain, contract, action, wallet and payload."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from eth_account import Account
from sqlalchemy import text

from causeway.auth.typed_challenge import AcceptedRequest, TypedChallenges
from causeway.base.errors import InvalidInput, ProviderUnavailable, SignatureInvalid
from causeway.store.engine import Database

WALLET = Account.from_key("0x" + "11" * 32)
STRANGER = Account.from_key("0x" + "22" * 32)
ACTION = "motify.appeal"
APPEAL = "I was ill – see the attached note".encode()
CONTRACT = "0x" + "c0" * 20

Make = Callable[..., TypedChallenges]


@pytest.fixture
def make(database: Database) -> Make:
    def made(**changed: Any) -> TypedChallenges:
        given: dict[str, Any] = {
            "name": "Motify",
            "site": "https://motify.example/app",
            "chain_id": 8453,
            "contract": CONTRACT,
        }
        return TypedChallenges(database, **given | changed)

    return made


@pytest.fixture
def challenges(make: Make) -> TypedChallenges:
    return make()


def sign(typed_data: dict[str, Any], by: Any = WALLET) -> str:
    return "0x" + bytes(by.sign_typed_data(full_message=typed_data).signature).hex()


async def asked(challenges: TypedChallenges, action: str = ACTION) -> dict[str, Any]:
    """Return what the wallet gets, through JSON as it does."""
    made = await challenges.issue(action, WALLET.address, "Appeal.", payload=APPEAL)
    return json.loads(json.dumps(made.typed_data))


async def check(
    challenges: TypedChallenges, typed: dict[str, Any], signature: str | None = None, **changed: Any
) -> AcceptedRequest:
    expected: dict[str, Any] = {"action": ACTION, "address": WALLET.address, "payload": APPEAL}
    expected |= changed
    return await challenges.verify(None, typed["message"], signature or sign(typed), **expected)


async def refusal(call: Awaitable[Any]) -> str:
    with pytest.raises(SignatureInvalid) as raised:
        await call
    return raised.value.message


async def test_a_signed_request_counts_once(
    database: Database, challenges: TypedChallenges
) -> None:
    typed = await asked(challenges)
    assert typed["domain"]["chainId"] == 8453
    assert typed["message"]["site"] == "https://motify.example"
    accepted = await check(challenges, typed)
    assert accepted == await check(challenges, typed, address=WALLET.address.lower())
    async with database.sessions() as session:
        await challenges.consume(session, accepted)
        await session.rollback()  # what was asked for failed: the request is good again
    barrier = asyncio.Barrier(10)

    async def attempt() -> bool:
        await check(challenges, typed)
        await barrier.wait()
        try:
            async with database.transaction() as session:
                await challenges.consume(session, accepted)
        except SignatureInvalid:
            return False
        return True

    assert sum(await asyncio.gather(*(attempt() for _ in range(10)))) == 1
    assert "made already" in await refusal(check(challenges, typed))


async def test_a_request_for_another_site_chain_or_contract_is_none_here(
    make: Make, challenges: TypedChallenges
) -> None:
    typed = await asked(challenges)
    belongs = "does not belong to this text"
    for changed, words in (
        ({"name": "M0tify"}, belongs),
        ({"chain_id": 84532}, belongs),
        ({"contract": "0x" + "c1" * 20}, belongs),
        ({"contract": None}, belongs),
        ({"site": "https://evil.example"}, "another site"),
    ):
        other = make(**changed)
        with pytest.raises((SignatureInvalid, ProviderUnavailable)) as raised:
            await check(other, typed)
        if words == belongs:  # nobody's key, and no chain to ask about a contract wallet
            assert isinstance(raised.value, ProviderUnavailable)
        else:
            assert words in raised.value.message
        # And the other way round: what was signed for them is nothing for us.
        theirs = await asked(other)
        with pytest.raises((SignatureInvalid, ProviderUnavailable)):
            await check(challenges, theirs)
    await check(challenges, typed)


async def test_a_request_is_for_its_action_wallet_and_payload(challenges: TypedChallenges) -> None:
    typed = await asked(challenges)
    elsewhere: list[tuple[dict[str, Any], str]] = [
        ({"action": "motify.forget"}, "another action"),
        ({"address": STRANGER.address}, "another wallet"),
        ({"payload": b"something else"}, "another payload"),
        ({"payload": None}, "another payload"),
    ]
    for changed, words in elsewhere:
        assert words in await refusal(check(challenges, typed, **changed))
    # A nonce of another action, in a message that says ours.
    other = await asked(challenges, "motify.forget")
    other["message"]["action"] = ACTION
    assert "unknown" in await refusal(check(challenges, other))
    # A nonce that was given out for a payload is for no other.
    bound = await challenges.issue(ACTION, WALLET.address, "Appeal.", payload=b"what was announced")
    mine = json.loads(json.dumps(bound.typed_data))
    mine["message"]["payloadSha256"] = typed["message"]["payloadSha256"]
    assert "something else" in await refusal(check(challenges, mine))
    # Without one the client adds its payload.
    free = await challenges.issue(ACTION, WALLET.address, "Appeal.")
    mine = json.loads(json.dumps(free.typed_data))
    mine["message"]["payloadSha256"] = typed["message"]["payloadSha256"]
    assert (await check(challenges, mine)).nonce == free.nonce


async def test_times_are_the_databases_and_the_texts(
    database: Database, challenges: TypedChallenges
) -> None:
    typed = await asked(challenges)
    now = typed["message"]["issuedAt"]
    for change in ({"expiresAt": now}, {"issuedAt": now + 500}, {"expiresAt": 0}):
        changed = {**typed, "message": typed["message"] | change}
        assert "expired" in await refusal(check(challenges, changed))
    # Signing a later end does not make the nonce last longer.
    longer = {**typed, "message": typed["message"] | {"expiresAt": now + 10**6}}
    async with database.transaction() as session:
        await session.execute(text("UPDATE causeway.auth_challenges SET expires_at = now()"))
    assert "expired" in await refusal(check(challenges, longer))


@pytest.mark.parametrize("nonce", ["", "x\0y", "ж" * 24, "a" * 101, "' OR 1=1"])
async def test_a_nonce_of_the_clients_invention_is_refused(
    challenges: TypedChallenges, nonce: str
) -> None:
    typed = await asked(challenges)
    typed["message"]["nonce"] = nonce
    assert "unknown" in await refusal(check(challenges, typed))


async def test_fields_that_are_missing_or_wrong_are_named(challenges: TypedChallenges) -> None:
    typed = await asked(challenges)
    signature = sign(typed)
    typed["message"]["expiresAt"] = "soon"
    del typed["message"]["statement"]
    with pytest.raises(InvalidInput) as raised:
        await check(challenges, typed, signature)
    assert {field.path for field in raised.value.fields} == {
        "message.expiresAt",
        "message.statement",
    }


async def test_a_strangers_signature_leaves_the_nonce(challenges: TypedChallenges) -> None:
    typed = await asked(challenges)
    with pytest.raises(ProviderUnavailable):  # it might be a contract's: there is no chain to ask
        await check(challenges, typed, sign(typed, STRANGER))
    assert "does not belong" in await refusal(check(challenges, typed, "0x12zz"))
    await check(challenges, typed)
