"""What the tests of Motify's contract share: a challenge in a line, and refusals in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from eth_abi.abi import decode
from eth_utils.crypto import keccak

from causeway.sandbox.anvil import DevAccount, RpcFailure
from causeway.sandbox.motify_chain import USDC, MotifyContract, people

DAY_S = 86_400
_ERROR = "0x" + keccak(text="Error(string)")[:4].hex()

CROWD = people(8)
ADA, BEN, CLEO, DAN, *_ = CROWD


@dataclass(frozen=True)
class Round:
    """A challenge people have joined."""

    id: int
    start: int
    end: int
    recipient: str


def topic(signature: str) -> str:
    """Return the topic an event's log begins with."""
    return "0x" + keccak(text=signature).hex()


def word(address: str) -> str:
    """Return an address as a log's topic has it."""
    return "0x" + address[2:].lower().rjust(64, "0")


async def began(
    contract: MotifyContract, stakes: dict[DevAccount, int], *, lasts_s: int = 7 * DAY_S
) -> Round:
    """Create a challenge and have people join it with stakes in USDC's smallest units."""
    recipient = contract.node.accounts[5].address
    start = await contract.now() + DAY_S
    made = Round(
        await contract.create(recipient=recipient, start_time=start, end_time=start + lasts_s),
        start,
        start + lasts_s,
        recipient,
    )
    if stakes:
        for account, units in stakes.items():
            await contract.fund([account.address], units)
        await contract.join(made.id, {who.address: units for who, units in stakes.items()})
    return made


async def ended(contract: MotifyContract, *members: DevAccount, units: int = 10 * USDC) -> Round:
    """Create a challenge, have `members` stake the same, and go to the second it ends."""
    made = await began(contract, dict.fromkeys(members, units))
    await contract.travel_to(made.end)
    return made


async def reason(contract: MotifyContract, who: DevAccount, function: str, *args: Any) -> str:
    """Return in what words a call would be refused in the newest block; empty when it would not.

    The call runs at exactly that block's time. What is no text is returned as hex.
    """
    fields = {
        "from": who.address,
        "to": contract.address,
        "data": contract.encode(function, *args),
    }
    try:
        await contract.node.rpc("eth_call", fields, hex(await contract.node.height()))
    except RpcFailure as failure:
        data = str(failure.context["error"].get("data", ""))
        if data.startswith(_ERROR):
            return str(decode(["string"], bytes.fromhex(data[10:]))[0])
        return data or str(failure)
    return ""
