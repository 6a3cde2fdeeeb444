"""Signed requests that count once: an EIP-4361 text with a nonce of ours.

    challenge = await challenges.issue("glisk.prompt", wallet, "Set the prompt of …")
    ...the person's wallet signs challenge.text, or a text of its own with challenge.nonce...
    accepted = await challenges.verify(chain, text, signature, action="glisk.prompt", ...)
    async with database.transaction() as session:
        await challenges.consume(session, accepted)
        ...what was asked for...

A text is bound to our site (domain and URI), our chain, the wallet, a time, one action (the nonce
was given out for it) and, where there is one, to the payload by its SHA-256: a resource
`urn:sha256:<hex>` (what we write) or `sha256:<hex>`, or the word `sha256:<hex>` in the statement.

The nonce is consumed in the transaction that does what was asked: both happen or neither. What
several machines must agree on, the time included, is decided by the database.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from urllib.parse import urlsplit

from eth_utils.address import to_checksum_address
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.auth import eip4361
from causeway.auth.eip4361 import SignInText
from causeway.auth.nonces import LIFETIME_S, Nonces
from causeway.auth.wallet import CallableChain, Verdict, verify
from causeway.base.clock import iso
from causeway.base.errors import ProviderUnavailable, SignatureInvalid
from causeway.store.engine import Database

_ACTION = "urn:causeway:action:"
_DIGEST_RESOURCE = re.compile(r"(?:urn:)?sha256:([0-9a-fA-F]{64})")
_DIGEST_WORD = re.compile(r"(?<![A-Za-z0-9])sha256:([0-9a-fA-F]{64})(?![0-9a-fA-F])")
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Challenge:
    """A text to sign, and its parts for who composes the text itself."""

    text: str
    nonce: str
    issued_at: datetime
    expires_at: datetime
    domain: str
    uri: str
    chain_id: int
    resources: tuple[str, ...]


@dataclass(frozen=True)
class Accepted:
    """A request with a good signature, whose nonce is not consumed yet."""

    nonce: str
    action: str
    address: str
    signed: SignInText


def sha256_uri(payload: bytes) -> str:
    """Return the resource that binds a text to `payload`."""
    return f"urn:sha256:{sha256(payload).hexdigest()}"


class Challenges:
    """Issues and checks challenges of one site.

    `site` is the address people are at (`https://glisk.xyz`), `chain_id` the chain in the texts.
    """

    def __init__(
        self, database: Database, *, site: str, chain_id: int, lifetime_s: float = LIFETIME_S
    ) -> None:
        self.nonces = Nonces(database, lifetime_s)
        self._origin = origin_of(site)
        self.uri = site
        #: Host of the site, with its port unless it is the scheme's own.
        self.domain = self._origin[1]
        self.chain_id = chain_id

    async def issue(
        self, action: str, address: str, statement: str, *, payload_sha256: str | None = None
    ) -> Challenge:
        """Make a nonce for `action` of the wallet `address`, and a text with it.

        `statement` is what the person reads: ASCII without line breaks. `payload_sha256` (hex)
        binds the nonce to a payload that is known already; otherwise whoever signs adds the
        resource `urn:sha256:…` (see `sha256_uri`).
        """
        wallet = to_checksum_address(address)
        digest = None if payload_sha256 is None else payload_sha256.lower()
        issued = await self.nonces.new(action, wallet, digest)
        resources = [_ACTION + action] + ([f"urn:sha256:{digest}"] if digest else [])
        signed = SignInText(
            domain=self.domain,
            address=wallet,
            statement=statement,
            uri=self.uri,
            chain_id=self.chain_id,
            nonce=issued.nonce,
            issued_at=iso(issued.issued_at.replace(microsecond=0)),
            expiration_time=iso(issued.expires_at.replace(microsecond=0)),
            resources=tuple(resources),
        )
        return Challenge(
            text=str(signed),
            nonce=issued.nonce,
            issued_at=issued.issued_at,
            expires_at=issued.expires_at,
            domain=self.domain,
            uri=self.uri,
            chain_id=self.chain_id,
            resources=tuple(resources),
        )

    async def verify(
        self,
        chain: CallableChain | None,
        text: str,
        signature: str,
        *,
        action: str,
        address: str,
        payload: bytes | None = None,
    ) -> Accepted:
        """Check a signed text in all but the use of its nonce; see `consume`.

        Raises `SignatureInvalid` with what is wrong, and `ProviderUnavailable` when a contract
        wallet could not be asked: nothing is decided then, and the nonce stays good.
        """
        wallet = to_checksum_address(address)
        signed = self.read(text, action=action, address=wallet, payload=payload)
        # A look at the nonce first: nobody makes us ask a chain with texts of their own invention.
        now = await self.nonces.look(signed.nonce, action, wallet, payload)
        check_times(signed, now)
        require_valid(await verify(chain, wallet, text, signature))
        return Accepted(signed.nonce, action, wallet, signed)

    def read(
        self, text: str, *, action: str, address: str, payload: bytes | None = None
    ) -> SignInText:
        """Check what a text says by itself, its times apart; raises `SignatureInvalid`."""
        try:
            signed = eip4361.parse(text)
        except ValueError as error:
            raise SignatureInvalid(f"the signed text: {error}") from None
        scheme = signed.scheme or self._origin[0]
        if (scheme.lower(), signed.domain.lower()) != self._origin:
            raise SignatureInvalid(f"the signed text is for another site than {self.domain}")
        if _origin_or_none(signed.uri) != self._origin:
            raise SignatureInvalid(f"the URI of the signed text is not at {self.domain}")
        if signed.chain_id != self.chain_id:
            raise SignatureInvalid(f"the signed text is for another chain than {self.chain_id}")
        if signed.address != address:
            raise SignatureInvalid("the signed text is for another wallet")
        actions = {r for r in signed.resources or () if r.startswith(_ACTION)}
        if not actions <= {_ACTION + action}:
            raise SignatureInvalid("the signed text is for another action")
        if _digests(signed) != (set[str]() if payload is None else {sha256(payload).hexdigest()}):
            raise SignatureInvalid("the signed text is not bound to what is asked for (sha256)")
        return signed

    async def consume(self, session: AsyncSession, accepted: Accepted) -> None:
        """Use up the nonce, within the caller's transaction; raises `SignatureInvalid`."""
        await self.consume_nonce(
            session, accepted.nonce, action=accepted.action, address=accepted.address
        )

    async def consume_nonce(
        self, session: AsyncSession, nonce: str, *, action: str, address: str
    ) -> None:
        """Use up a nonce that was issued for `action` of the wallet `address`.

        Of any number of callers, one passes; the others wait for its commit. Raises
        `SignatureInvalid` when the nonce is unknown, used, expired, or for something else.
        """
        await self.nonces.consume(session, nonce, action=action, address=address)


def require_valid(verdict: Verdict) -> None:
    """Raise `SignatureInvalid`, or `ProviderUnavailable` for a signature nobody could check."""
    if verdict is Verdict.UNKNOWN:
        raise ProviderUnavailable("the wallet's signature cannot be checked now; try again")
    if verdict is Verdict.INVALID:
        raise SignatureInvalid("the signature does not belong to this text and this wallet")


def check_times(signed: SignInText, now: datetime) -> None:
    """Raise `SignatureInvalid` when a text is not valid any more at `now`, or not yet."""
    if signed.expires is not None and now >= signed.expires:
        raise SignatureInvalid("the signed text has expired")
    if signed.begins is not None and now < signed.begins:
        raise SignatureInvalid("the signed text is not valid yet")


def origin_of(url: str) -> tuple[str, str]:
    """Return scheme and host (with any port that is not the scheme's own), in lower case.

    Raises `ValueError` when `url` has none.
    """
    parts = urlsplit(url)
    if not parts.scheme or not parts.hostname:
        raise ValueError(f"not the address of a site: {url!r}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = parts.port
    suffix = "" if port is None or port == _DEFAULT_PORTS.get(parts.scheme) else f":{port}"
    return parts.scheme.lower(), host + suffix


def _origin_or_none(url: str) -> tuple[str, str] | None:
    try:
        return origin_of(url)
    except ValueError:
        return None


def _digests(signed: SignInText) -> set[str]:
    found = {d.lower() for d in _DIGEST_WORD.findall(signed.statement or "")}
    for resource in signed.resources or ():
        match = _DIGEST_RESOURCE.fullmatch(resource)
        if match:
            found.add(match[1].lower())
    return found
