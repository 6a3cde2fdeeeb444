"""The local node is ours alone, can be reorganised, and goes when we go."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from causeway.base.errors import CausewayError, ConfigurationError
from causeway.sandbox.anvil import AnvilNode, RpcFailure
from causeway.sandbox.glisk_chain import GliskContract, receipt_of
from tests.chain.test_glisk_contract import minted


def children() -> set[int]:
    """Return the nodes this process has started and that are still there."""
    found: set[int] = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
            state, parent = rest.split()[:2]
            if name == "anvil" and int(parent) == os.getpid() and state != "Z":
                found.add(int(stat.parent.name))
    return found


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


async def test_a_port_that_answers_nonsense_is_no_node() -> None:
    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
        writer.write(b"Content-Length: 3\r\nConnection: close\r\n\r\nhi!")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(nonsense, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(CausewayError, match="did not start"):
            async with AnvilNode.start(port=port):
                pass
    assert children() == set()


async def test_each_node_has_a_chain_of_its_own() -> None:
    async with AnvilNode.start() as one, AnvilNode.start() as other:
        assert one.chain_id != other.chain_id
        assert one.port != other.port
        assert one.accounts == other.accounts
        assert len(one.accounts) == 10
        held = await one.rpc("eth_accounts")
        assert [account.address.lower() for account in one.accounts] == held


async def test_blocks_come_by_themselves_when_asked_for() -> None:
    async with AnvilNode.start(block_time_s=0.1, chain_id=31_338) as node:
        assert int(await node.rpc("eth_chainId"), 16) == 31_338
        async with asyncio.timeout(10):
            while await node.height() < 2:
                await asyncio.sleep(0.02)


async def test_missing_program_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAUSEWAY_ANVIL", "/nowhere/anvil")
    with pytest.raises(ConfigurationError, match="/nowhere/anvil") as failure:
        async with AnvilNode.start():
            pass
    assert failure.value.hint is not None
    assert "make setup" in failure.value.hint


async def test_a_refused_option_is_told_in_the_nodes_words() -> None:
    with pytest.raises(CausewayError, match="--no-such-option"):
        async with AnvilNode.start(extra_args=["--no-such-option"]):
            pass


async def test_a_start_that_is_cancelled_leaves_no_process() -> None:
    async def start() -> None:
        async with AnvilNode.start():
            await asyncio.Event().wait()

    task = asyncio.create_task(start())
    async with asyncio.timeout(10):
        while not children():
            await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert children() == set()


async def test_paused_node_is_silent_and_goes_on_where_it_was(anvil: AnvilNode) -> None:
    await anvil.mine(2)
    anvil.pause()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await anvil.height()
    anvil.resume()
    assert await anvil.height() == 2


async def test_paused_node_can_be_stopped() -> None:
    async with AnvilNode.start() as node:
        node.pause()
    assert not alive(node.process.pid)


async def test_errors_of_the_node_are_raised_with_its_words(anvil: AnvilNode) -> None:
    with pytest.raises(RpcFailure, match=r"eth_noSuchMethod.*not found"):
        await anvil.rpc("eth_noSuchMethod")


async def test_one_wallet_sends_through_several_contracts_at_once(anvil: AnvilNode) -> None:
    keeper, wallet = anvil.accounts[1].address, anvil.accounts[2]
    contracts = [await GliskContract.deploy(anvil, keeper_address=keeper) for _ in range(3)]
    sent = await asyncio.gather(
        *(each.send(wallet, "setApprovalForAll", keeper, True) for each in contracts * 5)
    )
    assert len(set(sent)) == 15
    for tx_hash in sent:
        await receipt_of(anvil, tx_hash)
    assert await anvil.rpc("eth_getTransactionCount", wallet.address, "latest") == hex(15)


async def test_functions_of_one_name_are_told_apart_by_their_arguments(anvil: AnvilNode) -> None:
    keeper, wallet, other = (anvil.accounts[n] for n in (1, 2, 3))
    contract = await GliskContract.deploy(anvil, keeper_address=keeper.address)
    await minted(contract, wallet, keeper.address, 2)
    move = (wallet, "safeTransferFrom", wallet.address, other.address)
    await contract.transact(*move, 1)
    await contract.transact(*move, 2, b"with data")
    assert await contract.call("balanceOf", other.address) == 2


async def test_stop_ends_the_process() -> None:
    async with AnvilNode.start() as node:
        pid = node.process.pid
        assert alive(pid)
    assert not alive(pid)


@pytest.mark.parametrize("state", ["running", "paused"])
@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells a child that its parent died")
async def test_node_goes_when_its_parent_is_killed(state: str) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import asyncio\n"
        "from causeway.sandbox.anvil import AnvilNode\n"
        "async def main():\n"
        "    async with AnvilNode.start() as node:\n"
        f"        {'node.pause()' if state == 'paused' else 'pass'}\n"
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
