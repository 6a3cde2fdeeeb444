"""CIDs are those that IPFS gives to the same bytes, and a CAR proves what no profile explains."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multiformats import CID

from causeway.apps.glisk.cids import (
    KUBO_V1,
    PROFILES,
    UNIXFS_V0_2015,
    UNIXFS_V1_2025,
    cid_of,
    matches,
    prove_car,
)
from causeway.sandbox import dag

HELLO = b"hello world"


def noise(size: int) -> bytes:
    """Return the specification's test bytes."""
    x = 1
    out = bytearray(size)
    for i in range(size):
        x = (x * 1103515245 + 12345) & 0xFFFFFFFF
        out[i] = x >> 16 & 0xFF
    return bytes(out)


VECTORS = [
    (
        262144,
        "bafkreifystqgug5z6myhn45jr6skxoe3mtdoshssgfvv6otctnc7wuaaia",
        "bafkreifystqgug5z6myhn45jr6skxoe3mtdoshssgfvv6otctnc7wuaaia",
        "QmXa9TvDDvnPJ8uAzzZXimtH3YzLM3kdBsooPXQdBLL3kz",
    ),
    (
        262145,
        "bafybeiaetu4skxr5b4g57tk74tmreuhvuqs2fnmg6k5bhyravlup5cmeri",
        "bafkreidtozu6zqyn7k7a67gevjjqs6pennlo243dpf3rkvsm7f2l55wuuy",
        "Qmabf2xSuy3MAjomB13U2FKYmdCSbAiGqHQLAGrP7rgApy",
    ),
    (
        1048577,
        "bafybeif5xf3s7kjl46td4zppzottf3ekixdadk7unoxd5bg4vzy6bvejim",
        "bafybeie5cjy5fpq2r6tm5htvlwjkzymawsvsfurorem57kboriyeilvs2i",
        "Qmf7WNrAPDxFKTpAhQeeX39PQYFtDgewc4NkavramKkWGy",
    ),
]


def test_small_files_are_their_leaf() -> None:
    assert cid_of(HELLO) == "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"
    assert cid_of(HELLO, UNIXFS_V1_2025) == cid_of(HELLO)
    assert cid_of(HELLO, UNIXFS_V0_2015) == "Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD"
    assert cid_of(b"") == "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
    assert cid_of(b"", UNIXFS_V0_2015) == "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH"


@pytest.mark.parametrize(("size", "kubo", "newer", "older"), VECTORS)
def test_large_files_are_the_root_of_their_dag(
    size: int, kubo: str, newer: str, older: str
) -> None:
    data = noise(size)
    assert [cid_of(data, profile) for profile in PROFILES] == [kubo, newer, older]


@pytest.mark.long
def test_two_levels_of_nodes() -> None:
    data = noise(46_000_000)
    assert [cid_of(data, profile) for profile in PROFILES] == [
        "bafybeifs4bz73xbc4vqi5uyz7445u3z6jmxz55nzvtfcarevkjmfaewjge",
        "bafybeidptltq42ommnusjtskmddnes4xldseiaa3gswyxpvjnymvcyulge",
        "QmSnn2fMkAkmNWk8g3P7RdDFFq2naFfjMa8VLcvBq4f7sJ",
    ]


def test_versions_of_the_same_node_are_the_same_content() -> None:
    assert matches(cid_of(HELLO, UNIXFS_V0_2015), HELLO) == "unixfs-v0-2015"
    as_v1 = "bafybeihykld7uyxzogax6vgyvag42y7464eywpf55gxi5qpoisibh3c5wa"
    assert matches(as_v1, HELLO) == "unixfs-v0-2015"
    assert matches(cid_of(HELLO), HELLO) == "kubo-v1"


@given(st.binary(max_size=2000), st.binary(max_size=2000))
def test_a_cid_names_its_bytes_and_no_others(one: bytes, other: bytes) -> None:
    for profile in PROFILES:
        assert matches(cid_of(one, profile), one) is not None
        if one != other:
            assert matches(cid_of(one, profile), other) is None


@pytest.mark.parametrize("text", ["", "nonsense", "bafy", "Qm" * 23, "ipfs://x"])
def test_what_is_no_cid_matches_nothing(text: str) -> None:
    assert matches(text, HELLO) is None


def varint(number: int) -> bytes:
    """Return an unsigned LEB128."""
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def car_of(blocks: dict[bytes, bytes]) -> bytes:
    """Return a CAR of blocks by CID; nobody reads its header."""
    header = b"\xa1gversion\x01"
    car = varint(len(header)) + header
    for cid, block in blocks.items():
        car += varint(len(cid) + len(block)) + cid + block
    return car


@settings(max_examples=30)
@given(st.binary(min_size=1, max_size=3000), st.integers(min_value=1, max_value=700))
def test_a_car_proves_any_import_and_falls_with_one_byte(data: bytes, chunk: int) -> None:
    # An import no profile has: chunks of any size below one node, written by hand.
    leaves = [data[i : i + chunk] for i in range(0, len(data), chunk)]
    blocks: dict[bytes, bytes] = {}
    links = b""
    for leaf in leaves:
        cid = b"\x01\x55\x12\x20" + hashlib.sha256(leaf).digest()
        blocks[cid] = leaf
        link = b"\x0a" + varint(len(cid)) + cid + b"\x12\x00" + b"\x18" + varint(len(leaf))
        links += b"\x12" + varint(len(link)) + link
    unixfs = b"\x08\x02\x18" + varint(len(data)) + b"".join(b" " + varint(len(x)) for x in leaves)
    node = links + b"\x0a" + varint(len(unixfs)) + unixfs
    root = b"\x01\x70\x12\x20" + hashlib.sha256(node).digest()
    blocks[root] = node
    name = str(CID.decode(root).set(base="base32"))
    assert prove_car(car_of(blocks), name, data)
    assert not prove_car(car_of(blocks), name, data + b"x")
    broken = dict(blocks)
    broken[next(iter(blocks))] = b"\x00" + leaves[0]
    assert not prove_car(car_of(broken), name, data)
    assert not prove_car(b"", name, data)


@pytest.mark.parametrize("size", [0, 1, 262_143, 262_144, 262_145, 700_001])
def test_the_sandbox_counts_the_same(size: int) -> None:
    data = noise(size)
    assert cid_of(data, KUBO_V1) == str(dag.build(data, dag.KUBO_V1).root)
