"""Sending what was filed: at least once, with a key that makes it once for who receives it.

Each channel is told alone: what is filed for it within half a minute goes out as one. A channel
that fails is tried again, ever later, for a day.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import smtplib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx2
import orjson
import structlog
from prometheus_client import Counter
from sqlalchemy import text

from causeway.apps.mobs.alerts import channels
from causeway.apps.mobs.context import MobsContext
from causeway.apps.mobs.settings import MobsSettings
from causeway.base.errors import InvalidInput
from causeway.base.faults import fault_point
from causeway.base.fetch import is_public, resolve_by_system
from causeway.base.http import retry_after_s
from causeway.store.lease import Lease

log = structlog.get_logger(__name__)
_SENT = Counter("causeway_mobs_notifications_total", "Notifications", ["channel", "outcome"])

#: These do not wait for others to go with; what waits for the channel goes with them.
AT_ONCE = ("test", "retracted")
#: Given up after this, seconds.
GIVEN_UP_S = 86_400
TIMEOUT_S = 10.0
_LEASE_S = 60
_CHANNELS_AT_ONCE = 8


class NotDelivered(Exception):
    """A channel did not take it; the text is for people and holds no secret."""

    def __init__(self, text: str, *, for_good: bool = False, retry_after_s: int = 0) -> None:
        super().__init__(text)
        #: Trying again changes nothing.
        self.for_good = for_good
        self.retry_after_s = retry_after_s


async def deliver(ctx: MobsContext, _lease: Lease) -> None:
    """Send what is due, to different channels at the same time."""
    while await step(ctx):
        pass


@dataclass(frozen=True)
class Batch:
    """What goes to one channel at once."""

    channel: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]


async def step(ctx: MobsContext) -> bool:
    """Send what is due for some channels; return whether there was anything."""
    now = int(ctx.clock.now().timestamp())
    batches = await _claim(ctx, now)
    if batches:
        fault_point("mobs.deliver.before_send")
        await asyncio.gather(*(_send_batch(ctx, batch, now) for batch in batches))
    return bool(batches)


async def _claim(ctx: MobsContext, now: int) -> list[Batch]:
    """Take what is due for a minute: if this process dies, it is sent then, with the same keys.

    What went out together once stays together when it is tried again, so that its key stays too.
    """
    batches: list[Batch] = []
    async with ctx.database.transaction() as session:
        due = (
            await session.execute(
                text(
                    "SELECT DISTINCT ON (channel) channel, attempts, next_at "
                    "FROM mobs.notifications WHERE state = 'waiting' AND next_at <= :now "
                    "AND (attempts > 0 OR created_at <= :before OR body->>'kind' = ANY(:at_once)) "
                    "ORDER BY channel, next_at, id LIMIT :most"
                ),
                {
                    "now": now,
                    "before": now - ctx.settings.notification_group_s,
                    "at_once": list(AT_ONCE),
                    "most": _CHANNELS_AT_ONCE,
                },
            )
        ).all()
        for channel, attempts, next_at in due:
            rows = (
                (
                    await session.execute(
                        text(
                            "SELECT id, body, attempts, created_at FROM mobs.notifications "
                            "WHERE state = 'waiting' AND next_at <= :now AND channel = "
                            "CAST(:channel AS jsonb) AND attempts = :attempts "
                            "AND (attempts = 0 OR next_at = :next_at) "
                            "ORDER BY id LIMIT 100 FOR UPDATE SKIP LOCKED"
                        ),
                        {
                            "now": now,
                            "channel": orjson.dumps(channel).decode(),
                            "attempts": attempts,
                            "next_at": next_at,
                        },
                    )
                )
                .mappings()
                .all()
            )
            if rows:
                batches.append(Batch(channel, [dict(row) for row in rows]))
        await session.execute(
            text(
                "UPDATE mobs.notifications SET attempts = attempts + 1, next_at = :later "
                "WHERE id = ANY(:ids)"
            ),
            {"ids": [row["id"] for one in batches for row in one.rows], "later": now + _LEASE_S},
        )
    return batches


async def _send_batch(ctx: MobsContext, batch: Batch, now: int) -> None:
    kind = str(batch.channel.get("type"))
    try:
        await send(ctx, batch.channel, [row["body"] for row in batch.rows])
    except NotDelivered as error:
        await _failed(ctx, batch, now, error)
        return
    fault_point("mobs.deliver.after_send")
    async with ctx.database.transaction() as session:
        await session.execute(
            text(
                "UPDATE mobs.notifications SET state = 'delivered', delivered_at = :now, "
                "reason = NULL WHERE id = ANY(:ids)"
            ),
            {"ids": [row["id"] for row in batch.rows], "now": now},
        )
    _SENT.labels(kind, "delivered").inc(len(batch.rows))


def pause_s(attempts: int) -> int:
    """Return how long to wait after so many attempts that failed: 5 s, doubled, at most an hour."""
    return min(3600, 5 * 2 ** min(attempts - 1, 12))


async def _failed(ctx: MobsContext, batch: Batch, now: int, error: NotDelivered) -> None:
    kind = str(batch.channel.get("type"))
    log.warning("notification_not_delivered", channel=kind, reason=str(error))
    _SENT.labels(kind, "failed").inc(len(batch.rows))
    # By the oldest, and for all: they stay together.
    over = error.for_good or now - min(row["created_at"] for row in batch.rows) > GIVEN_UP_S
    wait_s = max(pause_s(int(batch.rows[0]["attempts"]) + 1), error.retry_after_s)
    async with ctx.database.transaction() as session:
        await session.execute(
            text(
                "UPDATE mobs.notifications SET state = :state, reason = :why, next_at = :next "
                "WHERE id = ANY(:ids)"
            ),
            {
                "ids": [row["id"] for row in batch.rows],
                "state": "given_up" if over else "waiting",
                "why": str(error)[:500],
                "next": now + wait_s,
            },
        )


def message(bodies: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one body for what goes out together."""
    if len(bodies) == 1:
        return dict(bodies[0])
    key = hashlib.sha256("|".join(b["idempotency_key"] for b in bodies).encode()).hexdigest()[:32]
    return {
        "version": 1,
        "idempotency_key": f"group-{key}",
        "kind": "group",
        "notifications": list(bodies),
    }


def sentence(body: Mapping[str, Any]) -> str:
    """Return a notification in a sentence."""
    alert = body["alert"]
    series = "".join(f" ({k.removesuffix('_id')} {v})" for k, v in body["series"].items())
    value = "" if body["value"] is None else f": {body['value']}, threshold {body['threshold']}"
    return f"[{alert['severity']}] {body['kind']}: {alert['name']}{series}{value}"


async def send(
    ctx: MobsContext, channel: Mapping[str, Any], bodies: Sequence[Mapping[str, Any]]
) -> None:
    """Send to one channel; raise `NotDelivered` when it was not taken."""
    try:
        await _send(ctx, channel, bodies)
    except InvalidInput as error:
        raise NotDelivered(error.message) from None


async def _send(
    ctx: MobsContext, channel: Mapping[str, Any], bodies: Sequence[Mapping[str, Any]]
) -> None:
    match channel.get("type"):
        case "webhook":
            await _webhook(ctx, channels.address(channel), message(bodies))
        case "slack":
            lines = "\n".join(sentence(one) for one in bodies)
            await _post(ctx, channels.address(channel), orjson.dumps({"text": lines}), {})
        case "email":
            await _email(ctx.settings, str(channel["to"]), bodies)
        case _:
            for one in bodies:
                log.warning("alert", text=sentence(one), key=one["idempotency_key"])


def signature(secret: str, timestamp: int, content: bytes) -> str:
    """Return the HMAC-SHA256 over timestamp, a full stop and the body, as hex."""
    return hmac.new(secret.encode(), f"{timestamp}.".encode() + content, hashlib.sha256).hexdigest()


async def _webhook(ctx: MobsContext, url: str, whole: Mapping[str, Any]) -> None:
    content = orjson.dumps(whole)
    timestamp = int(ctx.clock.now().timestamp())
    headers = {
        "X-Causeway-Timestamp": str(timestamp),
        "Idempotency-Key": str(whole["idempotency_key"]),
    }
    if ctx.settings.webhook_secret is not None:
        secret = ctx.settings.webhook_secret.get_secret_value()
        headers["X-Causeway-Signature"] = "sha256=" + signature(secret, timestamp, content)
    await _post(ctx, url, content, headers)


async def _post(ctx: MobsContext, url: str, content: bytes, headers: Mapping[str, str]) -> None:
    """Post to an address somebody gave us, at the public address that was checked."""
    target = channels.target(url)
    addresses = await _addresses(target.host, target.port)
    if not ctx.settings.private_webhooks and not all(is_public(one) for one in addresses):
        raise NotDelivered(
            f"{target.host} is an address of this network, which MOBS_PRIVATE_WEBHOOKS forbids",
            for_good=True,
        )
    # A name that meant something else a moment later would lead into this network.
    request = httpx2.Request(
        "POST",
        target.at(addresses[0]),
        content=content,
        headers={"Host": target.authority, "Content-Type": "application/json", **headers},
        extensions={"sni_hostname": target.host},
    )
    try:
        async with (
            asyncio.timeout(TIMEOUT_S),
            httpx2.AsyncClient(follow_redirects=False, trust_env=False, timeout=TIMEOUT_S) as http,
        ):
            answer = await http.send(request, stream=True)
            await answer.aclose()
    except TimeoutError:
        raise NotDelivered(f"{target.host} did not answer in {TIMEOUT_S:g} s") from None
    except httpx2.HTTPError as error:
        raise NotDelivered(f"{target.host} cannot be reached: {type(error).__name__}") from None
    if answer.status_code >= 300:
        wait_s = retry_after_s(dict(answer.headers)) or 0
        raise NotDelivered(
            f"{target.host} answered HTTP {answer.status_code}",
            for_good=answer.status_code == 410,
            retry_after_s=min(3600, int(wait_s)),
        )


async def _addresses(host: str, port: int) -> Sequence[str]:
    try:
        found = await resolve_by_system(host, port)
    except OSError:
        found = ()
    if not found:
        raise NotDelivered(f"{host} has no address")
    return found


async def _email(settings: MobsSettings, to: str, bodies: Sequence[Mapping[str, Any]]) -> None:
    if settings.smtp_url is None:
        raise NotDelivered("no mail server is configured (MOBS_SMTP_URL)")
    mail = EmailMessage()
    first = sentence(bodies[0])
    mail["Subject"] = first if len(bodies) == 1 else f"{first} and {len(bodies) - 1} more"
    mail["From"], mail["To"] = settings.smtp_from, to
    mail["X-Idempotency-Key"] = str(message(bodies)["idempotency_key"])
    mail.set_content(
        "\n\n".join(f"{sentence(one)}\n{one['links']['console']}" for one in bodies) + "\n"
    )
    try:
        await asyncio.to_thread(_smtp, settings.smtp_url.get_secret_value(), mail)
    except (OSError, smtplib.SMTPException) as error:
        raise NotDelivered(f"the mail server did not take it: {type(error).__name__}") from None


def _smtp(url: str, mail: EmailMessage) -> None:
    parts = urlsplit(url)
    kind = smtplib.SMTP_SSL if parts.scheme == "smtps" else smtplib.SMTP
    with kind(parts.hostname or "localhost", parts.port or 25, timeout=TIMEOUT_S) as server:
        if parts.username:
            if parts.scheme == "smtp":
                server.starttls()
            server.login(unquote(parts.username), unquote(parts.password or ""))
        server.send_message(mail)
