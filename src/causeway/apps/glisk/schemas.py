"""What goes over GLISK's wire, with the shapes its specification and its frontend give."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

from eth_utils.address import is_address, to_checksum_address
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from causeway.apps.glisk.metadata import token_uri
from causeway.apps.glisk.models import Author, GenerationJob, MintEvent, Token, UploadRecord
from causeway.base.clock import iso

#: Token ids are JSON integers, so none above what every JSON reader keeps exactly.
MAX_TOKEN_ID = 2**53 - 1

TokenId = Annotated[int, Field(ge=1, le=MAX_TOKEN_ID)]


def _wallet(value: str) -> str:
    if not is_address(value):
        raise ValueError("must be an address, 0x and 40 hex digits")
    return str(to_checksum_address(value))


Wallet = Annotated[str, AfterValidator(_wallet)]


def _unique(ids: list[int]) -> list[int]:
    if len(set(ids)) != len(ids):
        raise ValueError("each token id may be named once")
    return ids


class Body(BaseModel):
    """Base of request bodies: unknown fields are refused by name."""

    model_config = ConfigDict(extra="forbid")


class RevealBody(Body):
    """An operator's wish to reveal now."""

    token_ids: Annotated[list[TokenId], Field(min_length=1, max_length=50), AfterValidator(_unique)]
    force: bool = False


class RecoverBody(Body):
    """A range of blocks to be read again."""

    from_block: int = Field(ge=0, le=2**63 - 1)
    to_block: int = Field(ge=0, le=2**63 - 1)


class PromptBody(Body):
    """An author's new prompt, signed."""

    wallet_address: Wallet
    prompt_text: str = Field(min_length=1, max_length=1000)
    message: str = Field(max_length=4000)
    signature: str = Field(max_length=20_000)


class LinkStartBody(Body):
    """An author's wish to link an account, signed."""

    wallet_address: Wallet
    message: str = Field(max_length=4000)
    signature: str = Field(max_length=20_000)


class FarcasterBody(Body):
    """A Farcaster account, signed for by both sides."""

    wallet_address: Wallet
    wallet_message: str = Field(max_length=4000)
    wallet_signature: str = Field(max_length=20_000)
    farcaster_message: str = Field(max_length=4000)
    farcaster_signature: str = Field(max_length=20_000)
    fid: int = Field(ge=1, le=2**53 - 1)
    username: str = Field(min_length=1, max_length=255)


def stamp(instant: datetime | None) -> str | None:
    """Return an instant as RFC 3339 with Z, or None."""
    return None if instant is None else iso(instant)


def author_view(author: Author) -> dict[str, Any]:
    """Return an author as operators see one."""
    return {
        "wallet_address": author.wallet_address,
        "twitter_handle": author.twitter_handle,
        "farcaster_handle": author.farcaster_handle,
        "has_prompt": author.prompt_text is not None,
    }


def token_row(token: Token, author: Author) -> dict[str, Any]:
    """Return a token as operators see it, without its history."""
    return {
        "token_id": token.token_id,
        "status": token.status,
        "author": author_view(author),
        "minter_address": token.minter_address,
        "mint_timestamp": stamp(token.mint_timestamp),
        "prompt_text": token.prompt_text,
        "image_url": token.image_url,
        "image_cid": token.image_cid,
        "metadata_cid": token.metadata_cid,
        "metadata_uri": token_uri(token.metadata_cid) if token.metadata_cid else None,
        "reveal_tx_hash": token.reveal_tx_hash,
        "revealed_uri": token.revealed_uri,
        "generation_attempts": token.generation_attempts,
        "generation_error": token.last_error,
        "error_log": token.error_log,
        "censored": token.censored,
        "source": token.source,
        "next_attempt_at": stamp(token.next_at),
        "created_at": stamp(token.created_at),
        "updated_at": stamp(token.updated_at),
    }


def mint_view(event: MintEvent | None) -> dict[str, Any] | None:
    """Return a mint event for a token's history."""
    if event is None:
        return None
    return {
        "mint_event_id": str(event.id),
        "tx_hash": event.tx_hash,
        "log_index": event.log_index,
        "block_number": event.block_number,
        "block_hash": event.block_hash,
        "block_timestamp": stamp(event.block_timestamp),
        "minter": event.minter,
        "author_wallet": event.author_wallet,
        "token_ids": event.token_ids,
        "quantity": event.quantity,
        "total_paid": str(event.total_paid),
        "detected_at": stamp(event.detected_at),
        "via": event.via,
    }


def job_view(job: GenerationJob) -> dict[str, Any]:
    """Return one attempt to have a picture made."""
    return {
        "id": str(job.id),
        "attempt_number": job.attempt_number,
        "service": job.service,
        "model": job.model,
        "status": job.status,
        "external_job_id": job.external_job_id,
        "seed": job.seed,
        "cost_seconds": None if job.cost_seconds is None else float(job.cost_seconds),
        "error_data": job.error_data,
        "created_at": stamp(job.created_at),
        "completed_at": stamp(job.completed_at),
    }


def upload_view(record: UploadRecord) -> dict[str, Any]:
    """Return one upload to IPFS."""
    return {
        "id": str(record.id),
        "upload_type": record.upload_type,
        "provider": record.provider,
        "status": record.status,
        "expected_cid": record.expected_cid,
        "ipfs_cid": record.ipfs_cid,
        "size": record.size,
        "attempt_number": record.attempt_number,
        "error_data": record.error_data,
        "created_at": stamp(record.created_at),
        "completed_at": stamp(record.completed_at),
    }


def plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a database row with wire types: instants as text, exact numbers as text."""
    shown: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, datetime):
            shown[name] = iso(value)
        elif isinstance(value, Decimal):
            shown[name] = format(value.normalize(), "f") if value else "0"
        elif isinstance(value, str | int | float | bool | list | dict) or value is None:
            shown[name] = value
        else:
            shown[name] = str(value)
    return shown


def author_token_view(token: Token, gateway_url: str) -> dict[str, Any]:
    """Return a token as the public sees it: reasons for people, nothing of our insides."""
    image = f"{gateway_url}/ipfs/{token.image_cid}" if token.image_cid else None
    return {
        "token_id": token.token_id,
        "status": token.status,
        "image_cid": token.image_cid,
        "metadata_cid": token.metadata_cid,
        "image_url": image,
        "generation_attempts": token.generation_attempts,
        "generation_error": public_reason(token),
        "reveal_tx_hash": token.reveal_tx_hash,
        "created_at": stamp(token.created_at),
    }


def public_reason(token: Token) -> str | None:
    """Return why a token is late or failed in words for its owner."""
    if token.last_error is None or token.status in ("ready", "revealed"):
        return None
    if token.status == "failed":
        return "The picture could not be made; we have been told and will look at it."
    return "Something we depend on does not answer; the token is tried again by itself."
