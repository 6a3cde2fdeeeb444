"""Content identifiers computed from the bytes, so that nobody's word is taken for them.

A CID names the UnixFS DAG built over a file, so the import settings are part of it. The three
profiles are those of kubo (`--cid-version=1`), of IPIP-499, and of CID version 0. The DAG is
written as dag-pb, links before data, each node at most `width` links wide, balanced.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from multiformats import CID, multihash


@dataclass(frozen=True)
class Profile:
    """How a file is cut and tied together."""

    name: str
    version: int
    raw_leaves: bool
    chunk: int
    width: int


KUBO_V1 = Profile("kubo-v1", 1, True, 262_144, 174)
UNIXFS_V1_2025 = Profile("unixfs-v1-2025", 1, True, 1_048_576, 1024)
UNIXFS_V0_2015 = Profile("unixfs-v0-2015", 0, False, 262_144, 174)
PROFILES = (KUBO_V1, UNIXFS_V1_2025, UNIXFS_V0_2015)


@dataclass(frozen=True)
class _Node:
    """A node of the DAG: its CID, the file bytes below it, its own and all encoded bytes."""

    codec: str
    digest: bytes
    file_size: int
    total_size: int

    @property
    def cid(self) -> bytes:
        version = 0 if self.codec == "dag-pb-v0" else 1
        codec = "dag-pb" if self.codec == "dag-pb-v0" else self.codec
        wrapped = multihash.wrap(self.digest, "sha2-256")
        return bytes(CID("base58btc" if version == 0 else "base32", version, codec, wrapped))


def cid_of(data: bytes, profile: Profile = KUBO_V1) -> str:
    """Return the CID of a file imported with a profile."""
    cid = CID.decode(_root(data, profile).cid)
    return str(cid if cid.version == 0 else cid.set(base="base32"))


def matches(cid: str, data: bytes) -> str | None:
    """Return the name of the profile under which `cid` names `data`, None when none does.

    A version 0 CID and a version 1 dag-pb CID of the same node name the same content.
    """
    try:
        told = CID.decode(cid)
    except (ValueError, KeyError):
        return None
    for profile in PROFILES:
        ours = CID.decode(_root(data, profile).cid)
        if (told.codec.name, told.digest) == (ours.codec.name, ours.digest):
            return profile.name
    return None


def _root(data: bytes, profile: Profile) -> _Node:
    level = [_leaf(data[i : i + profile.chunk], profile) for i in _steps(len(data), profile.chunk)]
    while len(level) > 1:
        groups = _steps(len(level), profile.width)
        level = [_parent(level[i : i + profile.width], profile) for i in groups]
    return level[0]


def _steps(length: int, step: int) -> range:
    return range(0, max(length, 1), step)


def _leaf(chunk: bytes, profile: Profile) -> _Node:
    if profile.raw_leaves:
        return _Node("raw", hashlib.sha256(chunk).digest(), len(chunk), len(chunk))
    # UnixFS Data: Type (1) = File (2), Data (2) only when there is any, filesize (3).
    unixfs = b"\x08\x02" + (_bytes(2, chunk) if chunk else b"") + _varint_field(3, len(chunk))
    return _pb_node(_bytes(1, unixfs), len(chunk), 0, profile)


def _parent(children: list[_Node], profile: Profile) -> _Node:
    links = b""
    for child in children:
        # A link: Hash (1), Name (2), empty but present, Tsize (3).
        link = _bytes(1, child.cid) + _bytes(2, b"") + _varint_field(3, child.total_size)
        links += _bytes(2, link)
    size = sum(child.file_size for child in children)
    unixfs = b"\x08\x02" + _varint_field(3, size)
    unixfs += b"".join(_varint_field(4, child.file_size) for child in children)
    below = sum(child.total_size for child in children)
    return _pb_node(links + _bytes(1, unixfs), size, below, profile)


def _pb_node(encoded: bytes, file_size: int, below: int, profile: Profile) -> _Node:
    codec = "dag-pb-v0" if profile.version == 0 else "dag-pb"
    return _Node(codec, hashlib.sha256(encoded).digest(), file_size, len(encoded) + below)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _varint_field(tag: int, number: int) -> bytes:
    return _varint(tag << 3) + _varint(number)


def _bytes(tag: int, content: bytes) -> bytes:
    return _varint(tag << 3 | 2) + _varint(len(content)) + content


# ── proof by fetching ────────────────────────────────────────────────────────────────────────────


def prove_car(car: bytes, cid: str, data: bytes) -> bool:
    """Say whether a CAR (version 1) proves that `cid` names `data`, however it was imported.

    Every block is hashed, and the file is rebuilt from the block that `cid` names.
    """
    try:
        wanted = CID.decode(cid)
        blocks = {
            (c.codec.name, c.digest): block
            for c, block in _car_blocks(car)
            if multihash.wrap(hashlib.sha256(block).digest(), "sha2-256") == c.digest
        }
        rebuilt = bytearray()
        for part in _file_parts((wanted.codec.name, wanted.digest), blocks, 0):
            rebuilt += part
            if len(rebuilt) > len(data):
                return False
    except (ValueError, KeyError, IndexError):
        return False
    return bytes(rebuilt) == data


def _read_varint(content: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = content[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
        if shift > 63:
            raise ValueError("a number without an end")


def _car_blocks(car: bytes) -> Iterator[tuple[CID, bytes]]:
    length, at = _read_varint(car, 0)
    at += length  # the header: its roots are not what we asked for, our CID is
    while at < len(car):
        length, at = _read_varint(car, at)
        section = car[at : at + length]
        at += length
        if section[:2] == b"\x12\x20":  # version 0: a bare sha2-256 multihash
            size = 34
        else:
            number = place = 0
            for _ in range(4):  # version, codec, hash function, digest length
                number, place = _read_varint(section, place)
            size = place + number
        yield CID.decode(section[:size]), section[size:]


def _file_parts(
    name: tuple[str, bytes], blocks: dict[tuple[str, bytes], bytes], depth: int
) -> Iterator[bytes]:
    if depth > 32:
        raise ValueError("deeper than any file")
    block = blocks[name]
    if name[0] == "raw":
        yield block
        return
    links: list[bytes] = []
    inline = b""
    for tag, value in _fields(block):
        if tag == 2:
            links.append(next(v for t, v in _fields(value) if t == 1))
        elif tag == 1:
            inline = b"".join(v for t, v in _fields(value) if t == 2)
    yield inline
    for link in links:
        child = CID.decode(link)
        yield from _file_parts((child.codec.name, child.digest), blocks, depth + 1)


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Read the length-delimited fields of a protocol buffer; numbers are passed over."""
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        length, at = _read_varint(message, at)
        if key & 7 == 2:
            if at + length > len(message):
                raise ValueError("a field longer than its message")
            yield key >> 3, message[at : at + length]
            at += length
        elif key & 7 != 0:
            raise ValueError("a field no UnixFS file has")
