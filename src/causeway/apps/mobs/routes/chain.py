"""The chain itself: blocks, reorgs, evidence against providers, and how the pipelines are."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query
from sqlalchemy import text

from causeway.apps.mobs import bounded, partitions
from causeway.apps.mobs.context import Ctx, reading
from causeway.apps.mobs.schemas import LAST_ID
from causeway.apps.mobs.units import hexed

router = bounded.router("chain")

Limit = Annotated[int, Query(ge=1, le=100)]


@router.get("/blocks")
async def block_list(
    ctx: Ctx, limit: Limit = 50, before: Annotated[int | None, Query(ge=0, le=LAST_ID)] = None
) -> dict[str, Any]:
    """List blocks, newest first; `before` is a block number."""
    async with reading(ctx) as session:
        rows = (
            (
                await session.execute(
                    text(
                        "SELECT * FROM mobs.blocks WHERE number < :before "
                        "ORDER BY number DESC LIMIT :limit"
                    ),
                    {"before": 2**62 if before is None else before, "limit": limit},
                )
            )
            .mappings()
            .all()
        )
    return {
        "blocks": [
            {
                "number": row["number"],
                "hash": hexed(row["hash"]),
                "parent_hash": hexed(row["parent_hash"]),
                "timestamp": row["timestamp"],
                "tx_count": row["tx_count"],
                "failed_count": row["failed_count"],
                "gas_used": row["gas_used"],
                "gas_limit": row["gas_limit"],
                "base_fee": None if row["base_fee"] is None else str(int(row["base_fee"])),
            }
            for row in rows
        ]
    }


@router.get("/reorgs")
async def reorg_list(ctx: Ctx, limit: Limit = 50) -> dict[str, Any]:
    """List reorgs, newest first."""
    async with reading(ctx) as session:
        rows = (
            (
                await session.execute(
                    text("SELECT * FROM mobs.reorgs ORDER BY id DESC LIMIT :limit"),
                    {"limit": limit},
                )
            )
            .mappings()
            .all()
        )
    return {
        "reorgs": [
            {str(k): v for k, v in row.items()}
            | {"old_head": hexed(row["old_head"]), "new_head": hexed(row["new_head"])}
            for row in rows
        ]
    }


@router.get("/lies")
async def evidence_list(ctx: Ctx, limit: Limit = 50) -> dict[str, Any]:
    """List answers of providers that cannot be true, with what the others said."""
    async with reading(ctx) as session:
        rows = (
            (
                await session.execute(
                    text(
                        "SELECT l.*, e.name AS provider FROM mobs.lies AS l "
                        "LEFT JOIN mobs.rpc_endpoints AS e ON e.id = l.endpoint_id "
                        "ORDER BY l.id DESC LIMIT :limit"
                    ),
                    {"limit": limit},
                )
            )
            .mappings()
            .all()
        )
    return {"lies": [dict(row) for row in rows]}


@router.get("/status")
async def status(ctx: Ctx) -> dict[str, Any]:
    """Return how the pipelines are: places, queues, holes, partitions, size."""
    async with reading(ctx) as session:
        states = {
            key: {"value": value, "updated_at": at}
            for key, value, at in await session.execute(
                text("SELECT key, value, updated_at FROM mobs.worker_state ORDER BY key")
            )
        }
        checkpoint = (
            (
                await session.execute(
                    text(
                        "SELECT number, hash, head_number, final_number, problem "
                        "FROM causeway.checkpoints WHERE source = 'mobs'"
                    )
                )
            )
            .mappings()
            .first()
        )
        holes = (
            (await session.execute(text("SELECT * FROM mobs.block_holes ORDER BY first_block")))
            .mappings()
            .all()
        )
        counts = (
            (
                await session.execute(
                    text(
                        "SELECT (SELECT count(*) FROM mobs.trace_queue) AS trace_queue, "
                        "(SELECT count(*) FROM mobs.dirty_minutes) AS dirty_minutes, "
                        "(SELECT count(*) FROM mobs.notifications WHERE state = 'waiting') "
                        "AS notifications_waiting, "
                        "pg_database_size(current_database()) AS database_bytes"
                    )
                )
            )
            .mappings()
            .one()
        )
        days = {table: len(await partitions.days_of(session, table)) for table in partitions.TABLES}
    return {
        "pipelines": states,
        "checkpoint": None if checkpoint is None else dict(checkpoint),
        "holes": [dict(row) for row in holes],
        "queues": dict(counts),
        "partitions": days,
    }
