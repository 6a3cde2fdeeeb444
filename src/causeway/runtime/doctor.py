"""`causeway doctor`: looks at everything an installation needs, and says how to mend it."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack

from sqlalchemy import text

from causeway.app import AnyApp, CheckResult
from causeway.base.clock import SYSTEM_CLOCK
from causeway.base.errors import CausewayError, ConfigurationError
from causeway.base.settings import KernelSettings
from causeway.connections.rotation import keys_in_use
from causeway.runtime import relayers
from causeway.runtime.installation import (
    Installation,
    load_settings,
    open_database,
    open_installation,
)
from causeway.store.encryption import load_keyring
from causeway.store.engine import Database

#: The database's clock and ours may differ by this much, seconds.
MOST_SKEW_S = 2.0

#: The oldest PostgreSQL that is supported.
OLDEST_POSTGRES = 150000


async def examine(apps: Sequence[AnyApp], kernel: KernelSettings) -> list[CheckResult]:
    """Return what was found; a failure that stops later checks is the last of the list."""
    found = [
        CheckResult(
            "python",
            sys.version_info >= (3, 11),
            f"{platform.python_version()} at {sys.executable}",
            "use Python 3.11 or newer",
        )
    ]
    try:
        load_settings(apps, kernel)
    except ConfigurationError as error:
        found += [
            CheckResult("settings", False, problem, "see `causeway config`")
            for problem in error.problems
        ]
        return found
    found.append(CheckResult("settings", True, f"read, for {kernel.environment}"))
    async with AsyncExitStack() as stack:
        try:
            database = await stack.enter_async_context(open_database(kernel))
            found += await _database(database, embedded=kernel.database_url is None)
        except Exception as error:  # noqa: BLE001 (whatever the driver says, it is the finding)
            message = error.message if isinstance(error, CausewayError) else type(error).__name__
            found.append(CheckResult("database", False, message, "check DATABASE_URL"))
            return found
        try:
            installation = await stack.enter_async_context(open_installation(apps, kernel))
        except CausewayError as error:
            found.append(CheckResult("start", False, error.message, error.hint))
            return found
        found += await _keys(database, kernel)
        found += await _apps(installation)
    return found


async def _keys(database: Database, kernel: KernelSettings) -> list[CheckResult]:
    """Say whether every token that is kept can be read; nothing when none is kept."""
    in_use = await keys_in_use(database)
    if not in_use:
        return []
    setting = "CAUSEWAY_ENCRYPTION_KEYS"
    try:
        ring = load_keyring(kernel)
    except ConfigurationError as error:
        return [CheckResult("encryption keys", False, error.message, error.hint)]
    lost = {key: tokens for key, tokens in in_use.items() if key not in ring.ids}
    if lost:
        told = ", ".join(f"{tokens} under {key}" for key, tokens in lost.items())
        fix = f"put the missing key into {setting}, or have those people connect again"
        return [CheckResult("encryption keys", False, f"tokens cannot be read: {told}", fix)]
    told = ", ".join(f"{tokens} under {key}" for key, tokens in in_use.items())
    return [CheckResult("encryption keys", True, f"tokens: {told}")]


async def _database(database: Database, *, embedded: bool) -> list[CheckResult]:
    async with database.sessions() as session:
        version = int(await session.scalar(text("SHOW server_version_num")) or 0)
        now = await session.scalar(text("SELECT clock_timestamp()"))
    skew_s = abs((now - SYSTEM_CLOCK.now()).total_seconds()) if now else 0.0
    kind = "embedded" if embedded else database.url.host or "configured"
    return [
        CheckResult(
            "database",
            version >= OLDEST_POSTGRES,
            f"PostgreSQL {version // 10000}, {kind}",
            "use PostgreSQL 15 or newer",
        ),
        CheckResult(
            "clock",
            skew_s <= MOST_SKEW_S,
            f"{skew_s * 1000:.0f} ms from the database's",
            "set both machines' clocks by NTP",
        ),
        CheckResult(
            "notifications",
            database.has_own_session,
            "LISTEN works" if database.has_own_session else "a pooler in transaction mode",
            "give workers a direct address, or live with polling (CAUSEWAY_POLL_ONLY=true)",
        ),
    ]


async def _apps(installation: Installation) -> list[CheckResult]:
    found: list[CheckResult] = []
    for app in installation.apps:
        ctx = installation.contexts[app.name]
        for name, chain in ctx.chains.items():
            try:
                await chain.verify()
                head = await chain.head()
                found.append(
                    CheckResult(f"{app.name}: chain {name}", True, f"at block {head.number}")
                )
            except CausewayError as error:
                found.append(
                    CheckResult(
                        f"{app.name}: chain {name}", False, error.message, "check its RPC addresses"
                    )
                )
        found += await relayers.examine(ctx)
        if app.checks is not None:
            found += await app.checks(ctx)
    return found
