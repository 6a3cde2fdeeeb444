"""The metadata that tables are declared on, and the names their constraints get."""

from __future__ import annotations

from sqlalchemy import DateTime, MetaData, Numeric
from sqlalchemy.orm import DeclarativeBase

#: Constraint names are derived, never invented by the server, so that migrations are stable.
NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

#: A point in time: always aware, always stored as UTC.
Instant = DateTime(timezone=True)

#: An unsigned 256-bit integer: wei, token ids. Exact, never a float.
Uint256 = Numeric(78, 0)


def metadata_for(schema: str) -> MetaData:
    """Return the metadata for one schema (`causeway` for the kernel, an app's name for an app)."""
    return MetaData(schema=schema, naming_convention=NAMING_CONVENTION)


kernel_metadata = metadata_for("causeway")
# The job engine's own tables live in the kernel's schema; its releases say how they look.
kernel_metadata.info["tables_of_others"] = ("procrastinate_",)


class KernelBase(DeclarativeBase):
    """Base class of the kernel's own tables, in schema `causeway`."""

    metadata = kernel_metadata
