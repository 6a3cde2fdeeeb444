"""Watched contracts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any

import orjson
from eth_utils.address import to_checksum_address
from fastapi import Depends, Query, Response
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from causeway.apps.mobs import bounded
from causeway.apps.mobs.abis import check_abi
from causeway.apps.mobs.alerts.rules import wrong
from causeway.apps.mobs.answers import large
from causeway.apps.mobs.context import Ctx, admin_only, reading
from causeway.apps.mobs.schemas import ContractChange, NewContract
from causeway.base.errors import Conflict, NotFound, PermanentError

router = bounded.router("contracts")
Admin = Depends(admin_only)

#: Columns that are shown; an ABI can be long.
_SHOWN = (
    "id, address, name, tags, abi_json IS NOT NULL AS has_abi, is_watched, backfill, created_at"
)


class WrongAddress(PermanentError):
    """It is no address, or its checksum is another."""


def address_of(given: str) -> bytes:
    """Return an address as bytes; `WrongAddress` names the right one for a bad checksum."""
    try:
        right = str(to_checksum_address(given))
    except (ValueError, TypeError):
        raise WrongAddress(f"address is {given[:60]!r}; allowed is 0x and 40 hex digits.") from None
    digits = given[2:]
    mixed = digits not in (digits.lower(), digits.upper())
    if not given.startswith(("0x", "0X")) or (mixed and given != right):
        raise WrongAddress(
            f"address is {given}, whose checksum (EIP-55) is wrong; right is {right}."
        )
    return bytes.fromhex(right[2:])


@lru_cache(maxsize=100_000)
def checksummed(address: str) -> str:
    """Return an address as EIP-55 writes it; thousands of them are hashed once."""
    return str(to_checksum_address(address))


def contract_view(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a contract as clients know it."""
    address = "0x" + bytes(row["address"]).hex()
    return {
        "id": row["id"],
        "address": address,
        "name": row["name"],
        "tags": row["tags"],
        "has_abi": row["has_abi"],
        "is_watched": row["is_watched"],
        "created_at": row["created_at"],
        "address_checksum": checksummed(address),
        "tx_count_24h": int(row.get("tx_count", 0) or 0),
        "failed_count_24h": int(row.get("failed_count", 0) or 0),
        "backfill": row["backfill"],
    }


@router.get("/contracts")
async def contract_list(
    ctx: Ctx,
    tag: Annotated[str | None, Query(max_length=32, pattern=r"^[^\x00]*$")] = None,
    watched_only: bool = False,
) -> Response:
    """List the contracts, newest first."""
    since = int(ctx.clock.now().timestamp()) - 86_400
    async with reading(ctx) as session:
        rows = (
            (
                await session.execute(
                    text(
                        f"SELECT {_SHOWN}, m.tx_count, m.failed_count "
                        "FROM mobs.contracts AS c LEFT JOIN "
                        "(SELECT contract_id, sum(tx_count) AS tx_count, sum(tx_failed_count) AS "
                        "failed_count FROM mobs.metrics_minute_contract WHERE bucket_ts >= :since "
                        "GROUP BY contract_id) AS m ON m.contract_id = c.id "
                        "WHERE (CAST(:tag AS text) IS NULL "
                        "OR c.tags @> ARRAY[CAST(:tag AS varchar)]) "
                        "AND (c.is_watched OR NOT :watched) ORDER BY c.created_at DESC, c.id DESC"
                    ),
                    {"since": since, "tag": tag, "watched": watched_only},
                )
            )
            .mappings()
            .all()
        )
    return large({"contracts": [contract_view(row) for row in rows]})


@router.post("/contracts", dependencies=[Admin])
async def contract_add(ctx: Ctx, body: NewContract, response: Response) -> dict[str, Any]:
    """Watch a contract; what is stored of it already is labelled in the background."""
    address = address_of(body.address)
    if body.abi_json is not None:
        check_abi(body.abi_json)
    values = {
        "address": address,
        "name": body.name,
        "tags": list(body.tags),
        "abi": None if body.abi_json is None else orjson.dumps(body.abi_json).decode(),
    }
    try:
        async with ctx.database.transaction() as session:
            row = (
                (
                    await session.execute(
                        text(
                            "INSERT INTO mobs.contracts (address, name, tags, abi_json) VALUES "
                            f"(:address, :name, :tags, CAST(:abi AS jsonb)) RETURNING {_SHOWN}"
                        ),
                        values,
                    )
                )
                .mappings()
                .one()
            )
    except IntegrityError:
        async with ctx.database.sessions() as session:
            there = await session.scalar(
                text("SELECT id FROM mobs.contracts WHERE address = :address"), values
            )
        raise Conflict(f"contract {there} has this address already") from None
    response.headers["Location"] = f"/contracts/{row['id']}"
    return {"contract": contract_view(row)}


@router.patch("/contracts/{contract_id}", dependencies=[Admin])
async def contract_change(ctx: Ctx, contract_id: int, body: ContractChange) -> dict[str, Any]:
    """Change a contract; a new ABI decodes what is stored again."""
    changes = body.model_dump(exclude_unset=True)
    if not changes:
        raise PermanentError("no field to change is named")
    empty = [name for name, value in changes.items() if value is None and name != "abi_json"]
    if empty:
        raise wrong(empty[0], None, "a value; leave the field out to keep what is there")
    if changes.get("abi_json") is not None:
        check_abi(changes["abi_json"])
    if "abi_json" in changes:
        abi = changes["abi_json"]
        changes["abi_json"] = None if abi is None else orjson.dumps(abi).decode()
        changes["backfill"] = "pending"
    assigned = ", ".join(
        f"{n} = CAST(:{n} AS jsonb)" if n == "abi_json" else f"{n} = :{n}" for n in changes
    )
    async with ctx.database.transaction() as session:
        found = await session.execute(
            text(
                f"UPDATE mobs.contracts SET {assigned}, updated_at = "
                "greatest(updated_at + 1, extract(epoch FROM clock_timestamp())::bigint) "
                f"WHERE id = :id RETURNING {_SHOWN}"
            ),
            changes | {"id": contract_id},
        )
        row = found.mappings().first()
    if row is None:
        raise NotFound(f"there is no contract {contract_id}")
    return {"contract": contract_view(row)}


@router.delete("/contracts/{contract_id}", dependencies=[Admin])
async def contract_remove(ctx: Ctx, contract_id: int) -> dict[str, Any]:
    """Stop watching a contract for good; its transactions stay, without its name."""
    async with ctx.database.transaction() as session:
        gone = await session.scalar(
            text("DELETE FROM mobs.contracts WHERE id = :id RETURNING id"), {"id": contract_id}
        )
        if gone is None:
            raise NotFound(f"there is no contract {contract_id}")
        await session.execute(
            text("UPDATE mobs.txs SET contract_id = NULL WHERE contract_id = :id"),
            {"id": contract_id},
        )
        await session.execute(
            text(
                "UPDATE mobs.alerts SET contract_ids = array_remove(contract_ids, :id) "
                "WHERE :id = ANY(contract_ids)"
            ),
            {"id": contract_id},
        )
    return {"message": "Contract deleted"}
