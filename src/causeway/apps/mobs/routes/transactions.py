"""Transactions: lists by cursor, and one with everything that is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import Depends, Path, Query, Response
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.mobs import bounded, pages, totals, tracing
from causeway.apps.mobs.answers import large
from causeway.apps.mobs.context import Ctx, MobsContext, admin_only, reading
from causeway.apps.mobs.packing import unpack
from causeway.apps.mobs.queries import At, Id
from causeway.apps.mobs.units import gwei, hexed, native
from causeway.base.errors import Conflict, NotFound

router = bounded.router("transactions")
Admin = Depends(admin_only)

Sort = Literal["time_desc", "time_asc", "gas_desc"]
Hash = Annotated[str, Path(pattern=r"^0[xX][0-9a-fA-F]{64}$")]
#: Counted at most; beyond, an estimate is shown.
COUNTED = 10_000

_KEY = "block_timestamp, block_number, tx_index"


def _bytes(value: str) -> bytes:
    return bytes.fromhex(value[2:])


class _Question:
    """The filters of a list, as SQL. The names are ours, the values are bound."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.values: dict[str, Any] = {}
        #: Whether anything but time and status is asked for.
        self.narrow = False
        #: One of these has to be true; each is asked as a question of its own, served by its index.
        self.ways: list[str] = []

    def add(self, part: str, *, narrow: bool = True, **values: Any) -> None:
        self.parts.append(part)
        self.values |= values
        self.narrow = self.narrow or narrow

    def either(self, ways: Sequence[str], **values: Any) -> None:
        """Ask that one of these be true."""
        self.values |= values
        self.narrow = True
        if self.ways:
            self.parts.append(f"({' OR '.join(ways)})")
        else:
            self.ways = list(ways)

    @property
    def where(self) -> str:
        """All of it."""
        ways = [f"({' OR '.join(self.ways)})"] if self.ways else []
        return " AND ".join([*self.parts, *ways])

    @property
    def each_way(self) -> list[str]:
        """It, once for each way."""
        return [" AND ".join([*self.parts, one]) for one in self.ways] or [self.where]


@router.get("/txs")
async def transaction_list(
    ctx: Ctx,
    status: Literal["all", "success", "failed"] = "all",
    contract_id: Id = None,
    address: Annotated[str | None, Query(pattern=r"^0[xX][0-9a-fA-F]{40}$")] = None,
    start_ts: At = None,
    end_ts: At = None,
    error_signature: Annotated[str | None, Query(pattern=r"^0[xX][0-9a-fA-F]{8}$")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    cursor: str | None = None,
    sort: Sort = "time_desc",
    method_id: Annotated[str | None, Query(pattern=r"^0[xX][0-9a-fA-F]{8}$")] = None,
    q: Annotated[str | None, Query(pattern=r"^0[xX][0-9a-fA-F]{4,64}$")] = None,
    include_system: bool = False,
) -> Response:
    """List transactions; `next_cursor` continues where the page ends, at the same price.

    Those the chain itself makes are left out unless asked for, by flag, address or hash.
    """
    now = int(ctx.clock.now().timestamp())
    applied = {
        "status": status,
        "contract_id": contract_id,
        "address": None if address is None else address.lower(),
        "start_ts": start_ts,
        "end_ts": end_ts,
        "error_signature": None if error_signature is None else error_signature.lower(),
    }
    system = include_system or address is not None or q is not None
    bound = applied | {"sort": sort, "method_id": method_id, "q": q, "system": system}
    after = None if cursor is None else pages.decode(cursor, bound)
    since = now - 86_400 if start_ts is None else start_ts
    if after is not None:
        since = after.since
    question = _question(applied | {"method_id": method_id, "q": q, "system": system}, since)
    async with reading(ctx) as session:
        until = 2**62 if end_ts is None else end_ts
        total, exact = None, True
        if not question.narrow:
            total = await totals.by_time(session, status, since, until, system=system)
        if error_signature is None and method_id is None and q is None:
            await _plan_once(session)
        rows = await _page(session, question, sort, after, limit + 1)
        if total is None:
            total, exact = await _counted(session, question)
    more = len(rows) > limit
    rows = rows[:limit]
    next_cursor = None
    if more:
        last = rows[-1]
        place = pages.Place(
            last["block_timestamp"],
            last["block_number"],
            last["tx_index"],
            since,
            int(last["total_fee"]) if sort == "gas_desc" else None,
        )
        next_cursor = pages.encode(place, bound)
    return large(
        {
            "transactions": [_listed(row) for row in rows],
            "pagination": {
                "total": total,
                "total_exact": exact,
                "has_more": more,
                "next_cursor": next_cursor,
            },
            "filters_applied": applied | {"start_ts": since},
        }
    )


async def _plan_once(session: AsyncSession) -> None:
    """Have statements planned once, for any values.

    Over sixty days of two tables planning takes ten times as long as a page. Left to itself
    where one value may be in every row and another in none: methods, errors, beginnings of hashes.
    """
    await session.execute(text("SELECT set_config('plan_cache_mode', 'force_generic_plan', true)"))


def _question(asked: dict[str, Any], since: int) -> _Question:
    question = _Question()
    question.add("block_timestamp >= :since", narrow=False, since=since)
    if asked["end_ts"] is not None:
        question.add("block_timestamp <= :until", narrow=False, until=asked["end_ts"])
    if asked["status"] != "all":
        question.add("status = :status", narrow=False, status=int(asked["status"] == "success"))
    if not asked["system"]:
        question.add("NOT is_system", narrow=False)
    if asked["contract_id"] is not None:
        question.add("contract_id = :contract_id", contract_id=asked["contract_id"])
    if asked["error_signature"] is not None:
        question.add("error_signature = :signature", signature=_bytes(asked["error_signature"]))
    if asked["method_id"] is not None:
        question.add("method_id = :method", method=_bytes(asked["method_id"]))
    if asked["address"] is not None:
        question.either(_PARTS, address=_bytes(asked["address"]))
    if asked["q"] is not None:
        _search(question, asked["q"][2:].lower())
    return question


def _search(question: _Question, digits: str) -> None:
    """Look for a hash or an address, whole or by its beginning."""
    low, high = digits.ljust(64, "0"), digits.ljust(64, "f")
    values = {"hash_low": bytes.fromhex(low), "hash_high": bytes.fromhex(high)}
    parts = ["hash BETWEEN :hash_low AND :hash_high"]
    if len(digits) <= 40:
        values |= {"low": bytes.fromhex(low[:40]), "high": bytes.fromhex(high[:40])}
        for column in ("from_address", "to_address", "created_contract"):
            parts.append(f"{column} BETWEEN :low AND :high")
    question.either(parts, **values)


#: Each way an address can take part.
_PARTS = ("from_address = :address", "to_address = :address", "created_contract = :address")


async def _page(
    session: AsyncSession, question: _Question, sort: Sort, after: pages.Place | None, limit: int
) -> list[dict[str, Any]]:
    values = question.values | {"limit": limit}
    key = f"total_fee, {_KEY}" if sort == "gas_desc" else _KEY
    direction = "ASC" if sort == "time_asc" else "DESC"
    more = ""
    if after is not None:
        sign = ">" if sort == "time_asc" else "<"
        bound = ":after_ts, :after_number, :after_index"
        values |= {
            "after_ts": after.timestamp,
            "after_number": after.number,
            "after_index": after.index,
        }
        if sort == "gas_desc":
            bound = f":after_fee, {bound}"
            values["after_fee"] = after.fee or 0
        else:  # the planner leaves out whole days by this
            more = f" AND block_timestamp {sign}= :after_ts"
        more += f" AND ({key}) {sign} ({bound})"
    order = ", ".join(f"{column.strip()} {direction}" for column in key.split(","))
    columns = (
        f"{_KEY}, status, hash, from_address, to_address, contract_id, value_wei, gas_used, "
        "gas_price, total_fee, error_decoded, error_signature, method_name, method_id, "
        "is_tentative, tx_type"
    )
    pages_of_ways = [
        f"(SELECT {columns} FROM mobs.txs WHERE {where}{more} ORDER BY {order} LIMIT :limit)"
        for where in question.each_way
    ]
    statement = pages_of_ways[0]
    if len(pages_of_ways) > 1:
        several = " UNION ".join(pages_of_ways)
        statement = f"SELECT * FROM ({several}) AS t ORDER BY {order} LIMIT :limit"
    rows = await session.execute(
        text(
            f"SELECT t.*, c.name AS contract_name FROM ({statement}) AS t "
            f"LEFT JOIN mobs.contracts AS c ON c.id = t.contract_id ORDER BY {order}"
        ),
        values,
    )
    return [{str(k): v for k, v in row.items()} for row in rows.mappings()]


async def _counted(session: AsyncSession, question: _Question) -> tuple[int, bool]:
    """Return how many there are, counted up to a bound, and whether those are all."""
    count = int(
        await session.scalar(
            text(
                f"SELECT count(*) FROM (SELECT 1 FROM mobs.txs WHERE {question.where} "
                "LIMIT :most) AS t"
            ),
            question.values | {"most": COUNTED + 1},
        )
        or 0
    )
    return (count, True) if count <= COUNTED else (COUNTED, False)


def _listed(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "hash": hexed(row["hash"]),
        "block_number": row["block_number"],
        "block_timestamp": row["block_timestamp"],
        "from_address": hexed(row["from_address"]),
        "to_address": hexed(row["to_address"]),
        "contract_name": row["contract_name"],
        "value_eth": native(int(row["value_wei"])),
        "value_wei": str(int(row["value_wei"])),
        "gas_used": row["gas_used"],
        "gas_price_gwei": gwei(int(row["gas_price"])),
        "fee_wei": str(int(row["total_fee"])),
        "status": "success" if row["status"] else "failed",
        "error_decoded": row["error_decoded"],
        "error_signature": hexed(row["error_signature"]),
        "method_name": row["method_name"],
        "method_id": hexed(row["method_id"]),
        "is_tentative": row["is_tentative"],
        "tx_type": row["tx_type"],
    }


@router.get("/txs/{tx_hash}")
async def transaction(ctx: Ctx, tx_hash: Hash) -> dict[str, Any]:
    """Return one transaction with fee, error and call tree."""
    wanted = _bytes(tx_hash.lower())
    async with reading(ctx) as session:
        found = await session.execute(
            text(
                "SELECT t.*, c.name AS contract_name, c.address AS contract_address FROM mobs.txs "
                "AS t LEFT JOIN mobs.contracts AS c ON c.id = t.contract_id "
                "WHERE t.hash = :hash ORDER BY block_number DESC LIMIT 1"
            ),
            {"hash": wanted},
        )
        row = found.mappings().first()
        if row is None:
            raise NotFound(await _why_not(session, tx_hash, wanted))
        tx = {str(k): v for k, v in row.items()}
        trace = None
        if tx["has_trace"]:
            traced = await session.execute(
                text(
                    "SELECT * FROM mobs.tx_traces WHERE block_timestamp = :timestamp "
                    "AND block_number = :number AND tx_index = :index"
                ),
                {
                    "timestamp": tx["block_timestamp"],
                    "number": tx["block_number"],
                    "index": tx["tx_index"],
                },
            )
            trace = traced.mappings().first()
        heads = (
            await session.execute(
                text("SELECT number, final_number FROM causeway.checkpoints WHERE source = 'mobs'")
            )
        ).first()
    return {
        "transaction": _detail(tx, heads),
        "trace": None
        if trace is None
        else {
            "type": trace["trace_type"],
            "depth_max": trace["depth_max"],
            "call_count": trace["call_count"],
            "truncated": trace["truncated"],
            "calls": unpack(bytes(trace["trace_json"])),
        },
        "links": {"explorer": _explorer(ctx, tx_hash)},
    }


def _explorer(ctx: MobsContext, tx_hash: str) -> str:
    return f"{ctx.settings.explorer_url.rstrip('/')}/tx/{tx_hash.lower()}"


@router.post("/txs/{tx_hash}/trace", dependencies=[Admin])
async def transaction_trace(ctx: Ctx, tx_hash: Hash) -> dict[str, Any]:
    """Have it found out, before all others, why a failed transaction failed."""
    wanted = _bytes(tx_hash.lower())
    async with ctx.database.transaction() as session:
        if not await tracing.request(session, wanted):
            status = await session.scalar(
                text("SELECT status FROM mobs.txs WHERE hash = :hash LIMIT 1"), {"hash": wanted}
            )
            if status is None:
                raise NotFound(await _why_not(session, tx_hash, wanted))
            raise Conflict(f"transaction {tx_hash.lower()} did not fail")
    return {"trace_state": "queued"}


async def _why_not(session: AsyncSession, shown: str, wanted: bytes) -> str:
    """Say why a transaction is not there: never seen, or taken away by a reorg."""
    gone = (
        await session.execute(
            text("SELECT reorg_id, block_number FROM mobs.removed_txs WHERE hash = :hash"),
            {"hash": wanted},
        )
    ).first()
    if gone is None:
        return f"there is no transaction {shown.lower()}"
    return (
        f"transaction {shown.lower()} was in block {gone[1]}, "
        f"which reorg {gone[0]} took from the chain"
    )


def _detail(tx: dict[str, Any], heads: Any) -> dict[str, Any]:
    number = tx["block_number"]
    head, final = (heads[0], heads[1]) if heads is not None else (number, -1)
    finality = "finalized" if number <= final else "tentative" if tx["is_tentative"] else "safe"
    contract = None
    if tx["contract_id"] is not None:
        contract = {
            "id": tx["contract_id"],
            "name": tx["contract_name"],
            "address": hexed(tx["contract_address"]),
        }
    l2 = int(tx["gas_used"]) * int(tx["gas_price"])
    return _listed(tx) | {
        "gas_limit": tx["gas_limit"],
        "gas_price_wei": str(int(tx["gas_price"])),
        "has_trace": tx["has_trace"],
        "contract": contract,
        "error": _error(tx) if tx["status"] == 0 else None,
        "tx_index": tx["tx_index"],
        "nonce": tx["nonce"],
        "is_system": tx["is_system"],
        "input": hexed(tx["input_head"]),
        "input_truncated": tx["input_size"] > len(tx["input_head"]),
        "max_fee_per_gas": _wei(tx["max_fee_per_gas"]),
        "max_priority_fee_per_gas": _wei(tx["max_priority_fee_per_gas"]),
        "fee": {
            "l2_wei": str(l2),
            "l1_wei": _wei(tx["l1_fee"]),
            "operator_wei": _wei(tx["operator_fee"]),
            "total_wei": str(int(tx["total_fee"])),
        },
        "created_contract": hexed(tx["created_contract"]),
        "confirmations": max(0, head - number) + 1,
        "finality": finality,
    }


def _wei(value: Any) -> str | None:
    return None if value is None else str(int(value))


def _error(tx: dict[str, Any]) -> dict[str, Any]:
    return {
        "raw": hexed(tx["error_raw"]),
        "signature": hexed(tx["error_signature"]),
        "decoded": tx["error_decoded"],
        "params": tx["error_params"],
        "source": tx["error_source"] or "none",
        "origin": tx["error_origin"],
        "candidates": tx["error_candidates"] or [],
        "trace_state": tx["trace_state"],
    }
