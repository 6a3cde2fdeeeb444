"""Reading blocks again, and making tokens whose log cannot be found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import structlog
from sqlalchemy import select, text, tuple_
from sqlalchemy.dialects.postgresql import insert

from causeway.apps.glisk.context import GliskContext
from causeway.apps.glisk.contract import Look, contract_abi
from causeway.apps.glisk.models import MintEvent, Token, TokenStatus
from causeway.apps.glisk.repositories import AuthorRepository
from causeway.apps.glisk.sources import Handlers
from causeway.apps.glisk.units import CHAIN
from causeway.base.errors import ConfigurationError, PermanentError
from causeway.base.ids import uuid7
from causeway.chains.errors import RangeTooLarge
from causeway.chains.protocol import Block, Log, LogFilter
from causeway.indexing.source import Fact

log = structlog.get_logger(__name__)


@dataclass
class Recovered:
    """What reading a range again brought."""

    applied: int = 0
    known: int = 0


async def recover_events(
    ctx: GliskContext,
    first: int,
    last: int,
    *,
    batch_size: int | None = None,
    dry_run: bool = False,
) -> Recovered:
    """Read the mints of blocks `first` to `last` again and apply those that are not known.

    Ranges shrink when the provider refuses them. `dry_run` only counts. What is known is never
    applied twice, and blocks the reader has not come to yet are left to it.
    """
    contract, chain = ctx.settings.contract, ctx.chains.get(CHAIN)
    if contract is None or chain is None:
        raise ConfigurationError(ctx.settings.missing())
    indexer = ctx.indexers["glisk"]
    async with ctx.database.sessions() as session:
        read_to = await session.scalar(
            text("SELECT number FROM causeway.checkpoints WHERE source = 'glisk'")
        )
    last = min(last, int(read_to or 0))
    abi = contract_abi()
    wanted = LogFilter((contract.lower(),), (abi.event("BatchMinted").topic0,))
    found = Recovered()
    step = batch_size or ctx.settings.recovery_batch_size
    at = max(first, indexer.source.start_block)
    while at <= last:
        to = min(at + step - 1, last)
        try:
            logs = await chain.logs(wanted, at, to)
        except RangeTooLarge:
            if step == 1:
                raise PermanentError(f"the provider refuses even the one block {at}") from None
            step = max(1, step // 2)
            continue
        await _apply(ctx, logs, found, dry_run=dry_run)
        at = to + 1
    log.info("blocks_read_again", first=first, last=last, applied=found.applied, known=found.known)
    return found


async def _apply(ctx: GliskContext, logs: list[Log], found: Recovered, *, dry_run: bool) -> None:
    chain = ctx.chains[CHAIN]
    keys = [(entry.transaction_hash, entry.log_index) for entry in logs]
    async with ctx.database.sessions() as session:
        rows = await session.execute(
            select(MintEvent.tx_hash, MintEvent.log_index).where(
                tuple_(MintEvent.tx_hash, MintEvent.log_index).in_(keys)
            )
        )
        known = {(row[0], row[1]) for row in rows}
    handlers = Handlers(ctx.settings.author_of_nobody)
    event = contract_abi().event("BatchMinted")
    for entry in logs:
        if (entry.transaction_hash, entry.log_index) in known:
            found.known += 1
            continue
        found.applied += 1
        if dry_run:
            continue
        block: Block | None = await chain.block(entry.block_hash)
        if block is None:
            continue  # replaced since: the reader sees to it
        fact = Fact(chain.chain_id, "BatchMinted", event.decode(entry), entry, block)
        async with ctx.database.transaction() as session:
            await handlers.batch_minted(session, fact)


async def repair_tokens(ctx: GliskContext, looks: Mapping[int, Look], at: int) -> int:
    """Make tokens that exist at block `at` and have no log anybody can find; return how many."""
    chain = ctx.chains[CHAIN]
    block = await chain.block(at)
    if block is None:
        return 0
    made = 0
    for token_id, look in looks.items():
        author_wallet = look.author or ""
        if not author_wallet or int(author_wallet, 16) == 0:
            author_wallet = ctx.settings.author_of_nobody
        async with ctx.database.transaction() as session:
            author = await AuthorRepository(session).ensure(author_wallet)
            added = await session.scalar(
                insert(Token)
                .values(
                    token_id=token_id,
                    id=uuid7(),
                    author_id=author.id,
                    minter_address=look.owner,
                    owner_address=look.owner,
                    mint_timestamp=block.timestamp,
                    mint_block_number=block.number,
                    mint_block_hash=block.hash,
                    prompt_text=author.prompt_text,
                    status=TokenStatus.DETECTED.value,
                    source="repair",
                )
                .on_conflict_do_nothing()
                .returning(Token.token_id)
            )
        made += added is not None
    if made:
        log.error("tokens_repaired", count=made)
    return made
