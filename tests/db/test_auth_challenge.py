"""Challenges that count once, whoever comes how often at the same time."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct
from sqlalchemy import text

from causeway.auth.challenge import Accepted, Challenge, Challenges, sha256_uri
from causeway.base.clock import iso
from causeway.base.errors import ProviderUnavailable, SignatureInvalid
from causeway.store.engine import Database

T = TypeVar("T")

SITE = "https://glisk.example"
WALLET = Account.from_key("0x" + "11" * 32)
STRANGER = Account.from_key("0x" + "22" * 32)
PROMPT = "a lighthouse in fog – ünïcode".encode()
ACTION = "glisk.prompt"


@pytest.fixture
def challenges(database: Database) -> Challenges:
    return Challenges(database, site=SITE, chain_id=8453)


def sign(message: str, by: Any = WALLET) -> str:
    return "0x" + bytes(by.sign_message(encode_defunct(text=message)).signature).hex()


def bound(challenge: Challenge, payload: bytes = PROMPT) -> str:
    """What a client makes of a challenge given out before the payload was known."""
    return f"{challenge.text}\n- {sha256_uri(payload)}"


async def check(
    challenges: Challenges, message: str, signature: str | None = None, **changed: Any
) -> Accepted:
    expected: dict[str, Any] = {"action": ACTION, "address": WALLET.address, "payload": PROMPT}
    return await challenges.verify(None, message, signature or sign(message), **expected | changed)


async def count(database: Database, table: str) -> int:
    async with database.transaction() as session:
        return int(await session.scalar(text(f"SELECT count(*) FROM causeway.{table}")) or 0)


async def outcomes(calls: Sequence[Awaitable[T]]) -> list[T | BaseException]:
    return await asyncio.gather(*calls, return_exceptions=True)


async def test_a_signed_challenge_counts_once(database: Database, challenges: Challenges) -> None:
    digest = hashlib.sha256(PROMPT).hexdigest()
    challenge = await challenges.issue(
        ACTION, WALLET.address.lower(), "Set the prompt of your page.", payload_sha256=digest
    )
    assert f"- urn:sha256:{digest}" in challenge.text
    assert challenge.expires_at - challenge.issued_at == timedelta(minutes=10)
    accepted = await check(challenges, challenge.text)
    async with database.transaction() as session:
        await challenges.consume(session, accepted)
    with pytest.raises(SignatureInvalid, match="made already"):
        async with database.transaction() as session:
            await challenges.consume(session, accepted)
    with pytest.raises(SignatureInvalid, match="made already"):
        await check(challenges, challenge.text)


async def test_of_twenty_at_once_one_passes(database: Database, challenges: Challenges) -> None:
    message = bound(await challenges.issue(ACTION, WALLET.address, "Set the prompt."))
    signature = sign(message)
    everybody_verified = asyncio.Barrier(20)

    async def attempt() -> None:
        # Another object, as in another process: nothing is remembered but in the database.
        own = Challenges(database, site=SITE, chain_id=8453)
        accepted = await check(own, message, signature)
        await everybody_verified.wait()
        async with database.transaction() as session:
            await own.consume(session, accepted)

    results = await outcomes([attempt() for _ in range(20)])
    assert results.count(None) == 1
    assert sum(isinstance(r, SignatureInvalid) for r in results) == 19


async def test_a_nonce_stays_good_when_what_was_asked_for_fails(
    database: Database, challenges: Challenges
) -> None:
    accepted = await check(
        challenges, bound(await challenges.issue(ACTION, WALLET.address, "Set the prompt."))
    )
    async with database.sessions() as session:
        await challenges.consume(session, accepted)
        await session.rollback()
    async with database.transaction() as session:
        await challenges.consume(session, accepted)


async def test_a_client_may_write_the_text_itself(challenges: Challenges) -> None:
    challenge = await challenges.issue(ACTION, WALLET.address, "ours")
    digest = hashlib.sha256(PROMPT).hexdigest()
    head = (
        f"glisk.example wants you to sign in with your Ethereum account:\n{WALLET.address}\n\n"
        f"%s\nURI: https://glisk.example/profile?tab=author\nVersion: 1\nChain ID: 8453\n"
        f"Nonce: {challenge.nonce}\nIssued At: {iso(datetime.now(UTC))}"
    )
    in_statement = head % f"Prompt sha256:{digest}\n"
    in_resources = head % "My own words.\n" + f"\nResources:\n- sha256:{digest}"
    without_statement = head % "" + f"\nResources:\n- urn:sha256:{digest.upper()}"
    for message in (in_statement, in_resources, without_statement):
        assert (await check(challenges, message)).nonce == challenge.nonce
        assert (await check(challenges, "https://" + message)).nonce == challenge.nonce


Change = Callable[[str], str]


def swap(old: str, new: str) -> Change:
    return lambda message: message.replace(old, new, 1)


def append(end: str) -> Change:
    return lambda message: message + end


CHANGED_TEXTS = [
    (swap("glisk.example wants", "evil.example wants"), "another site"),
    (swap("glisk.example wants", "glisk.example:8443 wants"), "another site"),
    (swap("glisk.example wants", "http://glisk.example wants"), "another site"),
    (swap("URI: https://glisk.example", "URI: https://evil.example"), "URI"),
    (swap("URI: https://glisk.example", "URI: http://glisk.example"), "URI"),
    (swap("URI: https://glisk.example", "URI: https://glisk.example@evil.example"), "URI"),
    (swap("URI: https://glisk.example", "URI: urn:glisk.example"), "URI"),
    (swap("Chain ID: 8453", "Chain ID: 1"), "another chain"),
    (swap(WALLET.address, STRANGER.address), "another wallet"),
    (swap("action:glisk.prompt", "action:glisk.x"), "another action"),
    (swap(sha256_uri(PROMPT), sha256_uri(b"another prompt")), "not bound"),
    (swap(f"\n- {sha256_uri(PROMPT)}", ""), "not bound"),
    (append("\n- " + sha256_uri(b"a second prompt")), "not bound"),
    (swap("Nonce: ", "Nonce: x"), "unknown"),
    (swap("\n", "\r\n"), "not an EIP-4361 text"),
    (append("\n"), "not an EIP-4361 text"),
]
CHANGED_EXPECTATIONS: list[tuple[dict[str, Any], str]] = [
    ({"action": "glisk.x"}, "another action"),
    ({"address": STRANGER.address}, "another wallet"),
    ({"payload": b"another prompt"}, "not bound"),
    ({"payload": None}, "not bound"),
]


async def test_a_text_is_refused_for_anything_else(challenges: Challenges) -> None:
    message = bound(await challenges.issue(ACTION, WALLET.address, "Set the prompt."))
    for change, reason in CHANGED_TEXTS:
        changed = change(message)
        assert changed != message
        with pytest.raises(SignatureInvalid, match=reason):
            await check(challenges, changed)
    for expected, reason in CHANGED_EXPECTATIONS:
        with pytest.raises(SignatureInvalid, match=reason):
            await check(challenges, message, **expected)
    await check(challenges, message)


async def test_a_nonce_is_for_its_own_action_wallet_and_payload(
    database: Database, challenges: Challenges
) -> None:
    """Also where the text itself does not name them."""
    challenge = await challenges.issue("glisk.x", WALLET.address, "Link X.")
    message = bound(challenge).replace("- urn:causeway:action:glisk.x\n", "")
    with pytest.raises(SignatureInvalid, match="unknown"):
        await check(challenges, message)
    theirs = await challenges.issue(ACTION, STRANGER.address, "Set the prompt.")
    message = bound(theirs).replace(STRANGER.address, WALLET.address)
    with pytest.raises(SignatureInvalid, match="unknown"):
        await check(challenges, message)
    digest = hashlib.sha256(b"announced").hexdigest()
    announced = await challenges.issue(ACTION, WALLET.address, "Set it.", payload_sha256=digest)
    message = announced.text.replace(digest, hashlib.sha256(PROMPT).hexdigest())
    with pytest.raises(SignatureInvalid, match="issued for something else"):
        await check(challenges, message)
    for action, address in ((ACTION, WALLET.address), ("glisk.x", STRANGER.address)):
        with pytest.raises(SignatureInvalid):
            async with database.transaction() as session:
                await challenges.consume_nonce(
                    session, challenge.nonce, action=action, address=address
                )


async def test_a_wrong_signature_is_refused_and_leaves_the_nonce(challenges: Challenges) -> None:
    message = bound(await challenges.issue(ACTION, WALLET.address, "Set the prompt."))
    # Nobody to ask whether it is a contract's: that is not a "wrong signature".
    with pytest.raises(ProviderUnavailable):
        await check(challenges, message, sign(message, STRANGER))
    with pytest.raises(SignatureInvalid, match="does not belong"):
        await check(challenges, message, "0xzz")
    await check(challenges, message)


async def test_nothing_is_asked_of_a_chain_for_a_nonce_that_is_not_ours(
    challenges: Challenges,
) -> None:
    class Chain:
        async def call(self, to: str | None, data: bytes) -> bytes:
            raise AssertionError("asked")

    message = bound(await challenges.issue(ACTION, WALLET.address, "Set the prompt."))
    invented = message.replace("Nonce: ", "Nonce: 0")
    with pytest.raises(SignatureInvalid, match="unknown"):
        await challenges.verify(
            Chain(), invented, "0x1234", action=ACTION, address=WALLET.address, payload=PROMPT
        )


async def test_a_challenge_ends(database: Database, challenges: Challenges) -> None:
    brief = Challenges(database, site=SITE, chain_id=8453, lifetime_s=0)
    message = bound(await brief.issue(ACTION, WALLET.address, "Set the prompt."))
    with pytest.raises(SignatureInvalid, match="expired"):
        await check(challenges, message)

    accepted = await check(
        challenges, bound(await challenges.issue(ACTION, WALLET.address, "Set the prompt."))
    )
    async with database.transaction() as session:
        await session.execute(
            text("UPDATE causeway.auth_challenges SET expires_at = now() WHERE nonce = :nonce"),
            {"nonce": accepted.nonce},
        )
    with pytest.raises(SignatureInvalid, match="expired"):
        async with database.transaction() as session:
            await challenges.consume(session, accepted)


async def test_a_text_with_a_time_of_its_own_is_held_to_it(challenges: Challenges) -> None:
    message = bound(await challenges.issue(ACTION, WALLET.address, "Set the prompt."))
    now = datetime.now(UTC)
    expiry = next(line for line in message.splitlines() if line.startswith("Expiration"))
    past, future = iso(now - timedelta(minutes=1)), iso(now + timedelta(minutes=1))
    with pytest.raises(SignatureInvalid, match="has expired"):
        await check(challenges, message.replace(expiry, f"Expiration Time: {past}"))
    with pytest.raises(SignatureInvalid, match="not valid yet"):
        await check(challenges, message.replace(expiry, f"{expiry}\nNot Before: {future}"))
    await check(challenges, message.replace(expiry, f"{expiry}\nNot Before: {past}"))


async def test_old_challenges_do_not_pile_up(database: Database, challenges: Challenges) -> None:
    for _ in range(3):
        await challenges.issue(ACTION, WALLET.address, "Set the prompt.")
    async with database.transaction() as session:
        await session.execute(
            text("UPDATE causeway.auth_challenges SET expires_at = now() - interval '2 hours'")
        )
    await challenges.issue(ACTION, WALLET.address, "Set the prompt.")
    assert await count(database, "auth_challenges") == 1
