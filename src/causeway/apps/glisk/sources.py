"""What GLISK reads from its chain, and what each fact does to its tables.

Handlers run in the transaction that moves the checkpoint; they only touch the database. What they
write to derived tables is undone by the kernel when its block is.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

import structlog
from sqlalchemy import delete, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.glisk.context import GliskContext
from causeway.apps.glisk.contract import contract_abi
from causeway.apps.glisk.metadata import prompt_sha256
from causeway.apps.glisk.models import (
    DERIVED,
    Author,
    AuthorClaim,
    ContractState,
    KeptWork,
    MintEvent,
    Token,
    TokenStatus,
)
from causeway.apps.glisk.repositories import AuthorRepository
from causeway.apps.glisk.units import CHAIN
from causeway.base.clock import SYSTEM_CLOCK, Clock
from causeway.base.errors import Bug, ConfigurationError
from causeway.base.ids import uuid7
from causeway.indexing.checkpoint import first_block
from causeway.indexing.source import Fact, Source, Undone
from causeway.relayer.filing import withdraw

log = structlog.get_logger(__name__)

SOURCE = "glisk"
NOBODY = "0x" + "0" * 40
MAX_TOKEN_ID = 2**53 - 1

#: How the facts being applied came to be asked for; kept on the mint event.
via: ContextVar[str] = ContextVar("glisk_via", default="reader")


async def sources(ctx: GliskContext) -> Sequence[Source]:
    """Return the one source: the contract's events of season 0."""
    contract = ctx.settings.contract
    if contract is None or CHAIN not in ctx.chains:
        return ()
    handlers = Handlers(ctx.settings.author_of_nobody, ctx.clock)
    return (
        Source(
            name=SOURCE,
            chain=CHAIN,
            abi=contract_abi(),
            addresses=(contract,),
            start_block=await _first_block(ctx, contract),
            handlers={
                "BatchMinted": handlers.batch_minted,
                "TokensRevealed": handlers.tokens_revealed,
                "Transfer": handlers.transferred,
                "MintPriceUpdated": handlers.price_updated,
                "PlaceholderURIUpdated": handlers.placeholder_updated,
                "SeasonEnded": handlers.season_ended,
                "AuthorClaimed": handlers.author_claimed,
            },
            derived=DERIVED,
            on_undone=handlers.undone,
        ),
    )


async def _first_block(ctx: GliskContext, contract: str) -> int:
    """Return where reading begins: as set, as known, as before, or found on the chain."""
    if ctx.settings.first_block is not None:
        return ctx.settings.first_block
    found = await first_block(ctx.database, ctx.chains[CHAIN], SOURCE, contract)
    if found is None:
        raise ConfigurationError(
            f"GLISK_NFT_CONTRACT_ADDRESS: there is no contract at {contract} on chain "
            f"{ctx.settings.chain_id}"
        )
    return found


class Handlers:
    """One method a fact: fact in, rows out."""

    def __init__(self, author_of_nobody: str, clock: Clock = SYSTEM_CLOCK) -> None:
        self._author_of_nobody = author_of_nobody
        self._clock = clock

    async def batch_minted(self, session: AsyncSession, fact: Fact) -> None:
        """Tokens exist: their author, their mint event and one row each, in `detected`."""
        args = fact.args
        first, quantity = int(args["startTokenId"]), int(args["quantity"])
        if first + quantity - 1 > MAX_TOKEN_ID:
            raise Bug(f"token ids up to {first + quantity - 1} cannot be served as JSON integers")
        wallet = str(args["promptAuthor"])
        author = await AuthorRepository(session).ensure(
            self._author_of_nobody if wallet == NOBODY else wallet
        )
        ids = list(range(first, first + quantity))
        event_id = uuid7()
        added = await session.scalar(
            insert(MintEvent)
            .values(
                id=event_id,
                tx_hash=fact.log.transaction_hash,
                log_index=fact.log.log_index,
                block_number=fact.block.number,
                block_hash=fact.block.hash,
                block_timestamp=fact.block.timestamp,
                minter=str(args["minter"]),
                author_wallet=author.wallet_address,
                start_token_id=first,
                quantity=quantity,
                token_ids=ids,
                total_paid=int(args["totalPaid"]),
                via=via.get(),
            )
            .on_conflict_do_nothing()
            .returning(MintEvent.id)
        )
        if added is None:
            return  # read again by a repair: it is here already
        kept = await self._kept_work(session, ids, author)
        await session.execute(
            insert(Token).on_conflict_do_update(
                index_elements=[Token.token_id],
                # A repair made this row before its log was found: now it has its log.
                set_={
                    "mint_event_id": event_id,
                    "source": "log",
                    "mint_block_number": fact.block.number,
                    "mint_block_hash": fact.block.hash,
                },
                where=Token.mint_event_id.is_(None),
            ),
            [
                {
                    "token_id": token_id,
                    "id": uuid7(),
                    "author_id": author.id,
                    "minter_address": str(args["minter"]),
                    "owner_address": str(args["minter"]),
                    "mint_timestamp": fact.block.timestamp,
                    "mint_event_id": event_id,
                    "mint_block_number": fact.block.number,
                    "mint_block_hash": fact.block.hash,
                    "prompt_text": author.prompt_text,
                    "status": TokenStatus.DETECTED.value,
                    **WORK_DEFAULTS,
                    **kept.get(token_id, {}),
                }
                for token_id in ids
            ],
        )
        await self._relink(session, ids)
        log.info(
            "mint_applied",
            token_ids=[ids[0], ids[-1]],
            author=author.wallet_address,
            block=fact.block.number,
            transaction=fact.log.transaction_hash,
        )

    async def _kept_work(
        self, session: AsyncSession, ids: list[int], author: Author
    ) -> dict[int, dict[str, Any]]:
        """Return what is left of equal tokens whose mint was undone, by token id."""
        rows = await session.scalars(
            select(KeptWork).where(
                KeptWork.token_id.in_(ids),
                KeptWork.author_id == author.id,
                KeptWork.prompt_sha256 == prompt_sha256(author.prompt_text or ""),
            )
        )
        return {row.token_id: {name: row.work.get(name) for name in WORK_DEFAULTS} for row in rows}

    async def _relink(self, session: AsyncSession, ids: list[int]) -> None:
        """Give jobs and uploads of undone tokens to the tokens that took their place.

        So a prediction that was paid for is asked about again instead of being made again.
        """
        for table_name, key in (
            ("image_generation_jobs", "job_ids"),
            ("ipfs_upload_records", "upload_ids"),
        ):
            await session.execute(
                text(
                    f"UPDATE glisk.{table_name} AS made SET token_id = kept.token_id "
                    "FROM glisk.kept_work AS kept JOIN glisk.tokens_s0 AS token "
                    "ON token.token_id = kept.token_id AND token.author_id = kept.author_id "
                    f"WHERE kept.token_id = ANY(:ids) AND kept.work->'{key}' ? made.id::text "
                    "AND made.token_id IS NULL"
                ),
                {"ids": ids},
            )
        await session.execute(delete(KeptWork).where(KeptWork.token_id.in_(ids)))

    async def undone(self, session: AsyncSession, undone: Undone) -> None:
        """Take back reveals that were owed for tokens a reorganisation took away or changed."""
        keys = await session.scalars(
            text(
                "SELECT u.unit_key FROM causeway.relayer_units u WHERE u.app = 'glisk' "
                "AND u.state IN ('pending', 'bound') AND NOT EXISTS (SELECT FROM glisk.tokens_s0 t "
                "WHERE t.token_id = CAST(u.payload->>'token_id' AS bigint) "
                "AND t.mint_block_hash = u.payload->>'mint_block_hash')"
            )
        )
        orphaned = list(keys)
        if orphaned:
            await withdraw(session, orphaned, now=self._clock.now())
            log.warning("reveals_withdrawn", units=len(orphaned), from_block=undone.first)

    async def tokens_revealed(self, session: AsyncSession, fact: Fact) -> None:
        """Somebody revealed these tokens: their work in hand is dropped.

        Our own reveals are left to the relayer, which waits for the depth we were told.
        """
        ours = await session.scalar(
            text("SELECT 1 FROM causeway.relayer_attempts WHERE hash = :hash"),
            {"hash": fact.log.transaction_hash},
        )
        if ours:
            return
        await session.execute(
            update(Token)
            .where(
                Token.token_id.in_([int(i) for i in fact.args["tokenIds"]]),
                Token.status != TokenStatus.REVEALED,
            )
            .values(
                status=TokenStatus.REVEALED.value,
                reveal_tx_hash=fact.log.transaction_hash,
                revealed_at=fact.block.timestamp,
                fence=Token.fence + 1,
                lease_until=None,
                lease_owner=None,
            )
        )

    async def transferred(self, session: AsyncSession, fact: Fact) -> None:
        """A token has another owner."""
        await session.execute(
            update(Token)
            .where(Token.token_id == int(fact.args["tokenId"]))
            .values(owner_address=str(fact.args["to"]))
        )

    async def price_updated(self, session: AsyncSession, fact: Fact) -> None:
        """The mint price changed, in wei."""
        await self._state(session, fact, "mint_price_wei", str(fact.args["newPrice"]))

    async def placeholder_updated(self, session: AsyncSession, fact: Fact) -> None:
        """What unrevealed tokens show changed."""
        await self._state(session, fact, "placeholder_uri", str(fact.args["newURI"]))

    async def season_ended(self, session: AsyncSession, fact: Fact) -> None:
        """No mints come after this."""
        await self._state(session, fact, "season_ended_at", int(fact.args["timestamp"]))

    async def _state(self, session: AsyncSession, fact: Fact, name: str, value: Any) -> None:
        row = insert(ContractState).values(name=name, value=value, block_number=fact.block.number)
        await session.execute(
            row.on_conflict_do_update(
                index_elements=[ContractState.name],
                set_={"value": row.excluded.value, "block_number": row.excluded.block_number},
            )
        )

    async def author_claimed(self, session: AsyncSession, fact: Fact) -> None:
        """An author took earnings out."""
        await session.execute(
            insert(AuthorClaim)
            .values(
                tx_hash=fact.log.transaction_hash,
                log_index=fact.log.log_index,
                author_wallet=str(fact.args["author"]),
                amount_wei=int(fact.args["amount"]),
                block_number=fact.block.number,
            )
            .on_conflict_do_nothing()
        )


#: What is worth keeping of a token's work when its mint is undone, and what a new token has.
WORK_DEFAULTS: dict[str, Any] = {
    "image_url": None,
    "image_sha256": None,
    "image_mime": None,
    "image_bytes_size": None,
    "image_cid": None,
    "image_cid_profile": None,
    "censored": False,
    "prompt_sha256": None,
    "generation_seed": None,
    "generation_model": None,
}
