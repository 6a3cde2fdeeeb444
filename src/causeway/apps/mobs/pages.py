"""Cursors: where a page of transactions ended. Pure functions.

A cursor holds the sort key of the last row and a digest of the filters it was made for, so that one
that was changed, or made for another question, is found out.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from causeway.base.errors import PermanentError

_VERSION = 1


class WrongCursor(PermanentError):
    """The cursor is not one of ours, or was made for other filters."""


@dataclass(frozen=True)
class Place:
    """The sort key of a row."""

    timestamp: int
    number: int
    index: int
    #: Where the list begins, Unix seconds: a default that moves with the clock stays where it was.
    since: int
    #: Wei, when the sort is by fee.
    fee: int | None = None


def digest(filters: Mapping[str, Any]) -> str:
    """Return what filters and sort are known by in a cursor."""
    return hashlib.sha256(orjson.dumps(filters, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def encode(place: Place, filters: Mapping[str, Any]) -> str:
    """Return the cursor after this row, for these filters."""
    fee = None if place.fee is None else str(place.fee)
    key = [_VERSION, place.timestamp, place.number, place.index, place.since, fee]
    body = orjson.dumps([*key, digest(filters)])
    check = hashlib.sha256(body).digest()[:4]
    return base64.urlsafe_b64encode(check + body).decode().rstrip("=")


def decode(cursor: str, filters: Mapping[str, Any]) -> Place:
    """Return where the page before ended; `WrongCursor` when it is not for these filters."""
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        check, body = raw[:4], raw[4:]
        if hashlib.sha256(body).digest()[:4] != check:
            raise ValueError
        version, timestamp, number, index, since, fee, made_for = orjson.loads(body)
        if version != _VERSION:
            raise ValueError
        place = Place(
            int(timestamp), int(number), int(index), int(since), None if fee is None else int(fee)
        )
    except (ValueError, TypeError, binascii.Error, IndexError):
        raise WrongCursor(
            f"cursor is {cursor[:40]!r}; allowed is the next_cursor of a page before."
        ) from None
    if made_for != digest(filters):
        raise WrongCursor("cursor was made for other filters; allowed is one made for these.")
    return place
