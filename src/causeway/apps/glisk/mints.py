"""What a webhook delivery leads to: its block is read from the chain, now if that can be done."""

from __future__ import annotations

from typing import Any

import structlog
from prometheus_client import Counter
from sqlalchemy import func, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.glisk.context import GliskContext
from causeway.apps.glisk.deliveries import BATCH_MINTED, Delivery, Hint
from causeway.apps.glisk.models import MintEvent, WebhookDelivery
from causeway.apps.glisk.sources import SOURCE, via
from causeway.base.errors import TransientError

log = structlog.get_logger(__name__)

HEARTBEATS = Counter("causeway_glisk_webhook_heartbeats_total", "Deliveries without any log")

#: How long a delivery may wait for its block to be read, seconds.
PATIENCE_S = 2.5

NOTHING: dict[str, Any] = {"status": "success", "message": "no matching events", "events": []}


async def take(ctx: GliskContext, delivery: Delivery) -> tuple[int, dict[str, Any]]:
    """Take a delivery and return the HTTP status and body it is answered with.

    Whatever the delivery claims, only what the chain shows is applied, in the chain's order. When
    the chain cannot be asked now, the delivery is kept and the reader applies it later.
    """
    contract = ctx.settings.contract or ""
    if delivery.problem is not None:
        log.error("webhook_provider_problem", provider="alchemy", problem=delivery.problem)
        return 200, NOTHING
    if delivery.taken_back(contract) and SOURCE in ctx.indexers:
        ctx.indexers[SOURCE].wake()
    hints = delivery.concerning(contract)
    if not hints:
        if not delivery.hints:
            HEARTBEATS.inc()
        else:
            await _keep(ctx, delivery, None, "ignored")
        return 200, NOTHING
    named = [(h.tx_hash, h.log_index) for h in hints]
    async with ctx.database.transaction() as session:
        before = await _recorded(session, hints)
    if len(before) < len(hints) or delivery.is_activity:
        await _keep(ctx, delivery, hints[0], "accepted")
        if not await _read(ctx, hints):
            return 202, {"status": "accepted", "event_id": delivery.id}
    async with ctx.database.transaction() as session:
        events = await _recorded(session, hints)
    old = {(e.tx_hash, e.log_index) for e in before}
    new = [e for e in events if (e.tx_hash, e.log_index) not in old]
    if new:
        await _keep(ctx, delivery, hints[0], "applied")
        return 200, {
            "status": "success",
            "message": f"{len(new)} mint event(s) recorded",
            "events": [
                {
                    "mint_event_id": str(e.id),
                    "tx_hash": e.tx_hash,
                    "log_index": e.log_index,
                    "token_count": e.quantity,
                    "token_ids": e.token_ids,
                }
                for e in new
            ],
            "duplicates": len(before),
        }
    if before:
        await _keep(ctx, delivery, hints[0], "duplicate")
        tx_hash, log_index = named[0]
        return ctx.settings.glisk_webhook_duplicate_status, {
            "status": "duplicate",
            "tx_hash": tx_hash,
            "log_index": before[0].log_index if log_index is None else log_index,
        }
    # The chain was read past that block, and what the delivery claims is not there.
    log.warning("webhook_event_not_on_chain", delivery=delivery.id, transaction=hints[0].tx_hash)
    await _keep(ctx, delivery, hints[0], "ignored")
    return 200, NOTHING


async def _read(ctx: GliskContext, hints: list[Hint]) -> bool:
    """Read the chain up to the newest block named; False when it cannot be done now."""
    indexer = ctx.indexers.get(SOURCE)
    numbers = [h.block_number for h in hints if h.block_number is not None]
    if indexer is None or not numbers:
        if indexer is not None:
            indexer.wake()
        return False
    token = via.set("webhook")
    try:
        await indexer.catch_up(max(numbers), PATIENCE_S)
    except TransientError as error:
        log.info("webhook_kept_for_the_reader", error=error)
        indexer.wake()
        return False
    finally:
        via.reset(token)
    if ctx.ring is not None:
        await ctx.ring("image")
    return True


async def _recorded(session: AsyncSession, hints: list[Hint]) -> list[MintEvent]:
    """Return the recorded mints that the hints name, in chain order."""
    exact = [(h.tx_hash, h.log_index) for h in hints if h.log_index is not None]
    condition = tuple_(MintEvent.tx_hash, MintEvent.log_index).in_(exact)
    activity = [h.tx_hash for h in hints if not _is_mint_log(h)]
    if activity:
        condition = condition | MintEvent.tx_hash.in_(activity)
    result = await session.scalars(
        select(MintEvent).where(condition).order_by(MintEvent.block_number, MintEvent.log_index)
    )
    return list(result)


def _is_mint_log(hint: Hint) -> bool:
    return hint.topic0 == BATCH_MINTED and hint.log_index is not None


async def _keep(ctx: GliskContext, delivery: Delivery, hint: Hint | None, outcome: str) -> None:
    """Store the delivery by its id; a repeat is counted."""
    row = insert(WebhookDelivery).values(
        id=delivery.id,
        kind=delivery.kind[:32],
        block_number=hint.block_number if hint else None,
        block_hash=hint.block_hash if hint else None,
        outcome=outcome,
    )
    async with ctx.database.transaction() as session:
        await session.execute(
            row.on_conflict_do_update(
                index_elements=[WebhookDelivery.id],
                set_={
                    "outcome": outcome,
                    "times": WebhookDelivery.times + (1 if outcome == "duplicate" else 0),
                    "received_at": func.clock_timestamp(),
                },
            )
        )
