"""Final answers in PostgreSQL, for every process and for after a restart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import structlog
from sqlalchemy import delete, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError

from causeway.chains.models import FinalAnswer
from causeway.store.engine import Database

_log = structlog.get_logger(__name__)

#: Answers are let go after so long, looked for once in so many savings.
_KEPT_DAYS = 30
_TRIMMED_EVERY = 1000


class KeptAnswers:
    """Implements `causeway.chains.cache.AnswerStore` for one chain."""

    def __init__(self, database: Database, chain_id: int) -> None:
        self._database = database
        self._chain_id = chain_id
        self._savings = 0

    async def load(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """Return those of the answers that are kept; none when the database is not there."""
        wanted = select(FinalAnswer.key, FinalAnswer.answer).where(
            FinalAnswer.chain_id == self._chain_id, FinalAnswer.key.in_(keys)
        )
        try:
            async with self._database.transaction() as session:
                return {key: answer for key, answer in await session.execute(wanted)}
        except (DBAPIError, OSError):
            return {}  # the chain can be asked

    async def save(self, answers: Mapping[bytes, bytes]) -> None:
        """Keep answers; whether that worked changes nothing for who asked."""
        rows = [
            {"chain_id": self._chain_id, "key": key, "answer": answer}
            for key, answer in sorted(answers.items())
        ]
        try:
            async with self._database.transaction() as session:
                # What is lost with the machine is asked again.
                await session.execute(text("SET LOCAL synchronous_commit TO off"))
                await session.execute(insert(FinalAnswer).on_conflict_do_nothing(), rows)
                if self._savings % _TRIMMED_EVERY == 0:
                    old = func.clock_timestamp() - text(f"interval '{_KEPT_DAYS} days'")
                    await session.execute(delete(FinalAnswer).where(FinalAnswer.kept_at < old))
                self._savings += 1
        except (DBAPIError, OSError) as error:
            _log.warning("final answers are not kept", error=type(error).__name__)
