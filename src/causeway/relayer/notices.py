"""What a person should hear of, told inside the commit that it belongs to.

An app that is given notices writes them down (a row of a stage, a unit of its notifications) with
the session it is handed, and so each is told once, whatever dies on the way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy.ext.asyncio import AsyncSession

#: `balance_low` and `balance_restored`; `stopped` and `running`: the account's mode; `waiting`: a
#: kind has waited for long.
NoticeCause = Literal["balance_low", "balance_restored", "stopped", "running", "waiting"]


@dataclass(frozen=True)
class Notice:
    """One thing a person should hear of."""

    cause: NoticeCause
    chain: str
    chain_id: int
    #: The account, checksummed.
    sender: str
    #: In words.
    message: str
    at: datetime


OnNotice = Callable[[AsyncSession, Notice], Awaitable[None]]
