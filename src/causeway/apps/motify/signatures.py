"""What wallets sign at Motify: fixed messages with a time, each accepted once.

Provider and wallet stand in lower case; the provider also as the caller's address spells it,
because older frontends sign it so.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from causeway.apps.motify.context import CHAIN, MotifyContext
from causeway.auth.signed_once import SignedOnce


@dataclass(frozen=True)
class Proof:
    """A signature in hex, and the time in the message it is of, Unix seconds."""

    signature: str = field(repr=False)
    timestamp: int


async def require_connect(ctx: MotifyContext, provider: str, wallet: str, proof: Proof) -> None:
    """Use up a wallet's consent to link an account; `provider` as the caller spells it."""
    said = "Connect OAuth provider {} to wallet {} at {}"
    spellings = dict.fromkeys((provider.lower(), provider))
    messages = [said.format(one, wallet, proof.timestamp) for one in spellings]
    await _require(ctx, wallet, proof, messages)


async def require_disconnect(ctx: MotifyContext, provider: str, wallet: str, proof: Proof) -> None:
    """Use up a wallet's consent to forget an account; `provider` as the caller spells it."""
    said = "Disconnect OAuth provider {} from wallet {} at {}"
    spellings = dict.fromkeys((provider.lower(), provider))
    messages = [said.format(one, wallet, proof.timestamp) for one in spellings]
    await _require(ctx, wallet, proof, messages)


async def require_evidence(
    ctx: MotifyContext, challenge_id: int, wallet: str, proof: Proof
) -> None:
    """Use up a wallet's request for the evidence on itself."""
    message = f"Read evidence of challenge {challenge_id} for wallet {wallet} at {proof.timestamp}"
    await _require(ctx, wallet, proof, [message])


async def _require(ctx: MotifyContext, wallet: str, proof: Proof, messages: list[str]) -> None:
    """Raise what `SignedOnce.accept` raises: 400 for the form, 401, or 503 without the chain."""
    await SignedOnce(ctx.database, clock=ctx.clock).accept(
        ctx.chains.get(CHAIN),
        wallet=wallet,
        messages=messages,
        timestamp=proof.timestamp,
        signature=proof.signature,
    )
