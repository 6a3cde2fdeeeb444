"""RPC providers: how they are, and which ones there are."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import Depends, Query, Response
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.mobs import bounded
from causeway.apps.mobs.answers import large
from causeway.apps.mobs.context import Ctx, admin_only, reading
from causeway.apps.mobs.providers import add
from causeway.apps.mobs.queries import Id
from causeway.apps.mobs.schemas import NewProvider, ProviderChange
from causeway.base.errors import Conflict, NotFound, PermanentError

router = bounded.router("providers")
Admin = Depends(admin_only)

#: Points of a series at most.
MOST_POINTS = 500
#: Longer ranges have no history.
HISTORY_HOURS = 48


@router.get("/providers/health")
async def providers_health(
    ctx: Ctx,
    hours: Annotated[int, Query(ge=1, le=168)] = 24,
    endpoint_id: Id = None,
) -> Response:
    """Return every active provider with its score, reasons and figures, and their history."""
    now = int(ctx.clock.now().timestamp())
    since = now - hours * 3600
    async with reading(ctx) as session:
        rows = (
            (
                await session.execute(
                    text(
                        "SELECT * FROM mobs.rpc_endpoints WHERE "
                        "CASE WHEN CAST(:id AS bigint) IS NULL THEN is_active ELSE id = :id END "
                        "ORDER BY score DESC, name"
                    ),
                    {"id": endpoint_id},
                )
            )
            .mappings()
            .all()
        )
        if endpoint_id is not None and not rows:
            raise NotFound(f"there is no provider {endpoint_id}")
        ids = [row["id"] for row in rows]
        stats = await _stats(session, ids, since)
        history = await _history(session, ids, since) if hours <= HISTORY_HOURS else None
    return large(
        {
            "providers": [_view(row, stats.get(row["id"])) for row in rows],
            "history": history,
            "generated_at": now,
        }
    )


async def _stats(
    session: AsyncSession, ids: Sequence[int], since: int
) -> dict[int, Mapping[Any, Any]]:
    rows = await session.execute(
        text(
            "SELECT endpoint_id, round(avg(latency_ms) FILTER (WHERE is_success)) AS avg_ms, "
            "round(100.0 * count(*) FILTER (WHERE is_success) / count(*), 2) AS rate, "
            "percentile_disc(0.5) WITHIN GROUP (ORDER BY latency_ms) AS p50, "
            "percentile_disc(0.95) WITHIN GROUP (ORDER BY latency_ms) AS p95, "
            "(array_agg(block_number ORDER BY sampled_at DESC, id DESC))[1] AS block "
            "FROM mobs.rpc_health_samples WHERE sampled_at > :since "
            "AND endpoint_id = ANY(:ids) GROUP BY endpoint_id"
        ),
        {"since": since, "ids": list(ids)},
    )
    return {row["endpoint_id"]: row for row in rows.mappings()}


def _view(row: Mapping[Any, Any], stats: Mapping[Any, Any] | None) -> dict[str, Any]:
    return {
        "id": row["id"],
        "name": row["name"],
        "url": row["url"],
        "status": row["status"],
        "score": row["score"],
        "supports_traces": row["supports_traces"],
        "last_probe_at": row["last_probe_at"],
        "stats": None
        if stats is None
        else {
            "avg_latency_ms": None if stats["avg_ms"] is None else int(stats["avg_ms"]),
            "success_rate": float(stats["rate"]),
            "current_block": stats["block"],
        },
        "chain_id_ok": None
        if row["chain_id_seen"] is None
        else row["chain_id_seen"] == row["chain_id"],
        "head_lag_blocks": row["head_lag_blocks"],
        "latency_p50_ms": None if stats is None else stats["p50"],
        "latency_p95_ms": None if stats is None else stats["p95"],
        "last_error": row["last_error"],
        "capabilities": row["capabilities"],
        "quarantined": row["quarantined"],
        "reasons": [f"−{one['points']}: {one['reason']}" for one in row["deductions"]],
        "deductions": row["deductions"],
    }


async def _history(session: AsyncSession, ids: Sequence[int], since: int) -> dict[str, Any]:
    """Return aligned series: one entry a time and provider, null where there was no sample."""
    rows = (
        await session.execute(
            text(
                "SELECT endpoint_id, array_agg(sampled_at ORDER BY sampled_at), "
                "array_agg(latency_ms ORDER BY sampled_at), "
                "array_agg(is_success ORDER BY sampled_at) FROM mobs.rpc_health_samples "
                "WHERE sampled_at > :since AND endpoint_id = ANY(:ids) GROUP BY endpoint_id"
            ),
            {"since": since, "ids": list(ids)},
        )
    ).all()
    times: list[int] = sorted({at for _, samples, _, _ in rows for at in samples})
    step = -(-len(times) // MOST_POINTS) or 1
    group = {at: place // step for place, at in enumerate(times)}
    kept = times[::step]
    latencies: dict[int, list[list[int]]] = {one: [[] for _ in kept] for one in ids}
    successes: dict[int, list[bool | None]] = {one: [None] * len(kept) for one in ids}
    for endpoint, samples, took, went in rows:
        own, well = latencies[endpoint], successes[endpoint]
        for at, latency, ok in zip(samples, took, went, strict=True):
            place = group[at]
            if latency is not None:
                own[place].append(latency)
            if well[place] is not False:
                well[place] = ok
    return {
        "timestamps": kept,
        "series": {
            str(one): {
                "latency_ms": [round(statistics.median(v)) if v else None for v in latencies[one]],
                "success": successes[one],
            }
            for one in ids
        },
    }


@router.get("/providers")
async def provider_list(ctx: Ctx) -> dict[str, Any]:
    """List all providers, the inactive ones too."""
    async with reading(ctx) as session:
        rows = (
            (await session.execute(text("SELECT * FROM mobs.rpc_endpoints ORDER BY id")))
            .mappings()
            .all()
        )
    return {"providers": [_listed(row) for row in rows]}


def _listed(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        name: row[name]
        for name in ("id", "name", "url", "status", "score", "is_active", "priority", "created_at")
    }


@router.post("/providers", dependencies=[Admin])
async def provider_add(ctx: Ctx, body: NewProvider) -> dict[str, Any]:
    """Add a provider whose address holds no key."""
    async with ctx.database.transaction() as session:
        row = await add(session, body.name, body.url, ctx.settings.chain_id)
    return {"provider": _listed(row)}


@router.patch("/providers/{provider_id}", dependencies=[Admin])
async def provider_change(ctx: Ctx, provider_id: int, body: ProviderChange) -> dict[str, Any]:
    """Rename a provider, rank it, or take it out of use."""
    changes = {k: v for k, v in body.model_dump(exclude_unset=True).items() if v is not None}
    if not changes:
        raise PermanentError("no field to change is named")
    assigned = ", ".join(f"{name} = :{name}" for name in changes)
    try:
        async with ctx.database.transaction() as session:
            found = await session.execute(
                text(f"UPDATE mobs.rpc_endpoints SET {assigned} WHERE id = :id RETURNING *"),
                changes | {"id": provider_id},
            )
            row = found.mappings().first()
    except IntegrityError:
        raise Conflict(f"there is a provider named {changes['name']} already") from None
    if row is None:
        raise NotFound(f"there is no provider {provider_id}")
    return {"provider": _listed(row)}


@router.delete("/providers/{provider_id}", dependencies=[Admin])
async def provider_remove(ctx: Ctx, provider_id: int) -> dict[str, Any]:
    """Remove a provider with its samples; one of the settings comes back with the next probe."""
    async with ctx.database.transaction() as session:
        gone = await session.scalar(
            text("DELETE FROM mobs.rpc_endpoints WHERE id = :id RETURNING id"), {"id": provider_id}
        )
    if gone is None:
        raise NotFound(f"there is no provider {provider_id}")
    return {"message": "Provider deleted"}
