"""Effects wait for finality: what is to be done outside because of a fact, but not too soon.

A handler files an effect in the transaction of its fact. When the block is as final as the effect
asks for, it is released, once, in the transaction that moves the checkpoint there; the app's
`released` turns it into work (a row of a stage, a unit of the relayer). A reorg before that deletes
it. A reorg after it, deeper than was held possible, marks it undone and calls `undone`: never
silence. The same transaction mined again finds its effect by key and does not release it twice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from prometheus_client import Counter
from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.chains.protocol import Finality
from causeway.indexing.models import Effect
from causeway.indexing.source import Fact

_log = structlog.get_logger(__name__)
_EFFECTS = Counter(
    "causeway_indexing_effects_total", "Effects of facts, by what became of them", ["name", "state"]
)

#: Called in the transaction in which these effects changed. Only the database is talked to.
OnEffects = Callable[[AsyncSession, Sequence[Effect]], Awaitable[None]]


@dataclass(frozen=True)
class Outbox:
    """What a source does with its effects."""

    #: They are due now: turn them into work.
    released: OnEffects
    #: They were released, and a reorg took their cause away: compensate, or tell somebody.
    undone: OnEffects
    #: Undone ones whose transaction was mined again.
    restored: OnEffects | None = None


async def file(
    session: AsyncSession,
    source: str,
    fact: Fact,
    name: str,
    payload: dict[str, Any],
    *,
    finality: Finality = "finalized",
    key: str | None = None,
) -> None:
    """File an effect of this fact, to be released when the fact's block is that final.

    `finality`: blocks on top of it (0: with this very commit), or `finalized` (`safe` is taken for
    that). `key` names the effect for ever; by default chain, transaction, name, and its number
    among the effects of that name that this transaction on chain has.
    """
    number = fact.block.number
    if key is None:
        prefix = f"{fact.chain_id}:{fact.log.transaction_hash}:{name}:"
        before = await session.scalar(
            select(func.count())
            .select_from(Effect)
            .where(
                Effect.source == source,
                Effect.key.startswith(prefix, autoescape=True),
                # Not by the block's hash alone: an undone one may be of this very block, come back.
                Effect.block_number == number,
                Effect.block_hash == fact.block.hash,
            )
        )
        key = f"{prefix}{before or 0}"
    due = (
        number if finality == "latest" else number + finality if isinstance(finality, int) else None
    )
    row = insert(Effect).values(
        source=source,
        key=key,
        name=name,
        payload=payload,
        block_number=number,
        block_hash=fact.block.hash,
        due_block=due,
    )
    # One that was released before its block was replaced stays released: it is done already.
    await session.execute(
        row.on_conflict_do_update(
            index_elements=[Effect.source, Effect.key],
            set_={
                "block_number": row.excluded.block_number,
                "block_hash": row.excluded.block_hash,
            },
        )
    )


async def release(
    session: AsyncSession, source: str, outbox: Outbox, applied: int, final: int
) -> int:
    """Release what is due when block `applied` is applied and `final` is final; return how many."""
    back = await _take(
        session,
        update(Effect)
        .where(Effect.source == source, Effect.state == "undone", Effect.block_number >= 0)
        .where(Effect.block_number <= applied)
        .values(state="released"),
    )
    if back:
        _EFFECTS.labels(back[0].name, "restored").inc(len(back))
        _log.warning("undone effects are justified again", source=source, effects=len(back))
        if outbox.restored is not None:
            await outbox.restored(session, back)
    due = await _take(
        session,
        update(Effect)
        .where(Effect.source == source, Effect.state == "waiting")
        .where(
            or_(
                Effect.due_block <= applied,
                Effect.due_block.is_(None) & (Effect.block_number <= final),
            )
        )
        .values(state="released", released_at=func.clock_timestamp()),
    )
    if due:
        for effect in due:
            _EFFECTS.labels(effect.name, "released").inc()
        await outbox.released(session, due)
    return len(due)


async def take_back(session: AsyncSession, source: str, outbox: Outbox | None, above: int) -> None:
    """Forget the waiting effects of blocks above this one; report those that were released."""
    await session.execute(
        delete(Effect).where(
            Effect.source == source, Effect.block_number > above, Effect.state == "waiting"
        )
    )
    # The block number -1 says that no block on the chain has its cause now.
    gone = await _take(
        session,
        update(Effect)
        .where(Effect.source == source, Effect.block_number > above, Effect.state == "released")
        .values(state="undone", block_number=-1),
    )
    if not gone:
        return
    for effect in gone:
        _EFFECTS.labels(effect.name, "undone").inc()
    _log.error(
        "a reorg took the cause of released effects away",
        source=source,
        effects=[effect.key for effect in gone],
    )
    if outbox is not None:
        await outbox.undone(session, gone)


async def _take(session: AsyncSession, statement: Any) -> Sequence[Effect]:
    found = await session.scalars(
        statement.returning(Effect).execution_options(
            synchronize_session=False, populate_existing=True
        )
    )
    return sorted(found.all(), key=lambda effect: (effect.block_number, effect.key))
