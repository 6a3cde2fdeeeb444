"""Channels that clients follow, the last messages of each, and tickets to connect with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "k0012"
down_revision = "k0011"
branch_labels = None
depends_on = None

_SCHEMA = "causeway"

# The row of the channel is locked until the transaction ends: numbers are given in the order of
# the commits, and one that is rolled back is given again. NOTIFY is sent with the commit.
# SECURITY DEFINER, so that a role without a right on these tables can be allowed to publish.
_PUBLISH = """
CREATE FUNCTION causeway.live_publish(to_channel text, of_kind text, with_data jsonb, keep bigint)
RETURNS bigint LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = '' AS $publish$
DECLARE
  number bigint;
BEGIN
  INSERT INTO causeway.live_channels AS c (name, last_seq) VALUES (to_channel, 1)
  ON CONFLICT (name) DO UPDATE SET last_seq = c.last_seq + 1
  RETURNING c.last_seq INTO number;
  INSERT INTO causeway.live_messages (channel, seq, kind, data, sent_at)
  VALUES (to_channel, number, of_kind, with_data, pg_catalog.clock_timestamp());
  DELETE FROM causeway.live_messages m WHERE m.channel = to_channel AND m.seq <= number - keep;
  PERFORM pg_catalog.pg_notify('causeway_live', to_channel);
  RETURN number;
END
$publish$
"""


def upgrade() -> None:
    op.create_table(
        "live_channels",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_live_channels"),
        schema=_SCHEMA,
    )
    op.create_table(
        "live_messages",
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("data", JSONB(), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("channel", "seq", name="pk_live_messages"),
        schema=_SCHEMA,
    )
    op.create_index("ix_live_messages_sent_at", "live_messages", ["sent_at"], schema=_SCHEMA)
    op.create_table(
        "live_tickets",
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("claims", JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("person_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name="pk_live_tickets"),
        schema=_SCHEMA,
    )
    op.create_index("ix_live_tickets_expires_at", "live_tickets", ["expires_at"], schema=_SCHEMA)
    op.execute(_PUBLISH)
    op.execute(
        "REVOKE ALL ON FUNCTION causeway.live_publish(text, text, jsonb, bigint) FROM PUBLIC"
    )


def downgrade() -> None:
    op.execute("DROP FUNCTION causeway.live_publish(text, text, jsonb, bigint)")
    op.drop_table("live_tickets", schema=_SCHEMA)
    op.drop_table("live_messages", schema=_SCHEMA)
    op.drop_table("live_channels", schema=_SCHEMA)
