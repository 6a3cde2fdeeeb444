"""Webhooks of predictions: signed, repeated until accepted, owed again after a restart."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import math

import httpx2
import structlog

from causeway.sandbox.prediction import progress, show
from causeway.sandbox.state import Prediction
from causeway.sandbox.world import World

_log = structlog.get_logger(__name__)
EVENTS = ("start", "output", "logs", "completed")


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the `webhook-signature` header: HMAC-SHA256 over `id.timestamp.body`."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


class Webhooks:
    """Delivers what predictions owe; one task each."""

    def __init__(self, world: World) -> None:
        self._world = world
        # Made when first needed: reading the certificates takes longer than all the rest.
        self._client: httpx2.AsyncClient | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def resume(self) -> None:
        """Take up again what the state says is still owed."""
        for prediction in self._world.state.owed_webhooks():
            self.schedule(prediction)

    def schedule(self, prediction: Prediction) -> None:
        """Deliver the events this prediction's client wants, each when it happens."""
        if prediction.webhook is not None:
            task = asyncio.create_task(self._follow(prediction, prediction.webhook))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Stop delivering."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    async def _follow(self, prediction: Prediction, target: str) -> None:
        wanted = prediction.webhook_events or EVENTS
        for event in ("start", "output", "completed"):
            happened = await self._wait_for(event, prediction)
            if happened is None:
                return
            current, at = happened
            if event in wanted and at < math.inf:
                await self._deliver(current, target, event, at)
        self._world.state.webhook_done(prediction.id)

    async def _wait_for(
        self, event: str, prediction: Prediction
    ) -> tuple[Prediction, float] | None:
        """Wait until `event` has happened; return when it did, infinity when it never will.

        None when the server stops.
        """
        while True:
            current = self._world.state.prediction(prediction.id)
            if current is None:
                return None
            now = self._world.now()
            at = progress(current, now, self._world.settings.output_lifetime_s)
            happens = {
                "start": current.created_at + current.latency_s / 4,
                "output": math.inf if at.output_at is None else at.output_at,
                "completed": at.ends_at,
            }[event]
            if now >= happens and happens <= at.ends_at:
                return current, happens
            if at.over:
                return current, math.inf
            # Never long: a cancel ends it sooner.
            if await self._world.pause(min(happens - now, 0.1)):
                return None

    async def _deliver(self, prediction: Prediction, target: str, event: str, at: float) -> None:
        settings = self._world.settings
        # As it stood when the event happened, however late it is told.
        document = show(prediction, at, settings, url=self._world.url)
        body = json.dumps(document).encode()
        message_id = f"msg_{prediction.id}_{event}"
        client = self._client = self._client or httpx2.AsyncClient(timeout=10)
        # Only the last word on a prediction is worth repeating, as with the real service.
        delays = settings.webhook_retry_delays_s if event == "completed" else ()
        for delay in (0.0, *delays):
            if delay and await self._world.pause(delay):
                return
            timestamp = int(self._world.now())
            headers = {
                "content-type": "application/json",
                "webhook-id": message_id,
                "webhook-timestamp": str(timestamp),
                "webhook-signature": sign(settings.webhook_secret, message_id, timestamp, body),
            }
            try:
                answer = await client.post(target, content=body, headers=headers)
            except (httpx2.HTTPError, httpx2.InvalidURL) as error:
                _log.info("webhook not delivered", prediction=prediction.id, error=repr(error))
                continue
            if answer.is_success:
                return
