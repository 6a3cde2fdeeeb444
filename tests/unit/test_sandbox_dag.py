"""The stand-ins' CIDs against published ones, and their blocks against themselves."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from causeway.sandbox.dag import (
    KUBO_V1,
    PRIVATE,
    PROFILES,
    UNIXFS_V0_2015,
    UNIXFS_V1_2025,
    ImportProfile,
    MissingBlock,
    build,
    car,
    parse_cid,
    read,
    walk,
)


def linear_congruential(size: int) -> bytes:
    """Bits 16..23 of x -> x*1103515245+12345 mod 2^32 from 1; they repeat after 2^24 bytes."""
    period = 1 << 24
    factors = np.full(min(size, period), 1103515245, dtype=np.uint32)
    powers = np.cumprod(factors, dtype=np.uint32)
    sums = np.cumsum(np.concatenate([[np.uint32(1)], powers[:-1]]), dtype=np.uint32)
    states = powers + sums * np.uint32(12345)
    data = (states >> np.uint32(16)).astype(np.uint8).tobytes()
    return (data * (size // period + 1))[:size]


def test_bytes_are_those_of_the_plain_recurrence() -> None:
    state, expected = 1, bytearray()
    for _ in range(1000):
        state = (state * 1103515245 + 12345) % 2**32
        expected.append(state >> 16 & 0xFF)
    assert linear_congruential(1000) == bytes(expected)


SMALL = {
    b"hello world": (
        "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e",
        "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e",
        "Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD",
    ),
    b"": (
        "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku",
        "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku",
        "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH",
    ),
}
LARGE = {
    262144: (
        "bafkreifystqgug5z6myhn45jr6skxoe3mtdoshssgfvv6otctnc7wuaaia",
        "bafkreifystqgug5z6myhn45jr6skxoe3mtdoshssgfvv6otctnc7wuaaia",
        "QmXa9TvDDvnPJ8uAzzZXimtH3YzLM3kdBsooPXQdBLL3kz",
    ),
    262145: (
        "bafybeiaetu4skxr5b4g57tk74tmreuhvuqs2fnmg6k5bhyravlup5cmeri",
        "bafkreidtozu6zqyn7k7a67gevjjqs6pennlo243dpf3rkvsm7f2l55wuuy",
        "Qmabf2xSuy3MAjomB13U2FKYmdCSbAiGqHQLAGrP7rgApy",
    ),
    1048577: (
        "bafybeif5xf3s7kjl46td4zppzottf3ekixdadk7unoxd5bg4vzy6bvejim",
        "bafybeie5cjy5fpq2r6tm5htvlwjkzymawsvsfurorem57kboriyeilvs2i",
        "Qmf7WNrAPDxFKTpAhQeeX39PQYFtDgewc4NkavramKkWGy",
    ),
    46_000_000: (
        "bafybeifs4bz73xbc4vqi5uyz7445u3z6jmxz55nzvtfcarevkjmfaewjge",
        "bafybeidptltq42ommnusjtskmddnes4xldseiaa3gswyxpvjnymvcyulge",
        "QmSnn2fMkAkmNWk8g3P7RdDFFq2naFfjMa8VLcvBq4f7sJ",
    ),
}


@pytest.mark.parametrize("data", SMALL)
def test_small_files_have_the_published_cids(data: bytes) -> None:
    assert tuple(str(build(data, profile).root) for profile in PROFILES) == SMALL[data]


@pytest.mark.parametrize("size", LARGE)
def test_large_files_have_the_published_cids(size: int) -> None:
    data = linear_congruential(size)
    assert tuple(str(build(data, profile).root) for profile in PROFILES) == LARGE[size]


def test_a_dag_pb_leaf_under_version_1_has_the_published_cid() -> None:
    profile = ImportProfile("dag-pb leaf", 1, raw_leaves=False)
    root = build(b"hello world", profile).root
    assert str(root) == "bafybeihykld7uyxzogax6vgyvag42y7464eywpf55gxi5qpoisibh3c5wa"
    assert root.digest == build(b"hello world", UNIXFS_V0_2015).root.digest


@pytest.mark.parametrize("profile", [*PROFILES, PRIVATE], ids=lambda p: p.name)
@pytest.mark.parametrize("size", [0, 1, 4096, 4097, 262144, 262145, 600_000])
def test_reading_a_dag_gives_back_the_bytes(profile: ImportProfile, size: int) -> None:
    data = linear_congruential(max(size, 1))[:size]
    dag = build(data, profile)
    assert read(dag.root, dag.blocks.get) == data
    # Repeated blocks are stored once, and every one is where its own hash says.
    for multihash, block in dag.blocks.items():
        assert multihash == b"\x12\x20" + hashlib.sha256(block).digest()


def test_a_car_holds_the_root_and_every_block() -> None:
    dag = build(linear_congruential(600_000), KUBO_V1)
    archive = car(dag.root, dag.blocks.get)
    header = b"\xa2\x65roots\x81\xd8\x2a\x58\x25\x00" + bytes(dag.root) + b"\x67version\x01"
    assert archive[: 1 + len(header)] == bytes([len(header)]) + header
    assert dict((bytes(cid.digest), b) for cid, b in walk(dag.root, dag.blocks.get)) == dag.blocks
    assert all(block in archive for block in dag.blocks.values())


def test_a_car_holds_a_repeated_block_once() -> None:
    dag = build(bytes(10 * 262144), KUBO_V1)
    assert len(dag.blocks) == 2
    assert read(dag.root, dag.blocks.get) == bytes(10 * 262144)
    assert len(car(dag.root, dag.blocks.get)) < 2 * 262144


def test_a_missing_block_is_an_error_not_a_shorter_file() -> None:
    dag = build(linear_congruential(600_000), UNIXFS_V1_2025)
    assert len(dag.blocks) == 1
    dag = build(linear_congruential(600_000), KUBO_V1)
    blocks = dict(dag.blocks)
    leaf = next(multihash for multihash in blocks if multihash != bytes(dag.root.digest))
    del blocks[leaf]
    with pytest.raises(MissingBlock):
        read(dag.root, blocks.get)
    with pytest.raises(MissingBlock):
        car(dag.root, blocks.get)


@pytest.mark.parametrize("text", ["", "nonsense", "Qm", "bafkrei", "../etc/passwd", "b" * 5000])
def test_what_is_no_cid_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a"):
        parse_cid(text)
