"""Every wei that comes into our reference contract is somebody's, and goes out once."""

from __future__ import annotations

import pytest

from causeway.sandbox.anvil import AnvilNode, RpcFailure
from causeway.sandbox.glisk_chain import MINT_PRICE_WEI, Contract, GliskContract, receipt_of
from tests.chain.test_glisk_contract import minted, refused, selector, topic
from tests.unit.test_contract_build import built

ZERO = "0x" + "0" * 40


async def balance(node: AnvilNode, address: str) -> int:
    """Return what an address has, in wei."""
    return int(await node.rpc("eth_getBalance", address, "latest"), 16)


async def test_money_that_came_in_is_money_that_goes_out(
    glisk_contract: GliskContract, anvil: AnvilNode
) -> None:
    owner, minter, author = anvil.accounts[0], anvil.accounts[2], anvil.accounts[5]
    paid = MINT_PRICE_WEI * 3 + 1
    await glisk_contract.transact(minter, "mint", author.address, 3, value_wei=paid)
    owed = await glisk_contract.call("authorClaimable", author.address)
    treasury = await glisk_contract.call("treasuryBalance")
    assert owed == paid // 2
    assert owed + treasury == await balance(anvil, glisk_contract.address) == paid

    before = await balance(anvil, author.address)
    receipt = await glisk_contract.transact(author, "claimAuthorRewards")
    gas = int(receipt["gasUsed"], 16) * int(receipt["effectiveGasPrice"], 16)
    assert await balance(anvil, author.address) == before + owed - gas
    assert receipt["logs"][0]["topics"][0] == topic("AuthorClaimed(address,uint256)")
    assert int(receipt["logs"][0]["data"], 16) == owed
    await refused(glisk_contract, "NoBalance()", author, "claimAuthorRewards")

    assert await balance(anvil, glisk_contract.address) == treasury
    before = await balance(anvil, owner.address)
    receipt = await glisk_contract.transact(owner, "withdrawTreasury")
    gas = int(receipt["gasUsed"], 16) * int(receipt["effectiveGasPrice"], 16)
    assert await balance(anvil, owner.address) == before + treasury - gas
    assert await balance(anvil, glisk_contract.address) == 0
    await refused(glisk_contract, "NoBalance()", owner, "withdrawTreasury")


async def test_several_authors_and_gifts_add_up_to_the_balance(
    glisk_contract: GliskContract, anvil: AnvilNode
) -> None:
    authors = [anvil.accounts[n].address for n in (5, 6, 7)]
    for number, author in enumerate(authors, 1):
        value = MINT_PRICE_WEI * number + number
        await minted(glisk_contract, anvil.accounts[2], author, number, value)
    fields = {
        "from": anvil.accounts[3].address,
        "to": glisk_contract.address,
        "value": hex(777),
        "gas": hex(100_000),
    }
    gift = await receipt_of(anvil, await anvil.rpc("eth_sendTransaction", fields))
    assert gift["logs"][0]["topics"][0] == topic("DirectPaymentReceived(address,uint256)")
    await glisk_contract.transact(anvil.accounts[5], "claimAuthorRewards")
    owed = sum([await glisk_contract.call("authorClaimable", author) for author in authors])
    treasury = await glisk_contract.call("treasuryBalance")
    assert owed + treasury == await balance(anvil, glisk_contract.address)


async def test_unclaimed_rewards_are_protected_for_two_weeks(
    glisk_contract: GliskContract, anvil: AnvilNode
) -> None:
    owner, author = anvil.accounts[0], anvil.accounts[5].address
    await minted(glisk_contract, anvil.accounts[2], author, 1)
    await refused(glisk_contract, "SeasonNotEnded()", owner, "sweepUnclaimedRewards", [author])
    receipt = await glisk_contract.transact(owner, "endSeason")
    assert receipt["logs"][0]["topics"][0] == topic("SeasonEnded(uint256)")
    await refused(glisk_contract, "SeasonAlreadyEnded()", owner, "endSeason")
    ended = await glisk_contract.call("seasonEndTime")

    data = glisk_contract.encode("sweepUnclaimedRewards", [author])
    await anvil.rpc("evm_setNextBlockTimestamp", ended + 14 * 86400 - 1)
    early = await glisk_contract.send(owner, "sweepUnclaimedRewards", [author], gas=200_000)
    refusal = await receipt_of(anvil, early)
    assert refusal["status"] == "0x0"
    asked = {"from": owner.address, "to": glisk_contract.address, "data": data}
    with pytest.raises(RpcFailure) as failure:
        await anvil.rpc("eth_call", asked, refusal["blockNumber"])
    assert selector("SweepProtectionActive()") in str(failure.value.context["error"])

    await anvil.rpc("evm_setNextBlockTimestamp", ended + 14 * 86400)
    swept = await glisk_contract.send(owner, "sweepUnclaimedRewards", [author, author], gas=200_000)
    assert (await receipt_of(anvil, swept))["status"] == "0x1"
    assert await glisk_contract.call("authorClaimable", author) == 0
    assert await glisk_contract.call("treasuryBalance") == MINT_PRICE_WEI
    assert await balance(anvil, glisk_contract.address) == MINT_PRICE_WEI


async def test_claims_stay_open_after_the_season(
    glisk_contract: GliskContract, anvil: AnvilNode
) -> None:
    author = anvil.accounts[5]
    await minted(glisk_contract, anvil.accounts[2], author.address, 1)
    await glisk_contract.transact(anvil.accounts[0], "endSeason")
    await anvil.rpc("evm_increaseTime", hex(30 * 86400))
    await glisk_contract.transact(author, "claimAuthorRewards")
    assert await glisk_contract.call("authorClaimable", author.address) == 0


async def test_zero_author_earns_nothing(glisk_contract: GliskContract, anvil: AnvilNode) -> None:
    await minted(glisk_contract, anvil.accounts[2], ZERO, 2)
    assert await glisk_contract.call("authorClaimable", ZERO) == 0
    assert await glisk_contract.call("treasuryBalance") == MINT_PRICE_WEI * 2


async def test_a_contract_that_takes_no_tokens_mints_none_and_pays_nothing(
    glisk_contract: GliskContract, anvil: AnvilNode
) -> None:
    wallet = await Contract.deploy_artifact(
        anvil, anvil.accounts[0], built("ContractWallet"), anvil.accounts[4].address
    )
    await anvil.rpc("anvil_impersonateAccount", wallet.address)
    await anvil.rpc("anvil_setBalance", wallet.address, hex(10**18))
    fields = {
        "from": wallet.address,
        "to": glisk_contract.address,
        "value": hex(MINT_PRICE_WEI),
        "data": glisk_contract.encode("mint", anvil.accounts[5].address, 1),
    }
    with pytest.raises(RpcFailure) as failure:
        await anvil.rpc("eth_call", fields, "latest")
    assert selector("ERC721InvalidReceiver(address)") in str(failure.value.context["error"])
    assert await glisk_contract.call("nextTokenId") == 1


async def test_rewards_stay_claimable_when_they_cannot_be_paid_out(
    glisk_contract: GliskContract, anvil: AnvilNode
) -> None:
    author = await Contract.deploy_artifact(
        anvil, anvil.accounts[0], built("ContractWallet"), anvil.accounts[4].address
    )
    await minted(glisk_contract, anvil.accounts[2], author.address, 2)
    fields = {
        "from": author.address,
        "to": glisk_contract.address,
        "data": glisk_contract.encode("claimAuthorRewards"),
    }
    with pytest.raises(RpcFailure) as failure:
        await anvil.rpc("eth_call", fields, "latest")
    assert selector("TransferFailed()") in str(failure.value.context["error"])
    assert await glisk_contract.call("authorClaimable", author.address) == MINT_PRICE_WEI


async def test_tokens_sent_by_mistake_can_be_recovered(
    glisk_contract: GliskContract, anvil: AnvilNode
) -> None:
    owner = anvil.accounts[0]
    token = await Contract.deploy_artifact(anvil, anvil.accounts[3], built("TestToken"), 1000)
    await token.transact(anvil.accounts[3], "transfer", glisk_contract.address, 600)
    receipt = await glisk_contract.transact(owner, "recoverERC20", token.address, 400)
    assert receipt["logs"][-1]["topics"][0] == topic("ERC20Recovered(address,address,uint256)")
    assert await token.call("balanceOf", owner.address) == 400
    assert await token.call("balanceOf", glisk_contract.address) == 200
