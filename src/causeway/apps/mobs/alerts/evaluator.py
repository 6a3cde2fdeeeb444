"""Evaluating rules: state, event and notification of a rule are committed together, or not at all.

A rule's row is locked while it is evaluated, so that any number of workers may try: an episode has
one firing event whoever dies when. What a reorg took the ground from is retracted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson
import structlog
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.mobs.alerts.evaluation import (
    Moment,
    Observation,
    observe,
    reads_blocks,
    window,
)
from causeway.apps.mobs.alerts.notices import Notice, file_notices
from causeway.apps.mobs.alerts.states import Series, Timing, Transition, end, evaluate
from causeway.apps.mobs.context import MobsContext
from causeway.apps.mobs.rollup import indexed_through
from causeway.apps.mobs.scanner import note
from causeway.base.errors import CausewayError
from causeway.base.faults import fault_point
from causeway.store.lease import Lease

log = structlog.get_logger(__name__)

#: Events younger than this are retracted when a reorg takes their ground away, seconds.
RETRACTED_FOR_S = 86_400
#: A new branch that does not reach an event's time is judged after this, seconds.
SHORTER_BRANCH_S = 30


def timing(rule: Mapping[str, Any]) -> Timing:
    """Return how patient a rule is."""
    return Timing(
        for_s=60 * int(rule["for_minutes"]),
        cooldown_s=60 * int(rule["cooldown_minutes"]),
        keep_firing_s=60 * int(rule["conditions"].get("keep_firing_minutes", 0)),
        no_data=rule["no_data"],
    )


async def evaluate_rules(ctx: MobsContext, _lease: Lease) -> None:
    """Evaluate every enabled rule once; one that fails does not stop the others."""
    now = int(ctx.clock.now().timestamp())
    async with ctx.database.sessions() as session:
        ids = list(
            await session.scalars(
                text(
                    # First those that may speak for the others.
                    "SELECT id FROM mobs.alerts WHERE is_enabled ORDER BY "
                    "alert_type <> 'provider_down' AND "
                    "conditions->>'metric' IS DISTINCT FROM 'indexer_lag', id"
                )
            )
        )
    for rule_id in ids:
        await evaluate_rule(ctx, rule_id, now)
    async with ctx.database.transaction() as session:
        await note(session, "alert_eval_cursor", {"last_eval_ts": now})


async def evaluate_rule(ctx: MobsContext, rule_id: int, now: int) -> None:
    """Evaluate one rule and commit what came of it."""
    try:
        async with ctx.database.transaction() as session:
            rule = await _locked(session, rule_id)
            if rule is None or not rule["is_enabled"]:
                return
            forks = ctx.settings.fork_times()
            moment = Moment(await indexed_through(session), now, forks=forks)
            await retract(session, rule, moment)
            seen: set[str] = set()
            last: Any = None
            observations = await observe(session, rule, moment)
            for one in observations:
                seen.add(one.series)
                last = one.value if one.value is not None else last
                await _advance(session, rule, one, moment)
            await _vanished(session, rule, seen, moment)
            await session.execute(
                text(
                    "UPDATE mobs.alerts SET last_eval_at = :now, last_value = "
                    "coalesce(:value, last_value), last_error = NULL WHERE id = :id"
                ),
                {"id": rule_id, "now": now, "value": last},
            )
            fault_point("mobs.alert.before_commit")
        fault_point("mobs.alert.after_commit")
    except (CausewayError, DBAPIError, ArithmeticError, ValueError) as error:
        reason = error.message if isinstance(error, CausewayError) else type(error).__name__
        log.warning("rule_failed", alert=rule_id, reason=reason, error=error)
        async with ctx.database.transaction() as session:
            await session.execute(
                text(
                    "UPDATE mobs.alerts SET last_eval_at = :now, last_error = :why WHERE id = :id"
                ),
                {"id": rule_id, "now": now, "why": reason[:500]},
            )


async def _locked(session: AsyncSession, rule_id: int) -> Mapping[str, Any] | None:
    found = await session.execute(
        text("SELECT * FROM mobs.alerts WHERE id = :id FOR UPDATE"), {"id": rule_id}
    )
    row = found.mappings().first()
    return None if row is None else {str(name): value for name, value in row.items()}


async def _advance(
    session: AsyncSession, rule: Mapping[str, Any], one: Observation, moment: Moment
) -> None:
    now = moment.now
    row, series = await load(session, rule["id"], one.series)
    step = evaluate(series, one.is_true, now, timing(rule))
    episode = None if row is None else row["episode_id"]
    if step.series.state == "firing" and series.state != "firing":
        episode = await session.scalar(text("SELECT nextval('mobs.alert_events_id_seq')"))
    await _record(session, rule, one, series, step, episode, moment)
    shown = "no_data" if one.is_true is None and step.series.state == "inactive" else None
    await store(session, rule["id"], one.series, step.series, episode, one.value, shown)


async def load(
    session: AsyncSession, rule_id: int, name: str
) -> tuple[Mapping[str, Any] | None, Series]:
    """Return what is stored of a series, and the series."""
    row = (
        (
            await session.execute(
                text("SELECT * FROM mobs.alert_states WHERE alert_id = :id AND series = :series"),
                {"id": rule_id, "series": name},
            )
        )
        .mappings()
        .first()
    )
    if row is None:
        return None, Series()
    told = row["episode_id"] is not None and bool(
        await session.scalar(
            text("SELECT EXISTS (SELECT FROM mobs.alert_events WHERE episode_id = :episode)"),
            {"episode": row["episode_id"]},
        )
    )
    state = "inactive" if row["state"] == "no_data" else row["state"]
    series = Series(state, row["since"], row["true_since"], row["true_at"], told, row["event_at"])
    return {str(k): v for k, v in row.items()}, series


async def store(
    session: AsyncSession,
    rule_id: int,
    name: str,
    series: Series,
    episode: int | None,
    value: Any,
    shown: str | None = None,
) -> None:
    """Write a series down; an episode's number stays with it while it fires."""
    await session.execute(
        text(
            "INSERT INTO mobs.alert_states (alert_id, series, state, since, true_since, true_at, "
            "episode_id, event_at, value) VALUES (:id, :series, :state, :since, :true_since, "
            ":true_at, :episode, :event_at, :value) ON CONFLICT (alert_id, series) DO UPDATE SET "
            "state = excluded.state, since = excluded.since, true_since = excluded.true_since, "
            "true_at = excluded.true_at, episode_id = excluded.episode_id, "
            "event_at = excluded.event_at, value = excluded.value"
        ),
        {
            "id": rule_id,
            "series": name,
            "state": shown or series.state,
            "since": series.since,
            "true_since": series.true_since,
            "true_at": series.true_at,
            "episode": episode if series.state == "firing" else None,
            "event_at": series.event_at,
            "value": value,
        },
    )


async def _record(
    session: AsyncSession,
    rule: Mapping[str, Any],
    one: Observation,
    series: Series,
    step: Transition,
    episode: int | None,
    moment: Moment,
) -> None:
    """Write the events of a transition down, and what is to be sent."""
    now = moment.now
    start, through = window(rule, moment.through or now)
    context = dict(one.context) | {
        "evidence": list(one.evidence),
        "window": {"start_ts": start, "end_ts": through},
    }
    for what in step.events:
        if what in ("firing", "repeat"):
            await session.execute(
                text(
                    "INSERT INTO mobs.alert_events (alert_id, episode_id, kind, series, "
                    "triggered_at, severity, value_observed, last_value, threshold, context) "
                    "VALUES (:alert, :episode, :kind, :series, :now, :severity, :value, :value, "
                    ":threshold, CAST(:context AS jsonb))"
                ),
                {
                    "alert": rule["id"],
                    "episode": episode,
                    "kind": what,
                    "series": one.series,
                    "now": now,
                    "severity": rule["severity"],
                    "value": one.value,
                    "threshold": rule["threshold"],
                    "context": orjson.dumps(context, default=str).decode(),
                },
            )
            await session.execute(
                text("UPDATE mobs.alerts SET last_triggered_at = :now WHERE id = :id"),
                {"now": now, "id": rule["id"]},
            )
        else:
            await resolve(session, episode, now, step.reason or "recovered", one.value)
        since = series.since if what == "resolved" else step.series.since
        notice = Notice(what, one.series, one.value, episode or 0, now, context, since)
        await file_notices(session, rule, notice)


async def resolve(
    session: AsyncSession, episode: int | None, now: int, reason: str, value: Any = None
) -> None:
    """Mark the events of an episode as over."""
    await session.execute(
        text(
            "UPDATE mobs.alert_events SET resolved_at = :now, resolve_reason = :reason, "
            "last_value = coalesce(:value, last_value) "
            "WHERE episode_id = :episode AND resolved_at IS NULL"
        ),
        {"episode": episode, "now": now, "reason": reason, "value": value},
    )


async def _vanished(
    session: AsyncSession, rule: Mapping[str, Any], seen: set[str], moment: Moment
) -> None:
    """Series that are not observed any more are not known: a contract without transactions."""
    names = await session.scalars(
        text(
            "SELECT series FROM mobs.alert_states WHERE alert_id = :id "
            "AND state IN ('firing', 'pending') AND series <> ALL(:seen)"
        ),
        {"id": rule["id"], "seen": list(seen)},
    )
    for name in list(names):
        await _advance(session, rule, Observation(name, None, None), moment)


async def retract(session: AsyncSession, rule: Mapping[str, Any], moment: Moment) -> None:
    """Take back events whose blocks a reorg replaced, if the rule does not hold without them.

    Judged once for each reorg, as soon as the index has come again to where the event was; a
    branch that stays shorter is waited for half a minute.
    """
    now = moment.now
    if not reads_blocks(rule):
        return
    found = await session.execute(
        text(
            "SELECT e.*, r.id AS reorg, r.detected_at FROM mobs.alert_events AS e "
            "JOIN LATERAL (SELECT id, detected_at FROM mobs.reorgs WHERE detected_at >= "
            "e.triggered_at - 1 AND id > coalesce((e.context->>'reorg_seen')::bigint, 0) "
            "AND coalesce((SELECT max(timestamp) FROM mobs.blocks WHERE number = ancestor), 0) "
            "< (e.context->'window'->>'end_ts')::bigint ORDER BY id DESC LIMIT 1) AS r ON true "
            "WHERE e.alert_id = :id AND e.kind = 'firing' AND e.triggered_at > :since "
            "AND e.resolve_reason IS DISTINCT FROM 'retracted' ORDER BY e.id"
        ),
        {"id": rule["id"], "since": now - RETRACTED_FOR_S},
    )
    for event in [dict(row) for row in found.mappings()]:
        through = int(event["context"]["window"]["end_ts"])
        arrived = moment.through is not None and moment.through >= through
        if not arrived and now - event["detected_at"] < SHORTER_BRANCH_S:
            continue
        await session.execute(
            text(
                "UPDATE mobs.alert_events SET context = context || "
                "jsonb_build_object('reorg_seen', CAST(:reorg AS bigint)) WHERE id = :id"
            ),
            {"reorg": event["reorg"], "id": event["id"]},
        )
        again = await observe(session, rule, Moment(through, now, live=False, forks=moment.forks))
        still = next((one for one in again if one.series == event["series"]), None)
        if still is None or not still.is_true:
            await _take_back(session, rule, event, now, None if still is None else still.value)


async def _take_back(
    session: AsyncSession, rule: Mapping[str, Any], event: Mapping[str, Any], now: int, value: Any
) -> None:
    row, series = await load(session, rule["id"], event["series"])
    if row is not None and row["episode_id"] == event["episode_id"]:
        # What did not happen has no cooldown.
        over = replace(end(series, now, "retracted").series, event_at=None)
        await store(session, rule["id"], event["series"], over, None, value)
    await session.execute(
        text(
            "UPDATE mobs.alert_events SET resolved_at = coalesce(resolved_at, :now), "
            "resolve_reason = 'retracted', last_value = coalesce(:value, last_value) "
            "WHERE episode_id = :episode"
        ),
        {"now": now, "episode": event["episode_id"], "value": value},
    )
    context = dict(event["context"])
    since = int(event["triggered_at"])
    notice = Notice("retracted", event["series"], value, event["episode_id"], now, context, since)
    await file_notices(session, rule, notice)


async def end_episodes(
    session: AsyncSession, rule: Mapping[str, Any], now: int, reason: str
) -> None:
    """End what is running of a rule that was changed or disabled, and forget its cooldown."""
    rows = (
        await session.execute(
            text(
                "SELECT series, episode_id, since FROM mobs.alert_states "
                "WHERE alert_id = :id AND state = 'firing'"
            ),
            {"id": rule["id"]},
        )
    ).all()
    for series, episode, since in rows:
        told = await session.scalar(
            text("SELECT EXISTS (SELECT FROM mobs.alert_events WHERE episode_id = :episode)"),
            {"episode": episode},
        )
        await resolve(session, episode, now, reason)
        if told:
            notice = Notice("resolved", series, None, episode or 0, now, {"reason": reason}, since)
            await file_notices(session, rule, notice)
    await session.execute(
        text("DELETE FROM mobs.alert_states WHERE alert_id = :id"), {"id": rule["id"]}
    )
