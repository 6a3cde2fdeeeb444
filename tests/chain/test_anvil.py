"""The local node is ours alone, can be reorganised, and goes when we go."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress

import pytest

from causeway.base.errors import CausewayError
from causeway.sandbox.anvil import AnvilNode


async def test_reorg_keeps_the_height_and_changes_the_hash(anvil: AnvilNode) -> None:
    await anvil.mine(6)
    before = await anvil.rpc("eth_getBlockByNumber", "latest", False)
    await anvil.reorg(3)
    after = await anvil.rpc("eth_getBlockByNumber", "latest", False)
    assert after["number"] == before["number"]
    assert after["hash"] != before["hash"]
    assert await anvil.rpc("eth_getBlockByHash", before["hash"], False) is None


async def test_rollback_makes_the_chain_shorter(anvil: AnvilNode) -> None:
    await anvil.mine(3)
    height = await anvil.height()
    await anvil.rollback(2)
    assert await anvil.height() == height - 2


async def test_a_strangers_node_on_our_port_is_never_used(anvil: AnvilNode) -> None:
    with pytest.raises(CausewayError, match="did not start"):
        async with AnvilNode.start(port=anvil.port):
            pass
    assert int(await anvil.rpc("eth_chainId"), 16) == anvil.chain_id


def alive(pid: int) -> bool:
    """Say whether a process is there and not merely waiting to be reaped."""
    with suppress(OSError):
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    return False


async def test_stop_ends_the_process() -> None:
    async with AnvilNode.start() as node:
        pid = node.process.pid
        assert alive(pid)
    assert not alive(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells a child that its parent died")
async def test_node_goes_when_its_parent_is_killed() -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import asyncio\n"
        "from causeway.sandbox.anvil import AnvilNode\n"
        "async def main():\n"
        "    async with AnvilNode.start() as node:\n"
        "        print(node.process.pid, flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n",
        stdout=asyncio.subprocess.PIPE,
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    await parent.wait()
    async with asyncio.timeout(10):
        while alive(pid):
            await asyncio.sleep(0.02)
