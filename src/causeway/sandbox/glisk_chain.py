"""GLISK's contract on a local node: deployed, minted from and revealed by anybody, for tests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, cast

from eth_abi.abi import decode, encode
from eth_account import Account
from eth_utils.abi import collapse_if_tuple
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from causeway.base.errors import CausewayError
from causeway.sandbox.anvil import AnvilNode, DevAccount, RpcFailure

#: 0.00025 ETH, the price of season 0.
MINT_PRICE_WEI = 250_000_000_000_000


def artifact(name: str) -> dict[str, Any]:
    """Return a compiled contract that ships with the package."""
    content = files("causeway.sandbox").joinpath(f"artifacts/{name}.json").read_text()
    return cast("dict[str, Any]", json.loads(content))


class Contract:
    """A contract on a local node."""

    def __init__(self, node: AnvilNode, abi: Sequence[dict[str, Any]], address: str) -> None:
        self.node = node
        self.abi = list(abi)
        self.address = str(to_checksum_address(address))
        #: By name and number of arguments: `safeTransferFrom` is there twice.
        self._functions = {(e["name"], len(e["inputs"])): e for e in abi if e["type"] == "function"}

    @classmethod
    async def deploy_artifact(
        cls, node: AnvilNode, account: DevAccount, built: dict[str, Any], *args: Any
    ) -> Contract:
        """Deploy a compiled contract and return it."""
        constructor = next((e for e in built["abi"] if e["type"] == "constructor"), None)
        kinds = [i["type"] for i in constructor["inputs"]] if constructor else []
        data = built["bytecode"] + encode(kinds, args).hex()
        tx_hash = await send(node, account, None, data)
        receipt = await receipt_of(node, tx_hash)
        return cls(node, built["abi"], receipt["contractAddress"])

    def encode(self, function: str, *args: Any) -> str:
        """Return the call data of a function, hex."""
        inputs = [i["type"] for i in self._functions[function, len(args)]["inputs"]]
        selector = keccak(text=f"{function}({','.join(inputs)})")[:4]
        return "0x" + (selector + encode(inputs, args)).hex()

    async def call(self, function: str, *args: Any, at: str = "latest") -> Any:
        """Read a function; one output is returned bare, several as a tuple."""
        raw = await self.node.rpc(
            "eth_call", {"to": self.address, "data": self.encode(function, *args)}, at
        )
        return self.decode(function, len(args), raw)

    def decode(self, function: str, arguments: int, answer: str) -> Any:
        """Return what the hex `answer` of a function with that many arguments says."""
        kinds = [collapse_if_tuple(o) for o in self._functions[function, arguments]["outputs"]]
        values = decode(kinds, bytes.fromhex(answer[2:]))
        return values[0] if len(values) == 1 else values

    async def send(
        self,
        account: DevAccount,
        function: str,
        *args: Any,
        value_wei: int = 0,
        gas: int | None = None,
    ) -> str:
        """Sign and send a transaction and return its hash, mined or not."""
        data = self.encode(function, *args)
        return await send(self.node, account, self.address, data, value_wei, gas)

    async def transact(
        self, account: DevAccount, function: str, *args: Any, value_wei: int = 0
    ) -> dict[str, Any]:
        """Send a transaction and return its receipt; `CausewayError` when it reverted."""
        tx_hash = await self.send(account, function, *args, value_wei=value_wei)
        receipt = await receipt_of(self.node, tx_hash)
        if receipt["status"] != "0x1":
            raise CausewayError(f"{function} reverted in {tx_hash}")
        return receipt


class GliskContract(Contract):
    """GLISK's contract."""

    @classmethod
    async def deploy(
        cls,
        node: AnvilNode,
        *,
        keeper_address: str,
        mint_price_wei: int = MINT_PRICE_WEI,
        name: str = "GLISK Season 0",
        symbol: str = "GLISK0",
        placeholder_uri: str = "ipfs://bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku",
    ) -> GliskContract:
        """Deploy it from the node's first account, and let the keeper reveal."""
        owner = node.accounts[0]
        made = await cls.deploy_artifact(
            node, owner, artifact("GliskNFT"), name, symbol, placeholder_uri, mint_price_wei
        )
        contract = cls(node, made.abi, made.address)
        await contract.transact(owner, "grantRole", keccak(text="KEEPER_ROLE"), keeper_address)
        return contract

    async def mint(
        self,
        account: DevAccount,
        prompt_author: str,
        quantity: int,
        value_wei: int | None = None,
    ) -> str:
        """Mint blind boxes of an author, at the price of now; return the transaction's hash."""
        value = await self.call("mintPrice") * quantity if value_wei is None else value_wei
        return await self.send(account, "mint", prompt_author, quantity, value_wei=value)

    async def token_uri(self, token_id: int) -> str:
        """Return what the contract shows for a token."""
        return str(await self.call("tokenURI", token_id))

    async def is_revealed(self, token_id: int) -> bool:
        """Return whether a token is revealed."""
        return bool(await self.call("isRevealed", token_id))

    async def reveal(
        self, account: DevAccount, token_ids: Sequence[int], uris: Sequence[str]
    ) -> dict[str, Any]:
        """Reveal tokens by hand and return the receipt."""
        return await self.transact(account, "revealTokens", list(token_ids), list(uris))


async def send(
    node: AnvilNode,
    account: DevAccount,
    to: str | None,
    data: str,
    value_wei: int = 0,
    gas: int | None = None,
) -> str:
    """Sign an EIP-1559 transaction with the account's key and send it; return its hash.

    Without `gas` it is estimated, and a revert is raised as `RpcFailure`. Transactions of this
    process leave one after the other, in the order they were asked for, so that any number of a
    wallet's can be on their way.
    """
    async with node.sending:
        return await _send(node, account, to, data, value_wei, gas)


async def _send(
    node: AnvilNode, account: DevAccount, to: str | None, data: str, value_wei: int, gas: int | None
) -> str:
    fields: dict[str, Any] = {"from": account.address, "data": data, "value": hex(value_wei)}
    if to is not None:
        fields["to"] = to
    if gas is None:
        gas = int(await node.rpc("eth_estimateGas", fields, "pending"), 16) * 12 // 10
    price = int(await node.rpc("eth_gasPrice"), 16)
    nonce = int(await node.rpc("eth_getTransactionCount", account.address, "pending"), 16)
    signed = Account.sign_transaction(
        {
            "type": 2,
            "chainId": node.chain_id,
            "nonce": nonce,
            "to": to or b"",
            "data": data,
            "value": value_wei,
            "gas": gas,
            "maxFeePerGas": price * 3,
            "maxPriorityFeePerGas": price // 2,
        },
        account.private_key,
    )
    return str(await node.rpc("eth_sendRawTransaction", "0x" + bytes(signed.raw_transaction).hex()))


async def receipt_of(node: AnvilNode, tx_hash: str, seconds: float = 20) -> dict[str, Any]:
    """Return the receipt of a transaction once it is mined; `RpcFailure` when it is not in time."""
    deadline = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < deadline:
        receipt = await node.rpc("eth_getTransactionReceipt", tx_hash)
        if receipt is not None:
            return cast("dict[str, Any]", receipt)
        await asyncio.sleep(0.05)
    raise RpcFailure(f"{tx_hash} was not mined within {seconds:.0f} s")
