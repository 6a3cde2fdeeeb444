"""Messages that wallets signed and that were accepted, so that each is accepted once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "k0010"
down_revision = "k0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "auth_signed_messages",
        sa.Column("wallet", sa.LargeBinary(), nullable=False),
        sa.Column("message_sha256", sa.LargeBinary(), nullable=False),
        sa.Column(
            "used_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("wallet", "message_sha256", name="pk_auth_signed_messages"),
        schema="causeway",
    )
    op.create_index(
        "ix_auth_signed_messages_used_at", "auth_signed_messages", ["used_at"], schema="causeway"
    )


def downgrade() -> None:
    op.drop_table("auth_signed_messages", schema="causeway")
