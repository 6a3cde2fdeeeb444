"""Telling providers that a token is not used any more, for as long as they do not listen."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import Row, text

from causeway.base.errors import CausewayError, PermanentError, TransientError
from causeway.connections.access import Provider
from causeway.connections.errors import CredentialRefused, NoData
from causeway.connections.vault import revocation_place
from causeway.store.encryption import Keyring, Undecryptable
from causeway.store.engine import Database

_log = structlog.get_logger(__name__)

#: How long one attempt keeps other processes away, seconds.
_CLAIM_S = 120.0
_FIRST_PAUSE_S = 60.0
_LONGEST_PAUSE_S = 6 * 3600.0
#: After so many attempts, in about five days, a token is given up: it must not be kept for ever.
MOST_ATTEMPTS = 28


@dataclass(frozen=True)
class Revoked:
    """What one pass did."""

    done: int = 0
    later: int = 0
    given_up: int = 0


async def revoke_due(
    database: Database,
    keyring: Keyring,
    app: str,
    providers: Mapping[str, Provider],
    *,
    most: int = 50,
) -> Revoked:
    """Revoke the tokens of `app` that are due; two processes at once take different ones."""
    counts = {"done": 0, "later": 0, "given_up": 0}
    for row in await _claim(database, app, most):
        counts[await _revoke(database, keyring, app, providers, row)] += 1
    return Revoked(**counts)


async def _claim(database: Database, app: str, most: int) -> list[Row[Any]]:
    async with database.transaction() as session:
        rows = await session.execute(
            text(
                """
                UPDATE causeway.connection_revocations SET attempts = attempts + 1,
                    due_at = clock_timestamp() + make_interval(secs => :claim)
                WHERE id IN (
                    SELECT id FROM causeway.connection_revocations
                    WHERE app = :app AND due_at <= clock_timestamp()
                    ORDER BY due_at LIMIT :most FOR UPDATE SKIP LOCKED
                )
                RETURNING id, provider, token, attempts
                """
            ),
            {"app": app, "most": most, "claim": _CLAIM_S},
        )
        return list(rows)


async def _revoke(
    database: Database,
    keyring: Keyring,
    app: str,
    providers: Mapping[str, Provider],
    row: Row[Any],
) -> str:
    provider = providers.get(row.provider)
    try:
        if provider is not None:
            token = keyring.decrypt(row.token, revocation_place(row.id, app, row.provider))
            await provider.revoke(token)
    except (CredentialRefused, NoData):
        pass  # it is worth nothing already
    except Undecryptable as error:
        return await _give_up(database, row, error)
    except CausewayError as error:
        if row.attempts >= MOST_ATTEMPTS or isinstance(error, PermanentError):
            return await _give_up(database, row, error)
        pause_s = min(_FIRST_PAUSE_S * 2 ** min(row.attempts - 1, 20), _LONGEST_PAUSE_S)
        asked_s = error.retry_after_s if isinstance(error, TransientError) else None
        await _later(database, row.id, max(pause_s, asked_s or 0), error.message)
        return "later"
    await _forget(database, row.id)
    return "done"


async def _give_up(database: Database, row: Row[Any], error: CausewayError) -> str:
    _log.error("token_not_revoked", provider=row.provider, why=error.message, attempts=row.attempts)
    await _forget(database, row.id)
    return "given_up"


async def _later(database: Database, id_: uuid.UUID, seconds: float, why: str) -> None:
    async with database.transaction() as session:
        await session.execute(
            text(
                "UPDATE causeway.connection_revocations SET last_error = :why, "
                "due_at = clock_timestamp() + make_interval(secs => :seconds) WHERE id = :id"
            ),
            {"id": id_, "seconds": seconds, "why": why},
        )


async def _forget(database: Database, id_: uuid.UUID) -> None:
    async with database.transaction() as session:
        await session.execute(
            text("DELETE FROM causeway.connection_revocations WHERE id = :id"), {"id": id_}
        )
