"""The tables of `chains`, in schema `causeway`."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Index, LargeBinary, text
from sqlalchemy.orm import Mapped, mapped_column

from causeway.store.schema import Instant, KernelBase


class FinalAnswer(KernelBase):
    """An answer about a final block, as the provider wrote it."""

    __tablename__ = "final_answers"
    __table_args__ = (Index(None, "kept_at"),)

    chain_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    #: SHA-256 of method and parameters.
    key: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    answer: Mapped[bytes] = mapped_column(LargeBinary)
    kept_at: Mapped[datetime] = mapped_column(Instant, server_default=text("clock_timestamp()"))
