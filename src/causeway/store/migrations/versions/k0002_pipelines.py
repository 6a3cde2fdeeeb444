"""Transitions, stage control, effects; and procrastinate, the doorbell."""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy as sa
from alembic import op
from procrastinate.schema import SchemaManager
from sqlalchemy.dialects.postgresql import JSONB

revision = "k0002"
down_revision = "k0001"
branch_labels = None
depends_on = None

_INSTANT = sa.DateTime(timezone=True)
_NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    op.create_table(
        "transitions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("app", sa.Text(), nullable=False),
        sa.Column("row_key", sa.Text(), nullable=False),
        sa.Column("from_status", sa.Text()),
        sa.Column("to_status", sa.Text()),
        sa.Column("at", _INSTANT, server_default=_NOW, nullable=False),
        sa.Column("worker", sa.Text()),
        sa.Column("attempt", sa.Integer()),
        sa.Column("reason", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_transitions"),
        schema="causeway",
    )
    op.create_index(
        "ix_transitions_app_row_key_id", "transitions", ["app", "row_key", "id"], schema="causeway"
    )
    op.create_table(
        "stage_control",
        sa.Column("app", sa.Text(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("paused_by", sa.Text()),
        sa.Column("reason", sa.Text()),
        sa.Column("since", _INSTANT),
        sa.Column("probe_at", _INSTANT),
        sa.Column("last_success_at", _INSTANT),
        sa.Column("last_error", sa.Text()),
        sa.Column("last_error_at", _INSTANT),
        sa.PrimaryKeyConstraint("app", "stage", name="pk_stage_control"),
        schema="causeway",
    )
    op.create_table(
        "effects",
        sa.Column("app", sa.Text(), nullable=False),
        sa.Column("row_key", sa.Text(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("started_at", _INSTANT, server_default=_NOW, nullable=False),
        sa.Column("finished_at", _INSTANT),
        sa.Column("finished", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("result", JSONB()),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.PrimaryKeyConstraint("app", "row_key", "step", "key", name="pk_effects"),
        schema="causeway",
    )
    # The schema of the pinned release; a later one comes with its own migration of the difference.
    _in_our_schema(SchemaManager.get_schema())


def downgrade() -> None:
    schema = SchemaManager.get_schema()
    names = {
        kind: re.findall(rf"^CREATE {kind} (\w+)", schema, re.MULTILINE)
        for kind in ("TABLE", "FUNCTION", "TYPE")
    }
    statements = [f"DROP TABLE IF EXISTS causeway.{name} CASCADE" for name in names["TABLE"]]
    statements += [f"DROP FUNCTION IF EXISTS causeway.{name} CASCADE" for name in names["FUNCTION"]]
    statements += [f"DROP TYPE IF EXISTS causeway.{name} CASCADE" for name in names["TYPE"]]
    for statement in statements:
        op.execute(statement)
    for table in ("effects", "stage_control", "transitions"):
        op.drop_table(table, schema="causeway")


def _in_our_schema(script: str) -> None:
    connection = op.get_bind()
    before = connection.scalar(sa.text("SHOW search_path"))
    connection.execute(sa.text("SET LOCAL search_path TO causeway"))
    # Past SQLAlchemy and its parameters: the script holds colons and per cent signs of its own.
    cursor: Any = connection.connection.cursor()
    cursor.execute(script)
    cursor.close()
    connection.execute(
        sa.text("SELECT set_config('search_path', :before, true)"), {"before": before}
    )
