"""Nonces that are given out for one action of one wallet, and come back once.

What several machines must agree on, the time included, is decided by the database.
"""

from __future__ import annotations

import re
import secrets
import string
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from eth_utils.address import to_checksum_address
from sqlalchemy import text as sql
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.base.errors import SignatureInvalid
from causeway.store.engine import Database

#: Seconds a nonce is good for.
LIFETIME_S = 600.0

_ALPHABET = string.ascii_letters + string.digits
_NONCE = re.compile(r"[A-Za-z0-9]{1,100}")
_STALE = "this request is unknown, was made already or has expired: ask for a new challenge"


@dataclass(frozen=True)
class Nonce:
    """A nonce as it was given out: 24 letters and digits."""

    nonce: str
    issued_at: datetime
    expires_at: datetime


class Nonces:
    """Gives out nonces and takes them back."""

    def __init__(self, database: Database, lifetime_s: float = LIFETIME_S) -> None:
        self._database = database
        self.lifetime_s = lifetime_s

    async def new(self, action: str, address: str, payload_sha256: str | None) -> Nonce:
        """Make a nonce for `action` of the wallet `address` (EIP-55), bound to a payload or not."""
        nonce = "".join(secrets.choice(_ALPHABET) for _ in range(24))
        async with self._database.transaction() as session:
            await _clear(session)
            row = (
                await session.execute(
                    sql(
                        """
                        INSERT INTO causeway.auth_challenges
                            (nonce, action, address, payload_sha256, issued_at, expires_at)
                        VALUES (:nonce, :action, :address, :digest,
                            now(), now() + make_interval(secs => :seconds))
                        RETURNING issued_at, expires_at
                        """
                    ),
                    {
                        "nonce": nonce,
                        "action": action,
                        "address": address,
                        "digest": payload_sha256,
                        "seconds": self.lifetime_s,
                    },
                )
            ).one()
        return Nonce(nonce, row.issued_at, row.expires_at)

    async def look(self, nonce: str, action: str, address: str, payload: bytes | None) -> datetime:
        """Return the database's time when a nonce is good for all this, without using it up.

        Raises `SignatureInvalid` when it is not.
        """
        if _NONCE.fullmatch(nonce) is None:
            raise SignatureInvalid(_STALE)  # and PostgreSQL takes no NUL
        async with self._database.transaction() as session:
            row = (
                await session.execute(
                    sql(
                        """
                        SELECT payload_sha256, clock_timestamp() AS now
                        FROM causeway.auth_challenges
                        WHERE nonce = :nonce AND action = :action AND address = :address
                            AND consumed_at IS NULL AND expires_at > clock_timestamp()
                        """
                    ),
                    {"nonce": nonce, "action": action, "address": address},
                )
            ).one_or_none()
        if row is None:
            raise SignatureInvalid(_STALE)
        if row.payload_sha256 is not None and (
            payload is None or sha256(payload).hexdigest() != row.payload_sha256
        ):
            raise SignatureInvalid("the challenge was issued for something else (sha256)")
        return row.now

    async def consume(
        self, session: AsyncSession, nonce: str, *, action: str, address: str
    ) -> None:
        """Use up a nonce that was issued for `action` of the wallet `address`.

        Of any number of callers, one passes; the others wait for its commit. Raises
        `SignatureInvalid` when the nonce is unknown, used, expired, or for something else.
        """
        used = await session.scalar(
            sql(
                """
                UPDATE causeway.auth_challenges SET consumed_at = clock_timestamp()
                WHERE nonce = :nonce AND action = :action AND address = :address
                    AND consumed_at IS NULL AND expires_at > clock_timestamp()
                RETURNING true
                """
            ),
            {"nonce": nonce, "action": action, "address": to_checksum_address(address)},
        )
        if not used:
            raise SignatureInvalid(_STALE)


async def _clear(session: AsyncSession) -> None:
    # Nobody else clears the table: every nonce takes some old ones away.
    await session.execute(
        sql(
            """
            DELETE FROM causeway.auth_challenges WHERE nonce IN (
                SELECT nonce FROM causeway.auth_challenges
                WHERE expires_at < clock_timestamp() - interval '1 hour'
                LIMIT 20 FOR UPDATE SKIP LOCKED
            )
            """
        )
    )
