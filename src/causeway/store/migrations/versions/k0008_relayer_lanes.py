"""Several accounts share a chain's work; pauses by operators; budgets and balances that are low."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "k0008"
down_revision = "k0007"
branch_labels = None
depends_on = None

_SCHEMA = "causeway"


def upgrade() -> None:
    op.add_column("relayer_units", sa.Column("claimed_by", sa.Text()), schema=_SCHEMA)
    op.add_column(
        "relayer_units", sa.Column("claimed_until", sa.DateTime(timezone=True)), schema=_SCHEMA
    )
    op.add_column(
        "relayer_accounts", sa.Column("low_since", sa.DateTime(timezone=True)), schema=_SCHEMA
    )
    _modes("'run', 'no-new', 'no-sign', 'hold:funds', 'hold:budget'")
    op.create_index(
        "ix_relayer_transactions_mined_at",
        "relayer_transactions",
        ["chain_id", "sender", "mined_at"],
        schema=_SCHEMA,
        postgresql_where=sa.text("mined_at IS NOT NULL"),
    )
    op.create_table(
        "relayer_pauses",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("app", sa.Text(), nullable=True),
        sa.Column("chain_id", sa.BigInteger(), nullable=True),
        sa.Column("sender", sa.Text(), nullable=True),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("paused_by", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "mode IN ('no-new', 'no-sign', 'cancel-open')", name=op.f("ck_relayer_pauses_mode")
        ),
        sa.PrimaryKeyConstraint("id", name="pk_relayer_pauses"),
        sa.UniqueConstraint(
            "app",
            "chain_id",
            "sender",
            name="uq_relayer_pauses_app_chain_id_sender",
            postgresql_nulls_not_distinct=True,
        ),
        schema=_SCHEMA,
    )


def downgrade() -> None:
    op.drop_table("relayer_pauses", schema=_SCHEMA)
    op.drop_index(
        "ix_relayer_transactions_mined_at", table_name="relayer_transactions", schema=_SCHEMA
    )
    op.execute("UPDATE causeway.relayer_accounts SET mode = 'run' WHERE mode = 'hold:budget'")
    _modes("'run', 'no-new', 'no-sign', 'hold:funds'")
    op.drop_column("relayer_accounts", "low_since", schema=_SCHEMA)
    op.drop_column("relayer_units", "claimed_until", schema=_SCHEMA)
    op.drop_column("relayer_units", "claimed_by", schema=_SCHEMA)


def _modes(allowed: str) -> None:
    name = op.f("ck_relayer_accounts_mode")
    op.drop_constraint(name, "relayer_accounts", schema=_SCHEMA, type_="check")
    op.create_check_constraint(name, "relayer_accounts", f"mode IN ({allowed})", schema=_SCHEMA)
