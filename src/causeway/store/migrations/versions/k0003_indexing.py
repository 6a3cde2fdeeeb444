"""Checkpoints, applied blocks, and the undo log with the functions that write and play it.

`causeway.log_undo()` is the trigger function of every derived table; `causeway.undo_above()` takes
back what facts above a block have changed, newest first. Both read the table's shape from the
catalog when they run, so an app may change its tables while undo rows exist.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "k0003"
down_revision = "k0002"
branch_labels = None
depends_on = None

LOG_UNDO = """
CREATE FUNCTION causeway.log_undo() RETURNS trigger LANGUAGE plpgsql AS $function$
DECLARE
    place text := current_setting('causeway.undo', true);
    origin text;
    block bigint;
    keys text[];
BEGIN
    -- Only the indexer says a place, and only for blocks that may still be replaced.
    IF place IS NULL OR place = '' THEN
        RETURN NULL;
    END IF;
    origin := substring(place from '^(.*)[:][0-9]+$');
    block := CAST(substring(place from '[0-9]+$') AS bigint);
    SELECT array_agg(CAST(a.attname AS text)) INTO keys
        FROM pg_catalog.pg_index AS i
        JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
        WHERE i.indrelid = TG_RELID AND i.indisprimary;
    IF keys IS NULL THEN
        RAISE EXCEPTION 'table %.% has no primary key and cannot be undone',
            TG_TABLE_SCHEMA, TG_TABLE_NAME;
    END IF;
    IF TG_OP = 'INSERT' THEN
        INSERT INTO causeway.undo_log
            (source, block_number, table_schema, table_name, operation, key)
        SELECT origin, block, TG_TABLE_SCHEMA, TG_TABLE_NAME, 'insert',
            (SELECT jsonb_object_agg(k, n.whole -> k) FROM unnest(keys) AS k)
        FROM (SELECT to_jsonb(r) AS whole FROM new_rows AS r) AS n;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO causeway.undo_log
            (source, block_number, table_schema, table_name, operation, key, old)
        SELECT origin, block, TG_TABLE_SCHEMA, TG_TABLE_NAME, 'delete',
            (SELECT jsonb_object_agg(k, o.whole -> k) FROM unnest(keys) AS k), o.whole
        FROM (SELECT to_jsonb(r) AS whole FROM old_rows AS r) AS o;
    ELSE
        -- Both transition tables hold the rows in the order in which they were updated. The key is
        -- the new one, by which the row is found again; a changed key is among the old columns.
        INSERT INTO causeway.undo_log
            (source, block_number, table_schema, table_name, operation, key, old)
        SELECT origin, block, TG_TABLE_SCHEMA, TG_TABLE_NAME, 'update',
            (SELECT jsonb_object_agg(k, n.whole -> k) FROM unnest(keys) AS k), changed.old
        FROM (SELECT row_number() OVER () AS place, to_jsonb(r) AS whole FROM old_rows AS r) AS o
        JOIN (SELECT row_number() OVER () AS place, to_jsonb(r) AS whole FROM new_rows AS r) AS n
            ON n.place = o.place
        CROSS JOIN LATERAL (
            SELECT jsonb_object_agg(e.key, e.value) AS old FROM jsonb_each(o.whole) AS e
            WHERE e.value IS DISTINCT FROM n.whole -> e.key
        ) AS changed
        WHERE changed.old IS NOT NULL
        ORDER BY o.place;
    END IF;
    RETURN NULL;
END
$function$
"""

UNDO_ONE = """
CREATE FUNCTION causeway.undo_one(entry causeway.undo_log) RETURNS void
LANGUAGE plpgsql AS $function$
DECLARE
    target text := format('%I.%I', entry.table_schema, entry.table_name);
    relation regclass := to_regclass(target);
    here text;
    names text;
    olds text;
BEGIN
    IF relation IS NULL THEN
        RETURN;  -- a migration dropped the table
    END IF;
    SELECT string_agg(format('t.%1$I = k.%1$I', k), ' AND ') INTO here
        FROM jsonb_object_keys(entry.key) AS k;
    IF entry.operation = 'insert' THEN
        EXECUTE format(
            'DELETE FROM %1$s AS t USING jsonb_populate_record(CAST(NULL AS %1$s), $1) AS k '
            'WHERE %2$s', target, here
        ) USING entry.key;
        RETURN;
    END IF;
    -- A JSON null and an SQL null look alike in the log; where the column takes no SQL null it
    -- was the other one.
    SELECT
        string_agg(format('%I', a.attname), ', ' ORDER BY a.attnum),
        string_agg(
            CASE WHEN a.attnotnull AND a.atttypid IN ('json'::regtype, 'jsonb'::regtype)
            THEN format('coalesce(r.%I, ''null'')', a.attname)
            ELSE format('r.%I', a.attname) END, ', ' ORDER BY a.attnum)
    INTO names, olds
    FROM pg_catalog.pg_attribute AS a
    WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped
        AND a.attgenerated = '' AND jsonb_exists(entry.old, CAST(a.attname AS text));
    IF names IS NULL THEN
        RETURN;  -- a migration dropped the columns
    END IF;
    IF entry.operation = 'update' THEN
        EXECUTE format(
            'UPDATE %1$s AS t SET (%2$s) = ROW(%3$s) '
            'FROM jsonb_populate_record(CAST(NULL AS %1$s), $1) AS r, '
            'jsonb_populate_record(CAST(NULL AS %1$s), $2) AS k WHERE %4$s',
            target, names, olds, here
        ) USING entry.old, entry.key;
    ELSE
        EXECUTE format(
            'INSERT INTO %1$s (%2$s) OVERRIDING SYSTEM VALUE '
            'SELECT %3$s FROM jsonb_populate_record(CAST(NULL AS %1$s), $1) AS r',
            target, names, olds
        ) USING entry.old;
    END IF;
END
$function$
"""

# PostgreSQL runs the statement triggers of rows that went by ON DELETE CASCADE (or SET NULL) after
# those of the row they went with, so going backwards meets the child first: an entry that a foreign
# key refuses waits, and is tried again after each that was taken.
UNDO_ABOVE = """
CREATE FUNCTION causeway.undo_above(origin text, above bigint) RETURNS bigint
LANGUAGE plpgsql AS $function$
DECLARE
    entry causeway.undo_log;
    one causeway.undo_log;
    waiting causeway.undo_log[] := '{}';
    still causeway.undo_log[];
    progress boolean;
    undone bigint;
BEGIN
    PERFORM set_config('causeway.undo', '', true);
    SET CONSTRAINTS ALL DEFERRED;
    FOR entry IN
        SELECT u.* FROM causeway.undo_log AS u
        WHERE u.source = origin AND u.block_number > above
        ORDER BY u.id DESC
    LOOP
        IF EXISTS (
            SELECT FROM pg_catalog.pg_constraint AS c
            WHERE c.contype = 'f' AND to_regclass(
                format('%I.%I', entry.table_schema, entry.table_name)) IN (c.conrelid, c.confrelid)
        ) THEN
            BEGIN
                PERFORM causeway.undo_one(entry);
            EXCEPTION WHEN foreign_key_violation THEN
                waiting := waiting || entry;
                CONTINUE;
            END;
        ELSE
            PERFORM causeway.undo_one(entry);
        END IF;
        progress := cardinality(waiting) > 0;
        WHILE progress LOOP
            progress := false;
            still := '{}';
            FOREACH one IN ARRAY waiting LOOP
                BEGIN
                    PERFORM causeway.undo_one(one);
                    progress := true;
                EXCEPTION WHEN foreign_key_violation THEN
                    still := still || one;
                END;
            END LOOP;
            waiting := still;
        END LOOP;
    END LOOP;
    IF cardinality(waiting) > 0 THEN
        PERFORM causeway.undo_one(waiting[1]);  -- refused for good: tell why
    END IF;
    DELETE FROM causeway.undo_log AS u WHERE u.source = origin AND u.block_number > above;
    GET DIAGNOSTICS undone = ROW_COUNT;
    RETURN undone;
END
$function$
"""


def upgrade() -> None:
    op.create_table(
        "checkpoints",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("chain_id", sa.BigInteger(), nullable=False),
        sa.Column("start_block", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("timestamp", sa.DateTime(timezone=True), nullable=False),
        sa.Column("final_number", sa.BigInteger(), nullable=False),
        sa.Column("head_number", sa.BigInteger(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("source", name="pk_checkpoints"),
        schema="causeway",
    )
    op.create_table(
        "blocks",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("parent_hash", sa.Text(), nullable=False),
        sa.Column("timestamp", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("source", "number", name="pk_blocks"),
        schema="causeway",
    )
    op.create_table(
        "undo_log",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("block_number", sa.BigInteger(), nullable=False),
        sa.Column("table_schema", sa.Text(), nullable=False),
        sa.Column("table_name", sa.Text(), nullable=False),
        sa.Column("operation", sa.Text(), nullable=False),
        sa.Column("key", postgresql.JSONB(), nullable=False),
        sa.Column("old", postgresql.JSONB(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_undo_log"),
        schema="causeway",
    )
    op.create_index(
        "ix_undo_log_source_block_number",
        "undo_log",
        ["source", "block_number"],
        schema="causeway",
    )
    op.execute(LOG_UNDO)
    op.execute(UNDO_ONE)
    op.execute(UNDO_ABOVE)


def downgrade() -> None:
    op.execute("DROP FUNCTION causeway.undo_above(text, bigint)")
    op.execute("DROP FUNCTION causeway.undo_one(causeway.undo_log)")
    op.execute("DROP FUNCTION causeway.log_undo() CASCADE")
    op.drop_table("undo_log", schema="causeway")
    op.drop_table("blocks", schema="causeway")
    op.drop_table("checkpoints", schema="causeway")
