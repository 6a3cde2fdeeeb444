"""Finding out why transactions failed: by their trace, or by running them again.

Failed transactions wait in `trace_queue`; watched contracts go first, then the newest. What the
nodes cannot trace is run again as a call on the state before its block, which is near the truth
and marked as that.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import msgspec
import orjson
import structlog
from prometheus_client import Counter
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.mobs.capabilities import recheck, traces_since
from causeway.apps.mobs.context import CHAIN, MobsContext
from causeway.apps.mobs.decoding import Decoded, Decoder, clean
from causeway.apps.mobs.frames import Reason, explain, shape
from causeway.apps.mobs.packing import pack, unpack
from causeway.apps.mobs.scanner import mark_dirty, note
from causeway.apps.mobs.wire import raw
from causeway.base.errors import (
    CausewayError,
    ChainBehind,
    PermanentError,
    ProviderUnavailable,
    TransactionReverted,
    TransientError,
)
from causeway.chains.errors import RpcError
from causeway.chains.evm.blocks import Frame, trace_block
from causeway.chains.evm.chain import EvmChain
from causeway.store.lease import Lease, guard

__all__ = ["explain_failures", "replay", "request", "step", "trace", "unpack"]

log = structlog.get_logger(__name__)

_EXPLAINED = Counter(
    "causeway_mobs_failures_explained_total", "Failed transactions looked into", ["how"]
)

#: Where a block has more failures than this it is traced whole.
_ONE_BY_ONE = 3
#: How long nobody is asked for traces again once nobody offers them, seconds.
_UNTRACEABLE_S = 600.0

SUCCEEDS = "Succeeds when run alone before its block: the reason is not known"
_HEX = re.compile(r"0x(?:[0-9a-fA-F]{2}){4,}")


class NotOffered(ChainBehind):
    """The endpoint does not trace; another one may."""


class Unreadable(PermanentError):
    """The call tree is nested too deeply to be read."""


@dataclass(frozen=True)
class Failure:
    """A failed transaction in the queue."""

    number: int
    index: int
    timestamp: int
    hash: bytes
    attempts: int

    @property
    def hexed(self) -> str:
        """Its hash, with 0x."""
        return "0x" + self.hash.hex()

    @property
    def key(self) -> dict[str, Any]:
        """What finds its row."""
        return {
            "number": self.number,
            "index": self.index,
            "timestamp": self.timestamp,
            "hash": self.hash,
        }


async def trace(chain: EvmChain, tx_hash: str) -> Frame:
    """Return the call tree of a transaction.

    Raises `NotOffered` where no provider offers traces, `Unreadable` for one nested too deeply. An
    answer of another shape counts as not offered: some nodes answer anything to anything.
    """

    def tree(found: list[object]) -> None:
        if isinstance(found[0], CausewayError):
            raise NotOffered(found[0].message)
        try:
            msgspec.json.decode(cast("msgspec.Raw", found[0]), type=Frame)
        except msgspec.MsgspecError as error:
            raise NotOffered(f"no call tree: {error}") from error
        except RecursionError:
            return

    (found,) = await chain.pool.batch(
        [("debug_traceTransaction", (tx_hash, {"tracer": "callTracer"}))],
        replies=[msgspec.Raw],
        accept=tree,
    )
    try:
        return msgspec.json.decode(cast("msgspec.Raw", found), type=Frame)
    except RecursionError as error:
        raise Unreadable("the call tree is nested too deeply") from error


async def replay(chain: EvmChain, tx_hash: str, number: int, decoder: Decoder) -> Reason:
    """Run a failed transaction again on the state before its block: approximately what happened."""
    tx = await chain.transaction(tx_hash)
    if tx is None:
        raise ChainBehind("the transaction is not known to any provider now")
    names = ("from", "to", "value", "gas", "input")
    call = {name: tx[name] for name in names if tx.get(name) is not None}
    to = raw(str(call["to"])) if "to" in call else None
    try:
        await chain.pool.call("eth_call", (call, hex(max(number - 1, 0))), reply=str)
    except TransactionReverted as error:
        data = error.data or _in_message(error.message)
        if not data and (said := _said(error.message)):
            return Reason("replay", Decoded(None, clean(said), {"message": clean(said)}))
        return Reason("replay", decoder.error(data, to), data or None)
    except PermanentError as error:  # out of gas, no funds, an opcode: the node's own words
        said = error.message.removeprefix("EVM error ")
        return Reason("replay", Decoded(None, clean(said[:1].upper() + said[1:])))
    return Reason("replay", Decoded(None, SUCCEEDS))


def _in_message(message: str) -> bytes:
    """Return revert data that a node has put into its words."""
    found = _HEX.search(message)
    return bytes.fromhex(found[0][2:]) if found else b""


def _said(message: str) -> str:
    """Return the reason after `execution reverted: `, where a node gives only that."""
    return message.partition("execution reverted:")[2].strip()


async def explain_failures(ctx: MobsContext, lease: Lease) -> None:
    """Explain queued transactions as long as that is allowed. The work of `mobs:trace`."""
    while await step(ctx, lease):
        pass


async def step(ctx: MobsContext, lease: Lease | None = None) -> bool:
    """Explain the next queued failures, one or a block's; return whether there were any."""
    services, settings = ctx.services, ctx.settings
    async with ctx.database.transaction() as session:
        if lease is not None:
            await guard(session, lease)
        await services.watched.refresh(session)
        depth = await _shed(session, settings.trace_queue_size)
        await note(session, "trace_queue_depth", {"depth": depth})
    minute_ago = ctx.clock.monotonic() - 60
    services.traced_at[:] = [at for at in services.traced_at if at > minute_ago]
    if len(services.traced_at) >= settings.max_traces_per_minute:
        return False
    async with ctx.database.sessions() as session:
        failures, block = await _next(session)
        may_trace = ctx.clock.monotonic() >= services.untraceable_until or await traces_since(
            session, services.untraceable_since
        )
    if not failures:
        return False
    services.traced_at.append(ctx.clock.monotonic())
    chain = ctx.chains[CHAIN]
    if len(failures) > _ONE_BY_ONE and may_trace:
        trees = await _whole_block(chain, block, failures, settings.rpc_timeout_trace)
        if trees is not None:
            for failure in failures:
                tree = trees[failure.index]
                await _done(ctx, failure, tree, explain(tree, services.watched.decoder), "done")
            return True
    await one(ctx, failures[0], may_trace=may_trace)
    return True


async def _next(session: AsyncSession) -> tuple[list[Failure], Mapping[Any, Any]]:
    """Return the failures to look into next, all of one block, and that block."""
    rows = (
        (
            await session.execute(
                text(
                    "WITH first AS (SELECT block_number FROM mobs.trace_queue "
                    "WHERE next_at <= extract(epoch FROM clock_timestamp()) "
                    "ORDER BY priority, block_number DESC, tx_index LIMIT 1) "
                    "SELECT q.block_number, q.tx_index, q.block_timestamp, q.hash, q.attempts, "
                    "b.hash AS block_hash, b.tx_count FROM first JOIN mobs.trace_queue AS q "
                    "USING (block_number) JOIN mobs.blocks AS b ON b.number = q.block_number "
                    "AND b.timestamp = q.block_timestamp "
                    "WHERE q.next_at <= extract(epoch FROM clock_timestamp()) "
                    "ORDER BY q.priority, q.tx_index"
                )
            )
        )
        .mappings()
        .all()
    )
    failures = [
        Failure(
            row["block_number"],
            row["tx_index"],
            row["block_timestamp"],
            bytes(row["hash"]),
            row["attempts"],
        )
        for row in rows
    ]
    return failures, rows[0] if rows else {}


@asynccontextmanager
async def _limited(seconds: float) -> AsyncGenerator[None]:
    """Give up after so long, for now."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise ProviderUnavailable(f"no trace within {seconds:g} s (RPC_TIMEOUT_TRACE)") from None


async def _whole_block(
    chain: EvmChain, block: Mapping[Any, Any], failures: Sequence[Failure], limit_s: float
) -> dict[int, Frame] | None:
    """Return the call trees of a block's failures by index; None where that is not to be had."""
    try:
        async with _limited(limit_s):
            trees = await trace_block(
                chain, "0x" + bytes(block["block_hash"]).hex(), int(block["tx_count"])
            )
    except (CausewayError, RecursionError) as error:
        log.info("block_not_traced", block=block["block_number"], reason=str(error)[:200])
        return None
    found: dict[int, Frame] = {}
    for failure in failures:
        tree = trees[failure.index]
        if tree is None or tree.error is None:
            return None
        found[failure.index] = tree
    return found


async def one(ctx: MobsContext, failure: Failure, *, may_trace: bool = True) -> None:
    """Explain one transaction and write down what was found; try again later when it cannot be."""
    chain, decoder = ctx.chains[CHAIN], ctx.services.watched.decoder
    tree: Frame | None = None
    state = "unsupported"
    limit_s = ctx.settings.rpc_timeout_trace
    try:
        if may_trace:
            try:
                async with _limited(limit_s):
                    tree = await trace(chain, failure.hexed)
                if tree.error is None:
                    raise ChainBehind("the trace is of a transaction that did not fail")
                state = "done"
            except NotOffered:
                await _untraceable(ctx)
            except Unreadable:
                state = "failed"
        if tree is not None:
            reason = explain(tree, decoder)
        else:
            async with _limited(limit_s):
                reason = await replay(chain, failure.hexed, failure.number, decoder)
    except (TransientError, RpcError) as error:
        await _later(ctx, failure, error.message)
        return
    await _done(ctx, failure, tree, reason, state)


async def _untraceable(ctx: MobsContext) -> None:
    """Nobody traces: leave it for a while, unless a probe finds that somebody does again."""
    ctx.services.untraceable_until = ctx.clock.monotonic() + _UNTRACEABLE_S
    ctx.services.untraceable_since = int(ctx.clock.now().timestamp())
    async with ctx.database.transaction() as session:
        await recheck(session)


async def _done(
    ctx: MobsContext, failure: Failure, tree: Frame | None, reason: Reason, state: str
) -> None:
    _EXPLAINED.labels(reason.source).inc()
    async with ctx.database.transaction() as session:
        await _write(session, failure, tree, reason, state)


async def _write(
    session: AsyncSession, failure: Failure, tree: Frame | None, reason: Reason, state: str
) -> None:
    there = await session.scalar(
        text(
            "UPDATE mobs.txs SET error_raw = :raw, error_signature = :signature, "
            "error_decoded = :decoded, error_params = CAST(:params AS jsonb), "
            "error_candidates = CAST(:candidates AS jsonb), error_source = :source, "
            "error_origin = CAST(:origin AS jsonb), trace_state = :state, has_trace = :traced "
            "WHERE status = 0 AND block_timestamp = :timestamp AND block_number = :number "
            "AND tx_index = :index AND hash = :hash RETURNING 1"
        ),
        failure.key
        | {
            "raw": reason.data,
            "signature": reason.decoded.signature,
            "decoded": reason.decoded.text,
            "params": _json(reason.decoded.params),
            "candidates": _json(list(reason.decoded.candidates) or None),
            "source": reason.source,
            "origin": _json(reason.origin),
            "state": state,
            "traced": tree is not None,
        },
    )
    await _dequeue(session, failure)
    if there is None:
        return  # a reorg took it away meanwhile
    await mark_dirty(session, [failure.timestamp])
    if tree is not None:
        packed, truncated = pack(tree)
        depth, calls = shape(tree)
        await session.execute(
            text(
                "INSERT INTO mobs.tx_traces (block_timestamp, block_number, tx_index, trace_type, "
                "trace_json, truncated, depth_max, call_count) VALUES (:timestamp, :number, "
                ":index, 'callTracer', :packed, :truncated, :depth, :calls) ON CONFLICT "
                "(block_timestamp, block_number, tx_index, trace_type) DO UPDATE SET "
                "trace_json = excluded.trace_json, truncated = excluded.truncated, "
                "depth_max = excluded.depth_max, call_count = excluded.call_count"
            ),
            failure.key
            | {"packed": packed, "truncated": truncated, "depth": depth, "calls": calls},
        )


async def _later(ctx: MobsContext, failure: Failure, why: str) -> None:
    """Try again after a while, as often as is configured."""
    attempts = failure.attempts + 1
    async with ctx.database.transaction() as session:
        if attempts < ctx.settings.max_retries:
            wait_s = round(ctx.settings.backoff_base**attempts)
            await session.execute(
                text(
                    "UPDATE mobs.trace_queue SET attempts = :attempts, next_at = "
                    "extract(epoch FROM clock_timestamp())::bigint + :wait "
                    "WHERE block_number = :number AND tx_index = :index AND hash = :hash"
                ),
                failure.key | {"attempts": attempts, "wait": wait_s},
            )
            return
        log.warning("failure_not_explained", transaction=failure.hexed, reason=why)
        _EXPLAINED.labels("failed").inc()
        await session.execute(
            text(
                "UPDATE mobs.txs SET trace_state = 'failed' WHERE status = 0 AND hash = :hash AND "
                "block_timestamp = :timestamp AND block_number = :number AND tx_index = :index"
            ),
            failure.key,
        )
        await _dequeue(session, failure)


async def _dequeue(session: AsyncSession, failure: Failure) -> None:
    await session.execute(
        text(
            "DELETE FROM mobs.trace_queue "
            "WHERE block_number = :number AND tx_index = :index AND hash = :hash"
        ),
        failure.key,
    )


async def _shed(session: AsyncSession, most: int) -> int:
    """Mark what is over the queue's size as skipped; return how many wait.

    What somebody asked for stays.
    """
    over: Sequence[Any] = (
        await session.execute(
            text(
                "DELETE FROM mobs.trace_queue WHERE (block_number, tx_index) IN (SELECT "
                "block_number, tx_index FROM mobs.trace_queue WHERE priority >= 0 "
                "ORDER BY priority, block_number DESC, tx_index OFFSET :most) "
                "RETURNING block_number, tx_index, block_timestamp"
            ),
            {"most": most},
        )
    ).all()
    if over:
        await session.execute(
            text(
                "UPDATE mobs.txs AS t SET trace_state = 'skipped' FROM unnest("
                "CAST(:numbers AS bigint[]), CAST(:places AS integer[]), CAST(:times AS bigint[])) "
                "AS o (number, place, at) WHERE t.status = 0 AND t.block_timestamp = o.at "
                "AND t.block_number = o.number AND t.tx_index = o.place"
            ),
            {
                "numbers": [number for number, _, _ in over],
                "places": [place for _, place, _ in over],
                "times": [at for _, _, at in over],
            },
        )
    return int(await session.scalar(text("SELECT count(*) FROM mobs.trace_queue")) or 0)


async def request(session: AsyncSession, tx_hash: bytes) -> bool:
    """Have a failed transaction looked into before all others; False when there is none."""
    queued = await session.scalar(
        text(
            "WITH wanted AS (UPDATE mobs.txs SET trace_state = 'queued' "
            "WHERE hash = :hash AND status = 0 RETURNING *) "
            "INSERT INTO mobs.trace_queue (block_number, tx_index, block_timestamp, hash, priority)"
            " SELECT block_number, tx_index, block_timestamp, hash, -1 FROM wanted "
            "ON CONFLICT (block_number, tx_index) DO UPDATE SET priority = -1, attempts = 0, "
            "next_at = 0 RETURNING 1"
        ),
        {"hash": tx_hash},
    )
    return queued is not None


def _json(value: Any) -> str | None:
    return None if value is None else orjson.dumps(value).decode()
