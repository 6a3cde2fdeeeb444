"""Asking several endpoints for the head at once, and answering by those who agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from causeway.base.errors import CausewayError, ProviderUnavailable
from causeway.chains.endpoint import Endpoint
from causeway.chains.errors import BlockUnknown, RpcError, WrongAnswer
from causeway.chains.evm.wire import WireBlock
from causeway.chains.head import Agreement, agree
from causeway.chains.pool import ProviderPool
from causeway.chains.protocol import Block
from causeway.chains.rpc import Call

#: So many endpoints are asked at once, and compared at most so often, seconds.
_ASKED = 3
_EVERY_S = 1.0
#: After the first told its head the others are waited for so long, seconds.
_GRACE_S = 0.25
#: Blocks between two heads up to which it is looked whether one chain holds both.
_COMPARABLE = 64


class AgreedHeads:
    """Compares the heads of a pool's endpoints."""

    def __init__(self, pool: ProviderPool) -> None:
        self._pool = pool
        self._compared_at = float("-inf")
        #: The newest block that was read with its logs, proved complete: who does not have it
        #: contradicts more than somebody's word.
        self.proved: Block | None = None

    def due(self) -> bool:
        """Say whether there are several endpoints and it is time to compare them."""
        usable = sum(one.right_chain is not False for one in self._pool.endpoints)
        return usable > 1 and self._pool.clock.monotonic() - self._compared_at >= _EVERY_S

    async def agreed(self, calls: Sequence[Call], latest: int) -> list[WireBlock | None]:
        """Return the answers to these header calls of the endpoint whose head is agreed on.

        `latest`: which of the calls asks for the newest block. Raises what the pool raises.
        """
        types = [WireBlock | None] * len(calls)
        answers = await self._pool.everybody(calls, types, at_most=_ASKED, grace_s=_GRACE_S)
        heads: dict[str, Block] = {}
        said: dict[str, list[object]] = {}
        for endpoint, outcomes in answers:
            head = outcomes[latest]
            if not coherent(calls, outcomes, latest):
                text = f"{endpoint.name}: a block below the head is not there"
                self._pool.wrong(endpoint, calls, WrongAnswer("incoherent", text))
            elif isinstance(head, WireBlock):
                said[endpoint.name] = outcomes
                heads[endpoint.name] = head.block()
                self._saw(endpoint, heads[endpoint.name])
        if not heads:
            raise ProviderUnavailable("no endpoint has a newest block and those below it")
        before = self._pool.agreement
        trusted = before.named_by if before else next(iter(heads))
        found = await self._further_apart(agree(heads, trusted=trusted), heads, trusted)
        if found.undecided:
            known = [one for one in (self.proved, before.head if before else None) if one]
            faithful = await self._faithful(heads, known)
            if faithful in found.forked:
                found = _believing(faithful, found, heads)
        self._pool.agreed(found)
        self._compared_at = self._pool.clock.monotonic()
        return headers_in(calls, said[found.named_by])

    async def _faithful(self, heads: Mapping[str, Block], known: Sequence[Block]) -> str | None:
        """Return who alone has one of these blocks, the first that tells; None if none does.

        One of two that contradict each other has left the chain that was read and agreed on.
        """
        calls: list[Call] = [("eth_getBlockByNumber", (hex(one.number), False)) for one in known]
        have: list[list[str]] = [[] for _ in known]
        for endpoint in self._pool.endpoints:
            if endpoint.name not in heads or not known:
                continue
            try:
                said = await self._pool.of_one(endpoint, calls, [WireBlock | None] * len(calls))
            except CausewayError:
                continue
            for names, one, there in zip(have, known, said, strict=True):
                if isinstance(there, WireBlock) and there.block().hash == one.hash:
                    names.append(endpoint.name)
        return next((names[0] for names in have if len(names) == 1), None)

    def _saw(self, endpoint: Endpoint, head: Block) -> None:
        endpoint.head, endpoint.head_at = head, self._pool.clock.monotonic()

    async def _further_apart(
        self, found: Agreement, heads: dict[str, Block], trusted: str
    ) -> Agreement:
        """Look up, at who named the head, the blocks that those more than one below it name."""
        head = found.head
        below = {
            name: one
            for name, one in heads.items()
            if 1 < head.number - one.number <= _COMPARABLE and name not in found.forked
        }
        if not below:
            return found
        endpoint = next(e for e in self._pool.endpoints if e.name == found.named_by)
        numbers = sorted({one.number for one in below.values()})
        calls: list[Call] = [("eth_getBlockByNumber", (hex(n), False)) for n in numbers]
        try:
            blocks = await self._pool.of_one(endpoint, calls, [WireBlock | None] * len(calls))
        except CausewayError:
            return found
        there = {
            block.number: block.hash
            for block in (one.block() for one in blocks if isinstance(one, WireBlock))
        }
        other = {n for n, one in below.items() if there.get(one.number, one.hash) != one.hash}
        same = [n for n, one in below.items() if there.get(one.number) == one.hash]
        if len(other) > len(same) + 1:
            # Most are on a fork that the highest is not on: theirs is the chain.
            return agree({name: heads[name] for name in other}, trusted=trusted)
        return Agreement(
            head,
            found.named_by,
            max(found.confirmed, *(heads[n].number for n in same)) if same else found.confirmed,
            found.forked | other,
            found.undecided or len(other) == len(same) + 1,
            found.lags,
        )


def _believing(name: str, found: Agreement, heads: Mapping[str, Block]) -> Agreement:
    """Return what the heads amount to when one that was outvoted or outrun is right after all."""
    others = frozenset(heads) - found.forked
    right = agree({one: heads[one] for one in found.forked}, trusted=name)
    lags = {one: max(0, right.head.number - heads[one].number) for one in heads}
    forked = right.forked | others
    return Agreement(right.head, right.named_by, right.confirmed, forked, True, lags)


def coherent(calls: Sequence[Call], outcomes: Sequence[object], latest: int) -> bool:
    """Say whether an endpoint that names a head has the blocks below it that it was asked for.

    A row of nodes behind one address may answer with the head of one and the blocks of another.
    """
    head = outcomes[latest]
    if not isinstance(head, WireBlock) or head.number is None:
        return True
    height = int(head.number, 16)
    for (method, params), one in zip(calls, outcomes, strict=True):
        place = str(params[0])
        if method != "eth_getBlockByNumber" or not place.startswith("0x"):
            continue
        if int(place, 16) <= height and (one is None or isinstance(one, BlockUnknown)):
            return False
    return True


def headers_in(calls: Sequence[Call], found: Sequence[object]) -> list[WireBlock | None]:
    """Return the headers in the answers to header calls, None where there is none.

    A tag that is not offered has none. Raises any other error among them.
    """
    wires: list[WireBlock | None] = []
    for (_, params), one in zip(calls, found, strict=True):
        tag = not str(params[0]).startswith("0x")
        if isinstance(one, BlockUnknown) or (tag and isinstance(one, RpcError)):
            wires.append(None)
        elif isinstance(one, Exception):
            raise one
        else:
            wires.append(cast("WireBlock | None", one))
    return wires
