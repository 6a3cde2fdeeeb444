"""`causeway chains`: each provider, how it does, and what speaks against it."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import Any

from causeway.sandbox.anvil import AnvilNode
from tests.chain.proxy import fault_proxy


def other_fork(header: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a header as a node on another fork would name it."""
    if header is None or header["number"] == "0x0":
        return header
    return header | {"hash": "0x" + "ab" * 32, "parentHash": "0x" + "cd" * 32}


async def test_who_is_on_another_fork_and_who_does_not_answer_is_shown_with_its_reason(
    anvil: AnvilNode, database_url: str, tmp_path: Path
) -> None:
    await anvil.mine(12)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{taken.getsockname()[1]}/secret-key"
    async with fault_proxy(anvil.url) as liar, fault_proxy(anvil.url) as honest:
        liar.lies["eth_getBlockByNumber"] = other_fork
        environment = os.environ | {
            "MANTLE_RPC_ENDPOINTS": ",".join([liar.url, honest.url, anvil.url, dead]),
            "CHAIN_ID": str(anvil.chain_id),
            "DATABASE_URL": database_url,
            "CAUSEWAY_DATA_DIR": str(tmp_path),
            "CAUSEWAY_RPC_BUDGETS": "mobs-1=25",
            "COLUMNS": "150",
        }
        command = ("chains", "mobs", "--rounds", "2")
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("causeway")),
            *command,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said = (await process.communicate())[0].decode()
    assert process.returncode == 1, said
    lines = {line.split()[1]: line for line in said.splitlines() if line.startswith("│")}
    assert "another fork" in lines["mobs-1"]
    assert "well" in lines["mobs-2"]
    assert "well" in lines["mobs-3"]
    assert "no answer" in lines["mobs-4"]
    assert "mobs-1: eth_getBlockByNumber −100: on another fork than the others" in said
    assert "connect of" in said
    assert "secret-key" not in said
