"""Wallets that are contracts, on a real node: deployed, not deployed yet, and misbehaving."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from eth_abi.abi import encode
from eth_account import Account
from eth_account.messages import encode_defunct
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from causeway.auth.wallet import Verdict, verify
from causeway.chains.evm.chain import EvmChain
from causeway.chains.pool import Endpoint, ProviderPool, SecretUrl
from causeway.sandbox.anvil import AnvilNode

BUILD = Path(__file__).parents[2] / "contracts" / "build"
TEXT = "Set the prompt of my page"
OWNER = Account.from_key("0x" + "11" * 32)
STRANGER = Account.from_key("0x" + "22" * 32)
SALT = b"\x07" * 32
MAGIC = "6492" * 16


def bytecode(name: str) -> str:
    return json.loads((BUILD / f"{name}.json").read_text())["bytecode"]


def signed(by: Any, text: str = TEXT) -> str:
    return "0x" + bytes(by.sign_message(encode_defunct(text=text)).signature).hex()


def function(signature: str, *values: Any) -> bytes:
    kinds = signature[signature.index("(") + 1 : -1].split(",")
    return keccak(text=signature)[:4] + encode(kinds, values)


def wrap(factory: str, preparation: bytes, signature: str) -> str:
    inner = bytes.fromhex(signature[2:])
    return "0x" + encode(["address", "bytes", "bytes"], [factory, preparation, inner]).hex() + MAGIC


@dataclass
class Wallets:
    """A node with a factory, a deployed wallet of OWNER, and one still to be deployed."""

    node: AnvilNode
    chain: EvmChain
    factory: str
    deployed: str
    future: str

    def deploy(self, owner: str, salt: bytes = SALT) -> bytes:
        return function("deploy(address,bytes32)", owner, salt)

    async def send(self, to: str | None, data: str) -> Any:
        transaction = {"from": self.node.accounts[0].address, "data": data, "gas": hex(3_000_000)}
        sent = await self.node.rpc(
            "eth_sendTransaction", transaction | ({} if to is None else {"to": to})
        )
        async with asyncio.timeout(10):
            while (receipt := await self.node.rpc("eth_getTransactionReceipt", sent)) is None:
                await asyncio.sleep(0.005)
        assert receipt["status"] == "0x1"
        return receipt

    async def code_at(self, code: str) -> str:
        """A contract that is nothing but this code."""
        address = to_checksum_address("0x" + keccak(text=code)[:20].hex())
        await self.node.rpc("anvil_setCode", address, code)
        return address


@pytest.fixture
async def wallets(anvil: AnvilNode) -> AsyncGenerator[Wallets]:
    pool = ProviderPool([Endpoint(SecretUrl(anvil.url), "anvil")], timeout_s=5)
    chain = EvmChain("local", anvil.chain_id, pool)
    made = Wallets(anvil, chain, "", "", "")
    receipt = await made.send(None, bytecode("ContractWalletFactory"))
    made.factory = to_checksum_address(receipt["contractAddress"])
    constructor = encode(["address"], [OWNER.address]).hex()
    receipt = await made.send(None, bytecode("ContractWallet") + constructor)
    made.deployed = to_checksum_address(receipt["contractAddress"])
    answer = await chain.call(
        made.factory, function("addressOf(address,bytes32)", OWNER.address, SALT)
    )
    made.future = to_checksum_address("0x" + answer[-20:].hex())
    yield made
    await chain.close()


async def test_a_deployed_wallet_answers_for_its_owner(wallets: Wallets) -> None:
    chain, wallet = wallets.chain, wallets.deployed
    assert await verify(chain, wallet, TEXT, signed(OWNER)) is Verdict.VALID
    assert await verify(chain, wallet.lower(), TEXT, signed(OWNER)) is Verdict.VALID
    assert await verify(chain, wallet, TEXT, signed(STRANGER)) is Verdict.INVALID
    assert await verify(chain, wallet, TEXT + "!", signed(OWNER)) is Verdict.INVALID
    assert await verify(chain, wallet, TEXT, signed(OWNER)[:-2]) is Verdict.INVALID
    assert await verify(chain, wallet, TEXT, "0x") is Verdict.INVALID


async def test_an_address_without_code_accepts_nobodys_signature(wallets: Wallets) -> None:
    assert await verify(wallets.chain, STRANGER.address, TEXT, signed(OWNER)) is Verdict.INVALID
    assert await verify(wallets.chain, wallets.future, TEXT, signed(OWNER)) is Verdict.INVALID
    assert await verify(wallets.chain, STRANGER.address, TEXT, "0x1234") is Verdict.INVALID
    high = signed(STRANGER)
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    flipped = "1b" if high.endswith("1c") else "1c"
    twin = high[:66] + f"{order - int(high[66:130], 16):064x}" + flipped
    assert await verify(wallets.chain, STRANGER.address, TEXT, twin) is Verdict.INVALID


async def test_a_wallet_that_is_not_deployed_yet_answers_and_stays_undeployed(
    wallets: Wallets,
) -> None:
    preparation = wallets.deploy(OWNER.address)
    good = wrap(wallets.factory, preparation, signed(OWNER))
    assert await verify(wallets.chain, wallets.future, TEXT, good) is Verdict.VALID
    assert await wallets.chain.code(wallets.future) == b""

    for bad in (
        wrap(wallets.factory, preparation, signed(STRANGER)),
        wrap(wallets.factory, preparation, signed(OWNER, "another text")),
        wrap(wallets.factory, wallets.deploy(STRANGER.address), signed(OWNER)),
        wrap(wallets.factory, wallets.deploy(OWNER.address, b"\x08" * 32), signed(OWNER)),
        wrap(wallets.factory, b"", signed(OWNER)),
        wrap(wallets.deployed, preparation, signed(OWNER)),
        wrap(STRANGER.address, preparation, signed(OWNER)),
    ):
        assert await verify(wallets.chain, wallets.future, TEXT, bad) is Verdict.INVALID


async def test_a_wrapped_signature_is_good_after_the_deployment_too(wallets: Wallets) -> None:
    preparation = wallets.deploy(OWNER.address)
    await wallets.send(wallets.factory, "0x" + preparation.hex())
    assert await wallets.chain.code(wallets.future) != b""
    good = wrap(wallets.factory, preparation, signed(OWNER))
    assert await verify(wallets.chain, wallets.future, TEXT, good) is Verdict.VALID
    assert await verify(wallets.chain, wallets.future, TEXT, signed(OWNER)) is Verdict.VALID
    bad = wrap(wallets.factory, preparation, signed(STRANGER))
    assert await verify(wallets.chain, wallets.future, TEXT, bad) is Verdict.INVALID


async def test_a_wrapper_does_not_turn_a_stranger_into_a_keys_owner(wallets: Wallets) -> None:
    """The factory's calldata cannot vouch for an address without code."""
    for signer in (OWNER, STRANGER):
        wrapped = wrap(wallets.factory, wallets.deploy(OWNER.address), signed(signer))
        assert await verify(wallets.chain, STRANGER.address, TEXT, wrapped) is Verdict.INVALID


async def test_contracts_that_misbehave_are_never_believed(wallets: Wallets) -> None:
    echo_precompile = "0x" + "00" * 19 + "04"
    contracts = {
        echo_precompile: Verdict.INVALID,
        await wallets.code_at("0x60006000fd"): Verdict.INVALID,  # reverts
        await wallets.code_at("0x00"): Verdict.INVALID,  # answers nothing
        # answers the four bytes alone, and the four bytes with something behind them
        await wallets.code_at("0x631626ba7e60e01b60005260046000f3"): Verdict.INVALID,
        await wallets.code_at("0x631626ba7e60e01b60011760005260206000f3"): Verdict.INVALID,
        # the same word, rightly filled
        await wallets.code_at("0x631626ba7e60e01b60005260206000f3"): Verdict.VALID,
    }
    for address, expected in contracts.items():
        assert await verify(wallets.chain, address, TEXT, signed(OWNER)) is expected, address
        wrapped = wrap(STRANGER.address, b"", signed(OWNER))
        if address != echo_precompile:
            verdict = await verify(wallets.chain, address, TEXT, wrapped)
            assert verdict is expected, f"wrapped: {address}"
    for code in ("0x5b600056", "0xfe"):  # runs for ever, burns all gas
        address = await wallets.code_at(code)
        assert await verify(wallets.chain, address, TEXT, signed(OWNER)) is not Verdict.VALID
        wrapped = wrap(address, b"", signed(OWNER))
        assert await verify(wallets.chain, address, TEXT, wrapped) is not Verdict.VALID


async def test_nothing_is_decided_while_the_node_is_down(wallets: Wallets) -> None:
    wrapped = wrap(wallets.factory, wallets.deploy(OWNER.address), signed(OWNER))
    wallets.chain.pool.timeout_s = 0.3
    wallets.node.pause()
    assert await verify(wallets.chain, wallets.deployed, TEXT, signed(OWNER)) is Verdict.UNKNOWN
    await wallets.node.stop()
    for signature in (signed(OWNER), signed(STRANGER), wrapped):
        assert await verify(wallets.chain, wallets.deployed, TEXT, signature) is Verdict.UNKNOWN
    # A key's own signature needs nobody.
    assert await verify(wallets.chain, OWNER.address, TEXT, signed(OWNER)) is Verdict.VALID
