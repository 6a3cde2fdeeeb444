"""Every unit of money that comes into our reference of Motify's contract goes out once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from causeway.base.errors import CausewayError
from causeway.sandbox.anvil import AnvilNode, DevAccount
from causeway.sandbox.motify_chain import MOTIFY, TIMEOUT_S, USDC, MotifyContract, people
from tests.chain.motify import ADA, BEN, CLEO, CROWD, DAN, DAY_S, Round, began, ended, reason, topic

#: What the smallest unit of USDC is worth, in the smallest units of MOTIFY.
RATE = 10**16


async def usdc(contract: MotifyContract, address: str) -> int:
    return (await contract.usdc_of([address]))[address]


async def motify(contract: MotifyContract, address: str) -> int:
    return (await contract.motify_of([address]))[address]


async def test_worked_example_to_the_last_unit(motify_contract: MotifyContract) -> None:
    contract = motify_contract
    made = await began(contract, {ADA: 100 * USDC, BEN: 50 * USDC, CLEO: 25 * USDC})
    await contract.travel_to(made.end)
    await contract.declare(made.id, {ADA.address: 10_000, BEN.address: 8_000, CLEO.address: 0})
    before = await contract.challenge(made.id)
    assert before.total_donation_amount == 35 * USDC
    assert before.total_winner_initial_stake == 150 * USDC
    assert await usdc(contract, made.recipient) == 0

    await contract.finalize(made.id)
    assert await usdc(contract, made.recipient) == 31_500_000
    assert await contract.call("collectedFees") == 1_750_000
    assert (await contract.challenge(made.id)).token_pot == 17_500 * MOTIFY
    assert (await contract.challenge(made.id)).total_donation_amount == 35 * USDC

    await contract.claim(made.id, [ADA.address, BEN.address])
    assert await contract.usdc_of([ADA.address, BEN.address, CLEO.address]) == {
        ADA.address: 100_000_000,
        BEN.address: 40_000_000,
        CLEO.address: 0,
    }
    assert await contract.motify_of([ADA.address, BEN.address, CLEO.address]) == {
        ADA.address: 11_666_666666666666666666,
        BEN.address: 5_833_333333333333333333,
        CLEO.address: 0,
    }

    owner, sink = contract.owner, CROWD[6].address
    receipt = await contract.transact(owner, "withdrawFees", sink)
    assert receipt["logs"][-1]["topics"][0] == topic("FeesWithdrawn(address,uint256)")
    assert int(receipt["logs"][-1]["data"], 16) == await usdc(contract, sink) == 1_750_000
    assert await reason(contract, owner, "withdrawFees", sink) == "There are no fees"
    # What is left backs the tokens that were made.
    assert await usdc(contract, contract.address) == 1_750_000


async def test_fees_are_not_withdrawn_to_nowhere(motify_contract: MotifyContract) -> None:
    call = ("withdrawFees", "0x" + "0" * 40)
    owner = motify_contract.owner
    assert await reason(motify_contract, owner, *call) == "The fees go to no address"


async def test_whole_fee_is_the_platforms_when_nobody_got_anything_back(
    motify_contract: MotifyContract,
) -> None:
    contract = motify_contract
    made = await ended(contract, ADA, BEN)
    await contract.declare(made.id, {ADA.address: 0, BEN.address: 0})
    await contract.finalize(made.id)
    assert await usdc(contract, made.recipient) == 18 * USDC
    assert await contract.call("collectedFees") == 2 * USDC
    assert (await contract.challenge(made.id)).token_pot == 0


async def test_nothing_is_given_or_kept_when_everybody_succeeds(
    motify_contract: MotifyContract,
) -> None:
    contract = motify_contract
    made = await ended(contract, ADA, BEN)
    await contract.declare(made.id, {ADA.address: 10_000, BEN.address: 10_000})
    await contract.finalize(made.id)
    receipts = await contract.claim(made.id, [ADA.address, BEN.address])
    assert [len(receipt["logs"]) for receipt in receipts] == [2, 2]  # no token is made
    assert await contract.usdc_of([ADA.address, contract.address, made.recipient]) == {
        ADA.address: 10 * USDC,
        contract.address: 0,
        made.recipient: 0,
    }


async def test_odd_units_are_rounded_for_the_person_who_gives_and_back_the_tokens(
    motify_contract: MotifyContract,
) -> None:
    contract = motify_contract
    made = await began(contract, {ADA: 1_000_039, BEN: 1_000_000})
    await contract.travel_to(made.end)
    await contract.declare(made.id, {ADA.address: 0, BEN.address: 10_000})
    await contract.finalize(made.id)
    # Fee 100,003.9 → 100,003: half is 50,001 for the platform and 50,002 for the pot.
    assert await usdc(contract, made.recipient) == 1_000_039 - 100_003
    assert await contract.call("collectedFees") == 50_001
    assert (await contract.challenge(made.id)).token_pot == 50_002 * RATE


async def test_tokens_are_burned_as_a_discount_and_the_stake_counts_in_full(
    motify_contract: MotifyContract,
) -> None:
    contract = motify_contract
    first = await began(contract, {})
    await contract.fund([ADA.address, BEN.address], 100 * USDC)
    # Two thirds of a unit more than 30 USDC's worth: what buys no whole unit is kept.
    await contract.give_motify(ADA.address, 300_000 * MOTIFY + RATE * 2 // 3)
    await contract.join(first.id, {ADA.address: 100 * USDC, BEN.address: 100 * USDC})
    assert await usdc(contract, ADA.address) == 30 * USDC
    assert await motify(contract, ADA.address) == RATE * 2 // 3
    assert await usdc(contract, BEN.address) == 0
    shown = await contract.participant(first.id, ADA.address)
    assert (shown.initial_amount, shown.amount) == (100 * USDC, 100 * USDC)
    # The 30 are what is missing: in earnest they are the backing of the tokens burned.
    assert await usdc(contract, contract.address) == 170 * USDC

    second = await began(contract, {})
    await contract.give_motify(ADA.address, 300_001 * MOTIFY)
    await contract.join(second.id, {ADA.address: 5 * USDC})
    assert await usdc(contract, ADA.address) == 30 * USDC  # paid in tokens altogether
    assert await motify(contract, ADA.address) == 250_001 * MOTIFY + RATE * 2 // 3


async def test_people_who_took_their_stake_back_leave_their_share_of_the_pot(
    motify_contract: MotifyContract,
) -> None:
    contract = motify_contract
    made = await ended(contract, ADA, BEN, CLEO)
    await contract.declare(made.id, {ADA.address: 5_000, BEN.address: 0})
    await contract.travel_to(made.end + TIMEOUT_S + 1)
    await contract.claim_timeout(made.id, [CLEO.address])
    await contract.finalize(made.id)
    assert (await contract.challenge(made.id)).token_pot == 7_500 * MOTIFY
    await contract.claim(made.id, [ADA.address])
    assert await motify(contract, ADA.address) == 3_750 * MOTIFY
    assert await motify(contract, CLEO.address) == 0


async def test_everybody_may_take_everything_back_when_nothing_was_declared(
    motify_contract: MotifyContract,
) -> None:
    contract = motify_contract
    made = await ended(contract, *CROWD[:5])
    await contract.travel_to(made.end + TIMEOUT_S + 1)
    everybody = [who.address for who in CROWD[:5]]
    await contract.claim_timeout(made.id, everybody)
    assert set((await contract.usdc_of(everybody)).values()) == {10 * USDC}
    assert await usdc(contract, contract.address) == 0
    assert (await contract.challenge(made.id)).declared_participants == 5
    await contract.fund([ADA.address], 0)
    await contract.finalize(made.id, by=ADA)
    assert await usdc(contract, made.recipient) == 0
    with pytest.raises(CausewayError, match="1 of 1 transactions reverted"):
        await contract.claim(made.id, [ADA.address])


async def test_challenges_do_not_pay_for_one_another(motify_contract: MotifyContract) -> None:
    contract = motify_contract
    one = await ended(contract, ADA, BEN)
    two = await began(contract, {CLEO: 40 * USDC, DAN: 20 * USDC})
    await contract.declare(one.id, {ADA.address: 10_000, BEN.address: 0})
    await contract.finalize(one.id)
    await contract.claim(one.id, [ADA.address])
    assert await contract.call("collectedFees") == 500_000
    assert await reason(contract, ADA, "claimRefund", two.id) == "Challenge not finalized"
    await contract.travel_to(two.end)
    await contract.declare(two.id, {CLEO.address: 10_000, DAN.address: 0})
    await contract.finalize(two.id)
    await contract.claim(two.id, [CLEO.address])
    assert await usdc(contract, CLEO.address) == 40 * USDC
    # The fees of both add up, and the other halves are behind the tokens of both.
    assert await contract.call("collectedFees") == 1_500_000
    assert await motify(contract, ADA.address) == 5_000 * MOTIFY
    assert await motify(contract, CLEO.address) == 10_000 * MOTIFY
    assert await usdc(contract, contract.address) == 3 * USDC


async def test_declaring_costs_what_the_published_contract_costs(
    motify_contract: MotifyContract,
) -> None:
    contract = motify_contract
    members = people(400, "gas")
    made = await began(contract, {})
    await contract.fund([who.address for who in members], 10 * USDC)
    await contract.join(made.id, {who.address: 10 * USDC for who in members})
    await contract.travel_to(made.end)
    addresses = [who.address for who in members]
    call = contract.encode("declareResults", made.id, addresses[:200], [8_571] * 200)
    assert len(call) // 2 - 1 == 12_964
    partial = await contract.declare(made.id, dict.fromkeys(addresses[:200], 8_571))
    full = await contract.declare(made.id, dict.fromkeys(addresses[200:], 10_000))
    # Measured of the published one: 53,750 and 50,700 a head, 10.75 million for two hundred.
    assert int(partial["gasUsed"], 16) / 200 == pytest.approx(53_750, rel=0.01)
    assert int(full["gasUsed"], 16) / 200 == pytest.approx(50_700, rel=0.02)


# What follows plays random challenges and keeps the same books twice.


@dataclass
class Part:
    """What somebody does in a challenge."""

    stake: int
    #: Basis points, or nothing: the owner forgets them.
    share: int | None
    claims: bool


@dataclass
class Books:
    """What must be, kept in Python."""

    usdc: dict[str, int] = field(default_factory=dict[str, int])
    motify: dict[str, int] = field(default_factory=dict[str, int])
    fees: int = 0

    def pay(self, sender: str, to: str, units: int) -> None:
        self.usdc[sender] -= units
        self.usdc[to] += units


stakes = st.one_of(
    st.integers(USDC, 3 * USDC), st.integers(USDC, 10**13), st.just(USDC), st.just(10**13)
)
shares = st.one_of(st.integers(0, 10_000), st.sampled_from([0, 1, 5_000, 9_999, 10_000]), st.none())
parts = st.builds(Part, stake=stakes, share=shares, claims=st.booleans())
stories = st.lists(st.dictionaries(st.integers(0, 4), parts, max_size=5), min_size=1, max_size=3)


@cache
def actors() -> list[DevAccount]:
    return people(5, "actor")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(stories)
def test_nothing_is_created_or_lost_whatever_happens(story: list[dict[int, Part]]) -> None:
    asyncio.run(_play(story))


async def _play(story: list[dict[int, Part]]) -> None:
    async with AnvilNode.start() as node:
        contract = await MotifyContract.deploy(node)
        everybody = [who.address for who in actors()]
        purse = 4 * 10**13
        await contract.fund(everybody, purse)
        books = Books(
            usdc={**dict.fromkeys(everybody, purse), contract.address: 0, _sink(contract): 0},
            motify=dict.fromkeys(everybody, 0),
        )
        for number, chapter in enumerate(story):
            members = {everybody[who]: part for who, part in chapter.items()}
            await _chapter(contract, books, members, forgotten_late=number % 2 == 0)
        if books.fees:
            await contract.transact(contract.owner, "withdrawFees", _sink(contract))
            books.pay(contract.address, _sink(contract), books.fees)
            books.fees = 0
        await _balance(contract, books)


def _sink(contract: MotifyContract) -> str:
    return contract.node.accounts[5].address


async def _chapter(
    contract: MotifyContract, books: Books, members: dict[str, Part], *, forgotten_late: bool
) -> None:
    """Play one challenge to its end, checking the books on the way."""
    made = await began(contract, {}, lasts_s=DAY_S)
    await contract.join(made.id, {address: part.stake for address, part in members.items()})
    for address, part in members.items():
        discount = min(books.motify[address] // RATE, part.stake)
        books.motify[address] -= discount * RATE
        books.pay(address, contract.address, part.stake - discount)
    await _balance(contract, books)

    await contract.travel_to(made.end)
    declared = {a: part.share for a, part in members.items() if part.share is not None}
    await contract.declare(made.id, declared)
    forgotten = [a for a, part in members.items() if part.share is None]
    taken_back = forgotten[:1] if forgotten_late else forgotten
    if forgotten:
        await contract.travel_to(made.end + TIMEOUT_S + 1)
        await contract.claim_timeout(made.id, taken_back)
        await contract.declare(made.id, dict.fromkeys(forgotten[len(taken_back) :], 10_000))
    for address in taken_back:
        books.pay(contract.address, address, members[address].stake)
    await _balance(contract, books)
    await _settle(contract, books, made, members, set(taken_back))


async def _settle(
    contract: MotifyContract,
    books: Books,
    made: Round,
    members: dict[str, Part],
    taken_back: set[str],
) -> None:
    refunds = {
        address: part.stake * (10_000 if part.share is None else part.share) // 10_000
        for address, part in members.items()
    }
    donated = sum(part.stake - refunds[address] for address, part in members.items())
    winning = sum(part.stake for address, part in members.items() if refunds[address])
    fee = donated // 10
    backing = fee - fee // 2 if winning else 0
    books.fees += fee - backing
    await contract.finalize(made.id)
    books.pay(contract.address, _sink(contract), donated - fee)
    await _balance(contract, books)

    claiming = [
        address
        for address, part in members.items()
        if part.claims and refunds[address] and address not in taken_back
    ]
    await contract.claim(made.id, claiming)
    for address in claiming:
        books.pay(contract.address, address, refunds[address])
        books.motify[address] += members[address].stake * backing * RATE // winning
    await _balance(contract, books)
    paid = donated - fee + sum(refunds.values())
    assert paid + (fee - backing) + backing == sum(part.stake for part in members.values())


async def _balance(contract: MotifyContract, books: Books) -> None:
    """Compare the books with the chain, and what the contract has with what it owes."""
    assert await contract.usdc_of(books.usdc) == books.usdc
    assert await contract.motify_of(books.motify) == books.motify
    assert await contract.call("collectedFees") == books.fees
    assert await contract.usdc.call("totalSupply") == sum(books.usdc.values())
    supply = await contract.token.call("totalSupply")
    assert supply == sum(books.motify.values())
    owed = books.fees
    for number in range(await contract.call("nextChallengeId")):
        shown = await contract.challenge(number)
        owed += sum(part.amount for part in shown.participants)
        if not shown.finalized:
            owed += shown.total_donation_amount
    # What is over is behind the tokens: each could be burned as a discount tomorrow.
    assert (books.usdc[contract.address] - owed) * RATE >= supply
