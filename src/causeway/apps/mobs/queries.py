"""Kinds of query parameters that several routes take."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from causeway.apps.mobs.schemas import LAST_ID, LAST_TS

#: A time, Unix seconds.
At = Annotated[int | None, Query(ge=0, le=LAST_TS)]
#: A number of something; there may be nothing of that number.
Id = Annotated[int | None, Query(ge=-LAST_ID, le=LAST_ID)]
