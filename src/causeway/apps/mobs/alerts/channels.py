"""Who is told of alerts: a channel's address, where it is kept, and what of it may be shown.

A channel's address can be a secret (whoever knows a Slack hook may write to it). It may be given
as `env:MOBS_CHANNEL_…`: then only the worker's environment knows it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from causeway.apps.mobs.urls import masked
from causeway.base.errors import InvalidInput

#: Only these may be named: the environment holds more than channels.
REFERENCE = re.compile(r"env:(MOBS_CHANNEL_[A-Z0-9_]{1,64})")


@dataclass(frozen=True)
class Target:
    """Where to post to, and how to say it to an address that was looked up."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """What the Host header says."""
        usual = {"https": 443, "http": 80}[self.scheme]
        shown = f"[{self.host}]" if ":" in self.host else self.host
        return shown if self.port == usual else f"{shown}:{self.port}"

    def at(self, address: str) -> str:
        """Return the URL with this address in the host's place."""
        pinned = f"[{address}]" if ":" in address else address
        return f"{self.scheme}://{pinned}:{self.port}{self.path}"


def target(url: str) -> Target:
    """Return where a URL leads; `InvalidInput` when nowhere."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host or parts.username is not None:
        raise InvalidInput("a channel's url must be an http or https address without a user name")
    query = f"?{parts.query}" if parts.query else ""
    default = 443 if parts.scheme == "https" else 80
    return Target(parts.scheme, host, port or default, (parts.path or "/") + query)


def address(channel: Mapping[str, Any]) -> str:
    """Return a channel's URL, from the environment where it is there; `InvalidInput` if not."""
    url = str(channel["url"])
    named = REFERENCE.fullmatch(url)
    if named is None:
        return url
    found = os.environ.get(named[1])
    if not found:
        raise InvalidInput(f"{named[1]} is not set where alerts are sent from")
    return found


def shown(channel: Mapping[str, Any]) -> dict[str, Any]:
    """Return a channel as it may be shown: parts of its address like keys are an ellipsis."""
    url = channel.get("url")
    if url is None or REFERENCE.fullmatch(str(url)):
        return dict(channel)
    return {**channel, "url": masked(str(url))}


def kept(
    given: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return channels to store, where one given as it was shown is the one that was there.

    Raises `InvalidInput` for an address with an ellipsis that is none of those before, and for
    one that leads nowhere.
    """
    made: list[dict[str, Any]] = []
    for one in given:
        same = next((old for old in before if shown(old) == dict(one)), None)
        url = one.get("url")
        if same is None and url is not None and not REFERENCE.fullmatch(str(url)):
            if "…" in str(url):
                raise InvalidInput("channels: give the whole url, the … stands for what is hidden")
            target(str(url))
        made.append(dict(same if same is not None else one))
    return made
