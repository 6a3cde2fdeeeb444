"""Asking every provider how it is, all at the same time, and judging the answers together.

What a provider says counts only beside what the others say: lag is behind the height two of them
have; who lies is found in `judging`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
import structlog
from prometheus_client import Gauge
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.mobs import partitions
from causeway.apps.mobs.capabilities import block_at, capabilities, settled_blocks
from causeway.apps.mobs.context import CHAIN, MobsContext
from causeway.apps.mobs.judging import Probe, judge
from causeway.apps.mobs.providers import Provider, arrange, known, merge
from causeway.apps.mobs.scanner import note
from causeway.apps.mobs.scoring import LIES, leader, score
from causeway.base.clock import SYSTEM_CLOCK
from causeway.base.errors import CausewayError, RateLimited
from causeway.chains.endpoint import Endpoint, SecretUrl
from causeway.chains.errors import RpcError
from causeway.chains.pool import ProviderPool
from causeway.store.lease import Lease

log = structlog.get_logger(__name__)
_SCORE = Gauge("causeway_mobs_provider_score", "Score of a provider, 0 to 100", ["provider"])
_LAG = Gauge("causeway_mobs_provider_lag_blocks", "Blocks behind the others", ["provider"])

#: What a provider can do is asked again after this, seconds.
CAPABILITIES_S = 600
#: Its safe and final blocks are asked for with every so many probes.
SETTLED_EVERY = 10
#: A head older than so many block times, and than so many seconds, is stale.
STALE_BLOCKS = 30
STALE_S = 120


#: How the kernel's kinds of failure are counted here, where that differs.
_CODES = {
    "no_json": "invalid_json",
    "another_shape": "invalid_response",
    "transport": "connect",
}


def code_of(error: BaseException) -> str:
    """Return the code under which a failure is counted."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, RateLimited):
        return "rate_limited"
    if isinstance(error, RpcError):
        return f"rpc_{error.code}"
    kind = str(error.context.get("kind", "")) if isinstance(error, CausewayError) else ""
    return _CODES.get(kind, kind) or "invalid_response"


async def ask(
    provider: Provider,
    timeout_s: float,
    *,
    deep: bool,
    opened: list[ProviderPool],
    settled: bool = False,
) -> Probe:
    """Ask one provider for its chain and its head.

    With `deep` also what it can do, with `settled` what it calls safe and final, and whether it is
    still reading the chain itself. Its connection is added to `opened`, for the caller to close.
    """
    made = Probe(provider)
    pool = ProviderPool([Endpoint(SecretUrl(provider.url), provider.name)], timeout_s=timeout_s)
    made.pool = pool
    opened.append(pool)
    try:
        async with asyncio.timeout(timeout_s):
            made.chain_id = int(await pool.call("eth_chainId", reply=str), 16)
            # Timed alone, on a connection that is there.
            started = SYSTEM_CLOCK.monotonic()
            height = int(await pool.call("eth_blockNumber", reply=str), 16)
            made.latency_ms = round((SYSTEM_CLOCK.monotonic() - started) * 1000)
            made.head = await block_at(pool, "latest")
            if made.height is None or height < 0:
                made.error = "invalid_response"
    except RateLimited as error:
        made.error, made.wait_s = "rate_limited", error.retry_after_s or 0.0
    except (CausewayError, TimeoutError, ValueError) as error:
        made.error = code_of(error)
    if made.error is None and (deep or settled):
        try:
            async with asyncio.timeout(timeout_s * 2):
                found = await settled_blocks(pool) if settled or deep else {}
                if deep:
                    found |= await capabilities(pool, made.height or 0)
                    made.checked = True
                made.capabilities = found
        except (CausewayError, TimeoutError, ValueError):
            made.capabilities, made.checked = {}, False
    return made


async def round_of_probes(ctx: MobsContext, *, deep: bool | None = None) -> list[Probe]:
    """Ask all active providers, judge them together and write samples and scores down."""
    settings = ctx.settings
    async with ctx.database.transaction() as session:
        await merge(session, ctx)
        providers = await known(session, ctx)
    gate = asyncio.Semaphore(settings.max_concurrent_probes)
    pools: list[ProviderPool] = []
    now = int(ctx.clock.now().timestamp())

    async def one(provider: Provider) -> Probe | None:
        if int(provider.row["capabilities"].get("not_before", 0)) > now:
            return None  # it asked us to wait
        checked = int(provider.row["capabilities"].get("checked_at", 0))
        probes = int(provider.row["capabilities"].get("probes", 0))
        async with gate:
            return await ask(
                provider,
                settings.rpc_timeout_default,
                deep=now - checked > CAPABILITIES_S if deep is None else deep,
                opened=pools,
                settled=probes % SETTLED_EVERY == 0,
            )

    try:
        asked = await asyncio.gather(*(one(provider) for provider in providers))
        probes = [probe for probe in asked if probe is not None]
        lies = await judge(probes, settings.chain_id, settings.rpc_timeout_default)
        find_stale(probes, now, settings.block_time_s)
    finally:
        for pool in pools:
            await pool.close()
    heights = [p.height for p in probes if p.height is not None and p.error in (None, "stale")]
    top = leader(heights)
    async with ctx.database.transaction() as session:
        await partitions.ensure(session, now, now, ("rpc_health_samples",))
        for probe in probes:
            await _keep(session, ctx, probe, top, now)
        for lie in lies:
            await session.execute(
                text(
                    "INSERT INTO mobs.lies (endpoint_id, kind, block_number, said, others_said) "
                    "VALUES (:endpoint, :kind, :block, CAST(:said AS jsonb), "
                    "CAST(:others AS jsonb))"
                ),
                lie,
            )
        rows = await session.execute(text("SELECT id, name, score FROM mobs.rpc_endpoints"))
        await note(session, "provider_scores", {str(i): s for i, _, s in rows})
        again = await known(session, ctx)
    if CHAIN in ctx.chains:
        arrange(ctx, again)
    return probes


def find_stale(probes: Sequence[Probe], now: int, block_time_s: float) -> None:
    """Mark those whose head is old by the clock, though nobody is ahead of them."""
    for probe in probes:
        if probe.error is None and probe.head is not None:
            age_s = now - int(probe.head.timestamp, 0)
            if age_s > max(STALE_S, STALE_BLOCKS * block_time_s):
                probe.error = "stale"


async def _keep(
    session: AsyncSession, ctx: MobsContext, probe: Probe, top: int | None, now: int
) -> None:
    """Write one probe down: its sample and the provider's score, together."""
    row = probe.provider.row
    age_s: int | None = None
    if probe.head is not None and probe.head.number is not None:
        age_s = max(0, now - int(probe.head.timestamp, 0))
    lag = None if probe.height is None or top is None else max(0, top - probe.height)
    limited = probe.error == "rate_limited"  # it is there, we ask too often: no failure of its
    failed = probe.error is not None and not limited
    failures = int(row["consecutive_failures"])
    failures = failures if limited else failures + 1 if failed else 0
    judged = score(
        latency_ms=probe.latency_ms,
        failures=failures,
        lag_blocks=lag,
        block_time_s=ctx.settings.block_time_s,
        error=probe.error,
    )
    wrong = probe.error in LIES
    right = 0 if probe.error is not None else int(row["right_in_a_row"]) + 1
    quarantined = wrong or (bool(row["quarantined"]) and right < 2)
    reasons = orjson.dumps(
        [{"points": one.points, "reason": one.reason} for one in judged.deductions]
    ).decode()
    known_before: dict[str, Any] = dict(row["capabilities"])
    merged = known_before | probe.capabilities
    merged["suspect"] = probe.suspect
    merged["probes"] = int(known_before.get("probes", 0)) + 1
    if probe.checked:
        merged["checked_at"] = now
    merged["not_before"] = now + min(600, int(probe.wait_s)) if limited else 0
    await session.execute(
        text(
            "UPDATE mobs.rpc_endpoints SET score = :score, status = :status, deductions = "
            "CAST(:reasons AS jsonb), last_probe_at = :now, consecutive_failures = :failures, "
            "right_in_a_row = :right, quarantined = :quarantined, chain_id_seen = "
            "coalesce(:seen, chain_id_seen), head_lag_blocks = :lag, last_error = :error, "
            "capabilities = CAST(:capabilities AS jsonb), supports_traces = :traces, "
            "updated_at = :now WHERE id = :id"
        ),
        {
            "id": probe.provider.id,
            "score": judged.points,
            "status": judged.status,
            "reasons": reasons,
            "now": now,
            "failures": failures,
            "right": right,
            "quarantined": quarantined,
            "seen": probe.chain_id,
            "lag": lag,
            "error": probe.error,
            "capabilities": orjson.dumps(merged).decode(),
            "traces": bool(merged.get("traces")),
        },
    )
    await session.execute(
        text(
            "INSERT INTO mobs.rpc_health_samples (endpoint_id, sampled_at, latency_ms, "
            "block_number, is_success, error_code, block_hash, chain_id, head_age_s, score, "
            "deductions) VALUES (:id, :now, :latency, :block, :ok, :error, :hash, :chain, :age, "
            ":score, CAST(:reasons AS jsonb)) ON CONFLICT (sampled_at, endpoint_id) DO UPDATE SET "
            "latency_ms = excluded.latency_ms, block_number = excluded.block_number, "
            "is_success = excluded.is_success, error_code = excluded.error_code, "
            "block_hash = excluded.block_hash, chain_id = excluded.chain_id, "
            "head_age_s = excluded.head_age_s, score = excluded.score, "
            "deductions = excluded.deductions"
        ),
        {
            "id": probe.provider.id,
            "now": now,
            "latency": probe.latency_ms,
            "block": probe.height,
            "ok": probe.error is None,
            "error": probe.error,
            "hash": bytes.fromhex(probe.head.hash[2:]) if probe.head and probe.head.hash else None,
            "chain": probe.chain_id,
            "age": age_s,
            "score": judged.points,
            "reasons": reasons,
        },
    )
    _SCORE.labels(probe.provider.name).set(judged.points)
    _LAG.labels(probe.provider.name).set(lag or 0)


async def probe(ctx: MobsContext, _lease: Lease) -> None:
    """Probe every provider once."""
    await round_of_probes(ctx)
