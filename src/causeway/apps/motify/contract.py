"""Reads of Motify's contract at a pinned block, and the calls that change it.

Texts in a challenge are anybody's: bytes that are no UTF-8 and NUL, which PostgreSQL refuses, are
replaced, never a reason to fail.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError

from causeway.apps.motify.goals import Window
from causeway.apps.motify.settings import MotifySettings
from causeway.base.errors import ConfigurationError, InvalidInput, TransactionReverted
from causeway.chains.evm.abi import Abi
from causeway.chains.evm.chain import At, EvmChain

_PARTICIPANT: Final = "(address,uint256,uint256,uint256,bool)"
_CHALLENGE: Final = (
    "(uint256,address,uint256,uint256,bool,string,string,string,uint256,string,uint256,bool,"
    f"{_PARTICIPANT}[])"
)
#: The same words, with texts as the bytes that they are.
_RAW: Final = _CHALLENGE.replace("string", "bytes")

#: What functions must return for their answers to mean what we take them for.
_EXPECTED: Final = {
    "getChallengeById": (_CHALLENGE,),
    "getParticipantInfo": (_PARTICIPANT,),
    "nextChallengeId": ("uint256",),
    "owner": ("address",),
    "BASIS_POINTS_DIVISOR": ("uint256",),
    "USDC_DECIMALS": ("uint256",),
}

#: Participants asked for one by one in one batch of questions.
_AT_ONCE: Final = 200


@dataclass(frozen=True, slots=True)
class Participant:
    """Somebody in a challenge; amounts in minor units of the stake's token."""

    wallet: str
    stake: int
    #: What is left to claim.
    amount: int
    #: As the contract keeps it.
    bps: int
    declared: bool


@dataclass(frozen=True, slots=True)
class Challenge:
    """A challenge as the contract shows it at one block."""

    id: int
    recipient: str
    window: Window
    is_private: bool
    name: str
    api_type: str
    goal_type: str
    goal_amount: int
    description: str
    total_donation: int
    finalized: bool
    participants: tuple[Participant, ...]

    @property
    def undeclared(self) -> tuple[Participant, ...]:
        """Those whose result is not on chain."""
        return tuple(one for one in self.participants if not one.declared)


def kept_time(seconds: int) -> int:
    """Return a time as it is kept: anybody may choose one of 256 bits, and a week is added to it.

    What is cut lies a hundred thousand million years ahead, and never comes.
    """
    return min(seconds, 2**62)


def load_abi(settings: MotifySettings) -> Abi:
    """Return the contract's ABI; `ConfigurationError` when it is not one this app can read.

    Older deployments return other tuples: what they say would be taken for something else.
    """
    if settings.motify_contract_abi_path is None:
        return built_in_abi()
    try:
        abi = Abi.from_json(Path(settings.motify_contract_abi_path))
        for name, expected in _EXPECTED.items():
            found = tuple(one.type for one in abi.function(name).outputs)
            if found != expected:
                raise InvalidInput(
                    f"{name} returns {', '.join(found)}; this app reads {', '.join(expected)}"
                )
        for name in ("declareResults", "finalizeAndProcessDonations"):
            abi.function(name)
    except InvalidInput as error:
        raise ConfigurationError([f"MOTIFY_CONTRACT_ABI_PATH: {error.message}"]) from None
    return abi


@cache
def built_in_abi() -> Abi:
    """Return the ABI of the contract on Base."""
    content = files("causeway.apps.motify").joinpath("abi.json").read_text()
    return Abi.from_json(json.loads(content))


class Contract:
    """The contract on its chain."""

    def __init__(self, chain: EvmChain, address: str, abi: Abi) -> None:
        self.chain = chain
        self.address = address
        self.abi = abi

    async def challenge(
        self, challenge_id: int, at: At, wallets: Sequence[str] = ()
    ) -> Challenge | None:
        """Return a challenge as of a block; None when there is none there.

        One that is too large for a node to answer in one call is read without its participants,
        who are then asked for one by one: `wallets`, which the events told of.
        """
        try:
            answer = await self._call("getChallengeById", challenge_id, at=at)
        except TransactionReverted as error:
            known = self.abi.explain(error)
            if known.error_args[:1] == ("Challenge does not exist",):
                return None
            if not wallets:
                raise known from None
            return await self._by_parts(challenge_id, at, wallets)
        return _challenge(answer)

    async def next_id(self, at: At) -> int:
        """Return how many challenges there are; their ids count up from 0."""
        answer = await self._call("nextChallengeId", at=at)
        return int(str(self.abi.decode_result("nextChallengeId", answer)[0]))

    async def is_finalized(self, challenge_id: int, at: At) -> bool:
        """Say whether a challenge's results are final as of a block."""
        function = self.abi.function("challenges")
        answer = await self._call("challenges", challenge_id, at=at)
        kinds = [one.type.replace("string", "bytes") for one in function.outputs]
        place = [one.name for one in function.outputs].index("resultsFinalized")
        return bool(_decoded(kinds, answer)[place])

    async def scale(self, at: At = "latest") -> tuple[int, int]:
        """Return what a whole share is in the contract, and the decimals of stakes."""
        names = ("BASIS_POINTS_DIVISOR", "USDC_DECIMALS")
        found: list[int] = []
        for name in names:
            answer = await self._call(name, at=at)
            found.append(int(str(self.abi.decode_result(name, answer)[0])))
        return found[0], found[1]

    async def owner(self, at: At = "latest") -> str:
        """Return who may declare results, lower case."""
        answer = await self._call("owner", at=at)
        return str(self.abi.decode_result("owner", answer)[0]).lower()

    async def participants(
        self, challenge_id: int, wallets: Sequence[str], at: At
    ) -> list[Participant]:
        """Return these participants as of a block, in their order; those who are none left out."""
        found: list[Participant] = []
        for start in range(0, len(wallets), _AT_ONCE):
            part = wallets[start : start + _AT_ONCE]
            calls = [
                (self.address, self.abi.encode("getParticipantInfo", challenge_id, wallet))
                for wallet in part
            ]
            for answer in await self.chain.call_many(calls, at):
                if isinstance(answer, TransactionReverted):
                    continue
                one = _participant(_decoded([_PARTICIPANT], answer)[0])
                if int(one.wallet, 16):
                    found.append(one)
        return found

    def declared_in(self, data: bytes) -> tuple[int, dict[str, int]] | None:
        """Return challenge and basis points by wallet in call data; None for another call."""
        function = self.abi.function("declareResults")
        if data[:4] != function.selector:
            return None
        try:
            found: Any = decode([one.type for one in function.inputs], data[4:])
        except (DecodingError, ValueError, OverflowError):
            return None
        challenge_id, wallets, shares = found
        return int(challenge_id), dict(zip(map(str.lower, wallets), map(int, shares), strict=False))

    async def _by_parts(self, challenge_id: int, at: At, wallets: Sequence[str]) -> Challenge:
        function = self.abi.function("challenges")
        answer = await self._call("challenges", challenge_id, at=at)
        kinds = [one.type.replace("string", "bytes") for one in function.outputs]
        values = dict(
            zip((one.name for one in function.outputs), _decoded(kinds, answer), strict=True)
        )
        found = Challenge(
            id=challenge_id,
            recipient=str(values["recipient"]).lower(),
            window=Window(int(values["startTime"]), int(values["endTime"])),
            is_private=bool(values["isPrivate"]),
            name=_text(values["name"]),
            api_type=_text(values["apiType"]),
            goal_type=_text(values["goalType"]),
            goal_amount=int(values["goalAmount"]),
            description=_text(values["description"]),
            total_donation=int(values["totalDonationAmount"]),
            finalized=bool(values["resultsFinalized"]),
            participants=(),
        )
        people = await self.participants(challenge_id, wallets, at)
        return replace(found, participants=tuple(people))

    async def _call(self, function: str, *args: object, at: At) -> bytes:
        return await self.chain.call(self.address, self.abi.encode(function, *args), at=at)


def _challenge(answer: bytes) -> Challenge:
    values = _decoded([_RAW], answer)[0]
    return Challenge(
        id=int(values[0]),
        recipient=str(values[1]).lower(),
        window=Window(int(values[2]), int(values[3])),
        is_private=bool(values[4]),
        name=_text(values[5]),
        api_type=_text(values[6]),
        goal_type=_text(values[7]),
        goal_amount=int(values[8]),
        description=_text(values[9]),
        total_donation=int(values[10]),
        finalized=bool(values[11]),
        participants=tuple(_participant(one) for one in values[12]),
    )


def _participant(values: Any) -> Participant:
    wallet, stake, amount, bps, declared = values
    return Participant(str(wallet).lower(), int(stake), int(amount), int(bps), bool(declared))


def _decoded(kinds: Sequence[str], data: bytes) -> Any:
    try:
        return decode(kinds, data)
    except (DecodingError, ValueError, OverflowError) as error:
        raise ConfigurationError(
            [f"MOTIFY_CONTRACT_ADDRESS: what the contract answers is not Motify's: {error}"]
        ) from None


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
