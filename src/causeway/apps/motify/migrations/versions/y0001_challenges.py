"""Motify's tables, the guards of its two state machines, undo by the kernel, and the view."""

from __future__ import annotations

from alembic import op

from causeway.indexing.undo import attach_undo, detach_undo
from causeway.pipelines.history import attach_history, detach_history

revision = "y0001"
down_revision = None
branch_labels = None
depends_on = None

DERIVED = ("chain_challenges",)

TABLES = """
CREATE TABLE motify.chain_challenges (
    chain_id BIGINT NOT NULL,
    contract_address TEXT NOT NULL,
    challenge_id NUMERIC(78, 0) NOT NULL,
    recipient TEXT,
    start_time BIGINT,
    end_time BIGINT,
    is_private BOOLEAN,
    name TEXT,
    api_type TEXT,
    goal_type TEXT,
    goal_amount NUMERIC(78, 0),
    description TEXT,
    total_donation_amount NUMERIC(78, 0),
    results_finalized BOOLEAN DEFAULT false NOT NULL,
    participant_count BIGINT DEFAULT 0 NOT NULL,
    indexed_at TIMESTAMP WITH TIME ZONE,
    changed_block BIGINT NOT NULL,
    read_block BIGINT,
    CONSTRAINT pk_chain_challenges PRIMARY KEY (chain_id, contract_address, challenge_id)
);

CREATE INDEX ix_chain_challenges_end_time_results_finalized ON motify.chain_challenges
        (end_time, results_finalized);

CREATE TABLE motify.chain_events (
    transaction_hash TEXT NOT NULL,
    log_index INTEGER NOT NULL,
    chain_id BIGINT NOT NULL,
    contract_address TEXT NOT NULL,
    challenge_id NUMERIC(78, 0) NOT NULL,
    event TEXT NOT NULL,
    participant_address TEXT,
    block_number BIGINT NOT NULL,
    block_time BIGINT NOT NULL,
    CONSTRAINT pk_chain_events PRIMARY KEY (transaction_hash, log_index)
);

CREATE INDEX ix_chain_events_block_number ON motify.chain_events (block_number);

CREATE INDEX ix_chain_events_challenge_id_event ON motify.chain_events (challenge_id, event);

CREATE TABLE motify.chain_participants (
    chain_id BIGINT NOT NULL,
    contract_address TEXT NOT NULL,
    challenge_id NUMERIC(78, 0) NOT NULL,
    participant_address TEXT NOT NULL,
    joined_block BIGINT NOT NULL,
    initial_amount NUMERIC(78, 0),
    amount NUMERIC(78, 0),
    refund_percentage NUMERIC(78, 0),
    result_declared BOOLEAN DEFAULT false NOT NULL,
    indexed_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_chain_participants PRIMARY KEY (chain_id, contract_address, challenge_id,
        participant_address)
);

CREATE INDEX ix_chain_participants_joined_block ON motify.chain_participants (joined_block);

CREATE INDEX ix_chain_participants_participant_address ON motify.chain_participants
        (participant_address);

CREATE TABLE motify.farcaster_accounts (
    wallet TEXT NOT NULL,
    fid BIGINT NOT NULL,
    set_by TEXT,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_farcaster_accounts PRIMARY KEY (wallet)
);

CREATE TABLE motify.finished_challenges (
    chain_id BIGINT NOT NULL,
    contract_address TEXT NOT NULL,
    challenge_id NUMERIC(78, 0) NOT NULL,
    processed_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    rule JSONB NOT NULL,
    summary JSONB NOT NULL,
    CONSTRAINT pk_finished_challenges PRIMARY KEY (chain_id, contract_address, challenge_id)
);

CREATE TABLE motify.finished_participants (
    chain_id BIGINT NOT NULL,
    contract_address TEXT NOT NULL,
    challenge_id NUMERIC(78, 0) NOT NULL,
    participant_address TEXT NOT NULL,
    stake_minor_units NUMERIC(78, 0) NOT NULL,
    percent_ppm BIGINT NOT NULL,
    progress_ratio NUMERIC,
    batch_no INTEGER,
    tx_hash TEXT,
    reason TEXT,
    archived_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_finished_participants PRIMARY KEY (chain_id, contract_address, challenge_id,
        participant_address),
    CONSTRAINT ck_finished_participants_percent_ppm CHECK (percent_ppm BETWEEN 0 AND 1000000)
);

CREATE INDEX ix_finished_participants_wallet ON motify.finished_participants
        (lower(participant_address));

CREATE TABLE motify.incidents (
    id UUID DEFAULT gen_random_uuid() NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail JSONB NOT NULL,
    raised_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    resolved_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_incidents PRIMARY KEY (id)
);

CREATE UNIQUE INDEX uq_incidents_open ON motify.incidents (kind,
        subject) WHERE resolved_at IS NULL;

CREATE TABLE motify.reminders (
    id UUID DEFAULT gen_random_uuid() NOT NULL,
    kind TEXT NOT NULL,
    settlement_key TEXT NOT NULL,
    wallet TEXT NOT NULL,
    body JSONB NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    status TEXT DEFAULT 'waiting' NOT NULL,
    attempts INTEGER DEFAULT 0 NOT NULL,
    next_at TIMESTAMP WITH TIME ZONE,
    lease_owner TEXT,
    lease_until TIMESTAMP WITH TIME ZONE,
    fence BIGINT DEFAULT 0 NOT NULL,
    last_error TEXT,
    CONSTRAINT pk_reminders PRIMARY KEY (id),
    CONSTRAINT uq_reminders_kind_settlement_key_wallet UNIQUE (kind, settlement_key, wallet)
);

CREATE TABLE motify.settlements (
    id UUID DEFAULT gen_random_uuid() NOT NULL,
    chain_id BIGINT NOT NULL,
    contract_address TEXT NOT NULL,
    challenge_id NUMERIC(78, 0) NOT NULL,
    status TEXT DEFAULT 'live' NOT NULL,
    start_time BIGINT NOT NULL,
    end_time BIGINT NOT NULL,
    api_type TEXT NOT NULL,
    goal_type TEXT NOT NULL,
    goal_amount NUMERIC(78, 0) NOT NULL,
    ordered_rule JSONB,
    late_order JSONB,
    rule JSONB,
    frozen_at TIMESTAMP WITH TIME ZONE,
    evidence_root TEXT,
    finalize_tx TEXT,
    waits_for TEXT,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    attempts INTEGER DEFAULT 0 NOT NULL,
    next_at TIMESTAMP WITH TIME ZONE,
    lease_owner TEXT,
    lease_until TIMESTAMP WITH TIME ZONE,
    fence BIGINT DEFAULT 0 NOT NULL,
    last_error TEXT,
    CONSTRAINT pk_settlements PRIMARY KEY (id),
    CONSTRAINT uq_settlements_chain_id_contract_address_challenge_id UNIQUE (chain_id,
        contract_address, challenge_id),
    CONSTRAINT ck_settlements_frozen_has_rule CHECK (status NOT IN
        ('declaring','declared','finalizing') OR rule IS NOT NULL)
);

CREATE INDEX ix_settlements_status ON motify.settlements (status);

CREATE TABLE motify.scores (
    id UUID DEFAULT gen_random_uuid() NOT NULL,
    settlement_id UUID NOT NULL,
    wallet TEXT NOT NULL,
    stake NUMERIC(78, 0) NOT NULL,
    status TEXT DEFAULT 'waiting' NOT NULL,
    again_at BIGINT,
    numerator NUMERIC,
    denominator NUMERIC,
    reading_id UUID,
    outcome TEXT,
    detail TEXT,
    outcome_since TIMESTAMP WITH TIME ZONE,
    percent_ppm BIGINT,
    bps INTEGER,
    reason TEXT,
    batch_no INTEGER,
    evidence TEXT,
    leaf BYTEA,
    declared_bps INTEGER,
    declared_tx TEXT,
    refused TEXT,
    attempts INTEGER DEFAULT 0 NOT NULL,
    next_at TIMESTAMP WITH TIME ZONE,
    lease_owner TEXT,
    lease_until TIMESTAMP WITH TIME ZONE,
    fence BIGINT DEFAULT 0 NOT NULL,
    last_error TEXT,
    CONSTRAINT pk_scores PRIMARY KEY (id),
    CONSTRAINT uq_scores_settlement_id_wallet UNIQUE (settlement_id, wallet),
    CONSTRAINT ck_scores_bps CHECK (bps BETWEEN 0 AND 10000),
    CONSTRAINT ck_scores_percent_ppm CHECK (percent_ppm BETWEEN 0 AND 1000000),
    CONSTRAINT ck_scores_ratio CHECK (numerator IS NULL OR (denominator > 0 AND numerator
        BETWEEN 0 AND denominator)),
    CONSTRAINT fk_scores_settlement_id_settlements FOREIGN KEY(settlement_id) REFERENCES
        motify.settlements (id) ON DELETE CASCADE
);

CREATE INDEX ix_scores_status_again_at ON motify.scores (status, again_at);

CREATE INDEX ix_scores_status_next_at ON motify.scores (status, next_at);

CREATE INDEX ix_scores_status_wallet_id ON motify.scores (status, wallet, id);

CREATE INDEX ix_scores_wallet ON motify.scores (wallet);

CREATE TABLE motify.readings (
    id UUID DEFAULT gen_random_uuid() NOT NULL,
    score_id UUID NOT NULL,
    read_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    chain_time BIGINT NOT NULL,
    provider TEXT NOT NULL,
    account JSONB NOT NULL,
    asked JSONB NOT NULL,
    answered JSONB NOT NULL,
    days JSONB NOT NULL,
    total NUMERIC(78, 0),
    numerator NUMERIC NOT NULL,
    denominator NUMERIC NOT NULL,
    CONSTRAINT pk_readings PRIMARY KEY (id),
    CONSTRAINT fk_readings_score_id_scores FOREIGN KEY(score_id) REFERENCES motify.scores (id)
        ON DELETE CASCADE
);

CREATE INDEX ix_readings_score_id_read_at ON motify.readings (score_id, read_at)
"""

SETTLEMENT_EDGES = (
    ("live", "measuring"),
    ("measuring", "declaring"),
    ("measuring", "declared"),
    ("measuring", "timed_out"),
    ("declaring", "declared"),
    ("declaring", "timed_out"),
    ("declared", "declaring"),
    ("declared", "finalizing"),
    ("finalizing", "declared"),
    ("finalizing", "declaring"),
    ("finalizing", "archived"),
    ("timed_out", "measuring"),
    ("timed_out", "declaring"),
    ("timed_out", "declared"),
    ("live", "archived"),
    ("measuring", "archived"),
    ("measuring", "failed"),
    ("declared", "failed"),
    ("finalizing", "failed"),
    ("failed", "measuring"),
    ("failed", "declared"),
    ("failed", "finalizing"),
)

SCORE_EDGES = (
    ("waiting", "measuring"),
    ("measuring", "waiting"),
    ("measuring", "resting"),
    ("measuring", "settled"),
    ("measuring", "failed"),
    ("resting", "waiting"),
    ("settled", "waiting"),
    ("failed", "waiting"),
    ("waiting", "frozen"),
    ("measuring", "frozen"),
    ("resting", "frozen"),
    ("settled", "frozen"),
    ("failed", "frozen"),
)

#: The tokens are the kernel's, encrypted; a Farcaster account is a number and no secret.
USER_TOKENS = """
CREATE VIEW motify.user_tokens AS
SELECT subject AS wallet_address, provider, access_token, refresh_token, expires_at, scopes,
    connected_at AS created_at, updated_at, account_id AS provider_user_id,
    account_name AS provider_username
FROM causeway.connections WHERE app = 'motify'
UNION ALL
SELECT wallet, 'farcaster', fid::text, NULL, NULL, '{}'::text[], created_at, created_at,
    fid::text, NULL
FROM motify.farcaster_accounts
"""


def upgrade() -> None:
    for statement in TABLES.split(";\n"):
        op.execute(statement)
    for table in DERIVED:
        for statement in attach_undo(f"motify.{table}"):
            op.execute(statement)
    for table, edges in (("settlements", SETTLEMENT_EDGES), ("scores", SCORE_EDGES)):
        for statement in attach_history(f"motify.{table}", app="motify", key="id", edges=edges):
            op.execute(statement)
    op.execute(USER_TOKENS)


def downgrade() -> None:
    op.execute("DROP VIEW motify.user_tokens")
    for table in ("settlements", "scores"):
        for statement in detach_history(f"motify.{table}"):
            op.execute(statement)
    for table in DERIVED:
        for statement in detach_undo(f"motify.{table}"):
            op.execute(statement)
    for table in (
        "readings",
        "scores",
        "settlements",
        "reminders",
        "incidents",
        "finished_participants",
        "finished_challenges",
        "farcaster_accounts",
        "chain_participants",
        "chain_events",
        "chain_challenges",
    ):
        op.execute(f"DROP TABLE motify.{table}")
