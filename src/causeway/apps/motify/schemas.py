"""What goes over Motify's wire, with the shapes its specification and its frontend give."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import Path, Query, Response
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from causeway.base.errors import PermanentError

_ADDRESS = re.compile("0[xX][0-9a-fA-F]{40}")


def is_wallet(value: str) -> bool:
    """Say whether a text is the address of a wallet, in letters of any case."""
    return _ADDRESS.fullmatch(value) is not None


def _wallet(value: str) -> str:
    if not is_wallet(value):
        raise ValueError("must be an address, 0x and 40 hex digits")
    return value.lower()


#: An address in letters of any case; lower case from here on.
Wallet = Annotated[str, AfterValidator(_wallet)]
#: Unix seconds, as they stand in a signed message.
Timestamp = Annotated[int, Query(ge=0, lt=2**53)]
Signature = Annotated[str, Query(description="hex, of the message that the endpoint names")]
#: They count up from 0: what a `bigint` cannot hold is nobody's.
ChallengeId = Annotated[int, Path(ge=0, lt=2**63)]


def no_store(response: Response) -> None:
    """Have nobody keep the answer: it is about one person, and soon another one."""
    response.headers["Cache-Control"] = "no-store"


class ProviderNotSupported(PermanentError):
    """People cannot connect to this provider here."""

    def __init__(self, provider: str) -> None:
        super().__init__(f"Provider '{provider[:50].lower()}' not supported")


class WakaTimeRefused(PermanentError):
    """This is no key that WakaTime takes, or none at all."""


def _text(value: Any) -> Any:
    # What is no text is as good as missing, and is never repeated in an answer.
    return value if isinstance(value, str) else ""


class WakaTimeKeyBody(BaseModel):
    """Somebody's WakaTime key; signed, unless `MOTIFY_ALLOW_UNSIGNED_WAKATIME` is on."""

    wallet_address: Annotated[str, BeforeValidator(_text)] = ""
    api_key: Annotated[str, BeforeValidator(_text)] = ""
    signature: str | None = None
    timestamp: int | None = Field(None, ge=0, lt=2**53)
