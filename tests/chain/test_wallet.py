"""Wallets that are contracts, on a real node: deployed, not deployed yet, and misbehaving."""

from __future__ import annotations

import asyncio
import json
import time
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
from hypothesis import given, settings
from hypothesis import strategies as st

from causeway.auth.eip712 import Domain, TypedData
from causeway.auth.signed_once import SignedOnce
from causeway.auth.wallet import Verdict, verify
from causeway.base.errors import NotAuthenticated, ProviderUnavailable
from causeway.chains.evm.chain import EvmChain
from causeway.chains.pool import Endpoint, ProviderPool, SecretUrl
from causeway.sandbox.anvil import AnvilNode
from causeway.store.engine import Database

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
    # Runs for ever, burns all gas, jumps nowhere, pops from nothing: its own affair, no outage.
    for code in ("0x5b600056", "0xfe", "0x600056", "0x50"):
        address = await wallets.code_at(code)
        assert await verify(wallets.chain, address, TEXT, signed(OWNER)) is Verdict.INVALID
        for factory in (address, wallets.factory):
            wrapped = wrap(factory, b"", signed(OWNER))
            assert await verify(wallets.chain, address, TEXT, wrapped) is Verdict.INVALID


async def test_a_key_signs_for_its_account_whatever_code_is_there(wallets: Wallets) -> None:
    """EIP-7702: the account is a key's and has code at the same time."""
    await wallets.node.rpc("anvil_setCode", STRANGER.address, "0x60006000fd")
    assert await verify(wallets.chain, STRANGER.address, TEXT, signed(STRANGER)) is Verdict.VALID
    assert await verify(wallets.chain, STRANGER.address, TEXT, signed(OWNER)) is Verdict.INVALID
    code = await wallets.node.rpc("eth_getCode", wallets.deployed, "latest")
    await wallets.node.rpc("anvil_setCode", STRANGER.address, code)
    for signer in (STRANGER, OWNER):
        assert await verify(wallets.chain, STRANGER.address, TEXT, signed(signer)) is Verdict.VALID


async def test_wallets_sign_typed_data_too(wallets: Wallets) -> None:
    link = link_data(wallets.node.chain_id, wallets.factory)
    message = {"wallet": wallets.future, "amount": str(2**200), "notes": ["one", ""]}
    digest = link.digest(message)
    inner = OWNER.sign_typed_data(full_message=link.payload(message))
    signature = "0x" + bytes(inner.signature).hex()
    wrapped = wrap(wallets.factory, wallets.deploy(OWNER.address), signature)
    assert await verify(wallets.chain, OWNER.address, digest, signature) is Verdict.VALID
    assert await verify(wallets.chain, wallets.deployed, digest, signature) is Verdict.VALID
    assert await verify(wallets.chain, wallets.future, digest, wrapped) is Verdict.VALID
    for other in (
        link_data(wallets.node.chain_id + 1, wallets.factory),
        link_data(wallets.node.chain_id, wallets.deployed),
    ):
        elsewhere = other.digest(message)
        assert await verify(wallets.chain, wallets.deployed, elsewhere, signature) is (
            Verdict.INVALID
        )
        assert await verify(wallets.chain, wallets.future, elsewhere, wrapped) is Verdict.INVALID


def link_data(chain_id: int, contract: str) -> TypedData:
    return TypedData(
        Domain(name="Links", version="1", chain_id=chain_id, verifying_contract=contract),
        "Link",
        {"Link": [("wallet", "address"), ("amount", "uint256"), ("notes", "string[]")]},
    )


PLAIN: list[tuple[str, st.SearchStrategy[Any]]] = [
    ("bool", st.booleans()),
    ("string", st.text(max_size=40)),
    ("address", st.binary(min_size=20, max_size=20).map(lambda raw: "0x" + raw.hex())),
    ("uint8", st.integers(0, 255)),
    ("uint256", st.integers(0, 2**256 - 1)),
    ("int64", st.integers(-(2**63), 2**63 - 1)),
    ("bytes", st.binary(max_size=70).map(lambda raw: "0x" + raw.hex())),
    ("bytes3", st.binary(min_size=3, max_size=3).map(lambda raw: "0x" + raw.hex())),
    ("bytes32", st.binary(min_size=32, max_size=32).map(lambda raw: "0x" + raw.hex())),
]


@st.composite
def typed_messages(draw: st.DrawFn) -> tuple[dict[str, list[tuple[str, str]]], dict[str, Any]]:
    """Draw the types of a message, lists and structs in structs among them, and its values."""
    types: dict[str, list[tuple[str, str]]] = {}
    kinds = dict(PLAIN)

    def struct(name: str, below: list[str]) -> st.SearchStrategy[dict[str, Any]]:
        members: list[tuple[str, str]] = []
        values: dict[str, st.SearchStrategy[Any]] = {}
        for number in range(draw(st.integers(1, 4))):
            kind = draw(st.sampled_from(sorted(kinds)))
            if number == 0 and below:
                kind = below[0]
            value = kinds[kind]
            for suffix, most in draw(
                st.lists(st.sampled_from([("[]", 3), ("[2]", 2)]), max_size=2)
            ):
                kind += suffix
                value = st.lists(value, min_size=2 if suffix == "[2]" else 0, max_size=most)
            members.append((f"m{number}", kind))
            values[f"m{number}"] = value
        types[name] = members
        return st.fixed_dictionaries(values)

    below: list[str] = []
    for name in ("Zeta", "Alpha", "Main")[draw(st.integers(0, 2)) :]:
        kinds[name] = struct(name, below)
        below = [name]
    return types, draw(kinds["Main"])


@settings(max_examples=60, deadline=None)
@given(st.lists(typed_messages(), min_size=4, max_size=4))
def test_typed_data_is_encoded_as_another_implementation_does(
    messages: list[tuple[dict[str, list[tuple[str, str]]], dict[str, Any]]],
) -> None:
    """What the node's own encoder (alloy, in Rust) signs is what we say was signed."""

    async def story() -> None:
        async with AnvilNode.start() as node:
            signer = node.accounts[0].address
            domain = Domain(name="Any", chain_id=node.chain_id, salt=b"\x02" * 32)
            for types, values in messages:
                data = TypedData(domain, "Main", types)
                signature = await node.rpc("eth_signTypedData_v4", signer, data.payload(values))
                verdict = await verify(None, signer, data.digest(values), signature)
                assert verdict is Verdict.VALID, (types, values)

    asyncio.run(story())


async def test_a_message_is_accepted_once_from_a_wallet_that_is_not_there_yet(
    wallets: Wallets, database: Database
) -> None:
    once, now = SignedOnce(database), int(time.time())
    future, deployed = wallets.future.lower(), wallets.deployed.lower()

    def message(wallet: str) -> str:
        return f"Connect OAuth provider github to wallet {wallet} at {now}"

    async def accept(wallet: str, signature: str) -> str:
        accepted = await once.accept(
            wallets.chain,
            wallet=wallet,
            messages=[message(wallet), message(wallet).replace("github", "GitHub")],
            timestamp=now,
            signature=signature,
        )
        return accepted.message

    preparation = wallets.deploy(OWNER.address)
    good = wrap(wallets.factory, preparation, signed(OWNER, message(future)))
    by_stranger = wrap(wallets.factory, preparation, signed(STRANGER, message(future)))
    with pytest.raises(NotAuthenticated, match="does not match"):
        await accept(future, by_stranger)
    with pytest.raises(NotAuthenticated, match="does not match"):
        await accept(future, signed(OWNER, message(future)))  # not wrapped, not deployed
    assert await accept(future, good) == message(future)
    # Deployed meanwhile, in whichever form: it was used.
    await wallets.send(wallets.factory, "0x" + preparation.hex())
    for again in (good, signed(OWNER, message(future))):
        with pytest.raises(NotAuthenticated, match="already used"):
            await accept(future, again)

    other_spelling = message(deployed).replace("github", "GitHub")
    wallets.chain.pool.timeout_s = 0.3
    wallets.node.pause()
    with pytest.raises(ProviderUnavailable):
        await accept(deployed, signed(OWNER, other_spelling))
    wallets.node.resume()
    wallets.chain.pool.timeout_s = 5
    async with asyncio.timeout(20):
        while True:  # the pool lets an endpoint that was silent rest for a moment
            try:
                accepted = await accept(deployed, signed(OWNER, other_spelling))
                break
            except ProviderUnavailable:
                await asyncio.sleep(0.05)
    assert accepted == other_spelling


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
