"""What GLISK owes on chain: names shared by those who file reveals and those who send them."""

from __future__ import annotations

#: The one chain GLISK reads, by the name it is configured under.
CHAIN = "base"

#: The kind of unit: one token's URI.
REVEAL = "reveal"


def unit_key(chain_id: int, contract: str, token_id: int) -> str:
    """Return the key under which a token's reveal is owed, once: `glisk:8453:0x…:42`."""
    return f"glisk:{chain_id}:{contract.lower()}:{token_id}"


def token_of(key: str) -> int:
    """Return the token id of a unit key."""
    return int(key.rsplit(":", 1)[1])
