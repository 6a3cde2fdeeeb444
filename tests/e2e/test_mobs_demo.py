"""M-OBS's demo as a user starts it, and the stand-ins it brings."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import sys
from pathlib import Path

import httpx2
import orjson
import pytest

from causeway.sandbox.alerts import alert_receiver
from causeway.sandbox.anvil import AnvilNode
from causeway.sandbox.rpc_proxy import rpc_proxy


async def block(http: httpx2.AsyncClient, url: str, at: str) -> dict[str, str]:
    """Return a block as a provider names it."""
    call = {"jsonrpc": "2.0", "id": 1, "method": "eth_getBlockByNumber", "params": [at, False]}
    return (await http.post(url, json=call)).json()["result"]


async def test_a_liar_names_other_hashes_for_its_newest_blocks_only(anvil: AnvilNode) -> None:
    await anvil.mine(9)
    async with rpc_proxy(anvil.url) as proxy, httpx2.AsyncClient() as http:
        assert await block(http, proxy.url, "latest") == await block(http, anvil.url, "latest")
        proxy.lies, proxy.true_up_to = True, 5
        assert await block(http, proxy.url, "0x5") == await block(http, anvil.url, "0x5")
        told, true = await block(http, proxy.url, "0x6"), await block(http, anvil.url, "0x6")
        assert told["hash"] != true["hash"]
        assert told["parentHash"] == true["parentHash"]
        assert (await block(http, proxy.url, "0x7"))["parentHash"] == told["hash"]


async def test_a_liar_alters_the_first_receipt_of_a_block(anvil: AnvilNode) -> None:
    send = {"from": anvil.accounts[0].address, "to": "0x" + "11" * 20, "value": "0x1"}
    await anvil.rpc("evm_setAutomine", False)
    await anvil.rpc("eth_sendTransaction", send)
    await anvil.mine(1)
    height = await anvil.height()
    call = {"jsonrpc": "2.0", "id": 1, "method": "eth_getBlockReceipts", "params": [hex(height)]}
    async with rpc_proxy(anvil.url) as proxy, httpx2.AsyncClient() as http:
        true = (await http.post(proxy.url, json=call)).json()["result"]
        proxy.alters = True
        (told,) = (await http.post(proxy.url, json=call)).json()["result"]
        assert [told] != true
        assert int(told["gasUsed"], 16) == int(true[0]["gasUsed"], 16) // 2
        assert told | {"gasUsed": true[0]["gasUsed"]} == true[0]


async def test_a_receiver_takes_what_is_signed_and_each_thing_once() -> None:
    async with alert_receiver("of ours") as receiver, httpx2.AsyncClient() as http:
        body = orjson.dumps({"kind": "firing", "alert": {"name": "a rule"}})
        signed = hmac.new(b"of ours", b"17." + body, hashlib.sha256).hexdigest()
        headers = {
            "X-Causeway-Timestamp": "17",
            "X-Causeway-Signature": f"sha256={signed}",
            "Idempotency-Key": "k",
        }
        for _ in range(2):
            answer = await http.post(f"{receiver.url}/webhook", content=body, headers=headers)
            assert answer.status_code == 200
        forged = headers | {"X-Causeway-Timestamp": "18"}
        answer = await http.post(f"{receiver.url}/webhook", content=body, headers=forged)
        assert answer.status_code == 401
        assert receiver.kinds("a rule") == ["firing"]
        assert (receiver.twice, receiver.forged) == (1, 1)


@pytest.mark.long
@pytest.mark.timeout(400)
async def test_the_demo_ends_well(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("causeway")),
        "demo",
        "--app",
        "mobs",
        env=os.environ | {"CAUSEWAY_DATA_DIR": str(tmp_path)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said = (await process.communicate())[0].decode()
    assert process.returncode == 0, said
    for seen in (
        "first decoded failure",
        "(wrong fork)",
        "(altered receipt)",
        "was retracted",
        "all checks passed",
    ):
        assert seen in said
