"""One pass over everything that is due, and the report of it that the original's job printed.

The pass is the worker itself, run until nothing is left that can be done now: what it leaves
(readings to repeat later, transactions that wait for depth) the next pass, or the worker, takes up.
Two passes at once share the work and do nothing twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select, text

from causeway.apps.motify.context import CHAIN, SOURCE, MotifyContext
from causeway.apps.motify.models import Score, Settlement

#: Two looks this far apart must find nothing to do, seconds.
_QUIET_S = 1.5
_LOOK_S = 0.3

#: Whether anything is in hand, or could be taken up now.
_BUSY = text(
    """
    SELECT EXISTS (SELECT FROM motify.chain_challenges
            WHERE chain_id = :chain AND contract_address = :contract
              AND (read_block IS NULL OR read_block < changed_block))
        OR EXISTS (SELECT FROM motify.chain_challenges c
            WHERE chain_id = :chain AND contract_address = :contract AND start_time <= :now
              AND NOT EXISTS (SELECT FROM motify.settlements s WHERE s.chain_id = c.chain_id
                AND s.contract_address = c.contract_address AND s.challenge_id = c.challenge_id))
        OR EXISTS (SELECT FROM motify.scores WHERE status = 'measuring'
            OR status = 'waiting' AND (next_at IS NULL OR next_at <= clock_timestamp())
            OR status = 'resting' AND again_at <= :now)
        OR EXISTS (SELECT FROM motify.settlements
            WHERE status IN ('measuring', 'declared', 'finalizing')
              AND (next_at IS NULL OR next_at <= clock_timestamp()
                OR lease_until > clock_timestamp()))
        OR EXISTS (SELECT FROM motify.settlements WHERE status = 'live' AND end_time <= :now)
        OR EXISTS (SELECT FROM causeway.relayer_units u LEFT JOIN causeway.relayer_transactions t
            ON t.id = u.tx_id WHERE u.app = 'motify' AND :sends
              AND (u.state = 'pending' AND u.ready_at <= clock_timestamp() AND NOT EXISTS (
                    SELECT FROM causeway.relayer_waits w
                    WHERE w.app = u.app AND w.kind = u.kind AND w.chain_id = u.chain_id)
                OR u.state = 'bound' AND t.state IN ('planned', 'signed', 'sent')))
    """
)


@dataclass(frozen=True)
class Pass:
    """What a pass did, and whether something failed."""

    report: dict[str, Any]
    failed: bool


async def until_quiet(ctx: MotifyContext, most_s: float) -> bool:
    """Wait until nothing can be done now; return whether that came before `most_s` were over."""
    clock = ctx.clock
    ends_at = clock.monotonic() + most_s
    quiet_since: float | None = None
    head = (await ctx.chains[CHAIN].head()).number
    while clock.monotonic() < ends_at:
        if await _is_busy(ctx, head):
            quiet_since = None
        elif quiet_since is None:
            quiet_since = clock.monotonic()
        elif clock.monotonic() - quiet_since >= _QUIET_S:
            return True
        await clock.sleep(_LOOK_S)
    return False


async def _is_busy(ctx: MotifyContext, head: int) -> bool:
    from causeway.apps.motify.chain_time import final_block, seconds

    now = seconds(await final_block(ctx))
    async with ctx.database.sessions() as session:
        read_to = await session.scalar(
            text("SELECT number FROM causeway.checkpoints WHERE source = :source"),
            {"source": SOURCE},
        )
        if read_to is None or int(read_to) < head:
            return True
        busy = await session.scalar(
            _BUSY,
            {
                "chain": ctx.settings.chain_id,
                "contract": ctx.settings.contract,
                "now": now,
                "sends": CHAIN in ctx.relayers,
            },
        )
    return bool(busy)


async def index_report(ctx: MotifyContext) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the original called `index` and `details`: challenges known, and those due."""
    async with ctx.database.sessions() as session:
        row = (
            await session.execute(
                text(
                    """
                    SELECT count(*) AS fetched,
                        count(*) FILTER (WHERE s.status IS NULL OR s.status <> 'archived')
                            AS indexed,
                        count(*) FILTER (WHERE s.status = 'archived') AS archived,
                        count(*) FILTER (WHERE s.status IN
                            ('measuring', 'declaring', 'declared', 'finalizing')) AS ready,
                        coalesce(sum(c.participant_count) FILTER (WHERE s.status IN
                            ('measuring', 'declaring', 'declared', 'finalizing')), 0) AS people
                    FROM motify.chain_challenges c LEFT JOIN motify.settlements s
                        USING (chain_id, contract_address, challenge_id)
                    WHERE c.chain_id = :chain AND c.contract_address = :contract
                    """
                ),
                {"chain": ctx.settings.chain_id, "contract": ctx.settings.contract},
            )
        ).one()
    index = {
        "fetched": row.fetched,
        "indexed": row.indexed,
        "only_ready_to_end": True,
        "exclude_finished": True,
        "skipped_archived": row.archived,
    }
    return index, {"ready": row.ready, "participants_indexed": int(row.people)}


async def report(ctx: MotifyContext, since: datetime) -> Pass:
    """Return the report of a pass that began at `since`."""
    refresh, details = await index_report(ctx)
    async with ctx.database.sessions() as session:
        settlements = (
            await session.scalars(
                select(Settlement)
                .where(
                    Settlement.chain_id == ctx.settings.chain_id,
                    Settlement.contract_address == ctx.settings.contract,
                    text(
                        "(status IN ('measuring', 'declaring', 'declared', 'finalizing', "
                        "'timed_out', 'failed') OR EXISTS (SELECT FROM causeway.transitions t "
                        "WHERE t.app = 'motify' AND t.row_key = settlements.id::text "
                        "AND t.at >= :since))"
                    ),
                )
                .order_by(Settlement.challenge_id),
                {"since": since},
            )
        ).all()
        processed = [await _processed(ctx, session, one) for one in settlements]
    failed = any("error" in one for one in processed)
    body = {
        "ok": not failed,
        "refresh": refresh,
        "details": details,
        "ready_count": details["ready"],
        "processed": processed,
    }
    return Pass(body, failed)


async def _processed(ctx: MotifyContext, session: Any, settlement: Settlement) -> dict[str, Any]:
    rows: Sequence[Any] = (
        await session.execute(
            select(Score.wallet, Score.bps, Score.batch_no, Score.declared_tx, Score.refused)
            .where(Score.settlement_id == settlement.id, Score.batch_no.is_not(None))
            .order_by(Score.batch_no, Score.wallet)
        )
    ).all()
    chunks: dict[int, dict[str, list[Any]]] = {}
    for wallet, bps, batch_no, _, _ in rows:
        chunk = chunks.setdefault(batch_no, {"participants": [], "refundPercentages": []})
        chunk["participants"].append(wallet)
        chunk["refundPercentages"].append(bps)
    hashes = list(dict.fromkeys(tx for *_, tx, _ in rows if tx))
    challenge_id = int(settlement.challenge_id)
    found: dict[str, Any] = {
        "challenge_id": challenge_id,
        "status": settlement.status,
        "declare": {
            "dry_run": CHAIN not in ctx.relayers,
            "tx_hashes": hashes,
            "used_fee_params": await _fees(session, hashes),
            "payload": {"challenge_id": challenge_id, "chunks": list(chunks.values())},
        },
        "archived": settlement.status == "archived",
    }
    refused = [f"{wallet}: {why}" for wallet, *_, why in rows if why]
    if settlement.status == "failed" or refused:
        found["error"] = "; ".join(refused) or settlement.last_error or "failed"
    elif settlement.last_error and settlement.status != "archived":
        found["waits_for"] = settlement.last_error
    return found


async def _fees(session: Any, hashes: Sequence[str]) -> list[dict[str, Any]]:
    rows = await session.execute(
        text(
            "SELECT hash, cap_wei, tip_wei "
            "FROM causeway.relayer_attempts WHERE hash = ANY(:hashes) ORDER BY hash"
        ),
        {"hashes": list(hashes)},
    )
    return [
        {
            "tx_hash": row.hash,
            "maxFeePerGas": str(row.cap_wei),
            "maxPriorityFeePerGas": str(row.tip_wei),
        }
        for row in rows
    ]
