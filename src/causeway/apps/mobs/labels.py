"""Names for what is stored already: a contract that is watched from now on labels its history.

Its transactions get its id, the names of its functions and its errors in words; so do failures that
other contracts passed on to their callers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.mobs.context import SOURCE, MobsContext
from causeway.apps.mobs.decoding import Decoder
from causeway.apps.mobs.scanner import mark_dirty
from causeway.apps.mobs.wire import raw

log = structlog.get_logger(__name__)

#: Transactions labelled in one transaction.
_AT_ONCE = 2000

#: What a contract may have a say in, each found by an index.
_OWN = ("to_address = :address", "created_contract = :address")
_PASSED_ON = "status = 0 AND error_signature = ANY(:selectors)"

_START: dict[str, Any] = {"timestamp": 0, "number": -1, "index": -1}


async def label(ctx: MobsContext) -> None:
    """Give stored transactions the names that contracts added or changed lately bring."""
    async with ctx.database.sessions() as session:
        pending = (
            await session.execute(
                text(
                    "SELECT id, address, xmin::text AS version FROM mobs.contracts "
                    "WHERE backfill = 'pending' ORDER BY id"
                )
            )
        ).all()
    for contract_id, address, version in pending:
        await _label(ctx, contract_id, bytes(address), version)


async def _label(ctx: MobsContext, contract_id: int, address: bytes, version: str) -> None:
    watched = ctx.services.watched
    async with ctx.database.transaction() as session:
        # Blocks that are being written now may not know of the contract: they are waited for, and
        # later ones look anew.
        await session.execute(
            text("SELECT 1 FROM causeway.checkpoints WHERE source = :source FOR SHARE"),
            {"source": SOURCE},
        )
        watched.forget()
        await watched.refresh(session)
    decoder, count = watched.decoder, 0
    own = watched.by_address.get(address)
    for condition in (*_OWN, _PASSED_ON):
        place: Mapping[str, Any] | None = _START
        values: dict[str, Any] = {"address": address}
        changes: dict[str, Any] = {"contract": own}
        if condition == _PASSED_ON:
            values, changes = {"selectors": decoder.selectors_of(address)}, {}
            if not values["selectors"]:
                continue
        while place is not None:
            async with ctx.database.transaction() as session:
                place, some = await _some(session, decoder, condition, values, changes, place)
            count += some
    async with ctx.database.transaction() as session:
        await session.execute(
            text(
                "UPDATE mobs.contracts SET backfill = 'done' "
                "WHERE id = :id AND xmin::text = :version"
            ),
            {"id": contract_id, "version": version},
        )
    log.info("contract_labelled", contract=contract_id, transactions=count)


async def _some(
    session: AsyncSession,
    decoder: Decoder,
    condition: str,
    values: Mapping[str, Any],
    changes: Mapping[str, Any],
    after: Mapping[str, Any],
) -> tuple[Mapping[str, Any] | None, int]:
    """Label transactions after a place; return the last one's place, None at the end."""
    found = await session.execute(
        text(
            "SELECT status, block_timestamp, block_number, tx_index, to_address, contract_id, "
            "method_id, method_name, input_head, input_size, error_raw, error_origin, "
            f"created_contract FROM mobs.txs WHERE {condition} AND "
            "(block_timestamp, block_number, tx_index) > (:timestamp, :number, :index) "
            "ORDER BY block_timestamp, block_number, tx_index LIMIT :most"
        ),
        {**values, **after, "most": _AT_ONCE},
    )
    rows = found.mappings().all()
    if not rows:
        return None, 0
    labelled = [_labelled(row, decoder) | dict(changes) for row in rows]
    await session.execute(
        text(
            "UPDATE mobs.txs SET method_name = :method"
            + (", contract_id = :contract" if changes else "")
            + " WHERE status = :status AND block_timestamp = :timestamp "
            "AND block_number = :number AND tx_index = :index"
        ),
        labelled,
    )
    failed = [one for one in labelled if one["decoded"] is not None]
    if failed:
        await session.execute(
            text(
                "UPDATE mobs.txs SET error_decoded = :decoded, "
                "error_params = CAST(:params AS jsonb), "
                "error_candidates = CAST(:candidates AS jsonb) WHERE status = :status "
                "AND block_timestamp = :timestamp AND block_number = :number AND tx_index = :index"
            ),
            failed,
        )
    await mark_dirty(session, [one["timestamp"] for one in labelled])
    last = labelled[-1]
    return {name: last[name] for name in _START}, len(labelled)


def _labelled(row: Mapping[Any, Any], decoder: Decoder) -> dict[str, Any]:
    to = None if row["to_address"] is None else bytes(row["to_address"])
    method = row["method_name"]
    if row["method_id"] is not None:
        whole = row["input_size"] == len(row["input_head"])
        called = bytes(row["input_head"] if whole else row["method_id"])
        method = decoder.method(called, to) or method
    decoded = None
    if row["status"] == 0 and row["error_raw"] is not None:
        origin: Mapping[str, Any] = row["error_origin"] or {}
        decoded = decoder.error(bytes(row["error_raw"]), raw(origin.get("address")), to)
    return {
        "status": row["status"],
        "timestamp": row["block_timestamp"],
        "number": row["block_number"],
        "index": row["tx_index"],
        "method": method,
        "decoded": None if decoded is None else decoded.text,
        "params": None if decoded is None else _json(decoded.params),
        "candidates": None if decoded is None else _json(decoded.candidates),
    }


def _json(value: Mapping[str, Any] | Sequence[str] | None) -> str | None:
    return orjson.dumps(value).decode() if value else None
