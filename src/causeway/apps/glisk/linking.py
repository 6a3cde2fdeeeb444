"""What authors sign for: a prompt, an X account, a Farcaster account; good once, for minutes."""

from __future__ import annotations

from typing import Any, Literal

from sqlalchemy import text

from causeway.apps.glisk.context import GliskContext, unit_of_work
from causeway.apps.glisk.linking_farcaster import FarcasterRefused
from causeway.apps.glisk.linking_x import ACTION, XLinkFailed, finish, profile_url
from causeway.apps.glisk.repositories import GliskUnitOfWork
from causeway.apps.glisk.units import CHAIN
from causeway.auth.challenge import Challenges
from causeway.auth.wallet import Verdict, verify
from causeway.base.clock import iso
from causeway.base.errors import ProviderUnavailable, SignatureInvalid
from causeway.connections import oauth_state

Action = Literal["prompt", "x", "farcaster"]

_STATEMENTS: dict[Action, str] = {
    "prompt": "Set the prompt that GLISK makes pictures from.",
    "x": "Link an X account to this wallet at GLISK.",
    "farcaster": "Link a Farcaster account to this wallet at GLISK.",
}

#: Texts that older frontends have signed. They can be replayed for ever: off by default.
_LEGACY: dict[Action, str] = {
    "prompt": "Update GLISK prompt for wallet: {}",
    "x": "Link X account for wallet: {}",
    "farcaster": "Link Farcaster account for wallet: {}",
}


def challenges(ctx: GliskContext) -> Challenges:
    """Return the challenges of the frontend's site on GLISK's chain."""
    return Challenges(
        ctx.database, site=ctx.settings.frontend_url, chain_id=ctx.settings.chain_id or 1
    )


async def issue_challenge(
    ctx: GliskContext, wallet: str, action: Action, prompt_sha256: str | None
) -> dict[str, Any]:
    """Return a text to sign for one action of one wallet, and its parts."""
    made = await challenges(ctx).issue(
        f"glisk.{action}", wallet, _STATEMENTS[action], payload_sha256=prompt_sha256
    )
    return {
        "message": made.text,
        "nonce": made.nonce,
        "domain": made.domain,
        "uri": made.uri,
        "chain_id": made.chain_id,
        "resources": list(made.resources),
        "issued_at": iso(made.issued_at),
        "expires_at": iso(made.expires_at),
    }


async def check_signature(
    ctx: GliskContext,
    uow: GliskUnitOfWork,
    wallet: str,
    action: Action,
    message: str,
    signature: str,
    *,
    payload: str | None = None,
) -> None:
    """Check that the wallet signed for this action; its nonce is used up in `uow`'s commit.

    Raises `SignatureInvalid`, or `ProviderUnavailable` when a contract wallet cannot be asked.
    """
    chain = ctx.chains.get(CHAIN)
    if ctx.settings.glisk_legacy_signatures and _is_legacy(action, wallet, message):
        verdict = await verify(chain, wallet, message, signature)
        if verdict is Verdict.UNKNOWN:
            raise ProviderUnavailable("the wallet's signature cannot be checked now; try again")
        if verdict is Verdict.INVALID:
            raise SignatureInvalid("the signature does not belong to this text and this wallet")
        return
    checker = challenges(ctx)
    accepted = await checker.verify(
        chain,
        message,
        signature,
        action=f"glisk.{action}",
        address=wallet,
        payload=None if payload is None else payload.encode(),
    )
    await checker.consume(uow.session, accepted)


def _is_legacy(action: Action, wallet: str, message: str) -> bool:
    return message.lower() == _LEGACY[action].format(wallet).lower()


async def start_x(ctx: GliskContext, wallet: str) -> str:
    """Return where the author goes to say at X who they are."""
    client = ctx.services.x
    if client is None:
        raise ProviderUnavailable(
            "linking X accounts is not set up", hint="set X_CLIENT_ID, X_CLIENT_SECRET, …"
        )
    return client.authorization_url(await oauth_state.start(ctx.database, ACTION, wallet))


async def finish_x(
    ctx: GliskContext, code: str | None, state: str | None, error: str | None
) -> str:
    """Finish linking an X account; return where the browser goes, whatever came of it."""
    client, frontend = ctx.services.x, ctx.settings.frontend_url
    if client is None:
        return profile_url(frontend, error="unexpected_error")
    try:
        wallet, username = await finish(ctx.database, client, code=code, state=state, error=error)
    except XLinkFailed as failed:
        return profile_url(frontend, error=failed.code)
    async with unit_of_work(ctx) as uow:
        author = await uow.authors.ensure(wallet)
        author.twitter_handle = username
        await uow.commit()
    return profile_url(frontend, username=username)


async def link_farcaster(
    ctx: GliskContext,
    uow: GliskUnitOfWork,
    wallet: str,
    message: str,
    signature: str,
    fid: int,
    username: str,
) -> str:
    """Link the Farcaster account that signed; return the name the registry has for it."""
    account = await ctx.services.farcaster.check(
        message, signature, fid=fid, username=username, now=ctx.clock.now()
    )
    # Its nonce is of the sign-in kit's making: it is good once here.
    fresh = await uow.session.scalar(
        text(
            "INSERT INTO glisk.farcaster_nonces (nonce) VALUES (:nonce) "
            "ON CONFLICT DO NOTHING RETURNING true"
        ),
        {"nonce": account.nonce},
    )
    if not fresh:
        raise FarcasterRefused("message", "was used before")
    author = await uow.authors.ensure(wallet)
    author.farcaster_handle = account.username
    author.farcaster_fid = account.fid
    return account.username
