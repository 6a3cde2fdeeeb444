"""Our reference of Motify's contract behaves as the published one was measured to: its rules."""

from __future__ import annotations

from typing import Any

import pytest
from eth_utils.crypto import keccak

from causeway.base.errors import CausewayError
from causeway.sandbox.anvil import AnvilNode, DevAccount
from causeway.sandbox.glisk_chain import Contract, artifact, receipt_of
from causeway.sandbox.motify_chain import TIMEOUT_S, USDC, MotifyContract, Participant
from tests.chain.motify import ADA, BEN, CLEO, CROWD, DAN, DAY_S, began, ended, reason, topic, word

ZERO = "0x" + "0" * 40
RECIPIENT = CROWD[7].address


async def test_constants_are_the_published_ones(motify_contract: MotifyContract) -> None:
    published = {
        "MIN_AMOUNT": 1_000_000,
        "BASIS_POINTS_DIVISOR": 10_000,
        "FEE_BASIS_POINTS": 1_000,
        "DECLARATION_TIMEOUT": 604_800,
        "FINALIZATION_TIMEOUT": 604_800,
        "TOKENS_PER_USDC": 10_000,
        "USDC_DECIMALS": 6,
        "TOKEN_DECIMALS": 18,
        "DECIMAL_DIFF": 12,
    }
    assert {name: await motify_contract.call(name) for name in published} == published


async def test_deployer_is_the_owner_and_alone_may_do_what_owners_do(
    motify_contract: MotifyContract,
) -> None:
    contract, owner = motify_contract, motify_contract.owner
    assert (await contract.call("owner")).lower() == owner.address.lower()
    assert (await contract.call("usdc")).lower() == contract.usdc.address.lower()
    assert (await contract.call("motifyToken")).lower() == contract.token.address.lower()
    calls: dict[str, tuple[Any, ...]] = {
        "declareResults": (0, (), ()),
        "setTokenAddress": (contract.token.address,),
        "withdrawFees": (ADA.address,),
    }
    for function, args in calls.items():
        assert await reason(contract, ADA, function, *args) == "Not authorized"
        assert await reason(contract, owner, function, *args) != "Not authorized"


async def test_token_is_set_once_and_nobody_joins_before(anvil: AnvilNode) -> None:
    owner, member = anvil.accounts[0], anvil.accounts[1]
    with pytest.raises(CausewayError, match="USDC is at no address"):
        await Contract.deploy_artifact(anvil, owner, artifact("Motify"), ZERO)
    coin = await Contract.deploy_artifact(
        anvil, owner, artifact("MintableToken"), "USD Coin", "USDC", 6
    )
    made = await Contract.deploy_artifact(anvil, owner, artifact("Motify"), coin.address)
    contract = MotifyContract(
        anvil, made.abi, made.address, usdc=coin, token=coin, owner=owner, bank=owner
    )
    joined = await began(contract, {})
    await contract.fund([member.address], USDC)
    asked = ("joinChallenge", joined.id, USDC)
    assert await reason(contract, member, *asked) == "The token is not set"
    assert await reason(contract, owner, "setTokenAddress", ZERO) == "The token is at no address"
    token = await Contract.deploy_artifact(
        anvil, owner, artifact("MintableToken"), "Motify", "MOTIFY", 18
    )
    await contract.transact(owner, "setTokenAddress", token.address)
    assert await reason(contract, member, *asked) == ""
    again = ("setTokenAddress", token.address)
    assert await reason(contract, owner, *again) == "The token is set already"


async def test_challenges_count_up_from_zero_and_say_what_was_asked(
    motify_contract: MotifyContract,
) -> None:
    contract = motify_contract
    assert await contract.call("nextChallengeId") == 0
    start = await contract.now() + 1_000
    # Nobody checks the texts: they are what somebody typed.
    texts = ["", "x" * 5_000, "Zeilen\nund\0Nullen 🏃", "'; drop table"]
    ids = [
        await contract.create(
            recipient=RECIPIENT,
            start_time=start,
            end_time=start + 1 + number,
            name=text,
            api_type=text,
            goal_type=text,
            goal_amount=number * 2**250,
            description=text,
            creator=contract.node.accounts[number],
        )
        for number, text in enumerate(texts)
    ]
    assert ids == [0, 1, 2, 3]
    assert await contract.call("nextChallengeId") == 4
    for number, text in enumerate(texts):
        shown = await contract.challenge(number)
        assert (shown.name, shown.api_type, shown.goal_type, shown.description) == (text,) * 4
        assert shown.recipient == RECIPIENT
        assert (shown.start_time, shown.end_time) == (start, start + 1 + number)
        assert shown.goal_amount == number * 2**250
        assert (shown.challenge_id, shown.participants) == (number, ())
        assert (shown.is_private, shown.finalized) == (False, False)
        assert shown.total_donation_amount == shown.token_pot == shown.declared_participants == 0


async def test_challenge_starts_in_the_future_ends_later_and_has_a_recipient(
    motify_contract: MotifyContract,
) -> None:
    contract, now = motify_contract, await motify_contract.now()

    async def asked(recipient: str, start: int, end: int, private: bool = False) -> str:
        texts = ("a", "b", "c")
        call = (recipient, start, end, private, *texts, 1, "d", ())
        return await reason(contract, ADA, "createChallenge", *call)

    assert await asked(RECIPIENT, now + 1, now + 2) == ""
    assert await asked(RECIPIENT, now, now + 2) == "The start has passed"
    assert await asked(RECIPIENT, now + 1, now + 1) == "The end is not after the start"
    assert await asked(ZERO, now + 1, now + 2) == "The recipient is at no address"
    assert await asked(RECIPIENT, now + 1, now + 2, private=True) == "Nobody is invited"


async def test_joining_ends_at_the_second_of_the_start(motify_contract: MotifyContract) -> None:
    contract = motify_contract
    made = await began(contract, {})
    await contract.fund([ADA.address], USDC)
    await contract.travel_to(made.start - 1)
    assert await reason(contract, ADA, "joinChallenge", made.id, USDC) == ""
    await contract.travel_to(made.start)
    refusal = "The challenge has started"
    assert await reason(contract, ADA, "joinChallenge", made.id, USDC) == refusal
    # An id that is not there yet has no time at which it could be joined.
    assert await reason(contract, ADA, "joinChallenge", made.id + 1, USDC) == refusal


async def test_stake_is_a_dollar_at_least_and_made_once(motify_contract: MotifyContract) -> None:
    contract = motify_contract
    made = await began(contract, {})
    await contract.fund([ADA.address], 5 * USDC)
    small = ("joinChallenge", made.id, USDC - 1)
    assert await reason(contract, ADA, *small) == "The stake is too small"
    await contract.join(made.id, {ADA.address: USDC})
    again = ("joinChallenge", made.id, USDC)
    assert await reason(contract, ADA, *again) == "You take part already"
    assert await contract.usdc_of([ADA.address, contract.address]) == {
        ADA.address: 4 * USDC,
        contract.address: USDC,
    }
    # Who has no money joins nothing, and hears it from the token itself.
    await contract.fund([BEN.address], USDC - 1)
    poor = keccak(text="ERC20InsufficientBalance(address,uint256,uint256)")[:4].hex()
    assert (await reason(contract, BEN, *again)).startswith("0x" + poor)


async def test_private_challenges_are_for_those_invited(motify_contract: MotifyContract) -> None:
    contract, now = motify_contract, await motify_contract.now()
    private = await contract.create(
        recipient=RECIPIENT, start_time=now + 100, end_time=now + 200, invited=[ADA.address]
    )
    open_to_all = await contract.create(
        recipient=RECIPIENT, start_time=now + 100, end_time=now + 200
    )
    await contract.fund([ADA.address, BEN.address], 2 * USDC)
    assert (await contract.challenge(private)).is_private
    assert await reason(contract, ADA, "joinChallenge", private, USDC) == ""
    assert await reason(contract, BEN, "joinChallenge", private, USDC) == "You are not invited"
    assert await reason(contract, BEN, "joinChallenge", open_to_all, USDC) == ""


async def test_declaring_begins_at_the_second_of_the_end(motify_contract: MotifyContract) -> None:
    contract, owner = motify_contract, motify_contract.owner
    made = await began(contract, {ADA: USDC})
    call = ("declareResults", made.id, [ADA.address], [10_000])
    await contract.travel_to(made.end - 1)
    assert await reason(contract, owner, *call) == "Challenge not ended yet"
    empty = ("declareResults", made.id, (), ())
    assert await reason(contract, owner, *empty) == "Challenge not ended yet"
    await contract.travel_to(made.end)
    assert await reason(contract, owner, *call) == ""


async def test_one_bad_element_undoes_the_whole_batch(motify_contract: MotifyContract) -> None:
    contract, owner = motify_contract, motify_contract.owner
    made = await ended(contract, ADA, BEN, CLEO)
    await contract.declare(made.id, {CLEO.address: 5_000})
    a, b, c, d = (who.address for who in (ADA, BEN, CLEO, DAN))
    for names, shares, refusal in (
        ([a, b], [10_000, 10_001], "Invalid refund percentage"),
        ([a, d], [10_000, 10_000], "Participant not found"),
        ([a, c], [10_000, 10_000], "Result already declared for participant"),
        ([a, b, a], [1, 2, 3], "Result already declared for participant"),
        ([a, b], [10_000], "Array length mismatch"),
        ([a], [10_000, 10_000], "Array length mismatch"),
    ):
        assert await reason(contract, owner, "declareResults", made.id, names, shares) == refusal
        tx_hash = await contract.send(owner, "declareResults", made.id, names, shares, gas=500_000)
        assert (await receipt_of(contract.node, tx_hash))["status"] == "0x0"
        for who in (a, b):
            assert not (await contract.participant(made.id, who)).declared
    assert (await contract.challenge(made.id)).declared_participants == 1


async def test_declared_results_are_in_the_state_and_not_in_the_event(
    motify_contract: MotifyContract,
) -> None:
    contract = motify_contract
    units = 33_333_333
    made = await ended(contract, ADA, BEN, CLEO, DAN, units=units)
    shares = {ADA.address: 10_000, BEN.address: 8_571, CLEO.address: 1, DAN.address: 0}
    receipt = await contract.declare(made.id, dict(list(shares.items())[:3]))
    (log,) = receipt["logs"]
    assert log["topics"] == [topic("ResultsDeclared(uint256)"), f"0x{made.id:064x}"]
    assert log["data"] == "0x"
    await contract.declare(made.id, {DAN.address: 0})
    shown = await contract.challenge(made.id)
    # Floor: 33.333333 × 0.8571 = 28.5699997143.
    kept = [units, 28_569_999, 3_333, 0]
    assert shown.participants == tuple(
        Participant(address, units, left, share, True)
        for (address, share), left in zip(shares.items(), kept, strict=True)
    )
    assert shown.total_donation_amount == 4 * units - sum(kept)
    assert shown.total_winner_initial_stake == 3 * units
    assert (shown.declared_participants, shown.token_pot, shown.finalized) == (4, 0, False)
    for who in shown.participants:
        assert await contract.participant(made.id, who.address) == who


async def test_declaring_nobody_succeeds_and_does_nothing(motify_contract: MotifyContract) -> None:
    made = await ended(motify_contract, ADA)
    before = await motify_contract.challenge(made.id)
    assert (await motify_contract.declare(made.id, {}))["status"] == "0x1"
    assert await motify_contract.challenge(made.id) == before


async def test_which_refusal_comes_first(motify_contract: MotifyContract) -> None:
    contract, owner = motify_contract, motify_contract.owner
    made = await began(contract, {ADA: USDC})
    wrong = ("declareResults", made.id, [DAN.address], ())
    assert await reason(contract, ADA, *wrong) == "Not authorized"
    assert await reason(contract, owner, *wrong) == "Challenge not ended yet"
    await contract.travel_to(made.end)
    assert await reason(contract, owner, *wrong) == "Array length mismatch"
    both = ("declareResults", made.id, [DAN.address], [10_001])
    assert await reason(contract, owner, *both) == "Invalid refund percentage"
    await contract.declare(made.id, {ADA.address: 0})
    await contract.finalize(made.id)
    assert await reason(contract, owner, *wrong) == "Challenge results are already finalized"
    empty = ("declareResults", made.id, (), ())
    assert await reason(contract, owner, *empty) == "Challenge results are already finalized"


async def test_finalizing_needs_everybody_declared_and_happens_once(
    motify_contract: MotifyContract,
) -> None:
    contract, owner = motify_contract, motify_contract.owner
    made = await began(contract, {ADA: USDC, BEN: USDC})
    call = ("finalizeAndProcessDonations", made.id)
    assert await reason(contract, owner, *call) == "Challenge not ended yet"
    await contract.travel_to(made.end)
    await contract.declare(made.id, {ADA.address: 10_000})
    assert await reason(contract, owner, *call) == "Not all results declared"
    await contract.declare(made.id, {BEN.address: 5_000})
    receipt = await contract.finalize(made.id)
    assert receipt["logs"][-1]["topics"] == [
        topic("DonationsFinalized(uint256)"),
        f"0x{made.id:064x}",
    ]
    assert receipt["logs"][-1]["data"] == "0x"
    assert await reason(contract, owner, *call) == "Donations have already been processed"
    assert (await contract.challenge(made.id)).finalized


async def test_anybody_finalizes_when_seven_days_have_passed(
    motify_contract: MotifyContract,
) -> None:
    contract = motify_contract
    made = await ended(contract, ADA)
    await contract.declare(made.id, {ADA.address: 9_999})
    call = ("finalizeAndProcessDonations", made.id)
    await contract.travel_to(made.end + TIMEOUT_S)
    assert await reason(contract, DAN, *call) == "Only owner can finalize before timeout"
    assert await reason(contract, contract.owner, *call) == ""
    await contract.travel_to(made.end + TIMEOUT_S + 1)
    await contract.fund([DAN.address], 0)
    await contract.finalize(made.id, by=DAN)
    assert (await contract.challenge(made.id)).finalized


async def test_seven_days_do_not_make_up_for_what_is_not_declared(
    motify_contract: MotifyContract,
) -> None:
    contract = motify_contract
    made = await ended(contract, ADA)
    await contract.travel_to(made.end + 2 * TIMEOUT_S)
    call = ("finalizeAndProcessDonations", made.id)
    for who in (ADA, contract.owner):
        assert await reason(contract, who, *call) == "Not all results declared"


async def test_challenge_without_participants_can_be_finalized(
    motify_contract: MotifyContract,
) -> None:
    contract = motify_contract
    made = await ended(contract)
    receipt = await contract.finalize(made.id)
    assert len(receipt["logs"]) == 1
    assert await contract.call("collectedFees") == 0


async def test_refund_is_claimed_after_finalization_once_and_by_whom_it_is_for(
    motify_contract: MotifyContract,
) -> None:
    contract = motify_contract
    made = await ended(contract, ADA, BEN)
    call = ("claimRefund", made.id)
    assert await reason(contract, ADA, *call) == "Challenge not finalized"
    await contract.declare(made.id, {ADA.address: 5_000, BEN.address: 0})
    assert await reason(contract, ADA, *call) == "Challenge not finalized"
    await contract.finalize(made.id)
    (receipt,) = await contract.claim(made.id, [ADA.address])
    assert receipt["logs"][-1]["topics"] == [
        topic("RefundClaimed(uint256,address)"),
        f"0x{made.id:064x}",
        word(ADA.address),
    ]
    assert receipt["logs"][-1]["data"] == "0x"
    assert (await contract.participant(made.id, ADA.address)) == Participant(
        ADA.address, 10 * USDC, 0, 5_000, True
    )
    for who in (ADA, BEN, CLEO):  # has it, lost it, was never in it
        assert await reason(contract, who, *call) == "Nothing is left to claim"


async def test_what_nobody_declared_is_paid_back_after_seven_days(
    motify_contract: MotifyContract,
) -> None:
    contract = motify_contract
    made = await ended(contract, ADA, BEN, CLEO)
    await contract.declare(made.id, {CLEO.address: 0})
    call = ("claimTimeoutRefund", made.id)
    await contract.travel_to(made.end + TIMEOUT_S)
    assert await reason(contract, ADA, *call) == "Results may still be declared"
    await contract.travel_to(made.end + TIMEOUT_S + 1)
    assert await reason(contract, CLEO, *call) == "Your result is declared"
    assert await reason(contract, DAN, *call) == "You do not take part"
    (receipt,) = await contract.claim_timeout(made.id, [ADA.address])
    assert receipt["logs"][-1]["topics"] == [
        topic("TimeoutRefundClaimed(uint256,address)"),
        f"0x{made.id:064x}",
        word(ADA.address),
    ]
    assert await contract.participant(made.id, ADA.address) == Participant(
        ADA.address, 10 * USDC, 0, 10_000, True
    )
    assert await contract.usdc_of([ADA.address]) == {ADA.address: 10 * USDC}
    assert await reason(contract, ADA, *call) == "Your result is declared"
    # Who has taken it back cannot be declared any more; the others still can, however late.
    late = ("declareResults", made.id, [BEN.address, ADA.address], [0, 0])
    refusal = "Result already declared for participant"
    assert await reason(contract, contract.owner, *late) == refusal
    await contract.declare(made.id, {BEN.address: 0})
    assert await reason(contract, BEN, *call) == "Your result is declared"
    await contract.fund([DAN.address], 0)
    await contract.finalize(made.id, by=DAN)
    assert await reason(contract, ADA, "claimRefund", made.id) == "Nothing is left to claim"


async def test_unknown_challenges_and_strangers(motify_contract: MotifyContract) -> None:
    contract = motify_contract
    refusal = "Challenge does not exist"
    assert await reason(contract, ADA, "getChallengeById", 0) == refusal
    assert await reason(contract, ADA, "getParticipantInfo", 0, ADA.address) == refusal
    made = await began(contract, {ADA: USDC})
    assert await reason(contract, ADA, "getChallengeById", made.id) == ""
    assert await reason(contract, ADA, "getChallengeById", made.id + 1) == refusal
    assert await reason(contract, ADA, "getParticipantInfo", made.id + 1, ADA.address) == refusal
    assert await contract.participant(made.id, BEN.address) == Participant(
        BEN.address, 0, 0, 0, False
    )


async def test_lists_have_the_newest_first_and_a_hundred_at_most(
    motify_contract: MotifyContract,
) -> None:
    contract = motify_contract
    assert await contract.call("getAllChallenges", 10) == ()
    start = await contract.now() + DAY_S
    texts = ("a", "b", "c", 1, "d", ())
    call = contract.encode("createChallenge", RECIPIENT, start, start + 1, False, *texts)
    sender = contract.bank.address
    receipts = await contract.send_many([(sender, contract.address, call)] * 103)
    assert {receipt["status"] for receipt in receipts} == {"0x1"}

    async def listed(limit: int) -> list[int]:
        return [info[0] for info in await contract.call("getAllChallenges", limit)]

    newest_first = list(range(102, -1, -1))
    assert await listed(1_000) == newest_first[:100]
    assert await listed(101) == newest_first[:100]
    assert await listed(2**256 - 1) == newest_first[:100]
    assert await listed(3) == [102, 101, 100]
    assert await listed(0) == []


async def test_person_finds_all_their_challenges_in_the_order_they_joined(
    motify_contract: MotifyContract,
) -> None:
    contract = motify_contract
    made = [await began(contract, {}) for _ in range(4)]
    await contract.fund([ADA.address, BEN.address], 10 * USDC)
    for number in (2, 0, 3):
        await contract.join(made[number].id, {ADA.address: (number + 1) * USDC})
    await contract.join(made[2].id, {BEN.address: USDC})
    found = await contract.call("getChallengesForParticipant", ADA.address)
    assert [info[0] for info in found] == [2, 0, 3]
    assert [info[-1] for info in found] == [2, 1, 1]  # how many take part
    assert await contract.call("userChallenges", ADA.address, 1) == 0
    assert await contract.call("getChallengesForParticipant", CLEO.address) == ()
    (listed, *_) = await contract.call("getAllChallenges", 1)
    assert listed == found[2]
    detail = await contract.challenge(3)
    assert listed[1].lower() == detail.recipient.lower()
    assert list(listed[2:12]) == [
        detail.start_time,
        detail.end_time,
        detail.is_private,
        detail.name,
        detail.api_type,
        detail.goal_type,
        detail.goal_amount,
        detail.description,
        detail.total_donation_amount,
        detail.finalized,
    ]


async def test_joining_and_creating_are_announced_without_amounts(
    motify_contract: MotifyContract,
) -> None:
    contract = motify_contract
    made = await began(contract, {ADA: USDC, BEN: USDC})
    logs = await contract.node.rpc(
        "eth_getLogs", {"address": contract.address, "fromBlock": "0x0", "toBlock": "latest"}
    )
    challenge = f"0x{made.id:064x}"
    assert [log["topics"] for log in logs] == [
        [topic("ChallengeCreated(uint256)"), challenge],
        [topic("ChallengeJoined(uint256,address)"), challenge, word(ADA.address)],
        [topic("ChallengeJoined(uint256,address)"), challenge, word(BEN.address)],
    ]
    assert {log["data"] for log in logs} == {"0x"}


#: Creation code of contracts that answer every call: with the word 0, and with nothing at all.
SAYS_NO = "0x600a600c600039600a6000f3" + "600060005260206000f3"
SAYS_NOTHING = "0x6001600c60003960016000f3" + "00"


@pytest.mark.parametrize(("code", "taken"), [(SAYS_NO, False), (None, False), (SAYS_NOTHING, True)])
async def test_money_that_does_not_move_is_noticed(
    anvil: AnvilNode, code: str | None, taken: bool
) -> None:
    owner: DevAccount = anvil.accounts[0]
    coin = artifact("MintableToken")
    token = await Contract.deploy_artifact(anvil, owner, coin, "Motify", "MOTIFY", 18)
    usdc = DAN.address
    if code is not None:
        built: dict[str, Any] = {"abi": [], "bytecode": code}
        usdc = (await Contract.deploy_artifact(anvil, owner, built)).address
    made = await Contract.deploy_artifact(anvil, owner, artifact("Motify"), usdc)
    contract = MotifyContract(
        anvil, made.abi, made.address, usdc=token, token=token, owner=owner, bank=owner
    )
    await contract.transact(owner, "setTokenAddress", token.address)
    joined = await began(contract, {})
    refusal = await reason(contract, owner, "joinChallenge", joined.id, USDC)
    if taken:
        assert refusal == ""
    else:
        name = "0x" + keccak(text="SafeERC20FailedOperation(address)")[:4].hex()
        assert refusal == name + word(usdc)[2:]
