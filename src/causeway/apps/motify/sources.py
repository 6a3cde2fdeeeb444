"""What Motify reads from its chain, and what each fact does to its tables.

Events name challenges and people and carry no amounts: handlers make the rows, and `refreshing`
reads the rest from the contract.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.motify.context import CHAIN, SOURCE, MotifyContext, contract_of
from causeway.apps.motify.models import CHALLENGES, EVENTS, PARTICIPANTS, ChainChallenge
from causeway.apps.motify.services import owners_of
from causeway.apps.motify.shares import BASIS_POINTS
from causeway.base.errors import (
    ConfigurationError,
    InvalidInput,
    TransactionReverted,
    TransientError,
)
from causeway.indexing.checkpoint import first_block
from causeway.indexing.rows import Rows
from causeway.indexing.source import Fact, Source, Undone

log = structlog.get_logger(__name__)

KNOWN = (
    "ChallengeCreated",
    "ChallengeJoined",
    "ResultsDeclared",
    "DonationsFinalized",
    "RefundClaimed",
    "TimeoutRefundClaimed",
)


async def sources(ctx: MotifyContext) -> Sequence[Source]:
    """Return the one source: the events of the contract's challenges."""
    contract = ctx.settings.contract
    if contract is None or CHAIN not in ctx.chains:
        return ()
    await require_scale(ctx)
    await require_owner(ctx)
    handlers = Handlers(ctx.settings.chain_id, contract)
    return (
        Source(
            name=SOURCE,
            chain=CHAIN,
            abi=ctx.services.abi,
            addresses=(contract,),
            start_block=await _first_block(ctx, contract),
            row_handlers=dict.fromkeys(KNOWN, handlers.applied),
            by_block={EVENTS: "block_number", PARTICIPANTS: "joined_block"},
            derived=(CHALLENGES,),
            owned=(CHALLENGES,),
            on_undone=handlers.undone,
        ),
    )


async def require_scale(ctx: MotifyContext) -> None:
    """Refuse to start when the contract counts shares or stakes in another scale than we do.

    A chain that does not answer now is asked again at the next start; nothing can be declared
    while it does not answer.
    """
    try:
        whole, decimals = await contract_of(ctx).scale()
    except TransientError as error:
        log.warning("scale_not_checked_yet", error=error)
        return
    except (InvalidInput, TransactionReverted):
        address = ctx.settings.contract
        raise ConfigurationError(
            [f"MOTIFY_CONTRACT_ADDRESS: what is at {address} does not answer as Motify does"],
            hint="check the address and CHAIN_ID",
        ) from None
    problems: list[str] = []
    if whole != BASIS_POINTS:
        problems.append(
            f"MOTIFY_CONTRACT_ADDRESS: a whole share is {whole} in this contract; "
            f"shares are computed in {BASIS_POINTS} basis points"
        )
    if decimals != ctx.settings.stake_token_decimals:
        problems.append(
            f"STAKE_TOKEN_DECIMALS is {ctx.settings.stake_token_decimals}; "
            f"stakes have {decimals} in this contract"
        )
    if problems:
        raise ConfigurationError(problems)


async def require_owner(ctx: MotifyContext) -> None:
    """Refuse to start with `SEND_TX` when our key is not the contract's owner.

    A chain that does not answer now is asked again by `causeway doctor` and by the relayer, which
    holds back what the contract refuses.
    """
    ours = [signer.address.lower() for signer in owners_of(ctx)]
    if not ctx.settings.send_tx or not ours:
        return
    try:
        owner = await contract_of(ctx).owner()
    except TransientError as error:
        log.warning("owner_not_checked_yet", error=error)
        return
    if ours != [owner]:
        raise ConfigurationError(
            [f"PRIVATE_KEY is of {', '.join(ours)}, but the contract's owner is {owner}"],
            hint="only the owner may declare results: set its key, or SEND_TX=false",
        )


async def _first_block(ctx: MotifyContext, contract: str) -> int:
    """Return where reading begins: as set, as before, or found on the chain."""
    if ctx.settings.motify_start_block is not None:
        return ctx.settings.motify_start_block
    found = await first_block(ctx.database, ctx.chains[CHAIN], SOURCE, contract)
    if found is None:
        raise ConfigurationError(
            [
                f"MOTIFY_CONTRACT_ADDRESS: there is no contract at {contract} on chain "
                f"{ctx.settings.chain_id}"
            ]
        )
    return found


class Handlers:
    """Facts in, rows out."""

    def __init__(self, chain_id: int, contract: str) -> None:
        self._place = {"chain_id": chain_id, "contract_address": contract}

    async def applied(self, rows: Rows, fact: Fact) -> None:
        """Note an event, and make or mark the rows it is about."""
        challenge_id = int(fact.args["challengeId"])
        participant = fact.args.get("participant")
        wallet = None if participant is None else str(participant).lower()
        place = {**self._place, "challenge_id": challenge_id}
        rows.add(
            EVENTS,
            **place,
            transaction_hash=fact.transaction_hash,
            log_index=fact.log_index,
            event=fact.event,
            participant_address=wallet,
            block_number=fact.block.number,
            block_time=int(fact.block.timestamp.timestamp()),
        )
        joined = fact.event == "ChallengeJoined"
        if joined:
            rows.add(
                PARTICIPANTS,
                **place,
                participant_address=wallet,
                joined_block=fact.block.number,
            )
        before = await rows.get(CHALLENGES, *place.values())
        count, finalized = 0, False
        if before is not None:
            count, finalized = before["participant_count"], before["results_finalized"]
        # These columns only: the others are read from the contract, by others.
        rows.put(
            CHALLENGES,
            place
            | {
                "changed_block": fact.block.number,
                "participant_count": count + joined,
                "results_finalized": finalized or fact.event == "DonationsFinalized",
            },
        )

    async def undone(self, session: AsyncSession, undone: Undone) -> None:
        """Have read again what was read at blocks that are gone."""
        await session.execute(
            update(ChainChallenge)
            .where(
                ChainChallenge.chain_id == self._place["chain_id"],
                ChainChallenge.contract_address == self._place["contract_address"],
                ChainChallenge.read_block >= undone.first,
            )
            .values(read_block=None)
        )
