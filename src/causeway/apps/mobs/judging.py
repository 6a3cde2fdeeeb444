"""Comparing what providers answered: who is on another chain or fork, and who alters receipts.

A block far below the head that others do not have is a fork at once. Near the head a provider may
be late with a reorganisation: there it is named when it still has the same other block at the next
probe. Receipts of one and the same block cannot differ: who gives others than the block's header
allows, or than most give, has altered them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson

from causeway.apps.mobs.capabilities import block_at
from causeway.apps.mobs.providers import Provider
from causeway.apps.mobs.scoring import leader
from causeway.base.errors import CausewayError
from causeway.chains.evm.blocks import Header, Receipt, check_receipts
from causeway.chains.evm.wire import WireBlock
from causeway.chains.pool import ProviderPool

T = TypeVar("T")

#: A common block this far below the head is compared between providers.
FORK_DEPTH = 64
#: And one this near, with its receipts.
NEAR_DEPTH = 3


@dataclass
class Probe:
    """What one provider answered."""

    provider: Provider
    latency_ms: int | None = None
    chain_id: int | None = None
    head: WireBlock | None = None
    error: str | None = None
    #: It asked us to wait so long, seconds.
    wait_s: float = 0.0
    capabilities: dict[str, Any] = field(default_factory=dict[str, Any])
    #: Whether all of what it can do was tried.
    checked: bool = False
    pool: ProviderPool | None = None
    #: A block near the head that only this provider has, to be looked at again.
    suspect: dict[str, Any] | None = None

    @property
    def height(self) -> int | None:
        """The newest block it has."""
        return int(self.head.number, 16) if self.head and self.head.number else None

    @property
    def suspected(self) -> dict[str, Any] | None:
        """What was suspicious at the probe before."""
        return self.provider.row["capabilities"].get("suspect")

    @property
    def gives_receipts(self) -> bool:
        """Whether it was found to give the receipts of a block at once."""
        known = self.provider.row["capabilities"] | self.capabilities
        return bool(known.get("block_receipts"))


async def judge(probes: list[Probe], chain_id: int, timeout_s: float) -> list[dict[str, Any]]:
    """Compare the answers: mark those of another chain or fork; return the evidence."""
    lies: list[dict[str, Any]] = []
    for probe in probes:
        if probe.chain_id is not None and probe.chain_id != chain_id:
            told, wanted = {"chain_id": probe.chain_id}, {"chain_id": chain_id}
            lies.append(_named(probe, "wrong_chain", None, told, wanted))
    sound = [p for p in probes if p.error is None and p.height is not None and p.pool is not None]
    # One far behind does not choose the block for all: it is left out instead.
    top = leader([p.height or 0 for p in sound]) or 0
    deep, near = max(0, top - FORK_DEPTH), max(0, top - NEAR_DEPTH)
    sound = [p for p in sound if (p.height or 0) >= deep]
    if len(sound) < 2:
        return lies
    again = {int(p.suspected["block"]) for p in sound if p.suspected}
    numbers = sorted({deep, near} | {n for n in again if n <= near})
    hashes = await _each(sound, lambda pool: _hashes(pool, numbers), timeout_s)
    for probe, number, said, others in _minority(sound, hashes, numbers):
        if probe.error is not None:
            continue
        suspect = {"block": number, "hash": said}
        if number == deep or probe.suspected == suspect:
            found = {"hash": others[0], "providers": others[1]}
            lies.append(_named(probe, "wrong_fork", number, {"hash": said}, found))
        elif probe.suspect is None:
            probe.suspect = suspect
    most = Counter(hashes.get(id(p), {}).get(near) for p in sound if p.error is None).most_common(1)
    block_hash = most[0][0] if most else None
    if block_hash is not None:
        there = [
            p for p in sound if p.error is None and hashes.get(id(p), {}).get(near) == block_hash
        ]
        lies += await _compare_receipts(there, near, block_hash, timeout_s)
    return lies


def _minority(
    probes: Sequence[Probe], hashes: Mapping[int, Mapping[int, str]], numbers: Sequence[int]
) -> list[tuple[Probe, int, str, tuple[str, int]]]:
    """Return who has another block than most, which, and what how many others have.

    Where nobody has a majority, that is told by the disagreement and blamed on nobody.
    """
    found: list[tuple[Probe, int, str, tuple[str, int]]] = []
    for number in numbers:
        votes = Counter(said[number] for said in hashes.values() if number in said)
        (most, count), *rest = [*votes.most_common(), ("", 0)]
        if rest and rest[0][1] == count:
            continue
        for probe in probes:
            said = hashes.get(id(probe), {}).get(number, most)
            if said != most:
                found.append((probe, number, said, (most, count)))
    return found


async def _hashes(pool: ProviderPool, numbers: Sequence[int]) -> dict[int, str]:
    found = await asyncio.gather(*(block_at(pool, hex(number)) for number in numbers))
    pairs = zip(numbers, found, strict=True)
    return {number: one.hash.lower() for number, one in pairs if one and one.hash}


async def _compare_receipts(
    probes: Sequence[Probe], number: int, block_hash: str, timeout_s: float
) -> list[dict[str, Any]]:
    """Compare the receipts of a block that all of these have; return the evidence."""
    asked = [probe for probe in probes if probe.gives_receipts]
    if len(asked) < 2:
        return []
    answers = await _each(asked, lambda pool: _receipts(pool, number, block_hash), timeout_s)
    said = {key: _plain(receipts) for key, receipts in answers.items() if receipts}
    if len(set(said.values())) < 2:
        return []
    headers = await _each(asked, lambda pool: _header(pool, number, block_hash), timeout_s)
    header = next((one for one in headers.values() if one), None)
    proved = {
        id(probe)
        for probe in asked
        if header is not None and (given := answers.get(id(probe))) and _impossible(header, given)
    }
    right = Counter(plain for key, plain in said.items() if key not in proved)
    if not right:
        return []
    (most, count), *rest = right.most_common()
    tied = bool(rest) and rest[0][1] == count
    lies: list[dict[str, Any]] = []
    for probe in asked:
        plain = said.get(id(probe))
        if plain is None or plain == most or (tied and id(probe) not in proved):
            continue
        ours, theirs = _first_difference(plain, most)
        lies.append(_named(probe, "altered_receipt", number, ours, theirs | {"providers": count}))
    return lies


async def _receipts(pool: ProviderPool, number: int, block_hash: str) -> list[Receipt] | None:
    """Return the receipts of a block, if they are of that one; None without an answer."""
    kind: Any = list[Receipt] | None
    found: list[Receipt] | None = await pool.call(
        "eth_getBlockReceipts", (hex(number),), reply=kind
    )
    if not found or any(one.block_hash.lower() != block_hash for one in found):
        return None
    return found


async def _header(pool: ProviderPool, number: int, block_hash: str) -> Header | None:
    kind: Any = Header | None
    found: Header | None = await pool.call("eth_getBlockByNumber", (hex(number), True), reply=kind)
    return found if found is not None and found.hash.lower() == block_hash else None


def _impossible(header: Header, receipts: Sequence[Receipt]) -> bool:
    """Say whether these cannot be the receipts of that block."""
    try:
        check_receipts(header, receipts)
    except (CausewayError, ValueError):
        return True
    return False


#: What of a receipt is compared: the transaction, status, gas, and its logs.
Plain = tuple[tuple[str, str | None, str, tuple[Any, ...]], ...]


def _plain(receipts: Sequence[Receipt]) -> Plain:
    return tuple(
        (
            one.transaction_hash.lower(),
            one.status,
            one.gas_used.lower(),
            tuple((log.address, log.topics, log.data) for log in one.logs),
        )
        for one in receipts
    )


def _first_difference(ours: Plain, theirs: Plain) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what two say of the first receipt of which they do not say the same."""
    for a, b in zip(ours, theirs, strict=False):
        if a != b:
            return _shown(a), _shown(b)
    return {"receipts": len(ours)}, {"receipts": len(theirs)}


def _shown(one: tuple[str, str | None, str, tuple[Any, ...]]) -> dict[str, Any]:
    transaction, status, gas_used, logs = one
    return {
        "transaction": transaction,
        "status": status,
        "gas_used": gas_used,
        "logs": [{"address": a, "topics": list(t), "data": d} for a, t, d in logs],
    }


async def _each(
    probes: Sequence[Probe], ask: Callable[[ProviderPool], Awaitable[T]], timeout_s: float
) -> dict[int, T]:
    """Ask all at once; return the answers by the probe's identity, without those that failed."""

    async def one(probe: Probe) -> T | None:
        if probe.pool is None:
            return None
        try:
            async with asyncio.timeout(timeout_s):
                return await ask(probe.pool)
        except (CausewayError, TimeoutError, ValueError):
            return None

    answers = await asyncio.gather(*(one(probe) for probe in probes))
    return {id(p): one for p, one in zip(probes, answers, strict=True) if one is not None}


def _named(
    probe: Probe, kind: str, block: int | None, said: Mapping[str, Any], others: Mapping[str, Any]
) -> dict[str, Any]:
    """Mark a probe as a lie; return the evidence as it is stored."""
    probe.error = kind
    return {
        "endpoint": probe.provider.id,
        "kind": kind,
        "block": block,
        "said": orjson.dumps(said).decode(),
        "others": orjson.dumps(others).decode(),
    }
