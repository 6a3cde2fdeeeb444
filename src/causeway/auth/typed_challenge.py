"""Signed requests that count once, as EIP-712 typed data: the wallet shows them field by field.

    challenge = await challenges.issue("motify.appeal", wallet, "Appeal against the result of …")
    ...the person's wallet signs challenge.typed_data (eth_signTypedData_v4)...
    accepted = await challenges.verify(chain, message, signature, action="motify.appeal", ...)
    async with database.transaction() as session:
        await challenges.consume(session, accepted)
        ...what was asked for...

What is signed names the site, the action, the wallet, a nonce of ours with its times, and the
SHA-256 of what is asked for; its domain names the chain and, when there is one, the contract. As
with `auth.challenge`, the nonce is consumed in the transaction that does what was asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

from eth_utils.address import to_checksum_address
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.auth.challenge import origin_of, require_valid
from causeway.auth.eip712 import Domain, TypedData
from causeway.auth.nonces import LIFETIME_S, Nonces
from causeway.auth.wallet import CallableChain, verify
from causeway.base.errors import SignatureInvalid
from causeway.store.engine import Database

_REQUEST = {
    "Request": [
        ("site", "string"),
        ("wallet", "address"),
        ("action", "string"),
        ("statement", "string"),
        ("payloadSha256", "bytes32"),
        ("nonce", "string"),
        ("issuedAt", "uint256"),
        ("expiresAt", "uint256"),
    ]
}
_NO_PAYLOAD = b"\0" * 32


@dataclass(frozen=True)
class TypedChallenge:
    """What a wallet is asked to sign."""

    #: For `eth_signTypedData_v4`, plain JSON.
    typed_data: dict[str, Any]
    nonce: str
    issued_at: datetime
    expires_at: datetime


@dataclass(frozen=True)
class AcceptedRequest:
    """A request with a good signature, whose nonce is not consumed yet."""

    nonce: str
    action: str
    address: str


class TypedChallenges:
    """Issues and checks typed challenges of one site.

    `name` is what wallets show as who asks, `site` the address people are at, `contract` the one
    the requests are about, if any.
    """

    def __init__(
        self,
        database: Database,
        *,
        name: str,
        site: str,
        chain_id: int,
        contract: str | None = None,
        lifetime_s: float = LIFETIME_S,
    ) -> None:
        self.nonces = Nonces(database, lifetime_s)
        scheme, host = origin_of(site)
        self.site = f"{scheme}://{host}"
        domain = Domain(name=name, version="1", chain_id=chain_id, verifying_contract=contract)
        self.kind = TypedData(domain, "Request", _REQUEST)

    async def issue(
        self, action: str, address: str, statement: str, *, payload: bytes | None = None
    ) -> TypedChallenge:
        """Make a nonce for `action` of the wallet `address`, and what to sign with it.

        `statement` is what the person reads. With a `payload` the request is for that only;
        without one the client puts the payload's SHA-256 into `message.payloadSha256`.
        """
        wallet = str(to_checksum_address(address))
        digest = None if payload is None else sha256(payload).hexdigest()
        issued = await self.nonces.new(action, wallet, digest)
        message = {
            "site": self.site,
            "wallet": wallet,
            "action": action,
            "statement": statement,
            "payloadSha256": "0x" + (digest or _NO_PAYLOAD.hex()),
            "nonce": issued.nonce,
            "issuedAt": int(issued.issued_at.timestamp()),
            "expiresAt": int(issued.expires_at.timestamp()),
        }
        shown = self.kind.payload(message)
        return TypedChallenge(shown, issued.nonce, issued.issued_at, issued.expires_at)

    async def verify(
        self,
        chain: CallableChain | None,
        message: Mapping[str, Any],
        signature: str,
        *,
        action: str,
        address: str,
        payload: bytes | None = None,
    ) -> AcceptedRequest:
        """Check a signed `message` (that member of the typed data) in all but the use of its nonce.

        Domain and types are ours whatever the client signed under. Raises `InvalidInput` for
        fields that are missing or wrong, `SignatureInvalid` with what does not fit, and
        `ProviderUnavailable` when a contract wallet could not be asked.
        """
        wallet = str(to_checksum_address(address))
        values = self.kind.read(message)
        expected = {
            "site": self.site,
            "wallet": wallet,
            "action": action,
            "payloadSha256": _NO_PAYLOAD if payload is None else sha256(payload).digest(),
        }
        for name, value in expected.items():
            if values[name] != value:
                raise SignatureInvalid(f"the signed request is for another {_WORDS[name]}")
        # A look at the nonce first: nobody makes us ask a chain with requests of their own.
        now = await self.nonces.look(values["nonce"], action, wallet, payload)
        if not values["issuedAt"] <= now.timestamp() < values["expiresAt"]:
            raise SignatureInvalid("the signed request has expired, or is not valid yet")
        require_valid(await verify(chain, wallet, self.kind.digest(values), signature))
        return AcceptedRequest(values["nonce"], action, wallet)

    async def consume(self, session: AsyncSession, accepted: AcceptedRequest) -> None:
        """Use up the nonce, within the caller's transaction; raises `SignatureInvalid`."""
        await self.nonces.consume(
            session, accepted.nonce, action=accepted.action, address=accepted.address
        )


_WORDS = {
    "site": "site",
    "wallet": "wallet",
    "action": "action",
    "payloadSha256": "payload than is asked for (sha256)",
}
