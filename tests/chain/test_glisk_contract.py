"""Our reference contract behaves as the published one was measured to."""

from __future__ import annotations

from typing import Any

import pytest
from eth_utils.crypto import keccak

from causeway.sandbox.anvil import AnvilNode, DevAccount, RpcFailure
from causeway.sandbox.glisk_chain import MINT_PRICE_WEI, Contract, GliskContract, receipt_of
from tests.unit.test_contract_build import built

ZERO = "0x" + "0" * 40
BATCH_MINTED = "0x20c0d4a5bab7118059cf1d2fd0403c4f29a05e446d435b347f90b80778374c54"
TRANSFER = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"


def selector(signature: str) -> str:
    """Return the four bytes an error begins with."""
    return "0x" + keccak(text=signature)[:4].hex()


def topic(signature: str) -> str:
    """Return the topic an event's log begins with."""
    return "0x" + keccak(text=signature).hex()


async def minted(
    contract: GliskContract, account: DevAccount, author: str, quantity: int, *value_wei: int
) -> dict[str, Any]:
    """Mint and return the receipt: a node answers before it has made the block."""
    return await receipt_of(
        contract.node, await contract.mint(account, author, quantity, *value_wei)
    )


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
    receipt = await minted(glisk_contract, anvil.accounts[2], author, 3)
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
    await minted(glisk_contract, anvil.accounts[2], anvil.accounts[5].address, 1)
    assert await glisk_contract.token_uri(1) == "ipfs://wrong"


async def test_one_revealed_token_undoes_the_whole_batch_and_is_named(
    glisk_contract: GliskContract, anvil: AnvilNode
) -> None:
    keeper = anvil.accounts[1]
    await minted(glisk_contract, anvil.accounts[2], anvil.accounts[5].address, 4)
    await glisk_contract.reveal(keeper, [2], ["ipfs://two"])
    with pytest.raises(RpcFailure) as failure:
        await glisk_contract.reveal(keeper, [1, 2, 3], ["a", "b", "c"])
    data = str(failure.value.context["error"])
    assert selector("AlreadyRevealed(uint256)") + f"{2:064x}" in data
    assert not await glisk_contract.is_revealed(1)
    with pytest.raises(RpcFailure) as failure:
        await glisk_contract.reveal(keeper, [3, 3], ["a", "b"])
    data = str(failure.value.context["error"])
    assert selector("AlreadyRevealed(uint256)") + f"{3:064x}" in data
    assert not await glisk_contract.is_revealed(3)


async def test_empty_reveal_succeeds_and_lengths_must_match(
    glisk_contract: GliskContract, anvil: AnvilNode
) -> None:
    keeper = anvil.accounts[1]
    assert (await glisk_contract.reveal(keeper, [], []))["status"] == "0x1"
    await refused(glisk_contract, "LengthMismatch()", keeper, "revealTokens", [1], [])


async def test_the_second_of_two_reveals_is_mined_and_reverts(
    glisk_contract: GliskContract, anvil: AnvilNode
) -> None:
    await minted(glisk_contract, anvil.accounts[2], anvil.accounts[5].address, 1)
    await anvil.rpc("evm_setAutomine", False)
    sent = [
        await glisk_contract.send(anvil.accounts[who], "revealTokens", [1], [uri], gas=300_000)
        for who, uri in ((1, "ipfs://first"), (0, "ipfs://second"))
    ]
    await anvil.mine()
    receipts = [await receipt_of(anvil, tx_hash) for tx_hash in sent]
    won = [receipt["status"] for receipt in receipts].index("0x1")
    assert {receipt["status"] for receipt in receipts} == {"0x1", "0x0"}
    assert await glisk_contract.token_uri(1) == ("ipfs://first", "ipfs://second")[won]


async def test_full_batch_costs_about_what_the_published_one_was_measured_to(
    glisk_contract: GliskContract, anvil: AnvilNode
) -> None:
    receipt = await minted(glisk_contract, anvil.accounts[2], anvil.accounts[5].address, 50)
    assert receipt["status"] == "0x1"
    assert len(receipt["logs"]) == 51
    revealed = await glisk_contract.reveal(
        anvil.accounts[1], range(1, 51), [f"ipfs://{'b' * 59}" for _ in range(50)]
    )
    assert int(receipt["gasUsed"], 16) == pytest.approx(6_920_000, rel=0.15)
    assert int(revealed["gasUsed"], 16) == pytest.approx(5_710_000, rel=0.15)


async def test_blind_boxes_show_the_placeholder_and_unminted_tokens_nothing(
    glisk_contract: GliskContract, anvil: AnvilNode
) -> None:
    owner = anvil.accounts[0]
    await minted(glisk_contract, anvil.accounts[2], anvil.accounts[5].address, 2)
    await glisk_contract.reveal(anvil.accounts[1], [2], ["ipfs://two"])
    await glisk_contract.transact(owner, "setPlaceholderURI", "ipfs://box")
    assert await glisk_contract.token_uri(1) == "ipfs://box"
    assert await glisk_contract.token_uri(2) == "ipfs://two"
    for read in ("tokenURI", "ownerOf"):
        with pytest.raises(RpcFailure) as failure:
            await glisk_contract.call(read, 3)
        assert selector("ERC721NonexistentToken(uint256)") in str(failure.value.context["error"])


async def test_reveal_needs_a_role(glisk_contract: GliskContract, anvil: AnvilNode) -> None:
    await minted(glisk_contract, anvil.accounts[2], anvil.accounts[5].address, 2)
    stranger = anvil.accounts[3]
    with pytest.raises(RpcFailure) as failure:
        await glisk_contract.reveal(stranger, [1], ["x"])
    error = selector("AccessControlUnauthorizedAccount(address,bytes32)")
    error += f"{int(stranger.address, 16):064x}" + keccak(text="KEEPER_ROLE").hex()
    assert error in str(failure.value.context["error"])
    await glisk_contract.reveal(anvil.accounts[0], [1], ["by the admin"])
    assert await glisk_contract.token_uri(1) == "by the admin"


async def test_constants_and_interfaces_are_the_published_ones(
    glisk_contract: GliskContract, anvil: AnvilNode
) -> None:
    keeper_role = bytes.fromhex("fc8737ab85eb45125971625a9ebdb75cc78e01d5c1fa80c4c6e5203f47bc4fab")
    assert await glisk_contract.call("KEEPER_ROLE") == keeper_role
    assert await glisk_contract.call("DEFAULT_ADMIN_ROLE") == bytes(32)
    assert await glisk_contract.call("hasRole", keeper_role, anvil.accounts[1].address)
    assert await glisk_contract.call("hasRole", bytes(32), anvil.accounts[0].address)
    assert await glisk_contract.call("MAX_BATCH_SIZE") == 50
    assert await glisk_contract.call("SWEEP_PROTECTION_PERIOD") == 14 * 86400
    assert await glisk_contract.call("name") == "GLISK Season 0"
    assert await glisk_contract.call("symbol") == "GLISK0"
    spoken = {"ERC721": "80ac58cd", "Enumerable": "780e9d63", "ERC2981": "2a55205a"}
    for name, interface in spoken.items():
        assert await glisk_contract.call("supportsInterface", bytes.fromhex(interface)), name
    assert not await glisk_contract.call("supportsInterface", bytes.fromhex("49064906"))


async def test_only_the_admin_runs_the_season(
    glisk_contract: GliskContract, anvil: AnvilNode
) -> None:
    address = anvil.accounts[3].address
    calls: list[tuple[object, ...]] = [
        ("setMintPrice", 1),
        ("setPlaceholderURI", "x"),
        ("setDefaultRoyalty", address, 1),
        ("endSeason",),
        ("withdrawTreasury",),
        ("sweepUnclaimedRewards", []),
        ("recoverERC20", address, 1),
        ("grantRole", bytes(32), address),
    ]
    denied = "AccessControlUnauthorizedAccount(address,bytes32)"
    for call in calls:
        await refused(glisk_contract, denied, anvil.accounts[1], *call)


async def test_price_and_royalty_can_be_changed(
    glisk_contract: GliskContract, anvil: AnvilNode
) -> None:
    owner, other = anvil.accounts[0], anvil.accounts[7].address
    receipt = await glisk_contract.transact(owner, "setMintPrice", MINT_PRICE_WEI * 4)
    assert receipt["logs"][0]["topics"][0] == topic("MintPriceUpdated(uint256,uint256)")
    receipt = await minted(glisk_contract, anvil.accounts[2], other, 2)
    assert receipt["status"] == "0x1"  # without a value the price of now is paid
    assert await glisk_contract.call("authorClaimable", other) == MINT_PRICE_WEI * 4
    receipt = await glisk_contract.transact(owner, "setDefaultRoyalty", other, 500)
    assert receipt["logs"][0]["topics"][0] == topic("RoyaltyUpdated(address,uint96)")
    receiver, amount = await glisk_contract.call("royaltyInfo", 1, 10_000)
    assert (receiver.lower(), amount) == (other.lower(), 500)


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
