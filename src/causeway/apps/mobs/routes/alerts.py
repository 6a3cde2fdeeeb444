"""Alert rules: list, make, change, delete, try on history; acknowledge their events."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
import structlog
from fastapi import Depends, Query, Response
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.mobs import bounded
from causeway.apps.mobs.alerts import channels, rules
from causeway.apps.mobs.alerts.evaluator import end_episodes
from causeway.apps.mobs.alerts.notices import Notice, file_notices
from causeway.apps.mobs.alerts.preview import MOST_STEPS, STEP_S, preview
from causeway.apps.mobs.answers import large
from causeway.apps.mobs.context import Ctx, MobsContext, admin_only, reading
from causeway.apps.mobs.schemas import Acknowledgement, AlertChange, AlertTest, NewAlert
from causeway.base.errors import NotFound, PermanentError

log = structlog.get_logger(__name__)

router = bounded.router("alerts")
Admin = Depends(admin_only)

_WORST_FIRST = ("firing", "pending", "no_data", "inactive")


def number(value: Any) -> float | int | None:
    """Return an exact number as JSON's."""
    if value is None:
        return None
    exact = float(value)
    return int(exact) if exact.is_integer() and abs(exact) < 2**53 else exact


@router.get("/alerts")
async def alert_list(
    ctx: Ctx,
    include_events: bool = False,
    events_limit: Annotated[int, Query(ge=1, le=50)] = 10,
    enabled_only: bool = False,
) -> Response:
    """List the rules, newest first; one question for rules and one for events."""
    now = int(ctx.clock.now().timestamp())
    async with reading(ctx) as session:
        rows = (
            (
                await session.execute(
                    text(
                        "SELECT a.*, s.states, s.since FROM mobs.alerts AS a LEFT JOIN LATERAL "
                        "(SELECT array_agg(state) AS states, max(since) AS since FROM "
                        "mobs.alert_states WHERE alert_id = a.id) AS s ON true "
                        "WHERE a.is_enabled OR NOT :enabled ORDER BY a.created_at DESC, a.id DESC"
                    ),
                    {"enabled": enabled_only},
                )
            )
            .mappings()
            .all()
        )
        alerts = [alert_view({str(k): v for k, v in row.items()}) for row in rows]
        if include_events:
            await _with_events(session, alerts, events_limit)
        total, enabled, triggered = (
            await session.execute(
                text(
                    "SELECT count(*), count(*) FILTER (WHERE is_enabled), (SELECT count(DISTINCT "
                    "alert_id) FROM mobs.alert_events WHERE triggered_at > :since) FROM mobs.alerts"
                ),
                {"since": now - 86_400},
            )
        ).one()
    return large(
        {
            "alerts": alerts,
            "summary": {"total": total, "enabled": enabled, "triggered_24h": triggered},
        }
    )


#: An event as clients know it, made by the database: there may be thousands in an answer.
_EVENT = "json_build_object({})".format(
    ", ".join(
        [
            *(
                f"'{name}', e.{name}"
                for name in (
                    *("id", "triggered_at", "severity", "context", "acknowledged_at"),
                    *("acknowledged_by", "kind", "episode_id", "series", "resolved_at"),
                    "resolve_reason",
                )
            ),
            *(
                f"'{name}', trim_scale(e.{name})"
                for name in ("value_observed", "last_value", "threshold")
            ),
        ]
    )
)


async def _with_events(session: AsyncSession, alerts: list[dict[str, Any]], limit: int) -> None:
    rows = await session.execute(
        text(
            f"SELECT a.id, (SELECT json_agg({_EVENT})::text FROM (SELECT * FROM "
            "mobs.alert_events WHERE alert_id = a.id ORDER BY triggered_at DESC, id DESC "
            "LIMIT :limit) AS e) FROM unnest(CAST(:ids AS integer[])) AS a(id)"
        ),
        {"ids": [alert["id"] for alert in alerts], "limit": limit},
    )
    by_alert = {alert_id: events for alert_id, events in rows if events is not None}
    for alert in alerts:
        alert["events"] = orjson.Fragment(by_alert.get(alert["id"], "[]"))


def alert_view(row: dict[str, Any]) -> dict[str, Any]:
    """Return a rule as clients know it."""
    states: list[str] = row.get("states") or []
    state = next((one for one in _WORST_FIRST if one in states), "inactive")
    if row["last_error"]:
        state = "error"
    if not row["is_enabled"]:
        state = "disabled"
    return {
        **{
            name: row[name]
            for name in (
                *("id", "name", "description", "alert_type", "conditions", "window_minutes"),
                *("cooldown_minutes", "severity", "is_enabled", "contract_ids"),
                *("last_triggered_at", "created_at", "last_eval_at", "for_minutes", "no_data"),
            )
        },
        "channels": [channels.shown(one) for one in row["channels"]],
        "threshold": number(row["threshold"]),
        "state": state,
        "state_since": row.get("since"),
        "last_value": number(row["last_value"]),
        "last_error": row["last_error"],
    }


async def _check(session: AsyncSession, alert_type: str, rule: dict[str, Any]) -> None:
    """Raise `InvalidInput` unless the rule can be evaluated and its contracts are known."""
    rules.check(alert_type, rule["conditions"])
    ids: list[int] = list(rule["contract_ids"])
    known = set(
        await session.scalars(
            text("SELECT id FROM mobs.contracts WHERE id = ANY(:ids)"), {"ids": ids}
        )
    )
    unknown = [one for one in ids if one not in known]
    if unknown:
        raise rules.wrong("contract_ids", unknown[0], "ids of watched contracts")


@router.post("/alerts", dependencies=[Admin])
async def alert_make(ctx: Ctx, body: NewAlert, response: Response) -> dict[str, Any]:
    """Make a rule; the answer tells what it would have done in the last 24 hours."""
    rule = body.model_dump()
    rule["channels"] = channels.kept(rule["channels"], ())
    async with ctx.database.transaction() as session:
        await _check(session, body.alert_type, rule)
        made = (
            (
                await session.execute(
                    text(
                        "INSERT INTO mobs.alerts (name, description, alert_type, conditions, "
                        "threshold, window_minutes, cooldown_minutes, for_minutes, severity, "
                        "no_data, contract_ids, channels) VALUES (:name, :description, "
                        ":alert_type, CAST(:conditions AS jsonb), :threshold, :window_minutes, "
                        ":cooldown_minutes, :for_minutes, :severity, :no_data, :contract_ids, "
                        "CAST(:channels AS jsonb)) RETURNING *"
                    ),
                    rule
                    | {
                        "conditions": orjson.dumps(rule["conditions"]).decode(),
                        "channels": orjson.dumps(rule["channels"]).decode(),
                    },
                )
            )
            .mappings()
            .one()
        )
    would = await _preview(ctx, {str(k): v for k, v in made.items()})
    response.headers["Location"] = f"/alerts/{made['id']}"
    return {
        "alert": {
            "id": made["id"],
            "name": made["name"],
            "alert_type": made["alert_type"],
            "threshold": number(made["threshold"]),
            "is_enabled": made["is_enabled"],
            "created_at": made["created_at"],
            "state": "inactive",
        },
        "preview": would,
    }


async def _preview(ctx: MobsContext, rule: dict[str, Any]) -> dict[str, Any] | None:
    """Return what a rule would have done in 24 hours; None when that takes too long to tell."""
    now = int(ctx.clock.now().timestamp())
    try:
        async with reading(ctx) as session:
            found = await preview(
                session,
                rule,
                now - 86_400,
                now,
                step_s=5 * STEP_S,
                forks=ctx.settings.fork_times(),
            )
    except DBAPIError as error:
        # The rule is stored: an error here would have it made again.
        log.warning("no_preview", alert=rule["id"], error=error)
        return None
    shown = found.view()
    return {name: shown[name] for name in ("episodes", "minutes_firing")}


@router.post("/alerts/test", dependencies=[Admin])
async def alert_test(ctx: Ctx, body: AlertTest) -> dict[str, Any]:
    """Try a rule on history without storing it."""
    rule = body.model_dump(exclude={"start_ts", "end_ts"})
    if body.start_ts >= body.end_ts:
        raise rules.wrong("start_ts", body.start_ts, f"before end_ts ({body.end_ts})")
    if (body.end_ts - body.start_ts) // STEP_S > MOST_STEPS:
        raise rules.wrong("end_ts", body.end_ts, "at most 7 days after start_ts")
    async with reading(ctx) as session:
        await _check(session, body.alert_type, rule)
        found = await preview(
            session, rule, body.start_ts, body.end_ts, forks=ctx.settings.fork_times()
        )
    return {"preview": found.view()}


@router.patch("/alerts/{alert_id}", dependencies=[Admin])
async def alert_change(ctx: Ctx, alert_id: int, body: AlertChange) -> dict[str, Any]:
    """Change a rule; what is running of one that becomes another rule is resolved."""
    changes = body.model_dump(exclude_unset=True)
    nothing = [name for name, v in changes.items() if v is None and name != "description"]
    if nothing:
        raise rules.wrong(nothing[0], None, "a value; leave the field out to keep what is there")
    if not changes:
        raise PermanentError("no field to change is named")
    now = int(ctx.clock.now().timestamp())
    async with ctx.database.transaction() as session:
        found = await session.execute(
            text("SELECT * FROM mobs.alerts WHERE id = :id FOR UPDATE"), {"id": alert_id}
        )
        row = found.mappings().first()
        if row is None:
            raise NotFound(f"there is no alert {alert_id}")
        before = {str(k): v for k, v in row.items()}
        await _check(session, before["alert_type"], before | changes)
        if changes.get("is_enabled") is False:
            await end_episodes(session, before, now, "disabled")
        elif any(name in rules.ANOTHER_RULE and before[name] != v for name, v in changes.items()):
            await end_episodes(session, before, now, "rule_changed")
        if "channels" in changes:
            changes["channels"] = channels.kept(changes["channels"], before["channels"])
        for name in ("conditions", "channels"):
            if name in changes:
                changes[name] = orjson.dumps(changes[name]).decode()
        assigned = ", ".join(
            f"{name} = CAST(:{name} AS jsonb)"
            if name in ("conditions", "channels")
            else f"{name} = :{name}"
            for name in changes
        )
        after = (
            (
                await session.execute(
                    text(
                        f"UPDATE mobs.alerts SET {assigned}, updated_at = :now "
                        "WHERE id = :id RETURNING id, name, threshold, is_enabled, updated_at"
                    ),
                    changes | {"id": alert_id, "now": now},
                )
            )
            .mappings()
            .one()
        )
    return {
        "alert": {str(k): v for k, v in after.items()} | {"threshold": number(after["threshold"])}
    }


@router.delete("/alerts/{alert_id}", dependencies=[Admin])
async def alert_delete(ctx: Ctx, alert_id: int) -> dict[str, Any]:
    """Delete a rule and its events."""
    async with ctx.database.transaction() as session:
        gone = await session.scalar(
            text("DELETE FROM mobs.alerts WHERE id = :id RETURNING id"), {"id": alert_id}
        )
    if gone is None:
        raise NotFound(f"there is no alert {alert_id}")
    return {"message": "Alert deleted"}


@router.post("/alerts/{alert_id}/events/{event_id}/ack", dependencies=[Admin])
async def event_acknowledge(
    ctx: Ctx, alert_id: int, event_id: int, body: Acknowledgement
) -> dict[str, Any]:
    """Note who has seen an event; the first one stays."""
    now = int(ctx.clock.now().timestamp())
    async with ctx.database.transaction() as session:
        event = await session.scalar(
            text(
                "UPDATE mobs.alert_events AS e SET acknowledged_at = "
                "coalesce(acknowledged_at, :now), acknowledged_by = coalesce(acknowledged_by, :by) "
                f"WHERE id = :event AND alert_id = :alert RETURNING {_EVENT}"
            ),
            {"event": event_id, "alert": alert_id, "by": body.by, "now": now},
        )
    if event is None:
        raise NotFound(f"alert {alert_id} has no event {event_id}")
    return {"event": event}


@router.get("/alerts/{alert_id}/notifications")
async def notification_list(ctx: Ctx, alert_id: int) -> dict[str, Any]:
    """List the newest notifications of a rule and what became of them."""
    async with reading(ctx) as session:
        rows = (
            (
                await session.execute(
                    text(
                        "SELECT id, idempotency_key, channel->>'type' AS channel, body, state, "
                        "attempts, created_at, delivered_at, reason FROM mobs.notifications "
                        "WHERE alert_id = :id ORDER BY id DESC LIMIT 100"
                    ),
                    {"id": alert_id},
                )
            )
            .mappings()
            .all()
        )
    return {"notifications": [dict(row) for row in rows]}


@router.post("/alerts/{alert_id}/notifications", dependencies=[Admin])
async def notification_try(ctx: Ctx, alert_id: int) -> dict[str, Any]:
    """Send a notification of kind `test` to every channel of a rule."""
    now = int(ctx.clock.now().timestamp())
    async with ctx.database.transaction() as session:
        found = await session.execute(
            text("SELECT * FROM mobs.alerts WHERE id = :id FOR UPDATE"), {"id": alert_id}
        )
        row = found.mappings().first()
        if row is None:
            raise NotFound(f"there is no alert {alert_id}")
        rule = {str(k): v for k, v in row.items()}
        await file_notices(session, rule, Notice("test", "", rule["last_value"], 0, now, {}, now))
    return {"sent": len(rule["channels"])}


@router.post("/alerts/{alert_id}/notifications/{notification_id}/resend", dependencies=[Admin])
async def notification_resend(ctx: Ctx, alert_id: int, notification_id: int) -> dict[str, Any]:
    """Send a notification again, under the key it has; also one that was kept quiet."""
    now = int(ctx.clock.now().timestamp())
    async with ctx.database.transaction() as session:
        found = await session.scalar(
            text(
                "UPDATE mobs.notifications SET state = 'waiting', attempts = 0, reason = NULL, "
                "created_at = :now, next_at = :now WHERE id = :id AND alert_id = :alert "
                "RETURNING id"
            ),
            {"id": notification_id, "alert": alert_id, "now": now},
        )
    if found is None:
        raise NotFound(f"alert {alert_id} has no notification {notification_id}")
    return {"notification": {"id": found, "state": "waiting"}}
