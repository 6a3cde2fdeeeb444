"""What `causeway doctor` asks of GLISK's surroundings, and how to mend what fails."""

from __future__ import annotations

from collections.abc import Sequence

from eth_utils.crypto import keccak

from causeway.app import CheckResult
from causeway.apps.glisk.context import GliskContext
from causeway.apps.glisk.contract import contract_abi
from causeway.apps.glisk.services import keepers_of
from causeway.apps.glisk.units import CHAIN
from causeway.base.errors import CausewayError

#: Less than this in the keeper's account is worth a warning, wei.
LITTLE_WEI = 10**15


async def checks(ctx: GliskContext) -> Sequence[CheckResult]:
    """Return what was found, one result a thing."""
    settings = ctx.settings
    found: list[CheckResult] = []
    missing = settings.missing()
    if missing:
        return [CheckResult("glisk: settings", False, "; ".join(missing), "set them in .env")]
    found.append(await _contract(ctx))
    found.append(await _keeper(ctx))
    found.append(
        CheckResult(
            "glisk: webhook secret",
            bool(settings.alchemy_webhook_secret),
            "set" if settings.alchemy_webhook_secret else "not set: every webhook is refused",
            "set ALCHEMY_WEBHOOK_SECRET to the signing key of the webhook (mints are found anyway)",
        )
    )
    found.append(await _pinner(ctx))
    generator = ctx.services.generators.choose()
    found.append(CheckResult("glisk: images", True, f"made by {generator.name}"))
    return found


async def _contract(ctx: GliskContext) -> CheckResult:
    name, contract = "glisk: contract", ctx.settings.contract or ""
    try:
        there = bool(await ctx.chains[CHAIN].code(contract))
    except CausewayError as error:
        return CheckResult(name, False, error.message, "check RPC_URLS or ALCHEMY_API_KEY")
    return CheckResult(
        name,
        there,
        contract if there else f"no code at {contract}",
        "check the address and NETWORK",
    )


async def _keeper(ctx: GliskContext) -> CheckResult:
    name, signer = "glisk: keeper", next(iter(keepers_of(ctx)), None)
    if signer is None:
        return CheckResult(name, False, "no key", "set KEEPER_PRIVATE_KEY or KEEPER_KEYSTORE")
    chain, abi, contract = ctx.chains[CHAIN], contract_abi(), ctx.settings.contract or ""
    try:
        balance = await chain.balance(signer.address)
        answers = [
            await chain.call(contract, abi.encode("hasRole", role, signer.address))
            for role in (keccak(text="KEEPER_ROLE"), bytes(32))
        ]
    except CausewayError as error:
        return CheckResult(name, False, error.message, "check the chain first")
    if not any(abi.decode_result("hasRole", answer)[0] for answer in answers):
        return CheckResult(
            name, False, f"{signer.address} lacks KEEPER_ROLE", "have an admin call grantRole"
        )
    detail = f"{signer.address} holds {balance / 10**18:.6f} ETH"
    return CheckResult(
        name, balance >= LITTLE_WEI, detail, f"send it ETH: at least {LITTLE_WEI} wei"
    )


async def _pinner(ctx: GliskContext) -> CheckResult:
    name, pinner = "glisk: IPFS", ctx.services.pinner
    if pinner is None:
        return CheckResult(name, False, "no provider", "set PINATA_JWT or IPFS_API_URL")
    try:
        await pinner.check()
    except CausewayError as error:
        return CheckResult(name, False, error.message, error.hint)
    return CheckResult(name, True, f"{pinner.name} accepts our credentials")
