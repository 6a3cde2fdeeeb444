"""Linking an author's Farcaster account: Sign In With Farcaster, checked and not believed.

The signed text (EIP-4361) names an fid; its signer must be the fid's custody address (IdRegistry)
or one of its auth addresses (FIP-225, KeyRegistry), both on Optimism; and the username must be
what the fname registry or a hub says belongs to that fid.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeVar
from urllib.parse import urlsplit

import structlog
from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError
from pydantic import BaseModel, ValidationError

from causeway.auth import eip4361
from causeway.auth.challenge import check_times, origin_of
from causeway.auth.eip4361 import SignInText
from causeway.auth.wallet import CallableChain, Verdict, verify
from causeway.base.errors import (
    PermanentError,
    ProviderUnavailable,
    SignatureInvalid,
    TransactionReverted,
    TransientError,
)
from causeway.base.http import HttpClient

_log = structlog.get_logger(__name__)

#: The chain the registries are on, which the text must name.
OPTIMISM = 10
ID_REGISTRY = "0x00000000Fc6c5F01Fc30151999387Bb99A9f489b"
KEY_REGISTRY = "0x00000000Fc1237824fb747aBDE0FF18990E59b7e"

_ID_OF = bytes.fromhex("d94fe832")  # idOf(address)
_KEY_DATA_OF = bytes.fromhex("ac34cc5a")  # keyDataOf(uint256,bytes)
_ADDED, _AUTH_KEY = 1, 2  # IKeyRegistry.KeyState, key type of an auth address
_FID_RESOURCE = re.compile(r"farcaster://fid/([1-9][0-9]{0,18})/?")
#: An fname, or an ENS name.
_USERNAME = re.compile(r"[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63})*")

Part = Literal["message", "signature", "signer", "username"]
M = TypeVar("M", bound=BaseModel)


class FarcasterRefused(PermanentError):
    """The Farcaster account could not be linked."""

    def __init__(self, part: Part, message: str) -> None:
        super().__init__(f"farcaster {part}: {message}", part=part)
        #: Which of the four checks failed.
        self.part: Part = part


@dataclass(frozen=True)
class FarcasterAccount:
    """An account whose owner signed. `nonce` is the text's: the caller must know and use it up."""

    fid: int
    username: str
    signer: str
    nonce: str


class _Transfer(BaseModel):
    id: int
    username: str
    to: int


class _Transfers(BaseModel):
    transfers: list[_Transfer]


class _Proof(BaseModel):
    name: str
    fid: int


class _Proofs(BaseModel):
    proofs: list[_Proof]


class FarcasterLinker:
    """Checks Farcaster accounts against the registries.

    `http` leads to the fname registry (https://fnames.farcaster.xyz) or to the HTTP API of a hub,
    `chain` is Optimism (None: nothing can be checked), `site` the address people are at.
    """

    def __init__(
        self,
        http: HttpClient,
        chain: CallableChain | None,
        *,
        site: str,
        id_registry: str = ID_REGISTRY,
        key_registry: str = KEY_REGISTRY,
    ) -> None:
        self._http = http
        self._chain = chain
        # Sign-in kits name the site with or without its port.
        self._domains = {origin_of(site)[1], urlsplit(site).hostname or ""}
        self._id_registry = id_registry
        self._key_registry = key_registry

    async def check(
        self, message: str, signature: str, *, fid: int, username: str, now: datetime
    ) -> FarcasterAccount:
        """Return the account when everything is as it says.

        Raises `FarcasterRefused` naming the part that failed, and `ProviderUnavailable` when the
        chain, the registry or the hub could not be asked: nothing may be linked then.
        """
        signed = self.read(message, fid=fid, now=now)
        name = username.lower()
        if _USERNAME.fullmatch(name) is None:
            raise FarcasterRefused("username", "not a Farcaster name")
        verdict = await verify(self._chain, signed.address, message, signature)
        if verdict is Verdict.INVALID:
            raise FarcasterRefused("signature", "does not belong to the text and its address")
        if verdict is Verdict.UNKNOWN or self._chain is None:
            _log.warning("farcaster_chain_unavailable", fix="FARCASTER_RPC_URLS: Optimism")
            raise ProviderUnavailable("Farcaster's chain cannot be asked now; try again")
        if not await self._speaks_for(self._chain, signed.address, fid):
            raise FarcasterRefused("signer", f"neither custody nor auth address of fid {fid}")
        if not await self._has_name(fid, name):
            raise FarcasterRefused("username", f"not a name of fid {fid}")
        return FarcasterAccount(fid, name, signed.address, signed.nonce)

    def read(self, message: str, *, fid: int, now: datetime) -> SignInText:
        """Check what the text says by itself; its nonce is for the caller to check."""
        try:
            signed = eip4361.parse(message)
            check_times(signed, now)
        except ValueError as error:
            raise FarcasterRefused("message", str(error)) from None
        except SignatureInvalid as error:
            raise FarcasterRefused("message", error.message) from None
        if signed.domain.lower() not in self._domains:
            raise FarcasterRefused("message", "is for another site")
        if signed.chain_id != OPTIMISM:
            raise FarcasterRefused("message", f"its chain id is not {OPTIMISM}")
        found = [_FID_RESOURCE.fullmatch(resource) for resource in signed.resources or ()]
        if [int(match[1]) for match in found if match] != [fid]:
            raise FarcasterRefused("message", f"does not name farcaster://fid/{fid}, and only that")
        return signed

    async def _speaks_for(self, chain: CallableChain, signer: str, fid: int) -> bool:
        asked = _ID_OF + encode(["address"], [signer])
        (owned,) = await self._registry(chain, self._id_registry, asked, ["uint256"])
        if owned == fid:
            return True
        key = encode(["address"], [signer])
        asked = _KEY_DATA_OF + encode(["uint256", "bytes"], [fid, key])
        state, kind = await self._registry(chain, self._key_registry, asked, ["uint8", "uint32"])
        return state == _ADDED and kind == _AUTH_KEY

    async def _registry(
        self, chain: CallableChain, contract: str, data: bytes, kinds: list[str]
    ) -> tuple[int, ...]:
        try:
            return tuple(int(value) for value in decode(kinds, await chain.call(contract, data)))
        except (TransactionReverted, DecodingError):
            # It never reverts: this is another chain, or no contract at all.
            _log.error("farcaster_registry_missing", fix="FARCASTER_RPC_URLS: Optimism")
            raise ProviderUnavailable("Farcaster's registry does not answer") from None

    async def _has_name(self, fid: int, name: str) -> bool:
        # The registry knows fnames; ENS names (with a dot) only a hub knows. Either answers 404
        # to the other's question, so one address may be of either.
        if "." not in name:
            known = await self._get("/transfers", {"name": name}, _Transfers)
            if known is not None:
                transfers = [t for t in known.transfers if t.username.lower() == name]
                newest = max(transfers, key=lambda t: t.id, default=None)
                return newest is not None and newest.to == fid
        proven = await self._get("/v1/userNameProofsByFid", {"fid": str(fid)}, _Proofs)
        if proven is None:
            # The fname registry knows no ENS names.
            _log.error("farcaster_names_missing", fix="FARCASTER_HUB_URL: a hub's HTTP API")
            raise ProviderUnavailable("this kind of name cannot be checked here")
        return any(proof.fid == fid and proof.name.lower() == name for proof in proven.proofs)

    async def _get(self, path: str, query: dict[str, str], shape: type[M]) -> M | None:
        try:
            answer = await self._http.request("GET", path, params=query)
        except TransientError as error:
            raise ProviderUnavailable(f"Farcaster's names: {error.message}") from None
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise ProviderUnavailable(f"Farcaster's names cannot be asked for: {answer.status}")
        try:
            return shape.model_validate_json(answer.body)
        except ValidationError:
            raise ProviderUnavailable("Farcaster's names came in another shape") from None
