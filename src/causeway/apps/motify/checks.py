"""What `causeway doctor` asks of Motify's surroundings, and how to mend what fails."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select

from causeway.app import CheckResult
from causeway.apps.motify.context import MotifyContext, contract_of
from causeway.apps.motify.goals import Provider
from causeway.apps.motify.models import Incident, Settlement
from causeway.apps.motify.services import owners_of
from causeway.base.errors import CausewayError


async def checks(ctx: MotifyContext) -> Sequence[CheckResult]:
    """Return what was found, one result a thing."""
    missing = ctx.settings.missing()
    if missing:
        return [CheckResult("motify: settings", False, "; ".join(missing), "set them in .env")]
    return [
        await _owner(ctx),
        _sending(ctx),
        await _neynar(ctx),
        await _incidents(ctx),
    ]


async def _owner(ctx: MotifyContext) -> CheckResult:
    name = "motify: contract"
    try:
        owner = await contract_of(ctx).owner()
    except CausewayError as error:
        return CheckResult(name, False, error.message, "check WEB3_RPC_URL and the address")
    ours = [signer.address.lower() for signer in owners_of(ctx)]
    if not ours:
        return CheckResult(name, True, f"{ctx.settings.contract}, owned by {owner}")
    return CheckResult(
        name,
        ours == [owner],
        f"its owner is {owner}, our key is of {', '.join(ours)}",
        "set PRIVATE_KEY to the owner's",
    )


def _sending(ctx: MotifyContext) -> CheckResult:
    settings = ctx.settings
    name = "motify: declarations"
    if not settings.send_tx:
        return CheckResult(name, True, "SEND_TX is off: nothing is sent")
    signs = bool(owners_of(ctx))
    return CheckResult(
        name, signs, "sent" if signs else "SEND_TX is on and no key is set", "set PRIVATE_KEY"
    )


async def _neynar(ctx: MotifyContext) -> CheckResult:
    name = "motify: Farcaster"
    if ctx.services.neynar is not None:
        return CheckResult(name, True, "NEYNAR_API_KEY is set")
    async with ctx.database.sessions() as session:
        live = await session.scalar(
            select(func.count())
            .select_from(Settlement)
            .where(
                func.lower(func.btrim(Settlement.api_type)) == Provider.FARCASTER.value,
                Settlement.status.in_(("live", "measuring")),
            )
        )
    return CheckResult(
        name,
        not live,
        f"NEYNAR_API_KEY is not set, {live or 0} Farcaster challenges are live",
        "set NEYNAR_API_KEY",
    )


async def _incidents(ctx: MotifyContext) -> CheckResult:
    async with ctx.database.sessions() as session:
        rows = await session.execute(
            select(Incident.kind, Incident.subject)
            .where(Incident.resolved_at.is_(None))
            .order_by(Incident.raised_at)
            .limit(5)
        )
        found = [f"{kind} ({subject})" for kind, subject in rows]
    return CheckResult(
        "motify: incidents",
        not found,
        "; ".join(found) or "none are open",
        "see `causeway motify incidents`",
    )
