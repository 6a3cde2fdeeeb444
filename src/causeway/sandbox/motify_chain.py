"""Motify's contract on a local node: deployed, staked on and settled by any number of people."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eth_account import Account
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from causeway.base.errors import CausewayError
from causeway.sandbox.anvil import AnvilNode, DevAccount, RpcFailure
from causeway.sandbox.glisk_chain import Contract, artifact

#: In USDC's smallest units.
USDC = 1_000_000
#: In MOTIFY's smallest units.
MOTIFY = 10**18
#: Basis points.
FULL_REFUND = 10_000
TIMEOUT_S = 7 * 86_400

#: For the most expensive of what people send in numbers; joining takes about 250,000.
_GAS = 500_000
_ETHER_WEI = 10 * 10**18
_UNLIMITED = 2**256 - 1


@dataclass(frozen=True)
class Participant:
    """Somebody's part in a challenge; amounts in USDC's smallest units."""

    #: EIP-55.
    address: str
    initial_amount: int
    #: The stake, the refund once it is declared, and 0 when it is claimed.
    amount: int
    refund_bps: int
    declared: bool


@dataclass(frozen=True)
class ChallengeState:
    """A challenge as `getChallengeById` shows it, with the sums that `challenges` adds."""

    challenge_id: int
    recipient: str
    start_time: int
    end_time: int
    is_private: bool
    name: str
    api_type: str
    goal_type: str
    goal_amount: int
    description: str
    total_donation_amount: int
    finalized: bool
    participants: tuple[Participant, ...]
    total_winner_initial_stake: int
    token_pot: int
    declared_participants: int


def people(count: int, name: str = "person") -> list[DevAccount]:
    """Make that many accounts, the same ones each time for a name."""
    made: list[DevAccount] = []
    for number in range(count):
        account = Account.from_key(keccak(text=f"{name} {number}"))
        made.append(DevAccount(account.address, "0x" + bytes(account.key).hex()))
    return made


class MotifyContract(Contract):
    """Motify's contract with its two tokens.

    What many people do (`fund`, `join`, `claim`, …) is sent unsigned, in few requests and few
    blocks; the node takes it because it is told to play their accounts. Everything else is signed.
    """

    def __init__(
        self,
        node: AnvilNode,
        abi: Sequence[dict[str, Any]],
        address: str,
        *,
        usdc: Contract,
        token: Contract,
        owner: DevAccount,
        bank: DevAccount,
    ) -> None:
        super().__init__(node, abi, address)
        #: USDC, which the bank makes.
        self.usdc = usdc
        #: MOTIFY, which only the contract makes.
        self.token = token
        self.owner = owner
        self.bank = bank

    @classmethod
    async def deploy(
        cls, node: AnvilNode, *, owner: DevAccount | None = None, bank: DevAccount | None = None
    ) -> MotifyContract:
        """Deploy the tokens from the bank and the contract from its owner.

        They are the node's last and first account. The owner sends nothing afterwards unless told
        to, so that a backend may send for it.
        """
        owner, bank = owner or node.accounts[0], bank or node.accounts[-1]
        coin = artifact("MintableToken")
        usdc = await Contract.deploy_artifact(node, bank, coin, "USD Coin", "USDC", 6)
        token = await Contract.deploy_artifact(node, bank, coin, "Motify", "MOTIFY", 18)
        made = await Contract.deploy_artifact(node, owner, artifact("Motify"), usdc.address)
        contract = cls(node, made.abi, made.address, usdc=usdc, token=token, owner=owner, bank=bank)
        await token.transact(bank, "setMinter", contract.address)
        await contract.transact(owner, "setTokenAddress", token.address)
        return contract

    async def fund(self, accounts: Iterable[str], usdc_units: int) -> None:
        """Give each address ether and that much USDC, which the contract may then take."""
        addresses = list(accounts)
        await self.node.batch(
            [("anvil_setBalance", [address, hex(_ETHER_WEI)]) for address in addresses]
        )
        bank = self.bank.address
        allowed = self.usdc.encode("approve", self.address, _UNLIMITED)
        minted = [
            (bank, self.usdc.address, self.usdc.encode("mint", address, usdc_units))
            for address in addresses
        ]
        approved = [(address, self.usdc.address, allowed) for address in addresses]
        _succeeded(await self.send_many([*minted, *approved]))

    async def give_motify(self, address: str, units: int) -> None:
        """Give an address MOTIFY out of nothing, as if the contract had minted it."""
        await self.node.rpc("anvil_setBalance", self.address, hex(_ETHER_WEI))
        minted = (self.address, self.token.address, self.token.encode("mint", address, units))
        _succeeded(await self.send_many([minted]))

    async def create(
        self,
        *,
        recipient: str,
        start_time: int,
        end_time: int,
        api_type: str = "github",
        goal_type: str = "contribution_per_day",
        goal_amount: int = 1,
        name: str = "A week of work",
        description: str = "One contribution a day",
        invited: Sequence[str] | None = None,
        creator: DevAccount | None = None,
    ) -> int:
        """Create a challenge, private when somebody is `invited`, and return its id.

        Times in Unix seconds; without a creator, the bank is it.
        """
        receipt = await self.transact(
            creator or self.bank,
            "createChallenge",
            recipient,
            start_time,
            end_time,
            invited is not None,
            name,
            api_type,
            goal_type,
            goal_amount,
            description,
            list(invited or ()),
        )
        return int(receipt["logs"][0]["topics"][1], 16)

    async def join(self, challenge_id: int, stakes: Mapping[str, int]) -> None:
        """Have each address stake that much USDC (smallest units); they must be funded."""
        joined = [
            (address, self.address, self.encode("joinChallenge", challenge_id, units))
            for address, units in stakes.items()
        ]
        _succeeded(await self.send_many(joined))

    async def declare(self, challenge_id: int, shares: Mapping[str, int]) -> dict[str, Any]:
        """Declare refunds (basis points) by hand, as the owner; return the receipt."""
        return await self.transact(
            self.owner, "declareResults", challenge_id, list(shares), list(shares.values())
        )

    async def finalize(self, challenge_id: int, by: DevAccount | None = None) -> dict[str, Any]:
        """Finalize by hand, as the owner unless somebody else does; return the receipt."""
        return await self.transact(by or self.owner, "finalizeAndProcessDonations", challenge_id)

    async def claim(self, challenge_id: int, addresses: Iterable[str]) -> list[dict[str, Any]]:
        """Have each address claim its refund; return the receipts."""
        data = self.encode("claimRefund", challenge_id)
        return _succeeded(await self.send_many([(a, self.address, data) for a in addresses]))

    async def claim_timeout(
        self, challenge_id: int, addresses: Iterable[str]
    ) -> list[dict[str, Any]]:
        """Have each address take its stake back after the seven days; return the receipts."""
        data = self.encode("claimTimeoutRefund", challenge_id)
        return _succeeded(await self.send_many([(a, self.address, data) for a in addresses]))

    async def challenge(self, challenge_id: int, at: str = "latest") -> ChallengeState:
        """Read a challenge with everybody in it; `RpcFailure` when there is none."""
        shown = await self.call("getChallengeById", challenge_id, at=at)
        *_, winners, pot, declared, _ = await self.call("challenges", challenge_id, at=at)
        return ChallengeState(
            challenge_id=shown[0],
            recipient=str(to_checksum_address(shown[1])),
            start_time=shown[2],
            end_time=shown[3],
            is_private=shown[4],
            name=shown[5],
            api_type=shown[6],
            goal_type=shown[7],
            goal_amount=shown[8],
            description=shown[9],
            total_donation_amount=shown[10],
            finalized=shown[11],
            participants=tuple(_participant(member) for member in shown[12]),
            total_winner_initial_stake=winners,
            token_pot=pot,
            declared_participants=declared,
        )

    async def participant(self, challenge_id: int, address: str, at: str = "latest") -> Participant:
        """Read one person's part; all zero for somebody who does not take part."""
        return _participant(await self.call("getParticipantInfo", challenge_id, address, at=at))

    async def usdc_of(self, addresses: Iterable[str]) -> dict[str, int]:
        """Return how much USDC each address has, in smallest units."""
        return await self._balances(self.usdc, addresses)

    async def motify_of(self, addresses: Iterable[str]) -> dict[str, int]:
        """Return how much MOTIFY each address has, in smallest units."""
        return await self._balances(self.token, addresses)

    async def now(self) -> int:
        """Return the time of the newest block, Unix seconds."""
        return int((await self.node.rpc("eth_getBlockByNumber", "latest", False))["timestamp"], 16)

    async def travel_to(self, timestamp: int) -> None:
        """Mine one block at that time, Unix seconds; later ones follow it.

        `RpcFailure` when the chain is there already: time goes forward only.
        """
        await self.node.rpc("evm_setNextBlockTimestamp", timestamp)
        await self.node.rpc("evm_mine")

    async def send_many(
        self, calls: Sequence[tuple[str, str, str]], gas: int = _GAS
    ) -> list[dict[str, Any]]:
        """Send (from, to, data) for anybody in as few blocks as hold them; return the receipts.

        The order holds for each sender. What reverts is in its receipt.
        """
        senders = dict.fromkeys(sender for sender, _, _ in calls)
        await self.node.batch([("anvil_impersonateAccount", [sender]) for sender in senders])
        automatic = bool(await self.node.rpc("anvil_getAutomine"))
        # A block for each would be thousands that whoever reads the chain must read.
        await self.node.rpc("evm_setAutomine", False)
        try:
            async with self.node.sending:
                hashes = await self.node.batch(
                    [
                        (
                            "eth_sendTransaction",
                            [{"from": sender, "to": to, "data": data, "gas": hex(gas)}],
                        )
                        for sender, to, data in calls
                    ]
                )
            return await self._mined(hashes)
        finally:
            await self.node.rpc("evm_setAutomine", automatic)

    async def _mined(self, hashes: Sequence[str], seconds: float = 60) -> list[dict[str, Any]]:
        deadline = asyncio.get_running_loop().time() + seconds
        receipts: dict[str, dict[str, Any]] = {}
        while asyncio.get_running_loop().time() < deadline:
            await self.node.rpc("evm_mine")
            waiting = [tx_hash for tx_hash in hashes if tx_hash not in receipts]
            found = await self.node.batch([("eth_getTransactionReceipt", [h]) for h in waiting])
            receipts.update(
                {h: receipt for h, receipt in zip(waiting, found, strict=True) if receipt}
            )
            if len(receipts) == len(set(hashes)):
                return [receipts[tx_hash] for tx_hash in hashes]
        missing = len(set(hashes)) - len(receipts)
        raise RpcFailure(f"{missing} transactions were not mined within {seconds:.0f} s")

    async def _balances(self, coin: Contract, addresses: Iterable[str]) -> dict[str, int]:
        asked = list(addresses)
        answers = await self.node.batch(
            [
                ("eth_call", [{"to": coin.address, "data": coin.encode("balanceOf", a)}, "latest"])
                for a in asked
            ]
        )
        return {a: int(answer, 16) for a, answer in zip(asked, answers, strict=True)}


def _participant(member: Sequence[Any]) -> Participant:
    address, initial, amount, share, declared = member
    return Participant(str(to_checksum_address(address)), initial, amount, share, declared)


def _succeeded(receipts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    failed = [receipt for receipt in receipts if receipt["status"] != "0x1"]
    if failed:
        raise CausewayError(
            f"{len(failed)} of {len(receipts)} transactions reverted, the first from"
            f" {failed[0]['from']} in {failed[0]['transactionHash']}"
        )
    return receipts
