"""Challenges that wallets sign, and OAuth authorizations under way."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "k0005"
down_revision = "k0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "auth_challenges",
        sa.Column("nonce", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("payload_sha256", sa.Text(), nullable=True),
        sa.Column("issued_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("consumed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("nonce", name="pk_auth_challenges"),
        schema="causeway",
    )
    op.create_index(
        "ix_auth_challenges_expires_at", "auth_challenges", ["expires_at"], schema="causeway"
    )
    op.create_table(
        "auth_oauth_states",
        sa.Column("state_sha256", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("verifier", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("state_sha256", name="pk_auth_oauth_states"),
        schema="causeway",
    )
    op.create_index(
        "ix_auth_oauth_states_expires_at", "auth_oauth_states", ["expires_at"], schema="causeway"
    )


def downgrade() -> None:
    op.drop_table("auth_oauth_states", schema="causeway")
    op.drop_table("auth_challenges", schema="causeway")
