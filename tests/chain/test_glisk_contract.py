"""Our reference contract behaves as the published one was measured to."""

from __future__ import annotations

import pytest
from eth_utils.crypto import keccak

from causeway.sandbox.anvil import AnvilNode, RpcFailure
from causeway.sandbox.glisk_chain import MINT_PRICE_WEI, Contract, GliskContract, receipt_of
from tests.unit.test_contract_build import built

ZERO = "0x" + "0" * 40
BATCH_MINTED = "0x20c0d4a5bab7118059cf1d2fd0403c4f29a05e446d435b347f90b80778374c54"
TRANSFER = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"


def selector(signature: str) -> str:
    """Return the four bytes an error begins with."""
    return "0x" + keccak(text=signature)[:4].hex()


async def refused(contract: GliskContract, signature: str, *call: object, value: int = 0) -> None:
    """Assert that a call is refused with that error of the contract's own."""
    account, function, *args = call
    with pytest.raises(RpcFailure) as failure:
        await contract.send(account, str(function), *args, value_wei=value)  # type: ignore[arg-type]
    assert selector(signature) in str(failure.value.context["error"])


async def test_mint_numbers_tokens_from_one_with_transfers_before_the_batch(
    glisk_contract: GliskContract, anvil: AnvilNode
) -> None:
    author = anvil.accounts[5].address
    receipt = await receipt_of(anvil, await glisk_contract.mint(anvil.accounts[2], author, 3))
    topics = [log["topics"][0] for log in receipt["logs"]]
    assert topics == [TRANSFER] * 3 + [BATCH_MINTED]
    assert int(receipt["logs"][-1]["topics"][3], 16) == 1
    assert await glisk_contract.call("nextTokenId") == 4
    assert await glisk_contract.call("totalSupply") == 3
    assert (await glisk_contract.call("tokenPromptAuthor", 3)).lower() == author.lower()


async def test_mint_refuses_what_the_abi_has_errors_for(
    glisk_contract: GliskContract, anvil: AnvilNode
) -> None:
    me, author = anvil.accounts[2], anvil.accounts[5].address
    price = MINT_PRICE_WEI
    await refused(glisk_contract, "InvalidQuantity()", me, "mint", author, 0)
    await refused(glisk_contract, "ExceedsMaxBatchSize()", me, "mint", author, 51, value=price * 51)
    await refused(
        glisk_contract, "InsufficientPayment()", me, "mint", author, 2, value=price * 2 - 1
    )
    await glisk_contract.transact(anvil.accounts[0], "endSeason")
    await refused(glisk_contract, "MintingDisabled()", me, "mint", author, 1, value=price)


async def test_reveal_of_a_token_that_is_not_minted_yet_sticks(
    glisk_contract: GliskContract, anvil: AnvilNode
) -> None:
    await glisk_contract.reveal(anvil.accounts[1], [1], ["ipfs://wrong"])
    await glisk_contract.mint(anvil.accounts[2], anvil.accounts[5].address, 1)
    assert await glisk_contract.token_uri(1) == "ipfs://wrong"


async def test_one_revealed_token_undoes_the_whole_batch_and_is_named(
    glisk_contract: GliskContract, anvil: AnvilNode
) -> None:
    keeper = anvil.accounts[1]
    await glisk_contract.mint(anvil.accounts[2], anvil.accounts[5].address, 4)
    await glisk_contract.reveal(keeper, [2], ["ipfs://two"])
    with pytest.raises(RpcFailure) as failure:
        await glisk_contract.reveal(keeper, [1, 2, 3], ["a", "b", "c"])
    data = str(failure.value.context["error"])
    assert selector("AlreadyRevealed(uint256)") + f"{2:064x}" in data
    assert not await glisk_contract.is_revealed(1)
    with pytest.raises(RpcFailure, match="revert"):
        await glisk_contract.reveal(keeper, [3, 3], ["a", "b"])


async def test_empty_reveal_succeeds_and_lengths_must_match(
    glisk_contract: GliskContract, anvil: AnvilNode
) -> None:
    keeper = anvil.accounts[1]
    assert (await glisk_contract.reveal(keeper, [], []))["status"] == "0x1"
    await refused(glisk_contract, "LengthMismatch()", keeper, "revealTokens", [1], [])


async def test_reveal_needs_a_role(glisk_contract: GliskContract, anvil: AnvilNode) -> None:
    await glisk_contract.mint(anvil.accounts[2], anvil.accounts[5].address, 2)
    await refused(
        glisk_contract,
        "AccessControlUnauthorizedAccount(address,bytes32)",
        anvil.accounts[3],
        "revealTokens",
        [1],
        ["x"],
    )
    await glisk_contract.reveal(anvil.accounts[0], [1], ["by the admin"])
    assert await glisk_contract.token_uri(1) == "by the admin"
    assert await glisk_contract.call("supportsInterface", bytes.fromhex("80ac58cd"))
    assert not await glisk_contract.call("supportsInterface", bytes.fromhex("49064906"))


async def test_money_that_came_in_is_money_that_goes_out(
    glisk_contract: GliskContract, anvil: AnvilNode
) -> None:
    owner, minter, author = anvil.accounts[0], anvil.accounts[2], anvil.accounts[5]
    await glisk_contract.transact(
        minter, "mint", author.address, 3, value_wei=MINT_PRICE_WEI * 3 + 1
    )
    owed = await glisk_contract.call("authorClaimable", author.address)
    treasury = await glisk_contract.call("treasuryBalance")
    balance = int(await anvil.rpc("eth_getBalance", glisk_contract.address, "latest"), 16)
    assert owed + treasury == balance == MINT_PRICE_WEI * 3 + 1
    await glisk_contract.transact(author, "claimAuthorRewards")
    await refused(glisk_contract, "NoBalance()", author, "claimAuthorRewards")
    await glisk_contract.transact(owner, "withdrawTreasury")
    assert int(await anvil.rpc("eth_getBalance", glisk_contract.address, "latest"), 16) == 0


async def test_unclaimed_rewards_are_protected_for_two_weeks(
    glisk_contract: GliskContract, anvil: AnvilNode
) -> None:
    owner, author = anvil.accounts[0], anvil.accounts[5].address
    await glisk_contract.mint(anvil.accounts[2], author, 1)
    sweep = (owner, "sweepUnclaimedRewards", [author])
    await refused(glisk_contract, "SeasonNotEnded()", *sweep)
    await glisk_contract.transact(owner, "endSeason")
    await refused(glisk_contract, "SweepProtectionActive()", *sweep)
    await anvil.rpc("evm_increaseTime", hex(14 * 86400))
    await anvil.mine()
    await glisk_contract.transact(*sweep)
    assert await glisk_contract.call("authorClaimable", author) == 0
    assert await glisk_contract.call("treasuryBalance") == MINT_PRICE_WEI


async def test_two_mints_in_one_transaction_are_two_logs(
    glisk_contract: GliskContract, anvil: AnvilNode
) -> None:
    minter = await Contract.deploy_artifact(anvil, anvil.accounts[2], built("DoubleMinter"))
    first, second = anvil.accounts[5].address, anvil.accounts[6].address
    receipt = await minter.transact(
        anvil.accounts[2],
        "mintTwice",
        glisk_contract.address,
        first,
        1,
        second,
        2,
        value_wei=MINT_PRICE_WEI * 3,
    )
    batches = [log for log in receipt["logs"] if log["topics"][0] == BATCH_MINTED]
    assert [int(log["topics"][3], 16) for log in batches] == [1, 2]


async def test_zero_author_earns_nothing(glisk_contract: GliskContract, anvil: AnvilNode) -> None:
    await glisk_contract.mint(anvil.accounts[2], ZERO, 2)
    assert await glisk_contract.call("authorClaimable", ZERO) == 0
    assert await glisk_contract.call("treasuryBalance") == MINT_PRICE_WEI * 2
