"""The providers that are watched: from the settings into `rpc_endpoints`, and into the pool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.mobs.capabilities import METHODS
from causeway.apps.mobs.context import CHAIN, MobsContext
from causeway.apps.mobs.urls import digest, keyless, masked
from causeway.base.errors import Conflict, NotFound
from causeway.chains.endpoint import Endpoint, SecretUrl

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Provider:
    """A provider and how to reach it."""

    id: int
    name: str
    url: str
    row: dict[str, Any]


async def merge(session: AsyncSession, ctx: MobsContext) -> None:
    """Put the configured providers among the known ones; others stay, and are told of."""
    given = [one.get_secret_value() for one in ctx.settings.mantle_rpc_endpoints]
    given = [url for url in given if not url.startswith(("ws://", "wss://"))]
    for number, url in enumerate(given):
        host = (urlsplit(url).hostname or "provider")[:40]
        await session.execute(
            text(
                "INSERT INTO mobs.rpc_endpoints (name, url, url_sha256, chain_id, priority) "
                "SELECT :name, :url, :digest, :chain, :priority WHERE NOT EXISTS "
                "(SELECT FROM mobs.rpc_endpoints WHERE url_sha256 = :digest)"
                "ON CONFLICT DO NOTHING"
            ),
            {
                "name": f"{host}-{digest(url).hex()[:6]}",
                "url": masked(url)[:256],
                "digest": digest(url),
                "chain": ctx.settings.chain_id,
                "priority": number,
            },
        )


async def known(session: AsyncSession, ctx: MobsContext) -> list[Provider]:
    """Return the active providers that can be reached, with what is stored of them.

    The address of one with a key in it is in the settings only; one that is no longer there
    cannot be asked.
    """
    given = {
        digest(one.get_secret_value()): one.get_secret_value()
        for one in ctx.settings.mantle_rpc_endpoints
    }
    rows = (
        (
            await session.execute(
                text("SELECT * FROM mobs.rpc_endpoints WHERE is_active ORDER BY priority, id")
            )
        )
        .mappings()
        .all()
    )
    found: list[Provider] = []
    for row in rows:
        url = given.get(bytes(row["url_sha256"]))
        if url is None and digest(row["url"]) == bytes(row["url_sha256"]):
            url = str(row["url"])
        if url is None:
            if row["id"] not in ctx.services.unconfigured:
                ctx.services.unconfigured.add(row["id"])
                log.warning("provider_not_configured", name=row["name"])
            continue
        found.append(Provider(row["id"], row["name"], url, dict(row)))
    return found


async def add(session: AsyncSession, name: str, url: str, chain_id: int) -> dict[str, Any]:
    """Have a provider watched; return its row.

    Raises `InvalidInput` for an address with a key in it, `Conflict` for a name or address that is
    there already.
    """
    found = await session.execute(
        text(
            "INSERT INTO mobs.rpc_endpoints (name, url, url_sha256, chain_id, priority) "
            "VALUES (:name, :url, :digest, :chain, 100) ON CONFLICT DO NOTHING RETURNING *"
        ),
        {"name": name, "url": keyless(url), "digest": digest(url), "chain": chain_id},
    )
    row = found.mappings().first()
    if row is None:
        raise Conflict("there is a provider with this name or this address already")
    return {str(key): value for key, value in row.items()}


async def remove(session: AsyncSession, name: str) -> None:
    """Remove the provider with this name or number and its samples; `NotFound` without one."""
    gone = await session.scalar(
        text("DELETE FROM mobs.rpc_endpoints WHERE name = :name OR id::text = :name RETURNING id"),
        {"name": name},
    )
    if gone is None:
        raise NotFound(f"there is no provider {name}")


def arrange(ctx: MobsContext, providers: list[Provider]) -> None:
    """Have the chain read from the best providers first, and never from quarantined ones."""
    pool = ctx.chains[CHAIN].pool
    usable = [one for one in providers if not one.row["quarantined"]]
    ranks = {"healthy": 0, "degraded": 1, "unhealthy": 2}
    usable.sort(key=lambda one: (ranks[one.row["status"]], -one.row["score"], one.row["priority"]))
    if not usable:
        return
    pool.arrange([Endpoint(SecretUrl(one.url), one.name) for one in usable])
    by_url = {SecretUrl(one.url): one for one in usable}
    for endpoint in pool.endpoints:
        for name, method in METHODS.items():
            if by_url[endpoint.url].row["capabilities"].get(name):
                endpoint.lacks.pop(method, None)  # it did not offer it once, and does now
