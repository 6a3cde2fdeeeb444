"""How GLISK stands, from the database alone: what the reader, the stages and the probes wrote."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text

from causeway.apps.glisk.context import GliskContext, unit_of_work
from causeway.apps.glisk.sources import SOURCE
from causeway.apps.glisk.stages import stages
from causeway.apps.glisk.units import REVEAL
from causeway.base.clock import iso
from causeway.pipelines import control

Answer = tuple[dict[str, Any], int]

#: More blocks behind the chain's head than this is worth a word.
MOST_BEHIND = 50

#: The chain has not answered for this long: its page says so with 503, seconds.
CHAIN_AWAY_S = 60.0


async def overall(ctx: GliskContext) -> Answer:
    """Return whether all is well or degraded, and by what."""
    problems: list[str] = []
    for worker in (await workers(ctx))[0]["workers"]:
        if worker["paused"]:
            problems.append(f"{worker['name']} is paused: {worker['paused']}")
    chain, status = await blockchain(ctx)
    if status != 200:
        problems.append("the chain cannot be asked")
    elif chain["blocks_behind"] is None:
        problems.append("the chain has not been read yet")
    elif chain["blocks_behind"] > MOST_BEHIND:
        problems.append(f"{chain['blocks_behind']} blocks behind the chain")
    if chain.get("problem"):
        problems.append(str(chain["problem"]))
    keeper = chain["keeper"]
    if keeper is None:
        problems.append("no keeper is configured: nothing is revealed")
    elif keeper.get("held"):
        problems.append(f"the keeper is held: {keeper['held']}")
    elif keeper.get("has_role") is False:
        problems.append("the keeper lacks its role")
    if problems:
        return {"status": "degraded", "problems": problems}, 200
    return {"status": "healthy"}, 200


async def blockchain(ctx: GliskContext) -> Answer:
    """Return how far the chain was read, and the keeper as it was last seen."""
    async with ctx.database.sessions() as session:
        point = (
            await session.execute(
                text(
                    "SELECT number, head_number, problem, updated_at "
                    "FROM causeway.checkpoints WHERE source = :source"
                ),
                {"source": SOURCE},
            )
        ).first()
        seen = {
            row.state_key: row
            for row in await session.execute(
                text(
                    "SELECT state_key, state_value, extract(epoch FROM clock_timestamp() - "
                    "updated_at) AS age_s FROM glisk.state_values"
                )
            )
        }
        last = (
            await session.execute(
                text(
                    "SELECT (SELECT max(detected_at) FROM glisk.mint_events) AS event_at, "
                    "(SELECT max(received_at) FROM glisk.webhook_deliveries) AS webhook_at"
                )
            )
        ).one()
        held = None
        keeper = seen.get("keeper")
        if keeper is not None:
            held = await session.scalar(
                text(
                    "SELECT reason FROM causeway.relayer_accounts WHERE lower(sender) = "
                    "lower(:sender) AND chain_id = :chain_id AND mode <> 'run' UNION ALL "
                    "SELECT 'paused (' || mode || ') by ' || paused_by || coalesce(': ' || reason, "
                    "'') FROM causeway.relayer_pauses WHERE coalesce(app, 'glisk') = 'glisk' "
                    "AND coalesce(chain_id, :chain_id) = :chain_id "
                    "AND lower(coalesce(sender, :sender)) = lower(:sender) LIMIT 1"
                ),
                {
                    "sender": keeper.state_value["address"],
                    "chain_id": ctx.settings.chain_id or 0,
                },
            )
    head = seen.get("chain_head")
    away = head is None or float(head.age_s) > CHAIN_AWAY_S
    head_number = None
    if head is not None:
        head_number = max(int(head.state_value["number"]), point.head_number if point else 0)
    behind = None
    if point is not None and head_number is not None and not away:
        behind = max(0, head_number - point.number)
    body: dict[str, Any] = {
        "status": "unhealthy" if away else "healthy",
        "network": ctx.settings.network,
        "chain_id": ctx.settings.chain_id,
        "contract": ctx.settings.contract,
        "last_processed_block": None if point is None else point.number,
        "head_block": head_number,
        "blocks_behind": behind,
        "last_event_at": iso(last.event_at) if last.event_at else None,
        "last_webhook_at": iso(last.webhook_at) if last.webhook_at else None,
        "keeper": None if keeper is None else {**keeper.state_value, "held": held},
        "problem": None if point is None else point.problem,
    }
    return body, 503 if away else 200


async def workers(ctx: GliskContext) -> Answer:
    """Return what each stage has waiting and in hand."""
    async with ctx.database.sessions() as session:
        found = [
            {
                "name": one.stage,
                "enabled": stage.enabled,
                "paused": one.paused,
                "pending_jobs": one.pending,
                "active_jobs": one.active,
                "oldest_pending_seconds": one.oldest_pending_s,
                "last_success_at": iso(one.last_success_at) if one.last_success_at else None,
                "last_error": one.last_error,
            }
            for stage in stages(ctx.settings)
            for one in await control.queue_health(session, [stage])
        ]
        pause = await control.paused(session, "glisk", REVEAL)
        row = (
            await session.execute(
                text(
                    "SELECT count(*) FILTER (WHERE u.id IS NULL) AS pending, "
                    "count(u.id) AS active, "
                    "extract(epoch FROM clock_timestamp() - min(t.ready_at)) AS oldest_s, "
                    "(SELECT max(revealed_at) FROM glisk.tokens_s0) AS last_success_at, "
                    "(SELECT error FROM causeway.relayer_units WHERE app = 'glisk' "
                    " AND error IS NOT NULL ORDER BY updated_at DESC LIMIT 1) AS last_error "
                    "FROM glisk.tokens_s0 t LEFT JOIN causeway.relayer_units u "
                    "ON u.app = 'glisk' AND u.state IN ('pending', 'bound') "
                    "AND u.payload->>'token_id' = t.token_id::text WHERE t.status = 'ready'"
                )
            )
        ).one()
    found.append(
        {
            "name": REVEAL,
            "enabled": ctx.settings.enable_reveal_worker,
            "paused": None if pause is None else pause.reason,
            "pending_jobs": row.pending,
            "active_jobs": row.active,
            "oldest_pending_seconds": None if row.oldest_s is None else float(row.oldest_s),
            "last_success_at": iso(row.last_success_at) if row.last_success_at else None,
            "last_error": row.last_error,
        }
    )
    return {"workers": found}, 200


async def figures(ctx: GliskContext) -> Answer:
    """Return what there is in all, and what the last day was like."""
    async with unit_of_work(ctx) as uow:
        by_status = await uow.tokens.counts_by_status()
        day = await uow.tokens.figures_of(24)
        cost = await uow.history.generation_cost_s(24)
        mints = await uow.session.scalar(text("SELECT count(*) FROM glisk.mint_events"))
    return {
        "total_mints": int(mints or 0),
        "total_tokens": sum(by_status.values()),
        "total_revealed": by_status.get("revealed", 0),
        "by_status": by_status,
        "error_rate_24h": round(day.failed / day.finished, 6) if day.finished else 0.0,
        "median_seconds_to_reveal_24h": day.p50_s,
        "p95_seconds_to_reveal_24h": day.p95_s,
        "generation_cost_seconds_24h": cost,
    }, 200
