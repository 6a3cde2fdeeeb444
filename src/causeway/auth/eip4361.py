"""EIP-4361 ("Sign-In with Ethereum") texts, read strictly and written exactly.

Why not the `siwe` module of PyPI's signinwithethereum: importing it brings web3 (more than a second
measured) and its ABNF machine takes milliseconds a text. It is what the tests compare this
with: both accept the same texts and see the same fields in them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from ipaddress import AddressValueError, IPv6Address

from eth_utils.address import to_checksum_address

#: Longer texts are refused unread: a signature request a person can read is far below.
MAX_LENGTH = 8_000

_UNRESERVED = r"A-Za-z0-9\-._~"
_SUB_DELIMS = r"!$&'()*+,;="
_ENCODED = r"%[0-9A-Fa-f]{2}"
_PCHAR = rf"(?:[{_UNRESERVED}{_SUB_DELIMS}:@]|{_ENCODED})"
_SCHEME = r"[A-Za-z][A-Za-z0-9+.\-]*"
#: RFC 3986 authority; what stands in brackets is looked at afterwards.
_AUTHORITY = (
    rf"(?:(?:[{_UNRESERVED}{_SUB_DELIMS}:]|{_ENCODED})*@)?"
    rf"(?:\[(?P<literal>[0-9A-Fa-f:.]+|[vV][0-9A-Fa-f]+\.[{_UNRESERVED}{_SUB_DELIMS}:]+)\]"
    rf"|(?:[{_UNRESERVED}{_SUB_DELIMS}]|{_ENCODED})*)"
    rf"(?::[0-9]*)?"
)
_URI = re.compile(
    rf"{_SCHEME}:(?://{_AUTHORITY}(?:/{_PCHAR}*)*"
    rf"|/(?:{_PCHAR}+(?:/{_PCHAR}*)*)?|{_PCHAR}+(?:/{_PCHAR}*)*|)"
    rf"(?:\?(?:{_PCHAR}|[/?])*)?(?:#(?:{_PCHAR}|[/?])*)?"
)
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?"
    r"(?:Z|[+-][0-9]{2}:[0-9]{2})"
)
_MESSAGE = re.compile(
    rf"(?:(?P<scheme>{_SCHEME})://)?"
    rf"(?P<domain>{_AUTHORITY})"
    r" wants you to sign in with your Ethereum account:\n"
    r"(?P<address>0x[0-9A-Fa-f]{40})\n\n"
    rf"(?:(?P<statement>[{_UNRESERVED}{_SUB_DELIMS}:/?#\[\]@ ]*)\n)?\n"
    r"URI: (?P<uri>[^\n]*)\n"
    r"Version: 1\n"
    r"Chain ID: (?P<chain_id>[0-9]+)\n"
    r"Nonce: (?P<nonce>[A-Za-z0-9]{8,})\n"
    r"Issued At: (?P<issued_at>[^\n]*)"
    r"(?:\nExpiration Time: (?P<expiration_time>[^\n]*))?"
    r"(?:\nNot Before: (?P<not_before>[^\n]*))?"
    rf"(?:\nRequest ID: (?P<request_id>{_PCHAR}*))?"
    r"(?P<resources>\nResources:(?:\n- [^\n]*)*)?"
)


@dataclass(frozen=True, kw_only=True)
class SignInText:
    """What an EIP-4361 text says; `str()` writes it, with the address in EIP-55."""

    domain: str
    #: EIP-55.
    address: str
    uri: str
    chain_id: int
    nonce: str
    #: As written, RFC 3339; the instants are `issued`, `expires` and `begins`.
    issued_at: str
    statement: str | None = None
    expiration_time: str | None = None
    not_before: str | None = None
    request_id: str | None = None
    resources: tuple[str, ...] | None = None
    scheme: str | None = None

    @property
    def issued(self) -> datetime:
        """When it was issued."""
        return _instant(self.issued_at)

    @property
    def expires(self) -> datetime | None:
        """When it ends to be valid, if ever."""
        return None if self.expiration_time is None else _instant(self.expiration_time)

    @property
    def begins(self) -> datetime | None:
        """Before when it is not valid yet, if it says so."""
        return None if self.not_before is None else _instant(self.not_before)

    def __str__(self) -> str:
        lines = [
            f"{self.scheme}://{self.domain}" if self.scheme else self.domain,
            " wants you to sign in with your Ethereum account:\n",
            f"{self.address}\n\n",
            "" if self.statement is None else f"{self.statement}\n",
            f"\nURI: {self.uri}\nVersion: 1\nChain ID: {self.chain_id}\nNonce: {self.nonce}\n",
            f"Issued At: {self.issued_at}",
            "" if self.expiration_time is None else f"\nExpiration Time: {self.expiration_time}",
            "" if self.not_before is None else f"\nNot Before: {self.not_before}",
            "" if self.request_id is None else f"\nRequest ID: {self.request_id}",
            "" if self.resources is None else "\nResources:",
            *(f"\n- {resource}" for resource in self.resources or ()),
        ]
        return "".join(lines)


def parse(text: str) -> SignInText:
    """Take an EIP-4361 text apart; `ValueError` says what is not as the standard has it.

    The address may be in one case throughout; in mixed case its EIP-55 checksum must be right.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"longer than {MAX_LENGTH} characters")
    found = _MESSAGE.fullmatch(text)
    if found is None:
        raise ValueError("not an EIP-4361 text")
    if not found["domain"]:
        raise ValueError("no domain")
    _check_literal(found["literal"])
    if found["address"][2:].upper() != found["address"][2:] != found["address"][2:].lower() and (
        to_checksum_address(found["address"]) != found["address"]
    ):
        raise ValueError("the address's EIP-55 checksum is wrong")
    resources = found["resources"]
    listed = None if resources is None else tuple(resources.split("\n- ")[1:])
    for uri in (found["uri"], *(listed or ())):
        if not is_uri(uri):
            raise ValueError(f"not a URI (RFC 3986): {uri[:100]!r}")
    for name in ("issued_at", "expiration_time", "not_before"):
        if found[name] is not None:
            _instant(found[name])
    return SignInText(
        scheme=found["scheme"],
        domain=found["domain"],
        address=to_checksum_address(found["address"]),
        statement=found["statement"],
        uri=found["uri"],
        chain_id=int(found["chain_id"]),
        nonce=found["nonce"],
        issued_at=found["issued_at"],
        expiration_time=found["expiration_time"],
        not_before=found["not_before"],
        request_id=found["request_id"],
        resources=listed,
    )


def is_uri(text: str) -> bool:
    """Say whether `text` is a URI with a scheme as RFC 3986 writes them."""
    found = _URI.fullmatch(text)
    if found is None:
        return False
    try:
        _check_literal(found["literal"])
    except ValueError:
        return False
    return True


def _check_literal(literal: str | None) -> None:
    if literal is None or literal[0] in "vV":
        return
    try:
        IPv6Address(literal)
    except AddressValueError:
        raise ValueError(f"not an IPv6 address: {literal!r}") from None


def _instant(text: str) -> datetime:
    if _TIME.fullmatch(text) is None:
        raise ValueError(f"not an RFC 3339 time: {text[:50]!r}")
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"no such time: {text[:50]!r}") from None
