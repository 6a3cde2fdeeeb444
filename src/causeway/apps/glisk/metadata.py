"""ERC-721 metadata as exact bytes, made once: its CID goes on chain for ever."""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass
from typing import Any

import orjson

from causeway.base.errors import PermanentError

MAX_TEXT = 255


@dataclass(frozen=True)
class TokenMetadata:
    """What a token's metadata says; handles only when linked and verified."""

    token_id: int
    image_cid: str
    twitter_handle: str | None = None
    farcaster_handle: str | None = None


def metadata_bytes(
    token: TokenMetadata,
    *,
    name_template: str,
    description: str,
    external_url: str | None = None,
) -> bytes:
    """Return the JSON of a token: these keys in this order, compact, UTF-8, nothing escaped.

    Raises `PermanentError` for texts with control characters or of more than 255 characters.
    """
    attributes = [
        {"trait_type": trait, "value": f"@{_text(trait, handle).lstrip('@')}"}
        for trait, handle in (
            ("Author X Handle", token.twitter_handle),
            ("Author Farcaster Handle", token.farcaster_handle),
        )
        if handle
    ]
    document: dict[str, Any] = {
        "name": _text("name", name_template.replace("{token_id}", str(token.token_id))),
        "description": description,
        "image": token_uri(token.image_cid),
    }
    if external_url:
        document["external_url"] = external_url.replace("{token_id}", str(token.token_id))
    document["attributes"] = attributes
    return orjson.dumps(document)


def _text(name: str, value: str) -> str:
    if len(value) > MAX_TEXT:
        raise PermanentError(f"{name} is longer than {MAX_TEXT} characters")
    if any(unicodedata.category(c).startswith("C") for c in value):
        raise PermanentError(f"{name} has control characters in it")
    return value


def token_uri(cid: str) -> str:
    """Return the URI that goes on chain for a metadata CID."""
    return f"ipfs://{cid}"


def generation_seed(chain_id: int, contract: str, token_id: int, mint_block_hash: str) -> int:
    """Return the seed of a token's picture, so that a generation can be repeated by anybody.

    The first 31 bits (models take no more) of the SHA-256 of
    `chain id:contract in lower case:token id:mint block hash in lower case`.
    """
    text = f"{chain_id}:{contract.lower()}:{token_id}:{mint_block_hash.lower()}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def prompt_sha256(prompt: str) -> str:
    """Return the SHA-256 of a prompt's UTF-8 bytes, 64 hex digits."""
    return hashlib.sha256(prompt.encode()).hexdigest()
