"""Messages with a timestamp that count once, whoever sends them how often, from wherever."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from causeway.auth.signed_once import SignedOnce, signature_bytes
from causeway.base.errors import (
    CausewayError,
    InvalidInput,
    NotAuthenticated,
    ProviderUnavailable,
    SignatureInvalid,
)
from causeway.runtime.problems import status_of
from causeway.store.engine import Database
from tests.connections import HandClock

WALLET = Account.from_key("0x" + "11" * 32)
STRANGER = Account.from_key("0x" + "22" * 32)
ADDRESS = WALLET.address.lower()
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def connect(timestamp: int, provider: str = "github", wallet: str = ADDRESS) -> str:
    return f"Connect OAuth provider {provider} to wallet {wallet} at {timestamp}"


def sign(message: str, by: Any = WALLET) -> str:
    return "0x" + bytes(by.sign_message(encode_defunct(text=message)).signature).hex()


class Chain:
    """A chain that gives one answer, and counts who asks."""

    def __init__(self, answer: bytes | CausewayError) -> None:
        self.answer = answer
        self.asked = 0

    async def call(self, to: str | None, data: bytes) -> bytes:
        self.asked += 1
        if isinstance(self.answer, CausewayError):
            raise self.answer
        return self.answer


YES = bytes.fromhex("1626ba7e").ljust(32, b"\0")


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def once(database: Database, clock: HandClock) -> SignedOnce:
    return SignedOnce(database, clock=clock)


def at(clock: HandClock, seconds: float = 0) -> int:
    return round(clock.now().timestamp() + seconds)


async def refused(
    once: SignedOnce, timestamp: int, signature: str, **changed: Any
) -> tuple[int, str]:
    """Return with which status and words a message is refused."""
    asked: dict[str, Any] = {
        "chain": Chain(b""),
        "wallet": WALLET.address,
        "messages": [connect(timestamp)],
        "timestamp": timestamp,
        "signature": signature,
    } | changed
    with pytest.raises(CausewayError) as refusal:
        await once.accept(asked.pop("chain"), **asked)
    return status_of(refusal.value), refusal.value.message


async def test_a_signed_message_is_accepted_once(once: SignedOnce, clock: HandClock) -> None:
    now = at(clock)
    message, chain = connect(now), Chain(b"")
    asked: dict[str, Any] = {"messages": [message], "timestamp": now, "signature": sign(message)}
    accepted = await once.accept(chain, wallet=WALLET.address, **asked)
    assert (accepted.wallet, accepted.message) == (ADDRESS, message)
    assert message not in repr(accepted)
    used = (401, "Signature was already used")
    # Not again, not in another spelling of the wallet, of the signature, or in another form.
    assert await refused(once, now, sign(message)) == used
    assert await refused(once, now, sign(message), wallet=ADDRESS) == used
    assert await refused(once, now, sign(message)[2:].upper()) == used
    raw = bytes.fromhex(sign(message)[2:])
    compact = raw[:32] + bytes((raw[32] | (raw[64] - 27) << 7,)) + raw[33:64]
    assert await refused(once, now, "0x" + compact.hex()) == used
    assert await refused(once, now, "0x" + (raw[:64] + bytes((raw[64] - 27,))).hex()) == used
    both = [connect(now, "GitHub"), message]
    assert await refused(once, now, sign(message), messages=both) == used
    assert chain.asked == 0
    # Another message of the same wallet, and the same time for another wallet, are their own.
    spelled = connect(now, "GitHub")
    await once.accept(
        None, wallet=ADDRESS, messages=[message, spelled], timestamp=now, signature=sign(spelled)
    )
    later = connect(now + 1)
    await once.accept(
        None, wallet=ADDRESS, messages=[later], timestamp=now + 1, signature=sign(later)
    )
    theirs = connect(now, wallet=STRANGER.address.lower())
    await once.accept(
        None,
        wallet=STRANGER.address,
        messages=[theirs],
        timestamp=now,
        signature=sign(theirs, STRANGER),
    )


async def test_any_of_the_spellings_may_be_signed(once: SignedOnce, clock: HandClock) -> None:
    now = at(clock)
    spellings = [connect(now), connect(now, "GitHub")]
    accepted = await once.accept(
        None, wallet=ADDRESS, messages=spellings, timestamp=now, signature=sign(spellings[1])
    )
    assert accepted.message == spellings[1]
    other = sign(connect(now, "GITHUB"))
    assert await refused(once, now, other, messages=spellings) == (
        401,
        "Signature does not match wallet address",
    )
    # Half a surrogate pair is no spelling that anybody can have signed.
    assert (await refused(once, now, other, messages=["\ud800", "\udfff"]))[0] == 401


@pytest.mark.parametrize("seconds", [-300, 0, 300])
async def test_a_message_is_fresh_for_five_minutes_either_way(
    once: SignedOnce, clock: HandClock, seconds: int
) -> None:
    then = at(clock, seconds)
    message = connect(then)
    await once.accept(
        None, wallet=ADDRESS, messages=[message], timestamp=then, signature=sign(message)
    )


@pytest.mark.parametrize("seconds", [-(10**18), -301, 301, 10**18])
async def test_a_stale_message_is_refused_before_its_signature_is_looked_at(
    once: SignedOnce, clock: HandClock, seconds: int
) -> None:
    then, chain = at(clock) + seconds, Chain(YES)
    stale = (401, "Signature timestamp is too old or in the future")
    for signature in (sign(connect(then)), "no signature at all", "0x" + "00" * 20_000):
        assert await refused(once, then, signature, chain=chain) == stale
    assert chain.asked == 0
    clock.move(0.5)
    just = at(clock, -300.9)
    assert await refused(once, just, sign(connect(just))) == stale


@pytest.mark.parametrize(
    ("signature", "problem"),
    [
        ("", "it is empty"),
        ("0x123", "an odd number of hexadecimal digits"),
        ("0xzz", "not hexadecimal"),
        ("0x12 34 ", "not hexadecimal"),
        ("٠٠", "not hexadecimal"),
        ("0x" + "00" * 16_385, "more than 16,384 bytes"),
    ],
)
async def test_what_is_no_signature_by_its_form_is_a_bad_request(
    once: SignedOnce, clock: HandClock, signature: str, problem: str
) -> None:
    chain = Chain(YES)
    expected = (400, f"Invalid signature format: {problem}")
    assert await refused(once, at(clock), signature, chain=chain) == expected
    assert chain.asked == 0


def twin(signature: str) -> str:
    """The signature with the other s that the same key could have made."""
    raw = bytes.fromhex(signature[2:])
    high = ORDER - int.from_bytes(raw[32:64], "big")
    return "0x" + (raw[:32] + high.to_bytes(32, "big") + bytes((55 - raw[64],))).hex()


async def test_what_the_wallet_did_not_sign_is_refused(once: SignedOnce, clock: HandClock) -> None:
    now = at(clock)
    message = connect(now)
    for signature in (
        sign(message, STRANGER),
        sign(message + " "),
        sign(connect(now, "wakatime")),
        sign(message)[:-4],
        twin(sign(message)),
        "0x",
        "0x1234" + "6492" * 16,
    ):
        assert await refused(once, now, signature) == (
            401,
            "Signature does not match wallet address",
        )
    # None of that used it up.
    await once.accept(
        None, wallet=ADDRESS, messages=[message], timestamp=now, signature=sign(message)
    )


async def test_a_contract_wallet_is_asked_and_its_silence_is_no_verdict(
    once: SignedOnce, clock: HandClock
) -> None:
    now = at(clock)
    asked: dict[str, Any] = {"messages": [connect(now)], "timestamp": now, "signature": "0xab"}
    with pytest.raises(ProviderUnavailable):
        await once.accept(Chain(ProviderUnavailable()), wallet=ADDRESS, **asked)
    with pytest.raises(ProviderUnavailable):
        await once.accept(None, wallet=ADDRESS, **asked)
    assert (await once.accept(Chain(YES), wallet=ADDRESS, **asked)).wallet == ADDRESS
    assert await refused(once, now, "0xab", chain=Chain(YES)) == (401, "Signature was already used")


async def test_an_address_that_is_none_names_the_field(once: SignedOnce, clock: HandClock) -> None:
    now = at(clock)
    with pytest.raises(InvalidInput) as refusal:
        await once.verify(
            None, wallet="0x12", messages=[connect(now)], timestamp=now, signature="0xab"
        )
    assert [field.path for field in refusal.value.fields] == ["wallet"]


async def test_a_message_stays_good_when_what_was_asked_for_fails(
    database: Database, once: SignedOnce, clock: HandClock
) -> None:
    now = at(clock)
    message = connect(now)
    accepted = await once.verify(
        None, wallet=ADDRESS, messages=[message], timestamp=now, signature=sign(message)
    )
    async with database.sessions() as session:
        await once.use(session, accepted)
        await session.rollback()
    async with database.transaction() as session:
        await once.use(session, accepted)
    with pytest.raises(NotAuthenticated, match="already used"):
        async with database.transaction() as session:
            await once.use(session, accepted)


async def test_of_twenty_at_once_one_passes(database: Database, clock: HandClock) -> None:
    now = at(clock)
    message = connect(now)
    asked: dict[str, Any] = {"messages": [message], "timestamp": now, "signature": sign(message)}

    async def attempt() -> str:
        try:
            await SignedOnce(database, clock=clock).accept(None, wallet=ADDRESS, **asked)
        except NotAuthenticated as refusal:
            return refusal.message
        return "accepted"

    results = await asyncio.gather(*(attempt() for _ in range(20)))
    assert sorted(results) == ["Signature was already used"] * 19 + ["accepted"]


async def test_of_several_processes_one_passes(database: Database, database_url: str) -> None:
    now = int(time.time())
    message = connect(now)
    script = Path(__file__).with_name("accept_once.py")
    arguments = [database_url, ADDRESS, message, str(now), sign(message)]
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            str(script),
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    answers = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    words = sorted(out.decode().strip() for out, _ in answers)
    assert words == ["Signature was already used"] * 2 + ["accepted"]


async def rows(database: Database) -> int:
    async with database.transaction() as session:
        table = "causeway.auth_signed_messages"
        return int(await session.scalar(text(f"SELECT count(*) FROM {table}")) or 0)


async def test_rows_go_when_nobodys_clock_could_take_the_message_for_fresh(
    database: Database, once: SignedOnce, clock: HandClock
) -> None:
    async def accept(number: int) -> None:
        then = at(clock) + number
        message = connect(then)
        await once.accept(
            None, wallet=ADDRESS, messages=[message], timestamp=then, signature=sign(message)
        )

    async def age(interval: str) -> None:
        async with database.transaction() as session:
            change = f"SET used_at = clock_timestamp() - interval '{interval}'"
            await session.execute(text(f"UPDATE causeway.auth_signed_messages {change}"))

    for number in range(3):
        await accept(number)
    await age("4199 seconds")  # 2 × 300 s, and an hour for clocks that are apart
    await accept(3)
    assert await rows(database) == 4
    await age("4201 seconds")
    await accept(4)
    assert await rows(database) == 1
    # Many old ones are taken away little by little.
    async with database.transaction() as session:
        await session.execute(
            text(
                "INSERT INTO causeway.auth_signed_messages SELECT '\\x00',"
                " int4send(n), now() - interval '1 day' FROM generate_series(1, 50) AS n"
            )
        )
    await accept(5)
    assert await rows(database) == 32
    await accept(6)
    await accept(7)
    assert await rows(database) == 4


@given(st.binary(max_size=200), st.booleans(), st.booleans())
def test_any_hex_is_read_as_it_is(raw: bytes, prefixed: bool, upper: bool) -> None:
    digits = raw.hex().upper() if upper else raw.hex()
    if digits or prefixed:
        assert signature_bytes("0x" * prefixed + digits) == raw


@given(st.text(max_size=100))
def test_any_text_is_a_signature_or_refused(given_text: str) -> None:
    try:
        read = signature_bytes(given_text).hex()
    except SignatureInvalid:
        return
    assert read == given_text.lower().removeprefix("0x")
