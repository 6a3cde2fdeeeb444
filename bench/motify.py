"""Ten thousand stakes settled: three challenges, three providers, real requests, a real chain.

One worker process settles what ended, from the first reading to the archive. Counted where it
counts: requests and refusals at the providers' stand-ins, declarations in the call data of what was
mined. `ratio_to_floor` is the time beside the least that the smallest limit allows (Neynar's plan,
`NEYNAR_PER_MINUTE`); `memory_ratio` the worker's peak beside that of a tenth of the people, and
`read_peak_mb` the part of it that was needed to read the events, which come as fast as they can.
`PEOPLE=1000` for a quick look.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from eth_abi.abi import decode
from pydantic import SecretStr
from rich.console import Console
from sqlalchemy import text

from causeway.base import logging
from causeway.connections.credential import Account as ProviderAccount
from causeway.connections.credential import Tokens
from causeway.connections.vault import Vault
from causeway.sandbox.anvil import AnvilNode
from causeway.sandbox.github import account_id
from causeway.sandbox.grants import Pair
from causeway.sandbox.motify_chain import USDC, MotifyContract, people
from causeway.sandbox.server import SandboxServer
from causeway.sandbox.settings import SandboxSettings
from causeway.store.embedded import EmbeddedPostgres
from causeway.store.encryption import Keyring, new_key
from causeway.store.engine import Database
from causeway.store.migrate import MigrationLine, kernel_line, upgrade

PEOPLE = int(os.environ.get("PEOPLE", "10000"))
NEYNAR_PER_MINUTE = int(os.environ.get("NEYNAR_PER_MINUTE", "2000"))
DAY = 86_400
DAYS = 7
#: A block may hold anything, so that a node can answer for thousands of people in one call.
_NODE = ("--gas-limit", str(10**11))
_GOALS = (
    ("github", "contribution_per_day", 1),
    ("wakatime", "CODING_TIME", 7),
    ("farcaster", "cast_per_day", 1),
)
_PROVIDERS = ("github", "wakatime", "neynar")
_err = Console(stderr=True)


async def run() -> dict[str, Any]:
    """Settle a tenth, then all; return the figures of all."""
    logging.configure("ERROR")
    small = await _settle(max(30, PEOPLE // 10))
    found = await _settle(PEOPLE)
    found["memory_ratio"] = found["peak_mb"] / small["peak_mb"]
    return found


async def _settle(count: int) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        node = await stack.enter_async_context(AnvilNode.start(extra_args=_NODE))
        settings = SandboxSettings(neynar_per_minute=NEYNAR_PER_MINUTE)
        sandbox = await stack.enter_async_context(SandboxServer.start(settings=settings))
        server = await stack.enter_async_context(EmbeddedPostgres.open(folder))
        database = Database(server.url)
        stack.push_async_callback(database.close)
        from causeway.apps.motify import app

        lines = (app.name, str(app.metadata.schema), app.metadata, app.migrations)
        await upgrade(database, [kernel_line(), MigrationLine(*lines)])
        contract = await MotifyContract.deploy(node)
        key = new_key()
        began = time.monotonic()
        vault = Vault(database, Keyring([key]), "motify")
        challenges, end = await _stake(contract, count, sandbox, vault)
        gas_by_hand = await _by_hand(contract)
        _err.print(f"{count} people staked in {time.monotonic() - began:.0f} s")
        environment = {
            **os.environ,
            "DATABASE_URL": server.url,
            "CAUSEWAY_ENCRYPTION_KEYS": key,
            "CAUSEWAY_LOG_LEVEL": "ERROR",
            "CHAIN_ID": str(node.chain_id),
            "WEB3_RPC_URL": node.url,
            "MOTIFY_CONTRACT_ADDRESS": contract.address,
            "MOTIFY_START_BLOCK": "0",
            "MOTIFY_FINALITY": "2",
            "MOTIFY_POLL_SECONDS": "0.25",
            "SEND_TX": "true",
            "PRIVATE_KEY": contract.owner.private_key,
            "GITHUB_CLIENT_ID": settings.github_client_id,
            "GITHUB_CLIENT_SECRET": settings.github_client_secret,
            "GITHUB_API_BASE_URL": sandbox.github_api_url,
            "WAKATIME_API_BASE_URL": sandbox.wakatime_api_url,
            "NEYNAR_API_BASE_URL": sandbox.neynar_url,
            "NEYNAR_API_KEY": settings.neynar_api_key,
            "NEYNAR_REQUESTS_PER_MINUTE": str(NEYNAR_PER_MINUTE),
        }
        worker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "causeway.cli", "work", "motify"), env=environment
        )
        try:
            await _until_read(database, node, count)
            read_mb = _peak_mb(worker.pid)
            await contract.travel_to(end + DAY)
            began = time.monotonic()
            await _until_archived(database, node, len(challenges), worker)
            seconds = time.monotonic() - began
            peak_mb = _peak_mb(worker.pid)
        finally:
            if worker.returncode is None:
                worker.terminate()
            await worker.wait()
        return {
            **await _figures(node, contract, challenges, sandbox),
            "seconds": seconds,
            "floor_s": _floor_s(count),
            "ratio_to_floor": seconds / _floor_s(count) if _floor_s(count) else 0.0,
            "direct_gas_per_participant": gas_by_hand,
            "read_peak_mb": read_mb,
            "peak_mb": peak_mb,
        }


async def _stake(
    contract: MotifyContract, count: int, sandbox: SandboxServer, vault: Vault
) -> tuple[dict[int, Sequence[str]], int]:
    """Have everybody join a challenge and do something for it; return who is in which."""
    wallets = [one.address for one in people(count, "staker")]
    for start in range(0, count, 500):
        await contract.fund(wallets[start : start + 500], 10 * USDC)
    start = (await contract.now() // DAY + 1) * DAY
    end = start + DAYS * DAY
    found: dict[int, Sequence[str]] = {}
    for number, (provider, goal, amount) in enumerate(_GOALS):
        mine = wallets[number::3]
        challenge = await contract.create(
            recipient="0x" + "5a" * 20,
            start_time=start,
            end_time=end,
            api_type=provider,
            goal_type=goal,
            goal_amount=amount,
        )
        for first in range(0, len(mine), 500):
            await contract.join(challenge, dict.fromkeys(mine[first : first + 500], 5 * USDC))
        await _do(sandbox, vault, provider, [w.lower() for w in mine], start)
        found[challenge] = mine
    return found, end


async def _do(
    sandbox: SandboxServer, vault: Vault, provider: str, wallets: Sequence[str], start: int
) -> None:
    """Connect accounts as the end of an authorization does, and have people do their part."""
    settings, first = sandbox.settings, datetime.fromtimestamp(start, UTC)
    for number, wallet in enumerate(wallets):
        good = number % (DAYS + 1)
        days = [first.date() + timedelta(days=n) for n in range(good)]
        if provider == "github":
            login, token = f"coder-{wallet[2:]}", f"gho_{wallet}"
            sandbox.issue("github", Pair(login, "user:email", token, None, None))
            account = ProviderAccount(str(account_id(login)), login)
            await vault.save("github", wallet, Tokens(SecretStr(token)), account)
            settings.github_contributions[login] = {day: (1, 1, 0) for day in days}
        elif provider == "wakatime":
            key = f"waka_{wallet[2:]}"
            settings.wakatime_keys[key] = wallet
            tokens = Tokens(SecretStr(key), kind="api_key")
            await vault.save("wakatime", wallet, tokens, ProviderAccount(wallet, wallet))
            settings.wakatime_seconds[wallet] = dict.fromkeys(days, 3600.0)
        else:
            settings.neynar_accounts[wallet] = (number + 1,)
            settings.neynar_casts[number + 1] = tuple(
                first + timedelta(days=n, hours=12) for n in range(good)
            )


async def _by_hand(contract: MotifyContract) -> float:
    """Return the gas a participant of a direct call that declares two hundred."""
    wallets = [one.address for one in people(200, "direct")]
    await contract.fund(wallets, 10 * USDC)
    start = await contract.now() + 600
    challenge = await contract.create(
        recipient="0x" + "5a" * 20, start_time=start, end_time=start + 600
    )
    await contract.join(challenge, dict.fromkeys(wallets, 5 * USDC))
    await contract.travel_to(start + 601)
    receipt = await contract.declare(challenge, dict.fromkeys(wallets, 8571))
    await contract.finalize(challenge)
    return int(receipt["gasUsed"], 16) / len(wallets)


async def _until_read(database: Database, node: AnvilNode, count: int) -> None:
    """Wait until the index has everybody."""
    while True:
        async with database.sessions() as session:
            read = await session.scalar(
                text("SELECT count(*) FROM motify.chain_participants WHERE initial_amount > 0")
            )
        if int(read or 0) >= count:
            return
        await node.mine()
        await asyncio.sleep(0.5)


async def _until_archived(
    database: Database, node: AnvilNode, challenges: int, worker: asyncio.subprocess.Process
) -> None:
    """Make blocks until every challenge is in the archive."""
    while True:
        async with database.sessions() as session:
            rows = await session.execute(
                text("SELECT status, count(*) FROM motify.settlements GROUP BY 1 ORDER BY 1")
            )
            found = {str(status): int(number) for status, number in rows}
        # One more is the challenge of the direct call.
        if found.get("archived", 0) == challenges + 1:
            return
        if worker.returncode is not None:
            raise RuntimeError("the worker ended")
        await node.mine()
        await asyncio.sleep(0.5)


async def _figures(
    node: AnvilNode,
    contract: MotifyContract,
    challenges: dict[int, Sequence[str]],
    sandbox: SandboxServer,
) -> dict[str, Any]:
    """Count what was declared on chain, and what was asked of the providers."""
    everybody = {(c, wallet.lower()) for c, wallets in challenges.items() for wallet in wallets}
    declared: Counter[tuple[int, str]] = Counter()
    gas: list[float] = []
    transactions = 0
    logs: list[dict[str, Any]] = await node.rpc(
        "eth_getLogs", {"address": contract.address, "fromBlock": "0x0"}
    )
    selector = contract.encode("declareResults", 0, [], [])[:10]
    for tx_hash in sorted({log["transactionHash"] for log in logs}):
        data = (await node.rpc("eth_getTransactionByHash", tx_hash))["input"]
        if not data.startswith(selector):
            continue
        challenge, wallets, _ = decode(
            ["uint256", "address[]", "uint256[]"], bytes.fromhex(data[10:])
        )
        if challenge not in challenges:
            continue
        transactions += 1
        receipt = await node.rpc("eth_getTransactionReceipt", tx_hash)
        gas += [int(receipt["gasUsed"], 16) / len(wallets)] * len(wallets)
        declared.update((challenge, str(wallet).lower()) for wallet in wallets)
    answers = sandbox.counts().answers
    return {
        "participants": len(everybody),
        "declared_twice": sum(number > 1 for number in declared.values()),
        "missing": len(everybody - set(declared)),
        "declarations": transactions,
        "gas_per_participant_p50": median(gas),
        "requests": {name: sum(answers.get(name, {}).values()) for name in _PROVIDERS},
        "refused_by_limits": {
            name: sum(answers.get(name, {}).get(status, 0) for status in (302, 403, 429))
            for name in _PROVIDERS
        },
    }


def _floor_s(count: int) -> float:
    """Return the least time that Neynar's plan leaves for one request of each participant."""
    casters = len(range(2, count, 3))
    return 60.0 * ((casters - 1) // NEYNAR_PER_MINUTE)


def _peak_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(one for one in status.splitlines() if one.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
