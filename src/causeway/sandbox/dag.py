"""IPFS content as blocks: UnixFS import, reading back, CAR version 1.

The balanced layout of the UnixFS specification over dag-pb, for the import settings named in
`PROFILES`. Written for the stand-ins alone: what an app computes for itself is checked against
this, and this against published vectors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from multiformats import CID

#: Returns the block of a multihash, or None.
BlockSource = Callable[[bytes], bytes | None]


class MissingBlock(LookupError):
    """A block of this content is not here."""


@dataclass(frozen=True, slots=True)
class ImportProfile:
    """How bytes become a DAG; other settings give another CID for the same bytes."""

    name: str
    version: int
    raw_leaves: bool
    chunk_bytes: int = 262144
    links_per_node: int = 174


KUBO_V1 = ImportProfile("kubo-v1", 1, raw_leaves=True)
UNIXFS_V1_2025 = ImportProfile("unixfs-v1-2025", 1, True, 1048576, 1024)
UNIXFS_V0_2015 = ImportProfile("unixfs-v0-2015", 0, raw_leaves=False)
#: No published profile: what a provider with settings of its own might use.
PRIVATE = ImportProfile("private", 1, raw_leaves=False, chunk_bytes=4096, links_per_node=11)
PROFILES = (KUBO_V1, UNIXFS_V1_2025, UNIXFS_V0_2015)


@dataclass(frozen=True, slots=True)
class Dag:
    """The blocks of one file, by multihash, and the size of all of them together."""

    root: CID
    blocks: dict[bytes, bytes]
    #: Root plus everything below it, a repeated block counted every time (kubo's "Size").
    cumulative_bytes: int


@dataclass(frozen=True, slots=True)
class _Node:
    cid: CID
    file_bytes: int
    cumulative_bytes: int


def build(data: bytes, profile: ImportProfile) -> Dag:
    """Import `data` as one file."""
    blocks: dict[bytes, bytes] = {}

    def store(block: bytes, *, raw: bool, file_bytes: int, below_bytes: int) -> _Node:
        cid = _cid(block, raw=raw, version=1 if raw else profile.version)
        blocks[bytes(cid.digest)] = block
        return _Node(cid, file_bytes, len(block) + below_bytes)

    def leaf(chunk: bytes) -> _Node:
        block = chunk if profile.raw_leaves else _dag_pb([], _unixfs_file(len(chunk), chunk))
        return store(block, raw=profile.raw_leaves, file_bytes=len(chunk), below_bytes=0)

    def parent(children: list[_Node]) -> _Node:
        size = sum(child.file_bytes for child in children)
        unixfs = _unixfs_file(size, b"", [child.file_bytes for child in children])
        block = _dag_pb([(child.cid, child.cumulative_bytes) for child in children], unixfs)
        below = sum(child.cumulative_bytes for child in children)
        return store(block, raw=False, file_bytes=size, below_bytes=below)

    step = profile.chunk_bytes
    nodes = [leaf(data[at : at + step]) for at in range(0, max(len(data), 1), step)]
    while len(nodes) > 1:
        width = profile.links_per_node
        nodes = [parent(nodes[at : at + width]) for at in range(0, len(nodes), width)]
    return Dag(nodes[0].cid, blocks, nodes[0].cumulative_bytes)


def read(root: CID, source: BlockSource) -> bytes:
    """Return the bytes of the file under `root`; MissingBlock when a part is not there."""
    block = _get(root, source)
    if root.codec.name == "raw":
        return block
    own, links = _parse_dag_pb(block)
    return _file_data(own) + b"".join(read(link, source) for link in links)


def car(root: CID, source: BlockSource) -> bytes:
    """Return a CAR (version 1) of `root` and all blocks under it, depth first, each once."""
    root_bytes = b"\x00" + bytes(root)
    # dag-cbor of {"roots": [root], "version": 1}: the key order is the canonical one.
    header = b"\xa2\x65roots\x81\xd8\x2a\x58" + bytes([len(root_bytes)]) + root_bytes
    header += b"\x67version\x01"
    parts = [_varint(len(header)), header]
    for cid, block in walk(root, source):
        parts += [_varint(len(bytes(cid)) + len(block)), bytes(cid), block]
    return b"".join(parts)


def walk(root: CID, source: BlockSource) -> Iterator[tuple[CID, bytes]]:
    """Yield (CID, block) of everything under `root`, depth first, each block once."""
    seen: set[bytes] = set()
    waiting = [root]
    while waiting:
        cid = waiting.pop()
        if bytes(cid) in seen:
            continue
        seen.add(bytes(cid))
        block = _get(cid, source)
        yield cid, block
        if cid.codec.name != "raw":
            waiting += reversed(_parse_dag_pb(block)[1])


def parse_cid(text: str) -> CID:
    """Return the CID written as `text`, version 0 or 1, any base; ValueError when it is none."""
    try:
        cid = CID.decode(text)
    except (ValueError, KeyError, IndexError) as error:
        raise ValueError(f"not a CID: {text[:80]!r}") from error
    if cid.codec.name not in ("raw", "dag-pb"):
        raise ValueError(f"not a file: {cid.codec.name}")
    return cid


def _get(cid: CID, source: BlockSource) -> bytes:
    block = source(bytes(cid.digest))
    if block is None:
        raise MissingBlock(str(cid))
    return block


def _cid(block: bytes, *, raw: bool, version: int) -> CID:
    digest = hashlib.sha256(block).digest()
    base = "base58btc" if version == 0 else "base32"
    return CID(base, version, "raw" if raw else "dag-pb", ("sha2-256", digest))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _dag_pb(links: list[tuple[CID, int]], data: bytes) -> bytes:
    # dag-pb wants Links (2) before Data (1), and an empty Name that is present.
    encoded = (
        _bytes(2, _bytes(1, bytes(cid)) + _bytes(2, b"") + _number(3, tsize))
        for cid, tsize in links
    )
    return b"".join(encoded) + _bytes(1, data)


def _unixfs_file(size: int, data: bytes, block_sizes: list[int] | None = None) -> bytes:
    parts = [_number(1, 2)]
    if data:
        parts.append(_bytes(2, data))
    parts.append(_number(3, size))
    parts += [_number(4, block_size) for block_size in block_sizes or []]
    return b"".join(parts)


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        tag = number()
        if tag & 7 == 0:
            yield tag >> 3, number()
        else:
            size = number()
            yield tag >> 3, message[at : at + size]
            at += size


def _parse_dag_pb(block: bytes) -> tuple[bytes, list[CID]]:
    data = b""
    links: list[CID] = []
    for field, value in _fields(block):
        if field == 1 and isinstance(value, bytes):
            data = value
        elif field == 2 and isinstance(value, bytes):
            link = next(v for f, v in _fields(value) if f == 1)
            if isinstance(link, bytes):
                links.append(CID.decode(link))
    return data, links


def _file_data(unixfs: bytes) -> bytes:
    found = [v for f, v in _fields(unixfs) if f == 2 and isinstance(v, bytes)]
    return found[0] if found else b""
