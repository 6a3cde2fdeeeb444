"""People's links to other services, their tokens encrypted, and what is still to be revoked."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "k0007"
down_revision = "k0006"
branch_labels = None
depends_on = None

_SCHEMA = "causeway"
_NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    op.create_table(
        "connections",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("app", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("access_token", sa.Text(), nullable=False),
        sa.Column("refresh_token", sa.Text(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("refresh_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "scopes", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False
        ),
        sa.Column("account_id", sa.Text(), nullable=True),
        sa.Column("account_name", sa.Text(), nullable=True),
        sa.Column("version", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("connected_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.Column("rejected_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("rejected_why", sa.Text(), nullable=True),
        sa.CheckConstraint("kind IN ('oauth', 'api_key')", name=op.f("ck_connections_kind")),
        sa.PrimaryKeyConstraint("id", name="pk_connections"),
        sa.UniqueConstraint(
            "app", "provider", "subject", name="uq_connections_app_provider_subject"
        ),
        sa.UniqueConstraint(
            "app", "provider", "account_id", name="uq_connections_app_provider_account_id"
        ),
        schema=_SCHEMA,
    )
    op.create_table(
        "connection_revocations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("app", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_connection_revocations"),
        schema=_SCHEMA,
    )
    op.create_index(
        "ix_connection_revocations_app_due_at",
        "connection_revocations",
        ["app", "due_at"],
        schema=_SCHEMA,
    )


def downgrade() -> None:
    op.drop_table("connection_revocations", schema=_SCHEMA)
    op.drop_table("connections", schema=_SCHEMA)
