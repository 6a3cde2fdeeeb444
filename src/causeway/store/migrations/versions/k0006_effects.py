"""Contracts that factories made, and effects that wait for their finality."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "k0006"
down_revision = "k0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "discovered",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("block_number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("source", "address", name="pk_discovered"),
        schema="causeway",
    )
    op.create_index(
        "ix_discovered_source_block_number",
        "discovered",
        ["source", "block_number"],
        schema="causeway",
    )
    op.create_table(
        "outbox",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("payload", postgresql.JSONB(), nullable=False),
        sa.Column("block_number", sa.BigInteger(), nullable=False),
        sa.Column("block_hash", sa.Text(), nullable=False),
        sa.Column("due_block", sa.BigInteger(), nullable=True),
        sa.Column("state", sa.Text(), server_default=sa.text("'waiting'"), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("released_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("state IN ('waiting', 'released', 'undone')", name="state"),
        sa.PrimaryKeyConstraint("source", "key", name="pk_outbox"),
        schema="causeway",
    )
    op.create_index(
        "ix_outbox_source_block_number", "outbox", ["source", "block_number"], schema="causeway"
    )
    op.create_index(
        "ix_outbox_waiting",
        "outbox",
        ["source", "due_block"],
        schema="causeway",
        postgresql_where=sa.text("state = 'waiting'"),
    )


def downgrade() -> None:
    op.drop_table("outbox", schema="causeway")
    op.drop_table("discovered", schema="causeway")
