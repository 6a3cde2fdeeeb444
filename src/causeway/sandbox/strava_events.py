"""Strava's events: one subscription for the application, a check of its address, deliveries."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import httpx2
from fastapi import Request, Response
from fastapi.responses import JSONResponse

from causeway.sandbox.world import World, instant

_CALLBACK_MOST = 255


class Events:
    """Where events go, and the sending of them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.subscription: dict[str, Any] | None = None
        self._last_id = 120_474
        self._tasks: set[asyncio.Task[None]] = set()
        self._http: httpx2.AsyncClient | None = None
        #: How often each event was delivered, answered with 200 or not.
        self.attempts: list[dict[str, Any]] = []

    async def close(self) -> None:
        """Stop delivering."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._http is not None:
            await self._http.aclose()

    async def delivered(self) -> None:
        """Wait until every event so far was delivered or given up."""
        await asyncio.gather(*self._tasks)

    def send(self, times: int = 1, **event: Any) -> None:
        """Deliver an event to whom it concerns, `times` times over."""
        if self.subscription is None:
            return
        body: dict[str, Any] = {
            "updates": {},
            "event_time": int(self._world.now()),
            **event,
            "subscription_id": self.subscription["id"],
        }
        for _ in range(times):
            task = asyncio.create_task(self._deliver(self.subscription["callback_url"], body))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def create(self, form: dict[str, str]) -> Response:
        """Subscribe, once the address has answered the challenge."""
        if self.subscription is not None:
            return _wrong("", "already exists")
        callback = form.get("callback_url", "")
        if not callback.startswith(("http://", "https://")) or len(callback) > _CALLBACK_MOST:
            return _wrong("callback url", "invalid")
        challenge = secrets.token_hex(8)
        query = {
            "hub.mode": "subscribe",
            "hub.verify_token": form.get("verify_token", ""),
            "hub.challenge": challenge,
        }
        limit_s = self._world.settings.strava_callback_s
        try:
            answer = await self._client().get(callback, params=query, timeout=limit_s)
        except httpx2.HTTPError:
            return _wrong("callback url", "not verifiable")
        if answer.status_code != 200:
            return _wrong("callback url", "GET to callback URL does not return 200")
        try:
            matches = answer.json().get("hub.challenge") == challenge
        except (ValueError, AttributeError):
            matches = False
        if not matches:
            return _wrong("callback url", "not verifiable")
        self._last_id += 1
        now = instant(self._world.now())
        self.subscription = {
            "id": self._last_id,
            "resource_state": 2,
            "application_id": int(self._world.settings.strava_client_id),
            "callback_url": callback,
            "created_at": now,
            "updated_at": now,
        }
        return JSONResponse({"id": self._last_id}, 201)

    def show(self) -> Response:
        """Return the subscription, in a list."""
        return JSONResponse([self.subscription] if self.subscription else [])

    def delete(self, request: Request) -> Response | None:
        """End the subscription; None when there is none of that number."""
        if self.subscription is None or request.path_params["id"] != str(self.subscription["id"]):
            return None
        self.subscription = None
        return Response(status_code=204)

    async def _deliver(self, callback: str, body: dict[str, Any]) -> None:
        """Try up to three times, until there is a 200 in time."""
        limit_s = self._world.settings.strava_callback_s
        for pause_s in (*self._world.settings.strava_event_retry_delays_s, None):
            self.attempts.append(body)
            try:
                answer = await self._client().post(callback, json=body, timeout=limit_s)
            except httpx2.HTTPError:
                pass
            else:
                if answer.status_code == 200:
                    return
            if pause_s is None or await self._world.pause(pause_s):
                return

    def _client(self) -> httpx2.AsyncClient:
        if self._http is None:
            self._http = httpx2.AsyncClient(trust_env=False)
        return self._http


def _wrong(field: str, code: str) -> Response:
    errors = [{"resource": "PushSubscription", "field": field, "code": code}]
    return JSONResponse({"message": "Bad Request", "errors": errors}, 400)
