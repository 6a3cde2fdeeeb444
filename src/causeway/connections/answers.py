"""Answers kept for a while, and asked for again only if they changed (RFC 9111, RFC 9110 13.1).

A private cache: an answer is found again only by who asked, with the same token. In memory, the
least used first out.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass, replace

from causeway.base.http import Response

_MAX_AGE = re.compile(r"(?:^|[,\s])max-age=(\d{1,9})")
#: What an entry takes beside its body, bytes.
_OVERHEAD = 1024


@dataclass(frozen=True)
class Kept:
    """An answer, how to ask whether it still holds, and until when that need not be asked."""

    response: Response
    conditions: dict[str, str]
    fresh_until: float


class Answers:
    """The cache of one provider."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._size = 0
        self._kept: OrderedDict[str, Kept] = OrderedDict()

    def get(self, key: str) -> Kept | None:
        """Return what is kept under `key`, fresh or not."""
        kept = self._kept.get(key)
        if kept is not None:
            self._kept.move_to_end(key)
        return kept

    def keep(self, key: str, response: Response, now: float) -> None:
        """Keep a 200 when its headers allow it and make it of use."""
        self.drop(key)
        control = response.headers.get("cache-control", "").lower()
        size = len(response.body) + _OVERHEAD
        if response.status != 200 or "no-store" in control or size > self._most:
            return
        conditions: dict[str, str] = {}
        if etag := response.headers.get("etag"):
            conditions["If-None-Match"] = etag
        elif changed := response.headers.get("last-modified"):
            conditions["If-Modified-Since"] = changed
        fresh_until = now + _fresh_s(control)
        if not conditions and fresh_until <= now:
            return
        self._kept[key] = Kept(response, conditions, fresh_until)
        self._size += size
        while self._size > self._most:
            self.drop(next(iter(self._kept)))

    def confirmed(self, key: str, kept: Kept, not_modified: Response, now: float) -> Response:
        """Return the kept answer after a 304, fresh again for as long as that says."""
        control = not_modified.headers.get("cache-control", "").lower()
        if key in self._kept:
            self._kept[key] = replace(kept, fresh_until=now + _fresh_s(control))
        return kept.response

    def drop(self, key: str) -> None:
        """Forget what is kept under `key`."""
        gone = self._kept.pop(key, None)
        if gone is not None:
            self._size -= len(gone.response.body) + _OVERHEAD


def _fresh_s(control: str) -> float:
    if "no-cache" in control:
        return 0.0
    found = _MAX_AGE.search(control)
    return float(found.group(1)) if found else 0.0
