"""What a provider can do, found by having it done: documentation and errors prove nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.base.errors import CausewayError, PermanentError
from causeway.chains.evm.blocks import Header
from causeway.chains.evm.wire import WireBlock
from causeway.chains.pool import ProviderPool

#: What the kernel calls the methods that a capability stands for.
METHODS: Mapping[str, str] = {
    "traces": "debug_traceTransaction",
    "block_traces": "debug_traceBlockByHash",
    "block_receipts": "eth_getBlockReceipts",
}


async def recheck(session: AsyncSession) -> None:
    """Have what providers can do tried again with the next probes: one did not do what it could."""
    await session.execute(
        text(
            "UPDATE mobs.rpc_endpoints SET capabilities = capabilities || '{\"checked_at\": 0}' "
            "WHERE is_active"
        )
    )


async def traces_since(session: AsyncSession, since: int) -> bool:
    """Say whether a provider that may be used was found to trace after this time."""
    return bool(
        await session.scalar(
            text(
                "SELECT EXISTS (SELECT FROM mobs.rpc_endpoints WHERE is_active AND NOT quarantined "
                "AND supports_traces AND (capabilities->>'checked_at')::bigint > :since)"
            ),
            {"since": since},
        )
    )


async def block_at(pool: ProviderPool, at: str) -> WireBlock | None:
    """Return the block at a hex number or a tag; None when there is none."""
    kind: Any = WireBlock | None
    found: WireBlock | None = await pool.call("eth_getBlockByNumber", (at, False), reply=kind)
    return found


async def settled_blocks(pool: ProviderPool) -> dict[str, Any]:
    """Return which blocks a provider calls safe and final, and whether it is catching up itself."""
    found: dict[str, Any] = {}
    for tag in ("safe", "finalized"):
        try:
            block = await block_at(pool, tag)
        except PermanentError:
            block = None
        known = block is not None and block.number is not None
        found[tag] = known
        found[f"{tag}_block"] = int(block.number or "0x0", 16) if known and block else None
    try:
        found["syncing"] = await pool.call("eth_syncing") is not False
    except PermanentError:
        found["syncing"] = None
    return found


async def capabilities(pool: ProviderPool, head: int) -> dict[str, Any]:
    """Return what a provider with this newest block can do, each thing tried for real."""
    found: dict[str, Any] = {}
    transaction = await _recent_transaction(pool, head)
    found["block_receipts"] = await _works(
        pool, "eth_getBlockReceipts", (hex(head),), list[dict[str, Any]]
    )
    if transaction is not None:
        # A made-up hash proves nothing: some nodes answer anything with an empty trace.
        found["traces"] = await _works(
            pool, "debug_traceTransaction", (transaction, {"tracer": "callTracer"}), _Traced
        )
        found["block_traces"] = await _works(
            pool,
            "debug_traceBlockByNumber",
            (hex(head), {"tracer": "callTracer"}),
            list[dict[str, Any]],
        )
    found["archive"] = await _works(pool, "eth_getBalance", ("0x" + "0" * 40, "0x1"), str)
    outcomes = await pool.batch([("eth_chainId", ()), ("eth_blockNumber", ())])
    found["batch"] = not any(isinstance(one, Exception) for one in outcomes)
    return found


class _Traced(msgspec.Struct, rename="camel"):
    """What a real trace has; nodes that know no tracers answer something else without an error."""

    type: str
    from_: str = msgspec.field(name="from")
    gas_used: str


async def _works(pool: ProviderPool, method: str, params: Sequence[object], kind: Any) -> bool:
    try:
        return await pool.call(method, params, reply=kind) is not None
    except CausewayError:
        return False


async def _recent_transaction(pool: ProviderPool, head: int) -> str | None:
    kind: Any = Header | None
    for number in range(head, max(-1, head - 10), -1):
        block: Header | None = await pool.call(
            "eth_getBlockByNumber", (hex(number), True), reply=kind
        )
        if block is not None and block.transactions:
            return block.transactions[-1].hash
    return None
