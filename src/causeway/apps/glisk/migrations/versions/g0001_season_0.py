"""The tables of season 0, the state machine's guard, undo by the kernel, and the views."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from causeway.indexing.undo import attach_undo, detach_undo
from causeway.pipelines.history import attach_history, detach_history

revision = "g0001"
down_revision = None
branch_labels = None
depends_on = None

DERIVED = ("mint_events", "tokens_s0", "contract_state", "author_claims")

EDGES = (
    ("detected", "generating"),
    ("generating", "uploading"),
    ("generating", "detected"),
    ("uploading", "ready"),
    ("uploading", "detected"),
    ("ready", "revealed"),
    ("detected", "revealed"),
    ("generating", "revealed"),
    ("uploading", "revealed"),
    ("failed", "revealed"),
    ("revealed", "ready"),
    ("revealed", "detected"),
    ("revealed", "generating"),
    ("revealed", "uploading"),
    ("revealed", "failed"),
    ("detected", "failed"),
    ("generating", "failed"),
    ("uploading", "failed"),
    ("ready", "failed"),
    ("failed", "detected"),
    ("failed", "uploading"),
    ("failed", "ready"),
)

#: When a mint is undone its token goes, but what was paid for stays, in case an equal mint comes.
KEEP_WORK = """
CREATE FUNCTION glisk.keep_work() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO glisk.kept_work AS k (token_id, author_id, prompt_sha256, work)
  VALUES (OLD.token_id, OLD.author_id,
    encode(sha256(convert_to(coalesce(OLD.prompt_text, ''), 'UTF8')), 'hex'),
    jsonb_build_object(
      'image_url', OLD.image_url, 'image_sha256', OLD.image_sha256,
      'image_mime', OLD.image_mime, 'image_bytes_size', OLD.image_bytes_size,
      'image_cid', OLD.image_cid, 'image_cid_profile', OLD.image_cid_profile,
      'censored', OLD.censored, 'prompt_sha256', OLD.prompt_sha256,
      'generation_seed', OLD.generation_seed, 'generation_model', OLD.generation_model,
      'job_ids', (SELECT coalesce(jsonb_agg(j.id::text), '[]')
        FROM glisk.image_generation_jobs j WHERE j.token_id = OLD.token_id),
      'upload_ids', (SELECT coalesce(jsonb_agg(u.id::text), '[]')
        FROM glisk.ipfs_upload_records u WHERE u.token_id = OLD.token_id)))
  ON CONFLICT (token_id, author_id, prompt_sha256) DO UPDATE
    SET work = excluded.work, kept_at = clock_timestamp();
  RETURN OLD;
END $$
"""

#: The row's own time of change, whoever changes it and by whatever road.
TOUCH = """
CREATE FUNCTION glisk.touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.updated_at := clock_timestamp();
  RETURN NEW;
END $$
"""

#: One row for each signed transaction and each replacement of it, from the relayer's ledger.
REVEAL_TRANSACTIONS = """
CREATE VIEW glisk.reveal_transactions AS
SELECT
  md5(t.id::text || ':' || coalesce(a.n, 0))::uuid AS id,
  u.token_ids, u.metadata_uris, t.nonce, a.raw AS raw_tx, a.hash::varchar(66) AS tx_hash,
  CASE WHEN a.n > f.first_n THEN md5(t.id::text || ':' || (a.n - 1))::uuid END AS replaces_id,
  CASE
    WHEN t.state IN ('planned') OR a.state = 'signed' AND t.state IN ('signed') THEN 'prepared'
    WHEN t.state = 'dropped' THEN 'dropped'
    WHEN t.state IN ('cancelled', 'lost') THEN 'dropped'
    WHEN r.transaction_hash = a.hash AND r.status = 0 THEN 'failed'
    WHEN t.state = 'reverted' THEN 'replaced'
    WHEN t.state = 'confirmed' AND r.transaction_hash = a.hash THEN 'confirmed'
    WHEN t.state = 'mined' AND r.transaction_hash = a.hash THEN 'mined'
    WHEN t.state IN ('mined', 'confirmed') THEN 'replaced'
    WHEN a.n < f.last_n THEN 'replaced'
    ELSE 'sent'
  END AS status,
  coalesce(a.gas_limit, t.gas_limit) AS gas_limit,
  CASE WHEN r.transaction_hash = a.hash THEN r.gas_used END AS gas_used,
  CASE WHEN r.transaction_hash = a.hash
    THEN (r.effective_gas_price_wei / 1000000000.0)::numeric(20,9) END AS gas_price_gwei,
  a.cap_wei AS max_fee_wei, a.tip_wei AS priority_fee_wei,
  CASE WHEN r.transaction_hash = a.hash THEN r.l1_fee_wei END AS l1_fee_wei,
  CASE WHEN r.transaction_hash = a.hash THEN r.block_number END AS block_number,
  CASE WHEN r.transaction_hash = a.hash THEN r.block_hash END AS block_hash,
  t.error AS error_data, coalesce(a.created_at, t.created_at) AS created_at, a.sent_at,
  CASE WHEN r.transaction_hash = a.hash THEN t.confirmed_at END AS confirmed_at
FROM causeway.relayer_transactions t
LEFT JOIN causeway.relayer_attempts a ON a.tx_id = t.id
LEFT JOIN causeway.relayer_receipts r ON r.tx_id = t.id
LEFT JOIN LATERAL (SELECT min(n) AS first_n, max(n) AS last_n
  FROM causeway.relayer_attempts x WHERE x.tx_id = t.id) f ON true
LEFT JOIN LATERAL (SELECT
    array_agg((m.payload->>'token_id')::bigint ORDER BY m.ordinal) AS token_ids,
    array_agg(m.payload->>'uri' ORDER BY m.ordinal) AS metadata_uris
  FROM causeway.relayer_transaction_units m WHERE m.tx_id = t.id) u ON true
WHERE t.app = 'glisk' AND t.kind = 'reveal'
"""

SYSTEM_STATE = """
CREATE VIEW glisk.system_state AS
SELECT state_key, state_value, updated_at FROM glisk.state_values
UNION ALL
SELECT 'last_processed_block', jsonb_build_object('number', number, 'hash', hash), updated_at
FROM causeway.checkpoints WHERE source = 'glisk'
UNION ALL
SELECT 'paused',
  coalesce(jsonb_agg(stage ORDER BY stage) FILTER (WHERE paused_by IS NOT NULL), '[]'), max(since)
FROM causeway.stage_control WHERE app = 'glisk'
"""


def upgrade() -> None:
    op.create_table(
        "author_claims",
        sa.Column("tx_hash", sa.String(length=66), nullable=False),
        sa.Column("log_index", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("author_wallet", sa.String(length=42), nullable=False),
        sa.Column("amount_wei", sa.Numeric(precision=78, scale=0), nullable=False),
        sa.Column("block_number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tx_hash", "log_index", name=op.f("pk_author_claims")),
        schema="glisk",
    )
    op.create_table(
        "authors",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("wallet_address", sa.String(length=42), nullable=False),
        sa.Column("twitter_handle", sa.String(length=255), nullable=True),
        sa.Column("farcaster_handle", sa.String(length=255), nullable=True),
        sa.Column("farcaster_fid", sa.BigInteger(), nullable=True),
        sa.Column("prompt_text", sa.Text(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "char_length(prompt_text) BETWEEN 1 AND 1000", name=op.f("ck_authors_prompt_length")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_authors")),
        schema="glisk",
    )
    op.create_index(
        "uq_authors_wallet_address",
        "authors",
        [sa.literal_column("lower(wallet_address)")],
        unique=True,
        schema="glisk",
    )
    op.create_table(
        "contract_state",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("value", postgresql.JSONB(), nullable=False),
        sa.Column("block_number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_contract_state")),
        schema="glisk",
    )
    op.create_table(
        "farcaster_nonces",
        sa.Column("nonce", sa.Text(), nullable=False),
        sa.Column(
            "used_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("nonce", name=op.f("pk_farcaster_nonces")),
        schema="glisk",
    )
    op.create_table(
        "images",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("mime", sa.String(length=32), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_images")),
        schema="glisk",
    )
    op.create_table(
        "incidents",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("token_id", sa.BigInteger(), nullable=True),
        sa.Column("detail", postgresql.JSONB(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_incidents")),
        schema="glisk",
    )
    op.create_index(
        "ix_incidents_created_at", "incidents", ["created_at"], unique=False, schema="glisk"
    )
    op.create_table(
        "mint_events",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("tx_hash", sa.String(length=66), nullable=False),
        sa.Column("log_index", sa.Integer(), nullable=False),
        sa.Column("block_number", sa.BigInteger(), nullable=False),
        sa.Column("block_hash", sa.String(length=66), nullable=False),
        sa.Column("block_timestamp", sa.DateTime(timezone=True), nullable=False),
        sa.Column("minter", sa.String(length=42), nullable=False),
        sa.Column("author_wallet", sa.String(length=42), nullable=False),
        sa.Column("start_token_id", sa.BigInteger(), nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=False),
        sa.Column("token_ids", postgresql.ARRAY(sa.BigInteger()), nullable=False),
        sa.Column("total_paid", sa.Numeric(precision=78, scale=0), nullable=False),
        sa.Column(
            "detected_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("via", sa.String(length=16), nullable=False),
        sa.CheckConstraint("via IN ('webhook', 'reader')", name=op.f("ck_mint_events_via")),
        sa.CheckConstraint("quantity BETWEEN 1 AND 50", name=op.f("ck_mint_events_quantity")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mint_events")),
        sa.UniqueConstraint("tx_hash", "log_index", name=op.f("uq_mint_events_tx_hash_log_index")),
        schema="glisk",
    )
    op.create_index(
        "ix_mint_events_block_number", "mint_events", ["block_number"], unique=False, schema="glisk"
    )
    op.create_table(
        "recovery_requests",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("from_block", sa.BigInteger(), nullable=False),
        sa.Column("to_block", sa.BigInteger(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("done_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("result", postgresql.JSONB(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recovery_requests")),
        schema="glisk",
    )
    op.create_table(
        "reveal_requests",
        sa.Column("batch_id", sa.Uuid(), nullable=False),
        sa.Column("token_ids", postgresql.ARRAY(sa.BigInteger()), nullable=False),
        sa.Column("force", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("idempotency_key", sa.String(length=255), nullable=True),
        sa.Column("answer", postgresql.JSONB(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("taken_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("batch_id", name=op.f("pk_reveal_requests")),
        sa.UniqueConstraint("idempotency_key", name=op.f("uq_reveal_requests_idempotency_key")),
        schema="glisk",
    )
    op.create_table(
        "state_values",
        sa.Column("state_key", sa.String(length=64), nullable=False),
        sa.Column("state_value", postgresql.JSONB(), nullable=False),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("state_key ~ '^[A-Za-z0-9_]+$'", name=op.f("ck_state_values_state_key")),
        sa.PrimaryKeyConstraint("state_key", name=op.f("pk_state_values")),
        schema="glisk",
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("block_number", sa.BigInteger(), nullable=True),
        sa.Column("block_hash", sa.String(length=66), nullable=True),
        sa.Column("times", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column(
            "received_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
        schema="glisk",
    )
    op.create_table(
        "kept_work",
        sa.Column("token_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("author_id", sa.Uuid(), nullable=False),
        sa.Column("prompt_sha256", sa.String(length=64), nullable=False),
        sa.Column("work", postgresql.JSONB(), nullable=False),
        sa.Column(
            "kept_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["author_id"], ["glisk.authors.id"], name=op.f("fk_kept_work_author_id_authors")
        ),
        sa.PrimaryKeyConstraint(
            "token_id", "author_id", "prompt_sha256", name=op.f("pk_kept_work")
        ),
        schema="glisk",
    )
    op.create_table(
        "tokens_s0",
        sa.Column("token_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("author_id", sa.Uuid(), nullable=False),
        sa.Column("minter_address", sa.String(length=42), nullable=False),
        sa.Column("owner_address", sa.String(length=42), nullable=False),
        sa.Column("mint_timestamp", sa.DateTime(timezone=True), nullable=False),
        sa.Column("mint_event_id", sa.Uuid(), nullable=True),
        sa.Column("mint_block_number", sa.BigInteger(), nullable=False),
        sa.Column("mint_block_hash", sa.String(length=66), nullable=False),
        sa.Column("prompt_text", sa.Text(), nullable=True),
        sa.Column("status", sa.String(length=16), server_default="detected", nullable=False),
        sa.Column("image_url", sa.Text(), nullable=True),
        sa.Column("image_sha256", sa.String(length=64), nullable=True),
        sa.Column("image_mime", sa.String(length=32), nullable=True),
        sa.Column("image_bytes_size", sa.BigInteger(), nullable=True),
        sa.Column("image_cid", sa.String(length=255), nullable=True),
        sa.Column("image_cid_profile", sa.String(length=32), nullable=True),
        sa.Column("metadata_cid", sa.String(length=255), nullable=True),
        sa.Column("metadata_json", sa.LargeBinary(), nullable=True),
        sa.Column("reveal_tx_hash", sa.String(length=66), nullable=True),
        sa.Column("revealed_uri", sa.Text(), nullable=True),
        sa.Column("ready_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revealed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("censored", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("prompt_sha256", sa.String(length=64), nullable=True),
        sa.Column("generation_seed", sa.BigInteger(), nullable=True),
        sa.Column("generation_model", sa.Text(), nullable=True),
        sa.Column("generation_attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("error_log", postgresql.JSONB(), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("source", sa.String(length=8), server_default="log", nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("stage_attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("fence", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("generation_error", sa.String(length=1000), nullable=True),
        sa.CheckConstraint("source IN ('log', 'repair')", name=op.f("ck_tokens_s0_source")),
        sa.CheckConstraint(
            "status <> 'ready' OR metadata_cid IS NOT NULL",
            name=op.f("ck_tokens_s0_ready_has_metadata"),
        ),
        sa.CheckConstraint(
            "status <> 'uploading' OR image_url IS NOT NULL OR image_sha256 IS NOT NULL",
            name=op.f("ck_tokens_s0_uploading_has_image"),
        ),
        sa.CheckConstraint(
            "status IN ('detected','generating','uploading','ready','revealed','failed')",
            name=op.f("ck_tokens_s0_status"),
        ),
        sa.CheckConstraint(
            "generation_attempts >= 0", name=op.f("ck_tokens_s0_generation_attempts")
        ),
        sa.ForeignKeyConstraint(
            ["author_id"], ["glisk.authors.id"], name=op.f("fk_tokens_s0_author_id_authors")
        ),
        sa.ForeignKeyConstraint(
            ["image_sha256"], ["glisk.images.sha256"], name=op.f("fk_tokens_s0_image_sha256_images")
        ),
        sa.ForeignKeyConstraint(
            ["mint_event_id"],
            ["glisk.mint_events.id"],
            name=op.f("fk_tokens_s0_mint_event_id_mint_events"),
        ),
        sa.PrimaryKeyConstraint("token_id", name=op.f("pk_tokens_s0")),
        sa.UniqueConstraint("id", name=op.f("uq_tokens_s0_id")),
        schema="glisk",
    )
    op.create_index(
        "ix_tokens_s0_author_id", "tokens_s0", ["author_id"], unique=False, schema="glisk"
    )
    op.create_index(
        "ix_tokens_s0_mint_event_id", "tokens_s0", ["mint_event_id"], unique=False, schema="glisk"
    )
    op.create_index(
        "ix_tokens_s0_minter_address", "tokens_s0", ["minter_address"], unique=False, schema="glisk"
    )
    op.create_index(
        "ix_tokens_s0_status_mint_timestamp",
        "tokens_s0",
        ["status", "mint_timestamp"],
        unique=False,
        schema="glisk",
    )
    op.create_index(
        "ix_tokens_s0_status_next_attempt_at",
        "tokens_s0",
        ["status", "next_attempt_at"],
        unique=False,
        schema="glisk",
    )
    op.create_table(
        "image_generation_jobs",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("token_id", sa.BigInteger(), nullable=True),
        sa.Column("prompt_text", sa.Text(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=True),
        sa.Column("service", sa.String(length=32), nullable=False),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("status", sa.String(length=16), server_default="started", nullable=False),
        sa.Column("attempt_number", sa.Integer(), nullable=False),
        sa.Column("external_job_id", sa.Text(), nullable=True),
        sa.Column("output_url", sa.Text(), nullable=True),
        sa.Column("cost_seconds", sa.Numeric(), nullable=True),
        sa.Column("error_data", postgresql.JSONB(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('started','succeeded','failed','censored','abandoned')",
            name=op.f("ck_image_generation_jobs_status"),
        ),
        sa.ForeignKeyConstraint(
            ["token_id"],
            ["glisk.tokens_s0.token_id"],
            name=op.f("fk_image_generation_jobs_token_id_tokens_s0"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_image_generation_jobs")),
        sa.UniqueConstraint(
            "token_id",
            "attempt_number",
            name=op.f("uq_image_generation_jobs_token_id_attempt_number"),
        ),
        schema="glisk",
    )
    op.create_index(
        "ix_image_generation_jobs_token_id",
        "image_generation_jobs",
        ["token_id"],
        unique=False,
        schema="glisk",
    )
    op.create_table(
        "ipfs_upload_records",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("token_id", sa.BigInteger(), nullable=True),
        sa.Column("upload_type", sa.String(length=16), nullable=False),
        sa.Column("provider", sa.String(length=32), nullable=False),
        sa.Column("expected_cid", sa.String(length=255), nullable=False),
        sa.Column("ipfs_cid", sa.String(length=255), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("status", sa.String(length=16), server_default="started", nullable=False),
        sa.Column("attempt_number", sa.Integer(), nullable=False),
        sa.Column("error_data", postgresql.JSONB(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('started','completed','failed','mismatch')",
            name=op.f("ck_ipfs_upload_records_status"),
        ),
        sa.CheckConstraint(
            "upload_type IN ('image','metadata')", name=op.f("ck_ipfs_upload_records_upload_type")
        ),
        sa.ForeignKeyConstraint(
            ["token_id"],
            ["glisk.tokens_s0.token_id"],
            name=op.f("fk_ipfs_upload_records_token_id_tokens_s0"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ipfs_upload_records")),
        schema="glisk",
    )
    op.create_index(
        "ix_ipfs_upload_records_token_id",
        "ipfs_upload_records",
        ["token_id"],
        unique=False,
        schema="glisk",
    )

    for table in DERIVED:
        for statement in attach_undo(f"glisk.{table}"):
            op.execute(statement)
    history = attach_history(
        "glisk.tokens_s0",
        app="glisk",
        key="token_id",
        edges=EDGES,
        attempts="stage_attempts",
        reason="generation_error",
    )
    for statement in history:
        op.execute(statement)
    op.execute(KEEP_WORK)
    op.execute(
        "CREATE TRIGGER keep_work BEFORE DELETE ON glisk.tokens_s0 "
        "FOR EACH ROW EXECUTE FUNCTION glisk.keep_work()"
    )
    op.execute(TOUCH)
    for table in ("tokens_s0", "authors"):
        op.execute(
            f"CREATE TRIGGER touch BEFORE UPDATE ON glisk.{table} "
            "FOR EACH ROW EXECUTE FUNCTION glisk.touch()"
        )
    op.execute(REVEAL_TRANSACTIONS)
    op.execute(SYSTEM_STATE)


def downgrade() -> None:
    op.execute("DROP VIEW glisk.system_state")
    op.execute("DROP VIEW glisk.reveal_transactions")
    for table in ("tokens_s0", "authors"):
        op.execute(f"DROP TRIGGER touch ON glisk.{table}")
    op.execute("DROP FUNCTION glisk.touch()")
    op.execute("DROP TRIGGER keep_work ON glisk.tokens_s0")
    op.execute("DROP FUNCTION glisk.keep_work()")
    for statement in detach_history("glisk.tokens_s0"):
        op.execute(statement)
    for table in DERIVED:
        for statement in detach_undo(f"glisk.{table}"):
            op.execute(statement)
    op.drop_index(
        "ix_ipfs_upload_records_token_id", table_name="ipfs_upload_records", schema="glisk"
    )
    op.drop_table("ipfs_upload_records", schema="glisk")
    op.drop_index(
        "ix_image_generation_jobs_token_id", table_name="image_generation_jobs", schema="glisk"
    )
    op.drop_table("image_generation_jobs", schema="glisk")
    op.drop_index("ix_tokens_s0_status_next_attempt_at", table_name="tokens_s0", schema="glisk")
    op.drop_index("ix_tokens_s0_status_mint_timestamp", table_name="tokens_s0", schema="glisk")
    op.drop_index("ix_tokens_s0_minter_address", table_name="tokens_s0", schema="glisk")
    op.drop_index("ix_tokens_s0_mint_event_id", table_name="tokens_s0", schema="glisk")
    op.drop_index("ix_tokens_s0_author_id", table_name="tokens_s0", schema="glisk")
    op.drop_table("tokens_s0", schema="glisk")
    op.drop_table("kept_work", schema="glisk")
    op.drop_table("webhook_deliveries", schema="glisk")
    op.drop_table("state_values", schema="glisk")
    op.drop_table("reveal_requests", schema="glisk")
    op.drop_table("recovery_requests", schema="glisk")
    op.drop_index("ix_mint_events_block_number", table_name="mint_events", schema="glisk")
    op.drop_table("mint_events", schema="glisk")
    op.drop_index("ix_incidents_created_at", table_name="incidents", schema="glisk")
    op.drop_table("incidents", schema="glisk")
    op.drop_table("images", schema="glisk")
    op.drop_table("farcaster_nonces", schema="glisk")
    op.drop_table("contract_state", schema="glisk")
    op.drop_index("uq_authors_wallet_address", table_name="authors", schema="glisk")
    op.drop_table("authors", schema="glisk")
    op.drop_table("author_claims", schema="glisk")
