"""Asking several Starknet endpoints for the head at once, and answering by those who agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from causeway.base.errors import CausewayError, ProviderUnavailable
from causeway.chains.errors import BlockUnknown, RpcError, WrongAnswer
from causeway.chains.head import agree
from causeway.chains.pool import ProviderPool
from causeway.chains.protocol import Block
from causeway.chains.rpc import Call
from causeway.chains.starknet.wire import WireBlock

#: So many endpoints are asked at once, and compared at most so often, seconds.
_ASKED = 3
_EVERY_S = 1.0
#: After the first told its head the others are waited for so long, seconds.
_GRACE_S = 0.25


class AgreedHeads:
    """Compares the heads of a pool's endpoints."""

    def __init__(self, pool: ProviderPool) -> None:
        self._pool = pool
        self._compared_at = float("-inf")

    def due(self) -> bool:
        """Say whether there are several endpoints and it is time to compare them."""
        usable = sum(one.right_chain is not False for one in self._pool.endpoints)
        return usable > 1 and self._pool.clock.monotonic() - self._compared_at >= _EVERY_S

    async def agreed(self, calls: Sequence[Call], latest: int) -> list[WireBlock | None]:
        """Return the answers to these header calls of the endpoint whose head is agreed on.

        `latest`: which of the calls asks for the newest block. Raises what the pool raises.
        """
        types = [WireBlock] * len(calls)
        answers = await self._pool.everybody(calls, types, at_most=_ASKED, grace_s=_GRACE_S)
        heads: dict[str, Block] = {}
        said: dict[str, list[object]] = {}
        for endpoint, outcomes in answers:
            head = outcomes[latest]
            if not coherent(calls, outcomes, latest):
                text = f"{endpoint.name}: a block below the head is not there"
                self._pool.wrong(endpoint, calls, WrongAnswer("incoherent", text))
            elif isinstance(head, WireBlock):
                block = head.block()
                said[endpoint.name], heads[endpoint.name] = outcomes, block
                endpoint.head, endpoint.head_at = block, self._pool.clock.monotonic()
        if not heads:
            raise ProviderUnavailable("no endpoint has a newest block and those below it")
        before = self._pool.agreement
        found = agree(heads, trusted=before.named_by if before else next(iter(heads)))
        self._pool.agreed(found)
        self._compared_at = self._pool.clock.monotonic()
        return headers_in(calls, said[found.named_by])


def coherent(calls: Sequence[Call], outcomes: Sequence[object], latest: int) -> bool:
    """Say whether an endpoint that names a head has the blocks below it that it was asked for.

    A row of nodes behind one address may answer with the head of one and the blocks of another.
    """
    head = outcomes[latest]
    if not isinstance(head, WireBlock):
        return True
    for (_, params), one in zip(calls, outcomes, strict=True):
        place = params[0]
        if not isinstance(place, dict):
            continue
        number = cast("dict[str, object]", place).get("block_number")
        if isinstance(number, int) and number <= head.block_number:
            if isinstance(one, BlockUnknown):
                return False
    return True


def headers_in(calls: Sequence[Call], found: Sequence[object]) -> list[WireBlock | None]:
    """Return the headers in the answers to header calls, None where there is none.

    A tag that is not offered has none. Raises any other error among them.
    """
    wires: list[WireBlock | None] = []
    for (_, params), one in zip(calls, found, strict=True):
        tag = isinstance(params[0], str)
        if isinstance(one, BlockUnknown) or (tag and isinstance(one, RpcError)):
            wires.append(None)
        elif isinstance(one, CausewayError):
            raise one
        else:
            wires.append(cast("WireBlock", one))
    return wires
