"""M-OBS's tables. Times are Unix seconds; hashes, addresses and selectors are bytes.

`txs`, `blocks`, `tx_traces`, `rpc_health_samples` and `metrics_minute` are partitioned by day;
`txs` by status first, so that each retention is the drop of a table and the commonest question
(what failed) reads its own small tables. See `partitions.py`.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Numeric,
    SmallInteger,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from causeway.store.schema import Uint256, metadata_for

metadata = metadata_for("mobs")
# The two halves of `txs`, by status, which its days hang below.
metadata.info["tables_of_others"] = ("txs_",)

#: Unix seconds of the database's clock.
NOW = text("extract(epoch FROM clock_timestamp())::bigint")
TRUE, FALSE, NO_OBJECT = text("true"), text("false"), text("'{}'::jsonb")


class Base(DeclarativeBase):
    """Base class of M-OBS's tables."""

    metadata = metadata


class Endpoint(Base):
    """An RPC provider that is watched and read from."""

    __tablename__ = "rpc_endpoints"
    __table_args__ = (
        CheckConstraint("status IN ('healthy', 'degraded', 'unhealthy')", name="status"),
        CheckConstraint("score BETWEEN 0 AND 100", name="score"),
    )

    id: Mapped[int] = mapped_column(Integer, Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    #: What may be shown: keys in it are an ellipsis.
    url: Mapped[str] = mapped_column(String(256))
    #: SHA-256 of the whole address, which is found in the settings by it.
    url_sha256: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    chain_id: Mapped[int] = mapped_column(BigInteger, server_default=text("5000"))
    score: Mapped[int] = mapped_column(SmallInteger, server_default=text("100"))
    status: Mapped[str] = mapped_column(Text, server_default=text("'healthy'"))
    is_active: Mapped[bool] = mapped_column(Boolean, server_default=TRUE)
    supports_traces: Mapped[bool] = mapped_column(Boolean, server_default=FALSE)
    last_probe_at: Mapped[int | None] = mapped_column(BigInteger)
    capabilities: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=NO_OBJECT)
    #: What the score lost, and why: `[{"points": 10, "reason": "…"}]`.
    deductions: Mapped[list[Any]] = mapped_column(JSONB, server_default=text("'[]'::jsonb"))
    priority: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    consecutive_failures: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    #: Right answers in a row since it was quarantined.
    right_in_a_row: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    chain_id_seen: Mapped[int | None] = mapped_column(BigInteger)
    quarantined: Mapped[bool] = mapped_column(Boolean, server_default=FALSE)
    head_lag_blocks: Mapped[int | None] = mapped_column(BigInteger)
    last_error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[int] = mapped_column(BigInteger, server_default=NOW)
    updated_at: Mapped[int] = mapped_column(BigInteger, server_default=NOW)


class Sample(Base):
    """One probe of one provider."""

    __tablename__ = "rpc_health_samples"
    __table_args__ = (
        Index(None, "endpoint_id", "sampled_at"),
        {"postgresql_partition_by": "RANGE (sampled_at)"},
    )

    sampled_at: Mapped[int] = mapped_column(BigInteger, primary_key=True, server_default=NOW)
    endpoint_id: Mapped[int] = mapped_column(
        ForeignKey(Endpoint.id, ondelete="CASCADE"), primary_key=True
    )
    #: Microseconds of the clock: a partitioned table has no identity before PostgreSQL 17.
    id: Mapped[int] = mapped_column(
        BigInteger, server_default=text("(extract(epoch FROM now()) * 1000000)::bigint")
    )
    latency_ms: Mapped[int | None] = mapped_column(Integer)
    block_number: Mapped[int | None] = mapped_column(BigInteger)
    is_success: Mapped[bool] = mapped_column(Boolean)
    error_code: Mapped[str | None] = mapped_column(String(32))
    block_hash: Mapped[bytes | None] = mapped_column(LargeBinary)
    chain_id: Mapped[int | None] = mapped_column(BigInteger)
    head_age_s: Mapped[int | None] = mapped_column(BigInteger)
    score: Mapped[int] = mapped_column(SmallInteger)
    deductions: Mapped[list[Any]] = mapped_column(JSONB, server_default=text("'[]'::jsonb"))


class Evidence(Base):
    """Two answers to one question that cannot both be true."""

    __tablename__ = "lies"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    detected_at: Mapped[int] = mapped_column(BigInteger, server_default=NOW)
    endpoint_id: Mapped[int | None] = mapped_column(ForeignKey(Endpoint.id, ondelete="SET NULL"))
    kind: Mapped[str] = mapped_column(Text)
    block_number: Mapped[int | None] = mapped_column(BigInteger)
    #: What it said, and what the others did.
    said: Mapped[dict[str, Any]] = mapped_column(JSONB)
    others_said: Mapped[dict[str, Any]] = mapped_column(JSONB)


class Contract(Base):
    """A watched contract."""

    __tablename__ = "contracts"
    __table_args__ = (Index("ix_contracts_tags", "tags", postgresql_using="gin"),)

    id: Mapped[int] = mapped_column(Integer, Identity(), primary_key=True)
    address: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    name: Mapped[str] = mapped_column(String(128))
    tags: Mapped[list[str]] = mapped_column(
        ARRAY(String(32)), server_default=text("'{}'::varchar[]")
    )
    abi_json: Mapped[list[Any] | None] = mapped_column(JSONB)
    is_watched: Mapped[bool] = mapped_column(Boolean, server_default=TRUE)
    #: `pending` while transactions stored before are being labelled.
    backfill: Mapped[str] = mapped_column(Text, server_default=text("'pending'"))
    created_at: Mapped[int] = mapped_column(BigInteger, server_default=NOW)
    updated_at: Mapped[int] = mapped_column(BigInteger, server_default=NOW)


class Block(Base):
    """A block that was applied."""

    __tablename__ = "blocks"
    __table_args__ = (
        Index(None, "number"),
        Index("ix_blocks_hash", "hash", postgresql_using="hash"),
        {"postgresql_partition_by": "RANGE (timestamp)"},
    )

    timestamp: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    hash: Mapped[bytes] = mapped_column(LargeBinary)
    parent_hash: Mapped[bytes] = mapped_column(LargeBinary)
    tx_count: Mapped[int] = mapped_column(Integer)
    failed_count: Mapped[int] = mapped_column(Integer)
    gas_used: Mapped[int] = mapped_column(BigInteger)
    gas_limit: Mapped[int] = mapped_column(BigInteger)
    base_fee: Mapped[int | None] = mapped_column(Uint256)
    size: Mapped[int | None] = mapped_column(BigInteger)
    indexed_at: Mapped[int] = mapped_column(BigInteger, server_default=NOW)


_PLACE = ("block_timestamp", "block_number", "tx_index")


class Tx(Base):
    """A transaction of an applied block."""

    __tablename__ = "txs"
    __table_args__ = (
        Index("ix_txs_place", *_PLACE),
        Index("ix_txs_from_address", "from_address", *_PLACE),
        Index("ix_txs_to_address", "to_address", *_PLACE),
        Index(
            "ix_txs_contract_id",
            "contract_id",
            *_PLACE,
            postgresql_where=text("contract_id IS NOT NULL"),
        ),
        Index(
            "ix_txs_created_contract",
            "created_contract",
            postgresql_where=text("created_contract IS NOT NULL"),
        ),
        Index(
            "ix_txs_error_signature",
            "error_signature",
            *_PLACE,
            postgresql_where=text("error_signature IS NOT NULL"),
        ),
        Index("ix_txs_total_fee", "total_fee", *_PLACE),
        Index(
            "ix_txs_method_id",
            "method_id",
            *_PLACE,
            postgresql_where=text("method_id IS NOT NULL"),
        ),
        Index("ix_txs_hash", "hash"),
        CheckConstraint("status IN (0, 1)", name="status"),
        {"postgresql_partition_by": "LIST (status)"},
    )

    status: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    block_timestamp: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    block_number: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    tx_index: Mapped[int] = mapped_column(Integer, primary_key=True)
    hash: Mapped[bytes] = mapped_column(LargeBinary)
    from_address: Mapped[bytes] = mapped_column(LargeBinary)
    to_address: Mapped[bytes | None] = mapped_column(LargeBinary)
    contract_id: Mapped[int | None] = mapped_column(Integer)
    value_wei: Mapped[int] = mapped_column(Uint256)
    gas_used: Mapped[int] = mapped_column(BigInteger)
    gas_limit: Mapped[int] = mapped_column(BigInteger)
    #: Effective, wei per gas.
    gas_price: Mapped[int] = mapped_column(Uint256)
    max_fee_per_gas: Mapped[int | None] = mapped_column(Uint256)
    max_priority_fee_per_gas: Mapped[int | None] = mapped_column(Uint256)
    l1_fee: Mapped[int | None] = mapped_column(Uint256)
    operator_fee: Mapped[int | None] = mapped_column(Uint256)
    total_fee: Mapped[int] = mapped_column(Uint256)
    tx_type: Mapped[int] = mapped_column(SmallInteger)
    nonce: Mapped[int] = mapped_column(BigInteger)
    is_system: Mapped[bool] = mapped_column(Boolean)
    method_id: Mapped[bytes | None] = mapped_column(LargeBinary)
    method_name: Mapped[str | None] = mapped_column(String(128))
    #: The first 4 KiB of the input, and how long all of it is.
    input_head: Mapped[bytes] = mapped_column(LargeBinary)
    input_size: Mapped[int] = mapped_column(Integer)
    created_contract: Mapped[bytes | None] = mapped_column(LargeBinary)
    error_raw: Mapped[bytes | None] = mapped_column(LargeBinary)
    error_signature: Mapped[bytes | None] = mapped_column(LargeBinary)
    error_decoded: Mapped[str | None] = mapped_column(String(256))
    error_params: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    error_candidates: Mapped[list[Any] | None] = mapped_column(JSONB)
    #: `receipt`, `trace`, `replay` or `none`.
    error_source: Mapped[str | None] = mapped_column(Text)
    #: Innermost frame that failed: address, depth, function.
    error_origin: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    #: `queued`, `done`, `unsupported`, `skipped` or `failed`; null where nothing failed.
    trace_state: Mapped[str | None] = mapped_column(Text)
    has_trace: Mapped[bool] = mapped_column(Boolean, server_default=FALSE)
    is_tentative: Mapped[bool] = mapped_column(Boolean)
    ingested_at: Mapped[int] = mapped_column(BigInteger, server_default=NOW)


class Trace(Base):
    """The call tree of a transaction, deflated."""

    __tablename__ = "tx_traces"
    __table_args__ = ({"postgresql_partition_by": "RANGE (block_timestamp)"},)

    block_timestamp: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    block_number: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    tx_index: Mapped[int] = mapped_column(Integer, primary_key=True)
    trace_type: Mapped[str] = mapped_column(Text, primary_key=True)
    #: JSON, compressed with zlib; at most 1 MiB of it before.
    trace_json: Mapped[bytes] = mapped_column(LargeBinary)
    truncated: Mapped[bool] = mapped_column(Boolean, server_default=FALSE)
    depth_max: Mapped[int] = mapped_column(Integer)
    call_count: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[int] = mapped_column(BigInteger, server_default=NOW)


class TraceRequest(Base):
    """A failed transaction whose reason is still to be found."""

    __tablename__ = "trace_queue"
    __table_args__ = (Index(None, "priority", "block_number", "tx_index"),)

    block_number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    tx_index: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    block_timestamp: Mapped[int] = mapped_column(BigInteger)
    hash: Mapped[bytes] = mapped_column(LargeBinary)
    #: 0: to a watched contract; 1: any other.
    priority: Mapped[int] = mapped_column(SmallInteger)
    attempts: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    next_at: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))


class MetricsColumns:
    """What is known of an interval."""

    tx_count: Mapped[int] = mapped_column(Integer)
    tx_failed_count: Mapped[int] = mapped_column(Integer)
    system_tx_count: Mapped[int] = mapped_column(Integer)
    gas_used_total: Mapped[int] = mapped_column(Numeric(38, 0))
    fees_total: Mapped[int] = mapped_column(Uint256)
    gas_price_avg: Mapped[int | None] = mapped_column(Uint256)
    gas_price_p50: Mapped[int | None] = mapped_column(Uint256)
    gas_price_p95: Mapped[int | None] = mapped_column(Uint256)
    gas_price_p99: Mapped[int | None] = mapped_column(Uint256)
    #: Sum of the prices, for means over longer ranges, and of how many.
    gas_price_sum: Mapped[int] = mapped_column(Numeric(100, 0))
    gas_price_count: Mapped[int] = mapped_column(Integer)
    #: Counts by logarithmic bucket of the price (see sketches.py).
    price_sketch: Mapped[bytes] = mapped_column(LargeBinary)
    block_count: Mapped[int] = mapped_column(Integer)
    unique_senders: Mapped[int] = mapped_column(Integer)
    #: HyperLogLog registers of the senders (see sketches.py).
    senders_sketch: Mapped[bytes] = mapped_column(LargeBinary)
    #: `[{"signature": "0x…" or "none", "name": "…", "count": 1}]`, the five commonest and `other`.
    top_errors: Mapped[list[Any]] = mapped_column(JSONB)
    computed_at: Mapped[int] = mapped_column(BigInteger, server_default=NOW)


class MinuteMetrics(MetricsColumns, Base):
    """A minute of the chain."""

    __tablename__ = "metrics_minute"
    __table_args__ = ({"postgresql_partition_by": "RANGE (bucket_ts)"},)

    bucket_ts: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)


class HourMetrics(MetricsColumns, Base):
    """An hour of the chain, put together from its minutes."""

    __tablename__ = "metrics_hour"

    bucket_ts: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)


class ContractMinute(Base):
    """A minute of one watched contract."""

    __tablename__ = "metrics_minute_contract"
    __table_args__ = (Index(None, "bucket_ts"),)

    contract_id: Mapped[int] = mapped_column(
        ForeignKey(Contract.id, ondelete="CASCADE"), primary_key=True
    )
    bucket_ts: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    tx_count: Mapped[int] = mapped_column(Integer)
    tx_failed_count: Mapped[int] = mapped_column(Integer)
    gas_used_total: Mapped[int] = mapped_column(Numeric(38, 0))
    fees_total: Mapped[int] = mapped_column(Uint256)
    gas_price_sum: Mapped[int] = mapped_column(Numeric(100, 0))
    gas_price_count: Mapped[int] = mapped_column(Integer)
    price_sketch: Mapped[bytes] = mapped_column(LargeBinary)
    unique_senders: Mapped[int] = mapped_column(Integer)
    senders_sketch: Mapped[bytes] = mapped_column(LargeBinary)
    top_errors: Mapped[list[Any]] = mapped_column(JSONB)


class DirtyMinute(Base):
    """A minute whose metrics are to be computed again."""

    __tablename__ = "dirty_minutes"

    bucket_ts: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    #: Grows with each mark, so that one made meanwhile is not lost.
    marks: Mapped[int] = mapped_column(BigInteger, server_default=text("1"))
    marked_at: Mapped[int] = mapped_column(BigInteger, server_default=NOW)


class Reorg(Base):
    """Blocks that were replaced."""

    __tablename__ = "reorgs"
    __table_args__ = (Index(None, "detected_at"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    detected_at: Mapped[int] = mapped_column(BigInteger, server_default=NOW)
    ancestor: Mapped[int] = mapped_column(BigInteger)
    depth: Mapped[int] = mapped_column(Integer)
    old_head: Mapped[bytes] = mapped_column(LargeBinary)
    new_head: Mapped[bytes | None] = mapped_column(LargeBinary)
    txs_removed: Mapped[int] = mapped_column(Integer)
    txs_returned: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    #: Transactions that were taken away: hash and the block it was in.
    hashes_removed: Mapped[list[Any]] = mapped_column(JSONB)


class RemovedTx(Base):
    """A transaction seen only on an abandoned branch, and the reorg that took it away."""

    __tablename__ = "removed_txs"

    hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    reorg_id: Mapped[int] = mapped_column(ForeignKey(Reorg.id, ondelete="CASCADE"))
    block_number: Mapped[int] = mapped_column(BigInteger)
    block_hash: Mapped[bytes] = mapped_column(LargeBinary)


class Hole(Base):
    """Blocks that are missing on purpose or by accident."""

    __tablename__ = "block_holes"

    first_block: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    last_block: Mapped[int] = mapped_column(BigInteger)
    reason: Mapped[str] = mapped_column(Text)
    found_at: Mapped[int] = mapped_column(BigInteger, server_default=NOW)


class ErrorSignature(Base):
    """A custom error that an operator told us of."""

    __tablename__ = "error_signatures"

    selector: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    signature: Mapped[str] = mapped_column(String(256), primary_key=True)


class State(Base):
    """What the pipelines note about themselves."""

    __tablename__ = "worker_state"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[dict[str, Any]] = mapped_column(JSONB)
    updated_at: Mapped[int] = mapped_column(BigInteger, server_default=NOW)


class Alert(Base):
    """An alert rule."""

    __tablename__ = "alerts"
    __table_args__ = (
        CheckConstraint(
            "alert_type IN ('failure_rate', 'gas_spike', 'provider_down', 'custom')", name="type"
        ),
        CheckConstraint("severity IN ('info', 'warning', 'critical')", name="severity"),
        CheckConstraint("no_data IN ('ok', 'keep', 'alert')", name="no_data"),
    )

    id: Mapped[int] = mapped_column(Integer, Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(String(128))
    description: Mapped[str | None] = mapped_column(Text)
    alert_type: Mapped[str] = mapped_column(Text)
    conditions: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=NO_OBJECT)
    threshold: Mapped[Any] = mapped_column(Numeric(18, 6))
    window_minutes: Mapped[int] = mapped_column(Integer, server_default=text("5"))
    cooldown_minutes: Mapped[int] = mapped_column(Integer, server_default=text("15"))
    for_minutes: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    severity: Mapped[str] = mapped_column(Text, server_default=text("'warning'"))
    no_data: Mapped[str] = mapped_column(Text, server_default=text("'keep'"))
    is_enabled: Mapped[bool] = mapped_column(Boolean, server_default=TRUE)
    contract_ids: Mapped[list[int]] = mapped_column(
        ARRAY(Integer), server_default=text("'{}'::integer[]")
    )
    channels: Mapped[list[Any]] = mapped_column(JSONB, server_default=text("'[]'::jsonb"))
    last_triggered_at: Mapped[int | None] = mapped_column(BigInteger)
    last_eval_at: Mapped[int | None] = mapped_column(BigInteger)
    last_value: Mapped[Any | None] = mapped_column(Numeric)
    last_error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[int] = mapped_column(BigInteger, server_default=NOW)
    updated_at: Mapped[int] = mapped_column(BigInteger, server_default=NOW)


class AlertState(Base):
    """Where one series of a rule is: the whole rule, or one contract or provider of it."""

    __tablename__ = "alert_states"

    alert_id: Mapped[int] = mapped_column(
        ForeignKey(Alert.id, ondelete="CASCADE"), primary_key=True
    )
    #: Empty, `contract:3` or `provider:1`.
    series: Mapped[str] = mapped_column(Text, primary_key=True, server_default=text("''"))
    state: Mapped[str] = mapped_column(Text)
    since: Mapped[int] = mapped_column(BigInteger)
    #: When the condition became true, and when it last was.
    true_since: Mapped[int | None] = mapped_column(BigInteger)
    true_at: Mapped[int | None] = mapped_column(BigInteger)
    episode_id: Mapped[int | None] = mapped_column(BigInteger)
    #: When the last event of this series was recorded; the cooldown counts from it.
    event_at: Mapped[int | None] = mapped_column(BigInteger)
    value: Mapped[Any | None] = mapped_column(Numeric)


class AlertEvent(Base):
    """A rule fired, or still does after its cooldown."""

    __tablename__ = "alert_events"
    __table_args__ = (
        Index(None, "alert_id", "triggered_at"),
        Index("ix_alert_events_open", "alert_id", postgresql_where=text("resolved_at IS NULL")),
        CheckConstraint("kind IN ('firing', 'repeat')", name="kind"),
        UniqueConstraint("episode_id", "kind", "triggered_at"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    alert_id: Mapped[int] = mapped_column(ForeignKey(Alert.id, ondelete="CASCADE"))
    episode_id: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(Text)
    series: Mapped[str] = mapped_column(Text, server_default=text("''"))
    triggered_at: Mapped[int] = mapped_column(BigInteger)
    severity: Mapped[str] = mapped_column(Text)
    value_observed: Mapped[Any | None] = mapped_column(Numeric)
    last_value: Mapped[Any | None] = mapped_column(Numeric)
    threshold: Mapped[Any] = mapped_column(Numeric(18, 6))
    context: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=NO_OBJECT)
    resolved_at: Mapped[int | None] = mapped_column(BigInteger)
    #: `recovered`, `rule_changed`, `disabled`, `no_data` or `retracted`.
    resolve_reason: Mapped[str | None] = mapped_column(Text)
    acknowledged_at: Mapped[int | None] = mapped_column(BigInteger)
    acknowledged_by: Mapped[str | None] = mapped_column(String(64))


class Notification(Base):
    """Something to tell a channel: the outbox of alerts."""

    __tablename__ = "notifications"
    __table_args__ = (
        Index("ix_notifications_due", "next_at", postgresql_where=text("state = 'waiting'")),
        CheckConstraint(
            "state IN ('waiting', 'delivered', 'suppressed', 'given_up')", name="state"
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    #: `alert-12:episode-77:firing`, with the channel's number: delivered once.
    idempotency_key: Mapped[str] = mapped_column(Text, unique=True)
    alert_id: Mapped[int | None] = mapped_column(ForeignKey(Alert.id, ondelete="SET NULL"))
    channel: Mapped[dict[str, Any]] = mapped_column(JSONB)
    body: Mapped[dict[str, Any]] = mapped_column(JSONB)
    state: Mapped[str] = mapped_column(Text, server_default=text("'waiting'"))
    attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    next_at: Mapped[int] = mapped_column(BigInteger, server_default=NOW)
    created_at: Mapped[int] = mapped_column(BigInteger, server_default=NOW)
    delivered_at: Mapped[int | None] = mapped_column(BigInteger)
    #: Why it was suppressed, or what the last attempt met.
    reason: Mapped[str | None] = mapped_column(Text)


class Silence(Base):
    """Notifications that match are not sent for a while."""

    __tablename__ = "silences"

    id: Mapped[int] = mapped_column(Integer, Identity(), primary_key=True)
    #: `{"alert_id": 3}`, `{"severity": "info"}`, `{"alert_type": "…"}`; all have to match.
    matchers: Mapped[dict[str, Any]] = mapped_column(JSONB)
    starts_at: Mapped[int] = mapped_column(BigInteger)
    ends_at: Mapped[int] = mapped_column(BigInteger)
    author: Mapped[str] = mapped_column(String(64))
    comment: Mapped[str] = mapped_column(Text, server_default=text("''"))
    created_at: Mapped[int] = mapped_column(BigInteger, server_default=NOW)
