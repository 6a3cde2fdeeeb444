"""What would be declared on a challenge now: the shares, the bytes, the fees, and their effect.

Nothing is sent, and nothing that was decided is changed. A challenge that is frozen is shown with
its frozen scores. Before that, with what was read last; who was never read is read now, for the
preview alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError
from sqlalchemy import select
from sqlalchemy.orm import load_only

from causeway.apps.motify import counting, rules
from causeway.apps.motify.chain_time import seconds
from causeway.apps.motify.context import CHAIN, MotifyContext, contract_of
from causeway.apps.motify.contract import Challenge, Contract, Participant
from causeway.apps.motify.models import Score, Settlement
from causeway.apps.motify.reading import NotRead, read, utc_date
from causeway.apps.motify.refreshing import known_wallets
from causeway.apps.motify.rules import Share, Terms
from causeway.apps.motify.shares import Ratio
from causeway.apps.motify.troubles import Trouble
from causeway.base.errors import CausewayError, Conflict, NotFound, TransactionReverted
from causeway.chains.evm.chain import EvmChain
from causeway.relayer.fees import Quote, starting_fees, suggested_tip

#: Everything but the evidence, which is large.
_COLUMNS = (
    Score.wallet,
    Score.numerator,
    Score.denominator,
    Score.outcome,
    Score.percent_ppm,
    Score.reason,
    Score.batch_no,
)

#: People who were never read and are read for a preview, in all and at once.
_MOST_READ = 200
_READ_AT_ONCE = 16

#: Blocks and percentiles from which the tip is suggested; the least tip, wei.
_FEE_BLOCKS = 20
_PERCENTILES = (25.0, 50.0, 75.0)
_LEAST_TIP_WEI = 1_000_000


@dataclass(frozen=True)
class Item:
    """One participant who is not declared yet."""

    person: Participant
    ratio: Ratio | None = None
    #: None: nothing may be declared.
    share: Share | None = None
    reason: str | None = None
    #: Of a frozen challenge.
    batch_no: int | None = None


class _SimulatedCall(msgspec.Struct, rename="camel"):
    return_data: str


class _SimulatedBlock(msgspec.Struct):
    calls: list[_SimulatedCall]


@dataclass
class Chunk:
    """One transaction."""

    participants: list[str] = field(default_factory=list[str])
    shares: list[int] = field(default_factory=list[int])


async def preview(
    ctx: MotifyContext, challenge_id: int, *, include_items: bool = False
) -> dict[str, Any]:
    """Return the preview; `NotFound`, or `Conflict` when the challenge has not ended."""
    contract, chain = contract_of(ctx), ctx.chains[CHAIN]
    head = await chain.head()
    wallets = await known_wallets(ctx, challenge_id)
    challenge = await contract.challenge(challenge_id, head.number, wallets)
    if challenge is None:
        raise NotFound(f"challenge {challenge_id} does not exist")
    now = seconds(head)
    if now < challenge.window.end:
        raise Conflict(f"challenge {challenge_id} ends in {challenge.window.end - now} s")
    settlement = await _settlement(ctx, challenge_id)
    items = await _items(ctx, challenge, settlement, now)
    chunks = _chunks(items, ctx.settings.chunk_size)
    mode, fees = await _fees(ctx, chain)
    answer: dict[str, Any] = {
        "ok": True,
        "challenge_id": challenge_id,
        "items": sum(len(chunk.participants) for chunk in chunks),
        "declare": {
            "dry_run": True,
            "payload": {
                "challenge_id": challenge_id,
                "chunks": [
                    {"participants": chunk.participants, "refundPercentages": chunk.shares}
                    for chunk in chunks
                ],
            },
            "tx_hashes": [],
            "fee_params_preview": fees,
            "fee_params_preview_mode": mode,
        },
        "state": {
            "status": None if settlement is None else settlement.status,
            "frozen": settlement is not None and settlement.frozen_at is not None,
            "waits_for": None if settlement is None else settlement.last_error,
        },
        "simulation": await _simulation(contract, challenge, items, chunks),
    }
    if include_items:
        answer["items_detail"] = [_detail(item) for item in items]
    return answer


def _detail(item: Item) -> dict[str, Any]:
    found: dict[str, Any] = {
        "user": item.person.wallet,
        "stake_minor_units": item.person.stake,
        "percent_ppm": None if item.share is None else item.share.ppm,
        "progress_ratio": None
        if item.ratio is None
        else item.ratio.numerator / item.ratio.denominator,
    }
    if item.reason is not None:
        found["reason"] = item.reason
    return found


async def _settlement(ctx: MotifyContext, challenge_id: int) -> Settlement | None:
    async with ctx.database.sessions() as session:
        return await session.scalar(
            select(Settlement).where(
                Settlement.chain_id == ctx.settings.chain_id,
                Settlement.contract_address == ctx.settings.contract,
                Settlement.challenge_id == challenge_id,
            )
        )


async def _items(
    ctx: MotifyContext, challenge: Challenge, settlement: Settlement | None, now: int
) -> list[Item]:
    """Return who is not declared on chain, in the order of addresses."""
    pending = sorted(challenge.undeclared, key=lambda one: one.wallet)
    scores = {} if settlement is None else await _scores(ctx, settlement)
    if settlement is not None and settlement.frozen_at is not None:
        return [_frozen(one, scores.get(one.wallet)) for one in pending]
    terms = _terms(challenge) if settlement is None else settlement.terms
    rule = rules.rule_of(terms, *ctx.settings.fallbacks)
    ratios: dict[str, Ratio] = {}
    troubles: dict[str, Trouble] = {}
    unread: list[str] = []
    for one in pending:
        score = scores.get(one.wallet)
        ratio = None if score is None else _ratio(score)
        if ratio is not None:
            ratios[one.wallet] = ratio
        elif score is not None and score.outcome is not None:
            troubles[one.wallet] = Trouble(score.outcome)
        else:
            unread.append(one.wallet)
    await _read(ctx, terms, unread, now, ratios, troubles)
    items: list[Item] = []
    for one in pending:
        ratio = ratios.get(one.wallet)
        trouble = None if ratio else troubles.get(one.wallet, Trouble.UNAVAILABLE)
        share = rules.share_of(rule, ratio, trouble)
        reason = trouble.value if share is None and trouble else share.reason if share else None
        items.append(Item(one, ratio, share, reason))
    return items


def _frozen(person: Participant, score: Score | None) -> Item:
    if score is None or score.percent_ppm is None:
        return Item(person, reason=rules.ELSEWHERE)
    share = Share(int(score.percent_ppm), score.reason)
    return Item(person, _ratio(score), share, score.reason, score.batch_no)


def _ratio(score: Score) -> Ratio | None:
    if score.numerator is None or score.denominator is None:
        return None
    return Ratio(int(score.numerator), int(score.denominator))


async def _scores(ctx: MotifyContext, settlement: Settlement) -> dict[str, Score]:
    async with ctx.database.sessions() as session:
        rows = await session.scalars(
            select(Score)
            .where(Score.settlement_id == settlement.id)
            .options(load_only(*_COLUMNS, raiseload=True))
        )
        return {one.wallet: one for one in rows}


def _terms(challenge: Challenge) -> Terms:
    return Terms(
        challenge.window.start,
        challenge.window.end,
        challenge.api_type,
        challenge.goal_type,
        challenge.goal_amount,
    )


async def _read(
    ctx: MotifyContext,
    terms: Terms,
    wallets: Sequence[str],
    now: int,
    ratios: dict[str, Ratio],
    troubles: dict[str, Trouble],
) -> None:
    """Read people who were never read; a few hundred at most."""
    goal = rules.goal_for(terms)
    if goal is None:
        troubles.update(dict.fromkeys(wallets, Trouble.UNSCORABLE))
        return
    turns = asyncio.Semaphore(_READ_AT_ONCE)

    async def one(wallet: str) -> None:
        async with turns:
            found = await read(ctx, goal, wallet, utc_date(now), {})
        if isinstance(found, NotRead):
            troubles[wallet] = found.trouble
        else:
            ratios[wallet] = counting.ratio(goal, found.count, {})

    async with asyncio.TaskGroup() as tasks:
        for wallet in wallets[:_MOST_READ]:
            tasks.create_task(one(wallet))


def _chunks(items: Sequence[Item], size: int) -> list[Chunk]:
    """Return the transactions: as they were frozen, or as they would be."""
    chunks: dict[int, Chunk] = {}
    declared = [item for item in items if item.share is not None]
    for place, item in enumerate(declared):
        assert item.share is not None  # noqa: S101 (the type checker's sake)
        number = place // size if item.batch_no is None else item.batch_no
        chunk = chunks.setdefault(number, Chunk())
        chunk.participants.append(item.person.wallet)
        chunk.shares.append(item.share.bps.value)
    return [chunk for _, chunk in sorted(chunks.items())]


async def _fees(ctx: MotifyContext, chain: EvmChain) -> tuple[str, dict[str, Any]]:
    """Return how fees would be set now, and the fees in wei per gas."""
    given = ctx.settings.max_fee_gwei
    cap = None if given is None else int(given * 10**9)
    try:
        history = await chain.fee_history(_FEE_BLOCKS, _PERCENTILES)
        node_tip = await chain.max_priority_fee()
    except CausewayError:
        # A chain without EIP-1559, or a node that knows nothing of it.
        price = int(await chain.pool.call("eth_gasPrice", reply=str), 16)
        return "legacy-fallback", {"gasPrice": price}
    tip = suggested_tip(history.rewards, "medium", _LEAST_TIP_WEI, node_tip)
    quote = Quote(history.base_fee_per_gas[-1], tip)
    fees = starting_fees(quote, cap)
    found: dict[str, Any] = {"baseFeePerGas": quote.base_wei}
    if fees is not None:
        found |= {"maxFeePerGas": fees.cap_wei, "maxPriorityFeePerGas": fees.tip_wei}
    else:
        # Nothing is sent until the base fee has fallen.
        found |= {"maxFeePerGas": cap, "maxPriorityFeePerGas": min(tip, cap or tip), "waits": True}
    return ("eip1559-auto" if cap is None else "eip1559-env"), found


async def _simulation(
    contract: Contract, challenge: Challenge, items: Sequence[Item], chunks: Sequence[Chunk]
) -> dict[str, Any]:
    """Try every transaction on the chain's newest state, as its owner; none is sent."""
    try:
        owner = await contract.owner()
        calls = [await _try(contract, owner, challenge.id, chunk) for chunk in chunks]
    except CausewayError as error:
        return {"ok": None, "error": error.message}
    declared = [item for item in items if item.share is not None]
    after = await _after(contract, owner, challenge.id, [call["data"] for call in calls])
    refund = sum(i.share.bps.refund(i.person.stake) for i in declared if i.share)
    donation = sum(i.share.bps.donation(i.person.stake) for i in declared if i.share)
    return {
        "ok": all(call["ok"] for call in calls),
        "from": owner,
        "to": contract.address,
        "calls": calls,
        "effect": {
            "refund_minor_units": str(refund),
            "donation_minor_units": str(donation),
            "donation_of_all_minor_units": str(challenge.total_donation + donation),
            "left_undeclared": len(challenge.undeclared) - len(declared),
        },
        "on_chain_then": after,
    }


async def _try(contract: Contract, owner: str, challenge_id: int, chunk: Chunk) -> dict[str, Any]:
    data = contract.abi.encode("declareResults", challenge_id, chunk.participants, chunk.shares)
    call: dict[str, Any] = {"data": "0x" + data.hex()}
    try:
        gas = await contract.chain.estimate_gas(owner, contract.address, data)
    except TransactionReverted as error:
        return call | {"ok": False, "revert": contract.abi.explain(error).message}
    return call | {"ok": True, "gas": gas}


async def _after(
    contract: Contract, owner: str, challenge_id: int, data: Sequence[str]
) -> dict[str, str] | None:
    """Return the contract's own sums after all transactions; None where no node can tell.

    By `eth_simulateV1`, which runs calls one after the other and keeps nothing; not every node
    has it.
    """
    reading = contract.abi.function("challenges")
    asked = "0x" + contract.abi.encode("challenges", challenge_id).hex()
    # A block for each: together they may need more gas than one block has.
    blocks = [
        {"calls": [{"from": owner, "to": contract.address, "data": one}]} for one in (*data, asked)
    ]
    try:
        answer = await contract.chain.pool.call(
            "eth_simulateV1",
            ({"blockStateCalls": blocks, "validation": False}, "latest"),
            reply=list[_SimulatedBlock],
        )
        output = bytes.fromhex(answer[-1].calls[0].return_data.removeprefix("0x"))
        # What people wrote is bytes: not all of it is text.
        kinds = [one.type.replace("string", "bytes") for one in reading.outputs]
        values: Any = decode(kinds, output)
    except (CausewayError, DecodingError, ValueError, IndexError):
        return None
    found = dict(zip((one.name for one in reading.outputs), values, strict=True))
    return {
        "donation_of_all_minor_units": str(found["totalDonationAmount"]),
        "declared_participants": str(found["declaredParticipants"]),
    }
