"""What is to be told to whom: written down with the transition, sent afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import orjson
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.mobs.alerts.rules import OF_PROVIDERS

#: Rules about the index and the providers speak even when nothing else can be believed.
_ALWAYS = ("provider_down",)


@dataclass(frozen=True)
class Notice:
    """A transition of a series, for people."""

    #: `firing`, `repeat`, `resolved`, `retracted` or `test`.
    kind: str
    series: str
    value: Any
    episode: int
    now: int
    context: Mapping[str, Any]
    #: When the episode began.
    since: int


def plain(value: Any) -> str | None:
    """Return a number as text without an exponent."""
    if value is None:
        return None
    shown = f"{Decimal(value):f}"
    return shown.rstrip("0").rstrip(".") if "." in shown else shown


def body(rule: Mapping[str, Any], notice: Notice, key: str) -> dict[str, Any]:
    """Return the notification as it goes over the wire."""
    kind, _, number = notice.series.partition(":")
    series = {f"{kind}_id": int(number)} if number else {}
    return {
        "version": 1,
        "idempotency_key": key,
        "kind": notice.kind,
        "alert": {"id": rule["id"], "name": rule["name"], "severity": rule["severity"]},
        "series": series,
        "value": plain(notice.value),
        "threshold": plain(rule["threshold"]),
        "window": notice.context.get("window", {}),
        "since": notice.since,
        "evidence": list(notice.context.get("evidence", ())),
        "links": {"console": f"/alerts/{rule['id']}"},
    }


async def file_notices(session: AsyncSession, rule: Mapping[str, Any], notice: Notice) -> None:
    """Write one notification for each channel of the rule; silenced ones say so."""
    key = f"alert-{rule['id']}:episode-{notice.episode}:{notice.kind}"
    if notice.kind in ("repeat", "test"):
        key += f":{notice.now}"
    why = await suppressed(session, rule, notice)
    for number, channel in enumerate(rule["channels"] or ()):
        await session.execute(
            text(
                "INSERT INTO mobs.notifications (idempotency_key, alert_id, channel, body, state, "
                "reason, created_at, next_at) VALUES (:unique, :alert, CAST(:channel AS jsonb), "
                "CAST(:body AS jsonb), :state, :why, :now, :now) ON CONFLICT DO NOTHING"
            ),
            {
                "unique": f"{key}#{number}",
                "alert": rule["id"],
                "channel": orjson.dumps(channel).decode(),
                "body": orjson.dumps(body(rule, notice, key)).decode(),
                "state": "waiting" if why is None else "suppressed",
                "why": why,
                "now": notice.now,
            },
        )


async def suppressed(session: AsyncSession, rule: Mapping[str, Any], notice: Notice) -> str | None:
    """Return why nobody is told; None when they are. The event stays in any case."""
    if notice.kind == "test":
        return None
    silences = await session.execute(
        text(
            "SELECT id, matchers, author FROM mobs.silences "
            "WHERE starts_at <= :now AND ends_at > :now"
        ),
        {"now": notice.now},
    )
    for number, matchers, author in silences:
        own = {
            "alert_id": rule["id"],
            "severity": rule["severity"],
            "alert_type": rule["alert_type"],
            "series": notice.series,
            "name": rule["name"],
        }
        if all(own.get(name) == wanted for name, wanted in matchers.items()):
            return f"silence {number} by {author}"
    if notice.kind in ("resolved", "retracted") and not await _was_told(session, rule, notice):
        return "nobody was told of its beginning"
    metric = rule["conditions"].get("metric")
    if rule["alert_type"] in _ALWAYS or metric in ("indexer_lag", *OF_PROVIDERS):
        return None
    return await _inhibited(session) if notice.kind in ("firing", "repeat") else None


async def _was_told(session: AsyncSession, rule: Mapping[str, Any], notice: Notice) -> bool:
    if not rule["channels"]:
        return True
    key = f"alert-{rule['id']}:episode-{notice.episode}:"
    return bool(
        await session.scalar(
            text(
                "SELECT EXISTS (SELECT FROM mobs.notifications WHERE alert_id = :id "
                "AND starts_with(idempotency_key, :key) AND state <> 'suppressed')"
            ),
            {"id": rule["id"], "key": key},
        )
    )


async def _inhibited(session: AsyncSession) -> str | None:
    """Say whether an alert about the index or all providers speaks for the others."""
    name = await session.scalar(
        text(
            "SELECT a.name FROM mobs.alerts AS a JOIN mobs.alert_states AS s ON s.alert_id = a.id "
            "WHERE s.state = 'firing' AND a.is_enabled AND a.conditions->>'metric' = 'indexer_lag' "
            "LIMIT 1"
        )
    )
    if name is not None:
        return f"inhibited by {name}"
    down = await session.scalar(
        text(
            "SELECT count(*) > 0 AND bool_and(status = 'unhealthy') "
            "FROM mobs.rpc_endpoints WHERE is_active"
        )
    )
    return "inhibited: no provider can be trusted" if down else None
