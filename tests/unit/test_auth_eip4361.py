"""Our reading of EIP-4361 against the library's, text by text."""

from __future__ import annotations

import importlib
import string
import warnings
from datetime import UTC
from functools import cache
from typing import Any

import pytest
from eth_utils.address import to_checksum_address
from hypothesis import example, given, settings
from hypothesis import strategies as st

from causeway.auth import eip4361

ADDRESS = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
PLAIN = f"""glisk.xyz wants you to sign in with your Ethereum account:
{ADDRESS}


URI: https://glisk.xyz
Version: 1
Chain ID: 8453
Nonce: abcdefgh12345678
Issued At: 2026-11-20T10:00:00Z"""
FULL = f"""https://user@[::1]:8080 wants you to sign in with your Ethereum account:
{ADDRESS}

A statement: [with] all/that?is&allowed.

URI: https://glisk.xyz/profile?x=1#a
Version: 1
Chain ID: 10
Nonce: abcdefgh12345678
Issued At: 2026-11-20T10:00:00.123456Z
Expiration Time: 2026-11-20T12:10:00+02:00
Not Before: 2026-11-20T10:00:00Z
Request ID: a%20b
Resources:
- urn:sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
- farcaster://fid/2"""

uris = st.sampled_from(
    [
        "https://glisk.xyz",
        "https://glisk.xyz/a/b;c?d=e&f#g?h",
        "urn:sha256:00ff",
        "sha256:00ff",
        "ni:///sha-256;f4OxZX_x",
        "farcaster://fid/1",
        "http://[2001:db8::1]:80/",
        "http://[::ffff:1.2.3.4]",
        "http://user:pw@host:/",
        "mailto:a@b.c",
        "a:",
        "a:/",
        "a:/%41",
        "a://",
    ]
)
times = st.datetimes(timezones=st.just(UTC)).map(lambda t: t.isoformat().replace("+00:00", "Z"))
words = st.text(string.ascii_letters + string.digits + " -._~:/?#[]@!$&'()*+,;=", max_size=30)


@st.composite
def texts(draw: st.DrawFn) -> str:
    """A text the standard allows."""
    return str(
        eip4361.SignInText(
            scheme=draw(st.none() | st.sampled_from(["https", "a+b-c.1"])),
            domain=draw(
                st.sampled_from(["glisk.xyz", "localhost:5173", "[::1]:1", "a%41:", "u@h"])
            ),
            address=to_checksum_address(draw(st.binary(min_size=20, max_size=20))),
            statement=draw(st.none() | words),
            uri=draw(uris),
            chain_id=draw(st.integers(0, 2**64)),
            nonce=draw(st.text(string.ascii_letters + string.digits, min_size=8, max_size=20)),
            issued_at=draw(times),
            expiration_time=draw(st.none() | times),
            not_before=draw(st.none() | times),
            request_id=draw(st.none() | st.sampled_from(["", "x", "a%20b:@!"])),
            resources=draw(st.none() | st.lists(uris, max_size=3).map(tuple)),
        )
    )


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """Such a text with a piece of it replaced by something else."""
    text = draw(texts())
    at = draw(st.integers(0, len(text)))
    length = draw(st.integers(0, 3))
    return text[:at] + draw(st.text("aF09:/?#[]@%\n -+TZ.é\0", max_size=3)) + text[at + length :]


def fields(text: str) -> dict[str, object] | None:
    """What we read."""
    try:
        found = eip4361.parse(text)
    except ValueError:
        return None
    return {
        "scheme": found.scheme,
        "domain": found.domain,
        "address": found.address.lower(),
        "statement": found.statement,
        "uri": found.uri,
        "chain_id": found.chain_id,
        "nonce": found.nonce,
        "issued_at": found.issued_at,
        "expiration_time": found.expiration_time,
        "not_before": found.not_before,
        "request_id": found.request_id,
        "resources": None if found.resources is None else list(found.resources),
    }


@cache
def _library() -> Any:
    with warnings.catch_warnings():  # it brings web3, which brings websockets' old half
        warnings.simplefilter("ignore", DeprecationWarning)
        return importlib.import_module("siwe")


def library_fields(text: str) -> dict[str, object] | None:
    """What the library reads."""
    try:
        found = _library().SiweMessage.from_message(text)
    except ValueError:
        return None
    read = found.model_dump(mode="python", exclude={"version"})
    read["address"] = str(read["address"]).lower()
    for name in ("issued_at", "expiration_time", "not_before"):
        read[name] = None if read[name] is None else str(read[name])
    return read


@settings(max_examples=60, deadline=None)
@example(PLAIN)
@example(FULL)
@given(texts())
def test_a_text_is_read_as_the_library_reads_it(text: str) -> None:
    assert fields(text) is not None
    assert fields(text) == library_fields(text)
    assert str(eip4361.parse(text)) == text


@settings(max_examples=120, deadline=None)
@given(damaged())
def test_a_damaged_text_is_refused_when_the_library_refuses_it(text: str) -> None:
    assert fields(text) == library_fields(text)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("Version: 1", "Version: 2", "not an EIP-4361 text"),
        ("glisk.xyz wants", " wants", "no domain"),
        (ADDRESS, ADDRESS.replace("F", "f", 1), "checksum"),
        (ADDRESS, ADDRESS[:-1], "not an EIP-4361 text"),
        ("Nonce: abcdefgh12345678", "Nonce: abc", "not an EIP-4361 text"),
        ("https://glisk.xyz", "glisk.xyz", "not a URI"),
        ("2026-11-20T10:00:00Z", "2026-13-20T10:00:00Z", "no such time"),
        ("2026-11-20T10:00:00Z", "2026-11-20 10:00:00Z", "not an RFC 3339 time"),
        ("2026-11-20T10:00:00Z", "2026-11-20T10:00:00", "not an RFC 3339 time"),
        ("Issued At", "Issued at", "not an EIP-4361 text"),
        ("\n", "\r\n", "not an EIP-4361 text"),
    ],
)
def test_a_text_is_refused_with_a_reason(old: str, new: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        eip4361.parse(PLAIN.replace(old, new))


def test_a_text_is_refused_when_too_long() -> None:
    with pytest.raises(ValueError, match="longer"):
        eip4361.parse(PLAIN + "\nResources:" + "\n- a:b" * 2000)


def test_an_address_in_one_case_is_accepted_and_given_back_checksummed() -> None:
    assert eip4361.parse(PLAIN.replace(ADDRESS, ADDRESS.lower())).address == ADDRESS
    upper = "0x" + ADDRESS[2:].upper()
    assert eip4361.parse(PLAIN.replace(ADDRESS, upper)).address == ADDRESS
