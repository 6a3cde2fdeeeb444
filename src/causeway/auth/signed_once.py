"""Fixed messages with a timestamp that wallets sign, each accepted once.

For interfaces whose message is given, with a time where a nonce should be:

    accepted = await signed_once.verify(
        chain,
        wallet=wallet,
        messages=[f"Connect OAuth provider github to wallet {wallet} at {timestamp}"],
        timestamp=timestamp,
        signature=signature,
    )
    async with database.transaction() as session:
        await signed_once.use(session, accepted)
        ...what was asked for...

`accept` does both at once. A message binds the wallet and the time because it contains them: the
caller builds it, never the client. Where a new interface can be chosen, `auth.challenge` is better.
"""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from sqlalchemy import text as sql
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.auth.ecdsa import recover_address
from causeway.auth.wallet import (
    MAX_SIGNATURE_BYTES,
    CallableChain,
    Verdict,
    address_bytes,
    personal_digest,
    verify,
)
from causeway.base.clock import SYSTEM_CLOCK, Clock
from causeway.base.errors import (
    Field,
    InvalidInput,
    NotAuthenticated,
    ProviderUnavailable,
    SignatureInvalid,
)
from causeway.store.engine import Database

#: How far a timestamp may be from our clock, either way.
TOLERANCE_S = 300

#: Beyond the time in which a message could be accepted again: how far clocks may be apart.
_CLOCKS_APART_S = 3_600


@dataclass(frozen=True)
class AcceptedMessage:
    """A message with a good signature that is not used up yet."""

    #: 0x and 40 lower-case digits.
    wallet: str
    #: The spelling that was signed.
    message: str = field(repr=False)


class SignedOnce:
    """Checks signed messages; what was used is shared by all processes of the database."""

    def __init__(
        self, database: Database, *, clock: Clock = SYSTEM_CLOCK, tolerance_s: int = TOLERANCE_S
    ) -> None:
        self._database = database
        self._clock = clock
        self.tolerance_s = tolerance_s

    async def accept(
        self,
        chain: CallableChain | None,
        *,
        wallet: str,
        messages: Sequence[str],
        timestamp: int,
        signature: str,
    ) -> AcceptedMessage:
        """Check a signed message as `verify` does and use it up at once."""
        accepted = await self.verify(
            chain, wallet=wallet, messages=messages, timestamp=timestamp, signature=signature
        )
        async with self._database.transaction() as session:
            await self.use(session, accepted)
        return accepted

    async def verify(
        self,
        chain: CallableChain | None,
        *,
        wallet: str,
        messages: Sequence[str],
        timestamp: int,
        signature: str,
    ) -> AcceptedMessage:
        """Check in all but its use that `wallet` signed one of `messages` (spellings of one).

        `timestamp` is the one in the messages, Unix seconds; `signature` hex, with or without 0x.
        In this order: `NotAuthenticated` for a time too far from now, `SignatureInvalid` for what
        is no signature by its form, `NotAuthenticated` when the wallet did not sign, and
        `ProviderUnavailable` when a contract wallet could not be asked: nothing is decided then.
        """
        if abs(self._clock.now().timestamp() - timestamp) > self.tolerance_s:
            raise NotAuthenticated("Signature timestamp is too old or in the future")
        raw = signature_bytes(signature)
        try:
            signer = address_bytes(wallet)
        except ValueError:
            allowed = "an address: 0x and 40 hexadecimal digits"
            raise InvalidInput(fields=[Field("wallet", wallet[:50], allowed)]) from None
        spellings = [text for text in dict.fromkeys(messages) if _can_be_signed(text)]
        # Every spelling here first: only what no key signed is asked of a contract.
        for text in spellings:
            if recover_address(personal_digest(text), raw) == signer:
                return AcceptedMessage(wallet.lower(), text)
        silent = False
        for text in spellings:
            verdict = await verify(chain, wallet, text, raw)
            if verdict is Verdict.VALID:
                return AcceptedMessage(wallet.lower(), text)
            silent = silent or verdict is Verdict.UNKNOWN
        if silent:
            raise ProviderUnavailable("the wallet's signature cannot be checked now; try again")
        raise NotAuthenticated("Signature does not match wallet address")

    async def use(self, session: AsyncSession, accepted: AcceptedMessage) -> None:
        """Use a message up, within the caller's transaction.

        Of any number of callers, one passes; the others wait for its commit and get
        `NotAuthenticated`. When its transaction is rolled back, the message is as good as before.
        """
        await self._clear(session)
        first = await session.scalar(
            sql(
                """
                INSERT INTO causeway.auth_signed_messages (wallet, message_sha256)
                VALUES (:wallet, :message) ON CONFLICT DO NOTHING RETURNING true
                """
            ),
            {
                "wallet": address_bytes(accepted.wallet),
                "message": sha256(accepted.message.encode()).digest(),
            },
        )
        if not first:
            raise NotAuthenticated("Signature was already used")

    async def _clear(self, session: AsyncSession) -> None:
        # Nobody else clears the table: every use takes some old ones away. A message can be
        # accepted from `tolerance_s` before its timestamp to as long after it.
        await session.execute(
            sql(
                """
                DELETE FROM causeway.auth_signed_messages WHERE (wallet, message_sha256) IN (
                    SELECT wallet, message_sha256 FROM causeway.auth_signed_messages
                    WHERE used_at < clock_timestamp() - make_interval(secs => :seconds)
                    LIMIT 20 FOR UPDATE SKIP LOCKED
                )
                """
            ),
            {"seconds": 2 * self.tolerance_s + _CLOCKS_APART_S},
        )


def signature_bytes(signature: str) -> bytes:
    """Return what a signature in hex says; `SignatureInvalid` tells what is wrong with its form."""
    digits = signature[2:] if signature[:2] in ("0x", "0X") else signature
    if not signature:
        problem = "it is empty"
    elif len(digits) > 2 * MAX_SIGNATURE_BYTES:
        problem = f"more than {MAX_SIGNATURE_BYTES:,} bytes"
    elif len(digits) % 2:
        problem = "an odd number of hexadecimal digits"
    else:
        try:
            return binascii.unhexlify(digits)
        except ValueError:
            problem = "not hexadecimal"
    raise SignatureInvalid(f"Invalid signature format: {problem}")


def _can_be_signed(text: str) -> bool:
    # Half a surrogate pair, from a path that was no UTF-8, is no text.
    return not any("\ud800" <= character <= "\udfff" for character in text)
