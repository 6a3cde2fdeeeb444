"""Fills M-OBS's tables with days of a busy chain, by the database itself."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.mobs import partitions
from causeway.apps.mobs.partitions import DAY_S
from causeway.store.engine import Database

#: Of ten thousand transactions so many fail; and of a hundred so many call one of the contracts.
FAILED_OF_10000 = 500
CONTRACTS = 50
#: Contracts that are watched, those with transactions first.
WATCHED = 5000
RULES = 500
EVENTS_OF_RULE = 20
ACCOUNTS = 200_000

_TXS = """
INSERT INTO mobs.txs (status, block_timestamp, block_number, tx_index, hash, from_address,
    to_address, contract_id, value_wei, gas_used, gas_limit, gas_price, total_fee, tx_type, nonce,
    is_system, method_id, method_name, input_head, input_size, error_raw, error_signature,
    error_decoded, error_source, trace_state, has_trace, is_tentative)
SELECT status, :start + (n * :blocks / :rows) * :span / :blocks, :number + (n * :blocks / :rows),
    (n - (n * :blocks / :rows) * :rows / :blocks)::int,
    sha256(convert_to('tx' || (:offset + n), 'UTF8')),
    substr(sha256(convert_to('a' || sender, 'UTF8')), 1, 20),
    substr(sha256(convert_to('c' || receiver, 'UTF8')), 1, 20),
    CASE WHEN receiver < :contracts THEN (receiver + 1)::int END,
    (random() * 1e18)::numeric(78, 0), gas, gas * 2, price, gas * price, 2, n, false,
    '\\xa9059cbb', 'transfer', decode(repeat('ab', 68), 'hex'), 68,
    CASE WHEN status = 0 THEN decode('08c379a0', 'hex') END,
    CASE WHEN status = 0 THEN decode(lpad(to_hex((sender % 7)::int), 8, '0'), 'hex') END,
    CASE WHEN status = 0 THEN 'failure ' || sender % 7 END,
    CASE WHEN status = 0 THEN 'trace' END, CASE WHEN status = 0 THEN 'done' END, false, false
FROM (SELECT n, CASE WHEN random() * 10000 < :failed THEN 0 ELSE 1 END AS status,
    (power(random(), 3) * :accounts)::bigint AS sender,
    (power(random(), 4) * 5000)::bigint AS receiver,
    21000 + (random() * 300000)::bigint AS gas,
    (20000000 + random() * 40000000)::bigint AS price
    FROM generate_series(CAST(0 AS bigint), :rows - 1) AS n) AS made
"""

_BLOCKS = """
INSERT INTO mobs.blocks (timestamp, number, hash, parent_hash, tx_count, failed_count, gas_used,
    gas_limit, base_fee, size)
SELECT :start + n * :span / :blocks, :number + n,
    sha256(convert_to('b' || (:number + n), 'UTF8')),
    sha256(convert_to('b' || (:number + n - 1), 'UTF8')), :rows / :blocks, 0, 1000000, 30000000,
    20000000, 5000
FROM generate_series(CAST(0 AS bigint), :blocks - 1) AS n
"""


async def fill_day(
    session: AsyncSession, day: int, rows: int, offset: int, number: int, span_s: int = DAY_S
) -> int:
    """Fill the first `span_s` of a day (counted from 1970) with so many transactions.

    Return its number of blocks.
    """
    blocks = max(1, min(span_s // 2, rows // 8))
    values: dict[str, Any] = {
        "start": day * DAY_S,
        "span": span_s,
        "rows": rows,
        "blocks": blocks,
        "number": number,
        "offset": offset,
        "contracts": CONTRACTS,
        "failed": FAILED_OF_10000,
        "accounts": ACCOUNTS,
    }
    await partitions.ensure(session, day * DAY_S, day * DAY_S + DAY_S - 1)
    await session.execute(text(_TXS), values)
    names = ("start", "span", "blocks", "number", "rows")
    await session.execute(text(_BLOCKS), {name: values[name] for name in names})
    return blocks


async def fill_contracts(database: Database) -> None:
    """Make the watched contracts, whose ids are 1 to their number; the first ones are called."""
    async with database.transaction() as session:
        await session.execute(
            text(
                "INSERT INTO mobs.contracts (id, address, name, backfill) OVERRIDING SYSTEM VALUE "
                "SELECT n + 1, substr(sha256(convert_to('c' || n, 'UTF8')), 1, 20), "
                "'contract ' || n, 'done' FROM generate_series(0, :count - 1) AS n"
            ),
            {"count": WATCHED},
        )


async def fill_samples(database: Database, now: int, providers: int = 3) -> None:
    """Probe made-up providers every 30 s for seven days."""
    async with database.transaction() as session:
        await partitions.ensure(session, now - 7 * DAY_S, now, ("rpc_health_samples",))
        await session.execute(
            text(
                "INSERT INTO mobs.rpc_endpoints (name, url, url_sha256, last_probe_at) "
                "SELECT 'provider ' || n, 'https://p' || n || '.example', "
                "sha256(convert_to('p' || n, 'UTF8')), :now FROM generate_series(1, :n) AS n"
            ),
            {"n": providers, "now": now},
        )
        await session.execute(
            text(
                "INSERT INTO mobs.rpc_health_samples (endpoint_id, sampled_at, latency_ms, "
                "block_number, is_success, score) SELECT e.id, at, (50 + random() * 200)::int, at, "
                "random() > 0.001, 100 FROM mobs.rpc_endpoints AS e, "
                "generate_series(CAST(:start AS bigint), CAST(:now AS bigint), 30) AS at"
            ),
            {"start": now - 7 * DAY_S + 60, "now": now},
        )


async def fill_rules(database: Database, now: int) -> None:
    """Make alert rules, some firing, each with events of the last weeks."""
    async with database.transaction() as session:
        values = {"rules": RULES, "events": EVENTS_OF_RULE, "now": now}
        await session.execute(
            text(
                "INSERT INTO mobs.alerts (id, name, alert_type, threshold, last_eval_at) "
                "OVERRIDING SYSTEM VALUE SELECT n, 'rule ' || n, 'failure_rate', 5, :now "
                "FROM generate_series(1, :rules) AS n"
            ),
            {"rules": RULES, "now": now},
        )
        await session.execute(
            text(
                "INSERT INTO mobs.alert_states (alert_id, state, since) SELECT n, "
                "CASE WHEN n % 10 = 0 THEN 'firing' ELSE 'inactive' END, :now "
                "FROM generate_series(1, :rules) AS n"
            ),
            {"rules": RULES, "now": now},
        )
        await session.execute(
            text(
                "INSERT INTO mobs.alert_events (alert_id, episode_id, kind, triggered_at, "
                "severity, value_observed, threshold, resolved_at, context) SELECT rule, "
                "rule * 1000 + n, 'firing', :now - n * 40000 - rule, 'warning', 7.5, 5, "
                "CASE WHEN n > 1 THEN :now - n * 40000 END, "
                '\'{"transactions": 100, "failed": 7, "evidence": []}\' '
                "FROM generate_series(1, :rules) AS rule, generate_series(1, :events) AS n"
            ),
            values,
        )
