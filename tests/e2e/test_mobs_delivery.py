"""Notifications sent to real receivers: signed, put together, tried again, none lost."""

from __future__ import annotations

import asyncio
import socketserver
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from aiohttp import web
from pydantic import SecretStr

from causeway.apps.mobs.alerts.delivery import signature, step
from causeway.store.engine import Database
from tests.mobs_alerts import Story, child, story


@dataclass
class Receiver:
    """Somebody's webhook."""

    url: str = ""
    status: int = 200
    wait: str | None = None
    requests: list[tuple[dict[str, str], bytes]] = field(
        default_factory=list[tuple[dict[str, str], bytes]]
    )

    def bodies(self) -> list[Any]:
        """Return what came."""
        return [orjson.loads(body) for _, body in self.requests]

    async def serve(self, request: web.Request) -> web.Response:
        """Take a notification."""
        self.requests.append((dict(request.headers), await request.read()))
        headers = {"Retry-After": self.wait} if self.wait else {}
        return web.Response(status=self.status, headers=headers)


@asynccontextmanager
async def receiver() -> AsyncGenerator[Receiver]:
    """Run a webhook."""
    made = Receiver()
    served = web.Application()
    served.router.add_post("/hook", made.serve)
    runner = web.AppRunner(served, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield made
    await runner.cleanup()


async def send_all(tale: Story) -> None:
    while await step(tale.ctx):
        pass


async def outbox(tale: Story) -> list[Any]:
    return await tale.rows("SELECT state, attempts, reason FROM mobs.notifications ORDER BY id")


async def test_a_webhook_is_signed_and_told_once(database: Database) -> None:
    async with (
        story(database, private_webhooks=True, webhook_secret=SecretStr("of ours")) as tale,
        receiver() as hook,
    ):
        await tale.rule(channels=[{"type": "webhook", "url": hook.url}])
        await tale.mixed(1, 1)
        await tale.evaluate()
        await send_all(tale)
        assert hook.requests == []  # others may come within half a minute
        tale.clock.at += 30
        await send_all(tale)
        await send_all(tale)
        ((headers, content),) = hook.requests
        body = orjson.loads(content)
        assert body["kind"] == "firing"
        assert body["evidence"]
        assert headers["Idempotency-Key"] == body["idempotency_key"]
        at = int(headers["X-Causeway-Timestamp"])
        assert headers["X-Causeway-Signature"] == f"sha256={signature('of ours', at, content)}"
        assert await outbox(tale) == [("delivered", 1, None)]


async def test_what_comes_within_half_a_minute_goes_out_as_one(database: Database) -> None:
    async with story(database, private_webhooks=True) as tale, receiver() as hook:
        for number in range(5):
            await tale.rule(name=f"rule {number}", channels=[{"type": "webhook", "url": hook.url}])
        slack = [{"type": "slack", "url": hook.url}]
        await tale.rule(name="slack", channels=slack)
        await tale.mixed(1, 1)
        await tale.evaluate()
        await tale.evaluate(30)
        await send_all(tale)
        together, text = sorted(hook.bodies(), key=lambda body: "text" in body)
        assert len(together["notifications"]) == 5
        assert text["text"].startswith("[warning] firing: slack")


async def test_a_channel_that_fails_is_tried_later_with_the_same_key(database: Database) -> None:
    async with (
        story(database, private_webhooks=True, notification_group_s=0.0) as tale,
        receiver() as hook,
    ):
        channel = [{"type": "webhook", "url": hook.url}]
        await tale.rule(name="first", channels=channel)
        await tale.rule(name="second", channels=channel)
        await tale.mixed(1, 1)
        await tale.evaluate()
        hook.status = 500
        await send_all(tale)
        assert len(hook.requests) == 1
        await tale.rule(name="third", channels=channel)
        tale.clock.at += 5
        await tale.evaluate()
        hook.status = 200
        await send_all(tale)
        keys = [headers["Idempotency-Key"] for headers, _ in hook.requests]
        assert keys[0] in keys[1:]
        assert len(set(keys)) == 2
        assert [state for state, *_ in await outbox(tale)] == ["delivered"] * 3


async def test_who_asks_to_wait_is_waited_for_and_a_day_is_enough(database: Database) -> None:
    async with (
        story(database, private_webhooks=True, notification_group_s=0.0) as tale,
        receiver() as hook,
    ):
        await tale.rule(channels=[{"type": "webhook", "url": hook.url}])
        await tale.mixed(1, 1)
        await tale.evaluate()
        hook.status, hook.wait = 429, "600"
        await send_all(tale)
        tale.clock.at += 599
        await send_all(tale)
        assert len(hook.requests) == 1
        tale.clock.at += 86_400
        await send_all(tale)
        assert len(hook.requests) == 2
        state, _, reason = (await outbox(tale))[0]
        assert (state, reason) == ("given_up", "127.0.0.1 answered HTTP 429")


async def test_addresses_of_this_network_are_refused(database: Database) -> None:
    async with story(database, notification_group_s=0.0) as tale, receiver() as hook:
        await tale.rule(channels=[{"type": "webhook", "url": hook.url}])
        await tale.mixed(1, 1)
        await tale.evaluate()
        await send_all(tale)
        assert hook.requests == []
        assert [state for state, *_ in await outbox(tale)] == ["given_up"]


@pytest.mark.parametrize("fault", ["mobs.deliver.before_send", "mobs.deliver.after_send"])
async def test_a_kill_loses_nothing(database: Database, database_url: str, fault: str) -> None:
    async with (
        story(database, private_webhooks=True, notification_group_s=0.0) as tale,
        receiver() as hook,
    ):
        await tale.rule(channels=[{"type": "webhook", "url": hook.url}])
        await tale.mixed(1, 1)
        await tale.evaluate()
        assert await child(database_url, tale.clock.at, "deliver", fault) == -9
        tale.clock.at += 61
        await send_all(tale)
        keys = {body["idempotency_key"] for body in hook.bodies()}
        assert len(keys) == 1
        assert len(hook.requests) == (2 if fault.endswith("after_send") else 1)
        assert [state for state, *_ in await outbox(tale)] == ["delivered"]


class _Mail(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        """Speak as much SMTP as is needed to take a letter."""
        self.wfile.write(b"220 here\r\n")
        while line := self.rfile.readline():
            word = line[:4].upper().strip()
            if word == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                letter = b""
                while (part := self.rfile.readline()) != b".\r\n":
                    letter += part
                self.server.letters.append(letter.decode())  # type: ignore[attr-defined]
            self.wfile.write(b"221 bye\r\n" if word == b"QUIT" else b"250 fine\r\n")
            if word == b"QUIT":
                return


@contextmanager
def mail_server() -> Generator[tuple[int, list[str]]]:
    """Run a mail server."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Mail) as server:
        letters: list[str] = []
        server.letters = letters  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.server_address[1], letters
        server.shutdown()
        thread.join()


async def test_mail(database: Database) -> None:
    with mail_server() as (port, letters):
        url = SecretStr(f"smtp://127.0.0.1:{port}")
        async with story(database, notification_group_s=0.0, smtp_url=url) as tale:
            await tale.rule(channels=[{"type": "email", "to": "ada@example.org"}])
            await tale.mixed(1, 1)
            await tale.evaluate()
            await send_all(tale)
            assert await outbox(tale) == [("delivered", 1, None)]
        (letter,) = letters
        assert "Subject: [warning] firing: a rule: 50, threshold 5" in letter
        assert "To: ada@example.org" in letter
        await asyncio.sleep(0)
