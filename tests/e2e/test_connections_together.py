"""Connecting, refreshing, disconnecting and changing keys, all at once and in any order: no token
is lost from sight, and none is refreshed twice."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import pytest
from sqlalchemy import text

from causeway.base.errors import CausewayError
from causeway.connections import flow
from causeway.connections.access import Connections
from causeway.connections.errors import AuthorizationFailed, NotConnected
from causeway.connections.revocation import revoke_due
from causeway.connections.rotation import rotate
from causeway.connections.vault import Vault, list_connections
from causeway.store.encryption import Keyring, new_key
from causeway.store.engine import Database
from tests.connections import World, world

PEOPLE = ["alice", "bob", "carol"]


async def connect(w: World, vault: Vault, who: str, login: str) -> None:
    begun = await flow.begin(vault, w.github, who)
    w.sandbox.settings.github_login = login
    back = await w.visit(begun.url)
    # Another may be linked to that account, and a clock that jumps makes codes too old.
    with suppress(AuthorizationFailed):
        await flow.finish(vault, w.github, code=back["code"], state=back["state"])


async def revoke_all(w: World, database: Database, ring: Keyring) -> None:
    while True:
        async with database.transaction() as session:
            left = await session.scalar(
                text(
                    "WITH d AS (UPDATE causeway.connection_revocations SET due_at = now() "
                    "RETURNING 1) SELECT count(*) FROM d"
                )
            )
        if not left:
            return
        done = await revoke_due(database, ring, "motify", w.connections.providers)
        assert not done.given_up


@pytest.mark.parametrize(
    "seed", [*range(3), *(pytest.param(n, marks=pytest.mark.long) for n in range(3, 60))]
)
async def test_no_token_is_ever_lost_from_sight(database: Database, seed: int) -> None:
    chance = random.Random(seed)
    old, new = new_key(), new_key()
    rings = [Keyring([old]), Keyring([old, new]), Keyring([new, old])]
    async with world(database) as w:
        w.sandbox.settings.github_tokens_expire = True
        vaults = [Vault(database, ring, "motify") for ring in rings[1:]]
        users = [Connections(v, w.connections.providers, clock=w.clock) for v in vaults]

        async def act() -> None:
            for _ in range(12):
                n = chance.randrange(2)
                who = chance.choice(PEOPLE)
                match chance.choice(["connect", "use", "use", "use", "let go", "age", "rotate"]):
                    case "connect":
                        await connect(w, vaults[n], who, chance.choice([who, who, "alice"]))
                    case "use":
                        try:
                            account = await users[n].call("github", who, w.github.account)
                        except NotConnected:
                            continue
                        assert account.name in PEOPLE
                    case "let go":
                        await vaults[n].remove("github", who)
                    case "age":
                        w.clock.move(28800 - 300)
                    case _:
                        await rotate(database, rings[n + 1], batch=2)

        results = await asyncio.gather(*[act() for _ in range(4)], return_exceptions=True)
        for result in results:
            # Somebody may have let go, or aged, under another's call; nothing else is wrong.
            if isinstance(result, BaseException) and not isinstance(result, CausewayError):
                raise result
        for user in users:
            await user.aclose()
        # What the provider still honours is exactly what is kept here, once the rest was revoked.
        await revoke_all(w, database, rings[2])
        kept: dict[str, str] = {}
        for connection in await list_connections(database):
            opened = await vaults[0].open("github", connection.subject)
            assert opened is not None
            assert connection.account is not None
            kept[opened.access_token.get_secret_value()] = str(connection.account.name)
        assert w.sandbox.tokens("github") == kept
        assert len(set(kept.values())) == len(kept)
        assert w.sandbox.wasted_refreshes("github") == 0
        for who in PEOPLE:
            await vaults[0].remove("github", who)
        await revoke_all(w, database, rings[2])
        assert w.sandbox.tokens("github") == {}
