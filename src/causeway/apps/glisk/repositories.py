"""Direct repositories, one a table, each method for one need; and the unit of work they sit on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Integer, case, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.glisk.models import (
    Author,
    GenerationJob,
    Incident,
    MintEvent,
    RevealRequest,
    Token,
    UploadRecord,
)
from causeway.store.unit_of_work import UnitOfWork


@dataclass(frozen=True)
class Figures:
    """What a stretch of time was like; times to reveal in seconds, None when nothing was."""

    failed: int
    finished: int
    p50_s: float | None
    p95_s: float | None


class AuthorRepository:
    """Authors, by wallet in any case."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def get_by_wallet(self, wallet: str) -> Author | None:
        """Return the author with that wallet, whatever the case of its letters."""
        return await self._session.scalar(
            select(Author).where(func.lower(Author.wallet_address) == wallet.lower())
        )

    async def get_by_id(self, author_id: UUID) -> Author:
        """Return the author with that id, which a token's foreign key promises."""
        return await self._session.get_one(Author, author_id)

    async def ensure(self, wallet: str) -> Author:
        """Return the author with that wallet, made with no prompt when it is new."""
        await self._session.execute(
            insert(Author).values(wallet_address=wallet).on_conflict_do_nothing()
        )
        author = await self.get_by_wallet(wallet)
        if author is None:
            raise LookupError(wallet)
        return author

    async def set_prompt(self, wallet: str, prompt: str) -> None:
        """Set the prompt of later mints; tokens already minted keep theirs."""
        author = await self.ensure(wallet)
        author.prompt_text = prompt

    async def leaderboard(self, limit: int = 50) -> list[tuple[str, int]]:
        """Return (wallet, tokens) of the authors most minted from, ties by address."""
        total = func.count(Token.token_id).label("total_tokens")
        result = await self._session.execute(
            select(Author.wallet_address, total)
            .join(Token, Token.author_id == Author.id)
            .group_by(Author.wallet_address)
            .order_by(total.desc(), Author.wallet_address)
            .limit(limit)
        )
        return [(wallet, int(tokens)) for wallet, tokens in result.all()]


class TokenRepository:
    """Tokens of season 0."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def get_by_id(self, token_id: int) -> Token | None:
        """Return one token."""
        return await self._session.get(Token, token_id)

    async def get_many(self, token_ids: Sequence[int]) -> Sequence[Token]:
        """Return those of the tokens that exist, by id."""
        result = await self._session.scalars(
            select(Token).where(Token.token_id.in_(token_ids)).order_by(Token.token_id)
        )
        return result.all()

    async def page(
        self, status: str | None, limit: int, after: int | None, offset: int
    ) -> Sequence[tuple[Token, Author]]:
        """Return tokens with their authors by ascending id, after a cursor or at an offset."""
        query = select(Token, Author).join(Author, Token.author_id == Author.id)
        if status is not None:
            query = query.where(Token.status == status)
        if after is not None:
            query = query.where(Token.token_id > after)
        query = query.order_by(Token.token_id).limit(limit).offset(offset)
        return [(row[0], row[1]) for row in (await self._session.execute(query)).all()]

    async def count(self, status: str | None = None) -> int:
        """Return how many tokens there are, in one status or at all."""
        query = select(func.count()).select_from(Token)
        if status is not None:
            query = query.where(Token.status == status)
        return int(await self._session.scalar(query) or 0)

    async def of_author(self, wallet: str, offset: int, limit: int) -> tuple[Sequence[Token], int]:
        """Return an author's tokens, newest id first, and how many there are in all."""
        mine = func.lower(Author.wallet_address) == wallet.lower()
        tokens = await self._session.scalars(
            select(Token)
            .join(Author, Token.author_id == Author.id)
            .where(mine)
            .order_by(Token.token_id.desc())
            .offset(offset)
            .limit(limit)
        )
        total = await self._session.scalar(
            select(func.count())
            .select_from(Token)
            .join(Author, Token.author_id == Author.id)
            .where(mine)
        )
        return tokens.all(), int(total or 0)

    async def counts_by_status(self) -> dict[str, int]:
        """Return how many tokens stand in each status that has any."""
        rows = await self._session.execute(
            select(Token.status, func.count()).group_by(Token.status)
        )
        return {str(status): int(count) for status, count in rows.all()}

    async def figures_of(self, hours: int) -> Figures:
        """Return what the last hours were like: failed, finished, time to reveal (seconds).

        `failed` counts tokens that failed, `finished` those that failed or were revealed.
        """
        since = func.now() - text(f"interval '{int(hours)} hours'")
        seconds = func.extract("epoch", Token.revealed_at - Token.mint_timestamp)
        failed = func.count().filter(Token.status == "failed", Token.updated_at >= since)
        revealed = func.count().filter(Token.status == "revealed", Token.revealed_at >= since)
        recent = case((Token.revealed_at >= since, seconds))
        result = await self._session.execute(
            select(
                failed.label("failed"),
                (failed + revealed).cast(Integer).label("finished"),
                func.percentile_cont(0.5).within_group(recent).label("p50_s"),
                func.percentile_cont(0.95).within_group(recent).label("p95_s"),
            )
        )
        failed_count, finished, p50, p95 = result.one()
        return Figures(int(failed_count), int(finished), p50, p95)

    async def add_error(self, token_id: int, stage: str, kind: str, message: str) -> None:
        """Put one error on the token's own list, which keeps the last fifty."""
        await self._session.execute(
            text(
                """
                UPDATE glisk.tokens_s0 SET error_log = (
                    SELECT jsonb_agg(entry ORDER BY place) FROM (
                        SELECT entry, place FROM jsonb_array_elements(
                            error_log || jsonb_build_array(jsonb_build_object(
                                'at', to_char(clock_timestamp() AT TIME ZONE 'UTC',
                                              'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
                                'stage', CAST(:stage AS text), 'kind', CAST(:kind AS text),
                                'message', left(CAST(:message AS text), 1000)))
                        ) WITH ORDINALITY AS list(entry, place)
                        ORDER BY place DESC LIMIT 50) AS last)
                WHERE token_id = :token_id
                """
            ),
            {"stage": stage, "kind": kind, "message": message, "token_id": token_id},
        )


class HistoryRepository:
    """What happened to a token, for operators."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def mint_event(self, token: Token) -> MintEvent | None:
        """Return the log that the token came from."""
        if token.mint_event_id is None:
            return None
        return await self._session.get(MintEvent, token.mint_event_id)

    async def jobs(self, token_id: int) -> Sequence[GenerationJob]:
        """Return the token's attempts to have a picture made, oldest first."""
        result = await self._session.scalars(
            select(GenerationJob)
            .where(GenerationJob.token_id == token_id)
            .order_by(GenerationJob.attempt_number)
        )
        return result.all()

    async def uploads(self, token_id: int) -> Sequence[UploadRecord]:
        """Return the token's uploads, oldest first."""
        result = await self._session.scalars(
            select(UploadRecord)
            .where(UploadRecord.token_id == token_id)
            .order_by(UploadRecord.created_at)
        )
        return result.all()

    async def reveals(self, token_id: int) -> Sequence[dict[str, Any]]:
        """Return the reveal transactions the token was in, oldest first."""
        result = await self._session.execute(
            text(
                "SELECT id, token_ids, tx_hash, status, nonce, gas_limit, gas_used, "
                "gas_price_gwei, block_number, error_data, created_at, sent_at, confirmed_at, "
                "replaces_id FROM glisk.reveal_transactions "
                "WHERE token_ids @> ARRAY[CAST(:token_id AS bigint)] ORDER BY created_at"
            ),
            {"token_id": token_id},
        )
        return [dict(row) for row in result.mappings()]

    async def transitions(self, token_id: int) -> Sequence[dict[str, Any]]:
        """Return every change of the token's status, oldest first."""
        result = await self._session.execute(
            text(
                "SELECT at, from_status, to_status, worker, attempt, reason "
                "FROM causeway.transitions WHERE app = 'glisk' AND row_key = :key ORDER BY id"
            ),
            {"key": str(token_id)},
        )
        return [dict(row) for row in result.mappings()]

    async def incidents(self, limit: int = 50) -> Sequence[Incident]:
        """Return the newest incidents."""
        result = await self._session.scalars(
            select(Incident).order_by(Incident.created_at.desc()).limit(limit)
        )
        return result.all()

    async def generation_cost_s(self, hours: int) -> float:
        """Return the seconds of prediction paid for in the last hours."""
        total = await self._session.scalar(
            select(func.sum(GenerationJob.cost_seconds)).where(
                GenerationJob.completed_at >= func.now() - text(f"interval '{int(hours)} hours'")
            )
        )
        return float(total or 0)


class RequestRepository:
    """Operators' wishes to reveal now."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def by_idempotency_key(self, key: str) -> RevealRequest | None:
        """Return the request that was made under that key."""
        return await self._session.scalar(
            select(RevealRequest).where(RevealRequest.idempotency_key == key)
        )

    async def waiting(self) -> Sequence[RevealRequest]:
        """Return the requests the collector has not taken up, oldest first."""
        result = await self._session.scalars(
            select(RevealRequest)
            .where(RevealRequest.taken_at.is_(None))
            .order_by(RevealRequest.created_at)
        )
        return result.all()

    async def taken(self, request: RevealRequest, at: datetime) -> None:
        """Mark a request as taken up."""
        await self._session.execute(
            update(RevealRequest)
            .where(RevealRequest.batch_id == request.batch_id)
            .values(taken_at=at)
        )


class GliskUnitOfWork(UnitOfWork):
    """One transaction with GLISK's repositories on it."""

    def opened(self, session: AsyncSession) -> None:
        """Put the repositories on the session."""
        self.authors = AuthorRepository(session)
        self.tokens = TokenRepository(session)
        self.history = HistoryRepository(session)
        self.requests = RequestRepository(session)
