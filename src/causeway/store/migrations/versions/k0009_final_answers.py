"""Answers about final blocks, kept for every process."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "k0009"
down_revision = "k0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "final_answers",
        sa.Column("chain_id", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("answer", sa.LargeBinary(), nullable=False),
        sa.Column(
            "kept_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("chain_id", "key", name="pk_final_answers"),
        schema="causeway",
    )
    op.create_index("ix_final_answers_kept_at", "final_answers", ["kept_at"], schema="causeway")


def downgrade() -> None:
    op.drop_table("final_answers", schema="causeway")
