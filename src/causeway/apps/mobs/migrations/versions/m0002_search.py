"""Transactions are found by the beginning of their hash, and by their method.

A hash index finds whole hashes only; the tree takes some 26 bytes a row more.
"""

from __future__ import annotations

from alembic import op

revision = "m0002"
down_revision = "m0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Have trees for hash and method."""
    op.execute("DROP INDEX mobs.ix_txs_hash")
    op.execute("CREATE INDEX ix_txs_hash ON mobs.txs (hash)")
    op.execute(
        "CREATE INDEX ix_txs_method_id ON mobs.txs "
        "(method_id, block_timestamp, block_number, tx_index) WHERE method_id IS NOT NULL"
    )


def downgrade() -> None:
    """Go back to a hash index, and none for the method."""
    op.execute("DROP INDEX mobs.ix_txs_method_id")
    op.execute("DROP INDEX mobs.ix_txs_hash")
    op.execute("CREATE INDEX ix_txs_hash ON mobs.txs USING hash (hash)")
