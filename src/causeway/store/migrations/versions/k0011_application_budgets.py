"""What applications may still ask of providers, counted for all processes together; events of
Strava, each once; whose token a revocation is about."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "k0011"
down_revision = "k0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "application_budgets",
        sa.Column("application", sa.Text(), nullable=False),
        sa.Column("meter", sa.Text(), nullable=False),
        sa.Column("period_s", sa.Integer(), nullable=False),
        sa.Column("most", sa.BigInteger(), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.Column("used_event", sa.BigInteger(), nullable=False),
        sa.Column("used_interactive", sa.BigInteger(), nullable=False),
        sa.Column("used_backfill", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("application", "meter", "period_s", name="pk_application_budgets"),
        schema="causeway",
    )
    op.create_table(
        "application_budget_users",
        sa.Column("application", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.Column("active_until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint(
            "application", "purpose", "subject", name="pk_application_budget_users"
        ),
        schema="causeway",
    )
    op.create_table(
        "application_budget_requests",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("application", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("is_read", sa.Boolean(), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_application_budget_requests"),
        schema="causeway",
    )
    op.create_index(
        "ix_application_budget_requests_application_sent_at",
        "application_budget_requests",
        ["application", "sent_at"],
        schema="causeway",
    )
    op.create_table(
        "strava_events",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("subscription_id", sa.BigInteger(), nullable=False),
        sa.Column("object_type", sa.Text(), nullable=False),
        sa.Column("object_id", sa.BigInteger(), nullable=False),
        sa.Column("aspect_type", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.BigInteger(), nullable=False),
        sa.Column("updates", JSONB(), nullable=False),
        sa.Column("event_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "received_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("done_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("key", name="pk_strava_events"),
        schema="causeway",
    )
    op.create_index(
        "ix_strava_events_received_at",
        "strava_events",
        ["received_at"],
        schema="causeway",
        postgresql_where=sa.text("done_at IS NULL"),
    )
    op.add_column(
        "connection_revocations",
        sa.Column("account_id", sa.Text(), nullable=True),
        schema="causeway",
    )


def downgrade() -> None:
    op.drop_column("connection_revocations", "account_id", schema="causeway")
    op.drop_table("strava_events", schema="causeway")
    op.drop_table("application_budget_requests", schema="causeway")
    op.drop_table("application_budget_users", schema="causeway")
    op.drop_table("application_budgets", schema="causeway")
