"""The relayer's ledger: units, transactions, attempts, receipts, accounts, waits, events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "k0004"
down_revision = "k0003"
branch_labels = None
depends_on = None

_SCHEMA = "causeway"
_AT = sa.DateTime(timezone=True)
_WEI = sa.Numeric(78, 0)


def _transactions() -> None:
    op.create_table(
        "relayer_transactions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("app", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("chain_id", sa.BigInteger(), nullable=False),
        sa.Column("sender", sa.Text(), nullable=False),
        sa.Column("nonce", sa.BigInteger()),
        sa.Column("to_address", sa.Text(), nullable=False),
        sa.Column("calldata", sa.LargeBinary(), nullable=False),
        sa.Column("value", _WEI, nullable=False),
        sa.Column("gas_limit", sa.BigInteger(), nullable=False),
        sa.Column("data_fee_wei", _WEI),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("waiting", sa.Text()),
        sa.Column("error", JSONB()),
        sa.Column("requested_by", sa.Text()),
        sa.Column("cancel_requested_at", _AT),
        sa.Column("created_at", _AT, nullable=False),
        sa.Column("updated_at", _AT, nullable=False),
        sa.Column("signed_at", _AT),
        sa.Column("sent_at", _AT),
        sa.Column("mined_at", _AT),
        sa.Column("confirmed_at", _AT),
        sa.Column("final_at", _AT),
        sa.PrimaryKeyConstraint("id", name="pk_relayer_transactions"),
        sa.UniqueConstraint(
            "chain_id", "sender", "nonce", name="uq_relayer_transactions_chain_id_sender_nonce"
        ),
        sa.CheckConstraint(
            "state IN ('planned', 'signed', 'sent', 'mined', 'confirmed', 'reverted', "
            "'cancelled', 'lost', 'dropped')",
            name=op.f("ck_relayer_transactions_state"),
        ),
        sa.CheckConstraint(
            "(nonce IS NULL) = (state IN ('planned', 'dropped'))",
            name=op.f("ck_relayer_transactions_nonce"),
        ),
        schema=_SCHEMA,
    )
    op.create_index(
        "ix_relayer_transactions_chain_id_sender_state",
        "relayer_transactions",
        ["chain_id", "sender", "state"],
        schema=_SCHEMA,
    )
    op.create_index(
        "ix_relayer_transactions_app_kind_created_at",
        "relayer_transactions",
        ["app", "kind", "created_at"],
        schema=_SCHEMA,
    )
    op.create_index(
        "ix_relayer_transactions_not_final",
        "relayer_transactions",
        ["chain_id", "sender", "nonce"],
        schema=_SCHEMA,
        postgresql_where=sa.text("final_at IS NULL AND nonce IS NOT NULL"),
    )


def _units() -> None:
    op.create_table(
        "relayer_units",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("app", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("chain_id", sa.BigInteger(), nullable=False),
        sa.Column("unit_key", sa.Text(), nullable=False),
        sa.Column("payload", JSONB(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("batch_id", sa.Uuid()),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("ready_at", _AT, nullable=False),
        sa.Column("tx_id", sa.Uuid()),
        sa.Column("settled_cause", sa.Text()),
        sa.Column("settled_hash", sa.Text()),
        sa.Column("error", sa.Text()),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("reverts", sa.Integer(), nullable=False),
        sa.Column("withdraw_at", _AT),
        sa.Column("requested_by", sa.Text()),
        sa.Column("created_at", _AT, nullable=False),
        sa.Column("updated_at", _AT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_relayer_units"),
        sa.ForeignKeyConstraint(
            ["tx_id"],
            ["causeway.relayer_transactions.id"],
            name="fk_relayer_units_tx_id_relayer_transactions",
        ),
        sa.CheckConstraint(
            "state IN ('pending', 'bound', 'settled', 'failed', 'withdrawn')",
            name=op.f("ck_relayer_units_state"),
        ),
        schema=_SCHEMA,
    )
    op.create_index(
        "uq_relayer_units_open_key",
        "relayer_units",
        ["unit_key"],
        unique=True,
        schema=_SCHEMA,
        postgresql_where=sa.text("state IN ('pending', 'bound')"),
    )
    op.create_index(
        "ix_relayer_units_due",
        "relayer_units",
        ["chain_id", "app", "kind", "ready_at"],
        schema=_SCHEMA,
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index(
        "ix_relayer_units_bound",
        "relayer_units",
        ["tx_id"],
        schema=_SCHEMA,
        postgresql_where=sa.text("state = 'bound'"),
    )
    for column in ("unit_key", "batch_id"):
        op.create_index(f"ix_relayer_units_{column}", "relayer_units", [column], schema=_SCHEMA)
    op.create_table(
        "relayer_transaction_units",
        sa.Column("tx_id", sa.Uuid(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("unit_id", sa.Uuid(), nullable=False),
        sa.Column("unit_key", sa.Text(), nullable=False),
        sa.Column("payload", JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("tx_id", "ordinal", name="pk_relayer_transaction_units"),
        sa.ForeignKeyConstraint(
            ["tx_id"],
            ["causeway.relayer_transactions.id"],
            name="fk_relayer_transaction_units_tx_id_relayer_transactions",
        ),
        sa.ForeignKeyConstraint(
            ["unit_id"],
            ["causeway.relayer_units.id"],
            name="fk_relayer_transaction_units_unit_id_relayer_units",
        ),
        schema=_SCHEMA,
    )
    op.create_index(
        "ix_relayer_transaction_units_unit_id",
        "relayer_transaction_units",
        ["unit_id"],
        schema=_SCHEMA,
    )


def _attempts() -> None:
    op.create_table(
        "relayer_attempts",
        sa.Column("tx_id", sa.Uuid(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("gas_limit", sa.BigInteger(), nullable=False),
        sa.Column("tip_wei", _WEI, nullable=False),
        sa.Column("cap_wei", _WEI, nullable=False),
        sa.Column("is_cancel", sa.Boolean(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", _AT, nullable=False),
        sa.Column("sent_at", _AT),
        sa.Column("sent_block", sa.BigInteger()),
        sa.Column("sends", sa.Integer(), nullable=False),
        sa.Column("last_sent_at", _AT),
        sa.Column("rejected_reason", sa.Text()),
        sa.PrimaryKeyConstraint("tx_id", "n", name="pk_relayer_attempts"),
        sa.UniqueConstraint("hash", name="uq_relayer_attempts_hash"),
        sa.ForeignKeyConstraint(
            ["tx_id"],
            ["causeway.relayer_transactions.id"],
            name="fk_relayer_attempts_tx_id_relayer_transactions",
        ),
        sa.CheckConstraint(
            "state IN ('signed', 'sent', 'rejected', 'mined')",
            name=op.f("ck_relayer_attempts_state"),
        ),
        schema=_SCHEMA,
    )
    op.create_table(
        "relayer_receipts",
        sa.Column("tx_id", sa.Uuid(), nullable=False),
        sa.Column("attempt_n", sa.Integer(), nullable=False),
        sa.Column("transaction_hash", sa.Text(), nullable=False),
        sa.Column("block_number", sa.BigInteger(), nullable=False),
        sa.Column("block_hash", sa.Text(), nullable=False),
        sa.Column("status", sa.SmallInteger(), nullable=False),
        sa.Column("gas_used", sa.BigInteger(), nullable=False),
        sa.Column("effective_gas_price_wei", _WEI, nullable=False),
        sa.Column("l1_fee_wei", _WEI),
        sa.PrimaryKeyConstraint("tx_id", name="pk_relayer_receipts"),
        sa.ForeignKeyConstraint(
            ["tx_id", "attempt_n"],
            ["causeway.relayer_attempts.tx_id", "causeway.relayer_attempts.n"],
            name="fk_relayer_receipts_tx_id_attempt_n_relayer_attempts",
        ),
        schema=_SCHEMA,
    )


def _accounts() -> None:
    op.create_table(
        "relayer_accounts",
        sa.Column("chain_id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("sender", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("mode_by", sa.Text()),
        sa.Column("mode_since", _AT, nullable=False),
        sa.Column("nonce_floor", sa.BigInteger(), nullable=False),
        sa.Column("nonce_mined", sa.BigInteger(), nullable=False),
        sa.Column("balance_wei", _WEI),
        sa.Column("needed_wei", _WEI),
        sa.Column("base_fee_wei", _WEI),
        sa.Column("gas_price_wei", _WEI),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("checked_at", _AT),
        sa.PrimaryKeyConstraint("chain_id", "sender", name="pk_relayer_accounts"),
        sa.CheckConstraint(
            "mode IN ('run', 'no-new', 'no-sign', 'hold:funds')",
            name=op.f("ck_relayer_accounts_mode"),
        ),
        schema=_SCHEMA,
    )
    op.create_table(
        "relayer_waits",
        sa.Column("chain_id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("sender", sa.Text(), nullable=False),
        sa.Column("app", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("since", _AT, nullable=False),
        sa.Column("checked_at", _AT, nullable=False),
        sa.Column("alerted_at", _AT),
        sa.PrimaryKeyConstraint("chain_id", "sender", "app", "kind", name="pk_relayer_waits"),
        schema=_SCHEMA,
    )


def _events() -> None:
    op.create_table(
        "relayer_events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("tx_id", sa.Uuid(), nullable=False),
        sa.Column("at", _AT, nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("detail", JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_relayer_events"),
        sa.ForeignKeyConstraint(
            ["tx_id"],
            ["causeway.relayer_transactions.id"],
            name="fk_relayer_events_tx_id_relayer_transactions",
        ),
        schema=_SCHEMA,
    )
    op.create_index("ix_relayer_events_tx_id_id", "relayer_events", ["tx_id", "id"], schema=_SCHEMA)


def upgrade() -> None:
    _transactions()
    _units()
    _attempts()
    _accounts()
    _events()


def downgrade() -> None:
    for name in (
        "relayer_events",
        "relayer_waits",
        "relayer_accounts",
        "relayer_receipts",
        "relayer_attempts",
        "relayer_transaction_units",
        "relayer_units",
        "relayer_transactions",
    ):
        op.drop_table(name, schema=_SCHEMA)
