"""A token in hand, ready to be used."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from pydantic import SecretStr

Kind = Literal["oauth", "api_key"]


@dataclass(frozen=True)
class Account:
    """Who somebody is at a provider."""

    id: str
    name: str | None = None


@dataclass(frozen=True)
class Tokens:
    """What a provider gave: a token, and what is known of it. An API key is one that lasts."""

    access_token: SecretStr
    refresh_token: SecretStr | None = None
    expires_at: datetime | None = None
    refresh_expires_at: datetime | None = None
    scopes: tuple[str, ...] = ()
    kind: Kind = "oauth"


@dataclass(frozen=True)
class Credential:
    """One person's token for one provider."""

    provider: str
    kind: Kind
    token: SecretStr
    #: The connection it belongs to; a random one for a token that is not kept yet.
    id: uuid.UUID = field(default_factory=uuid.uuid4)
    version: int = 0
    account: Account | None = None
    scopes: tuple[str, ...] = ()
