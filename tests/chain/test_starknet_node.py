"""The local Starknet: what it says is what the specification allows, and others understand it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from starknet_py.net.full_node_client import FullNodeClient

from causeway.base.errors import ChainBehind, InvalidInput, ProviderUnavailable
from causeway.chains.endpoint import SecretUrl
from causeway.chains.protocol import LogFilter
from causeway.chains.starknet.chain import StarknetChain
from causeway.chains.starknet.errors import reason
from causeway.chains.starknet.heads import HeadFeed
from causeway.chains.starknet.signatures import message_hash, verify
from causeway.sandbox.starknet.ledger import hashed
from causeway.sandbox.starknet.node import StarknetNode
from tests.chain.ledger import drop, put
from tests.starknet_world import (
    LEDGER_ABI,
    TOKEN_ABI,
    StarknetLedger,
    deploy_account,
    deploy_token,
    invoke,
    starknet,
    starknet_at,
)


@pytest.fixture
async def node() -> AsyncGenerator[StarknetNode]:
    async with starknet() as running:
        yield running


@pytest.fixture
async def chain(node: StarknetNode) -> AsyncGenerator[StarknetChain]:
    opened = starknet_at(node.url, "SN_SEPOLIA")
    yield opened
    await opened.close()


async def serve_frozen(node: StarknetNode, height: int) -> StarknetNode:
    """Serve the same chain from a second port, as of that height for ever."""
    while node.ledger.newest.number < height:
        await node.seal()
    frozen = StarknetNode(node.engine)
    await frozen.start()
    frozen.ledger.blocks = node.ledger.blocks[: height + 1]
    return frozen


async def ask(node: StarknetNode, method: str, *params: object) -> dict[str, Any]:
    async with aiohttp.ClientSession() as session:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
        async with session.post(node.url, json=body) as response:
            assert response.status == 200
            return await response.json()


async def test_starknet_py_reads_the_same_events_through_random_pages(
    node: StarknetNode, chain: StarknetChain
) -> None:
    ledger = StarknetLedger(node)
    await ledger.deploy()
    for n in range(12):
        calls = [put(n, n, "x" * n), drop(n)] if n % 3 else []
        await ledger.block(*calls)
    theirs = await FullNodeClient(node.url).get_events(
        address=int(ledger.address, 16),
        from_block_number=0,
        to_block_number=node.ledger.newest.number,
        follow_continuation_token=True,
        chunk_size=3,
    )
    wanted = LogFilter((ledger.address,), ())
    ours = await chain.logs(wanted, 0, node.ledger.newest.number)
    assert [(e.block_number, e.transaction_hash, e.keys, [*e.data]) for e in theirs.events] == [
        (
            log.block_number,
            int(log.transaction_hash, 16),
            [int(key, 16) for key in log.topics],
            [int.from_bytes(log.data[at : at + 32], "big") for at in range(0, len(log.data), 32)],
        )
        for log in ours
    ]
    assert len(ours) == 16
    decoded = [LEDGER_ABI.decode_log(log) for log in ours]
    assert [one.args for one in decoded if one is not None and one.name == "Put"] == [
        {"key": n, "amount": n, "note": "x" * n} for n in range(12) if n % 3
    ]


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("starknet_getBlockWithTxHashes", [{"block_number": 99}], 24),
        ("starknet_getBlockWithTxHashes", [{"block_number": -1}], -32602),
        ("starknet_getBlockWithTxHashes", ["newest"], -32602),
        ("starknet_getNonce", ["latest", "0x01"], -32602),
        ("starknet_getNonce", ["latest", "0x1"], 20),
        ("starknet_getEvents", [{"chunk_size": 0}], -32602),
        ("starknet_getEvents", [{"chunk_size": 5000}], 31),
        ("starknet_getEvents", [{"chunk_size": 1, "continuation_token": "no"}], 33),
        ("starknet_getEvents", [{"chunk_size": 1, "nonsense": 1}], -32602),
        ("starknet_getTransactionReceipt", ["0x7"], 29),
        ("starknet_addInvokeTransaction", [{"type": "INVOKE"}], -32602),
        ("starknet_call", [{"contract_address": "0x1"}, "latest"], -32602),
        ("eth_blockNumber", [], -32601),
        ("starknet_blockNumber", [1], -32602),
    ],
)
async def test_what_the_specification_forbids_is_refused(
    node: StarknetNode, method: str, params: list[Any], code: int
) -> None:
    assert (await ask(node, method, *params))["error"]["code"] == code


async def test_the_block_in_the_making_is_kept_apart(
    node: StarknetNode, chain: StarknetChain
) -> None:
    ledger = StarknetLedger(node)
    await ledger.deploy()
    node.methods.pages = None
    await node.ledger.handle(ledger.address, "tell", [1, 1, 7, 0, 0, 0, 0, 0, 0])
    found = await ask(node, "starknet_getEvents", {"chunk_size": 10, "to_block": "pre_confirmed"})
    pending = [e for e in found["result"]["events"] if "block_hash" not in e]
    assert len(pending) == 1
    head = await chain.head()
    assert await chain.logs(LogFilter((ledger.address,), ()), 0, head.number) == []
    block = await node.seal()
    (log,) = await chain.logs(LogFilter((ledger.address,), ()), 0, block.number)
    assert LEDGER_ABI.decode_log(log) is not None


class OneByOne(random.Random):
    """Has every page hold one event."""

    def choice(self, seq: Any) -> Any:
        return 1


async def test_pages_turned_across_a_reorganisation_are_not_believed(
    node: StarknetNode, chain: StarknetChain
) -> None:
    ledger = StarknetLedger(node)
    await ledger.deploy()
    for n in range(6):
        await ledger.block(put(n, n))
    wanted, last = LogFilter((ledger.address,), ()), node.ledger.newest.number
    node.methods.pages = OneByOne()
    pages = 0

    def replaced(method: str) -> None:
        nonlocal pages
        pages += method == "starknet_getEvents"
        if pages == 3:
            # What was not read yet goes: nothing that comes now contradicts what came before.
            kept = node.ledger.blocks[:4]
            for one in node.ledger.blocks[4:]:
                other = hashed("other", one.hash)
                kept.append(replace(one, hash=other, parent=kept[-1].hash, transactions=()))
            node.ledger.blocks = kept

    assert sum(map(len, (await chain.read_range([wanted], 0, last)).logs.values())) == 6
    node.before = replaced
    with pytest.raises(ChainBehind, match="replaced while pages were turned"):
        await chain.read_range([wanted], 0, last)
    found = await chain.read_range([wanted], 0, last)
    assert {found.headers[n].hash for n in found.logs} == {
        log.block_hash for logs in found.logs.values() for log in logs
    }


async def test_an_account_says_who_signed(node: StarknetNode, chain: StarknetChain) -> None:
    account, other = await deploy_account(node), await deploy_account(node, 2)
    token = await deploy_token(node)
    typed: dict[str, Any] = {
        "types": {
            "StarknetDomain": [
                {"name": "name", "type": "shortstring"},
                {"name": "version", "type": "shortstring"},
                {"name": "chainId", "type": "shortstring"},
                {"name": "revision", "type": "shortstring"},
            ],
            "Login": [
                {"name": "wallet", "type": "ContractAddress"},
                {"name": "nonce", "type": "felt"},
                {"name": "expiresAt", "type": "timestamp"},
            ],
        },
        "primaryType": "Login",
        "domain": {"name": "Test", "version": "1", "chainId": "SN_SEPOLIA", "revision": "1"},
        "message": {"wallet": account.address, "nonce": "0x7", "expiresAt": "0x6553f2f4"},
    }
    signed = message_hash(typed, account.address)
    assert message_hash(typed, other.address) != signed
    changed = {**typed, "message": {**typed["message"], "nonce": "0x8"}}
    assert message_hash(changed, account.address) != signed
    signature = list(await account.key.sign_hash(signed))
    assert (await verify(chain, account.address, signed, signature)).verdict == "valid"
    for wrong in ([signature[0], signature[1] + 1], signature[:1], [], [*signature, 0]):
        assert (await verify(chain, account.address, signed, wrong)).verdict == "invalid"
    assert (await verify(chain, account.address, signed + 1, signature)).verdict == "invalid"
    assert (await verify(chain, other.address, signed, signature)).verdict == "invalid"
    assert (await verify(chain, token, signed, signature)).reason == "not an account"
    assert (await verify(chain, "0x999", signed, signature)).reason == "account not deployed"
    with pytest.raises(InvalidInput, match="typed_data"):
        message_hash({"types": {}}, account.address)
    await node.stop()
    gone = starknet_at(node.url, "SN_SEPOLIA")
    assert (await verify(gone, account.address, signed, signature)).verdict == "unknown"
    await gone.close()


async def test_every_kind_of_value_comes_out_of_a_contract_as_it_went_in(
    node: StarknetNode, chain: StarknetChain
) -> None:
    account, token = await deploy_account(node), await deploy_token(node)
    text = "Über den Dächern, " * 5
    note = TOKEN_ABI.encode("note", text, [1, 2**250], 2**64 - 1)
    empty = TOKEN_ABI.encode("note", "", [], None)
    sent = await invoke(node, account, (token, note), (token, empty))
    receipt = await chain.receipt(sent)
    assert receipt is not None
    told = [TOKEN_ABI.decode_log(log) for log in receipt.logs]
    place = (-5, True)
    assert [one.args for one in told if one is not None] == [
        {
            "by": account.address,
            "text": text,
            "tags": (1, 2**250),
            "weight": 2**64 - 1,
            "place": place,
        },
        {"by": account.address, "text": "", "tags": (), "weight": None, "place": place},
    ]


async def test_heads_and_reorganisations_are_told(node: StarknetNode) -> None:
    heard = asyncio.Event()
    seen = 0

    def hear() -> None:
        nonlocal seen
        seen += 1
        heard.set()

    feed = asyncio.create_task(HeadFeed(SecretUrl(node.ws_url, ("ws",)), "one").run(hear))
    try:
        async with asyncio.timeout(20):
            await heard.wait()  # the connection is up
            for count, doing in enumerate((node.seal, node.seal), 2):
                heard.clear()
                await doing()
                await heard.wait()
                assert seen == count
            heard.clear()
            await node.reorganise(1, blocks=0)
            await heard.wait()
            assert seen == 4
    finally:
        feed.cancel()
        await asyncio.gather(feed, return_exceptions=True)


async def test_who_serves_another_network_is_not_believed(node: StarknetNode) -> None:
    chain = starknet_at(node.url, "SN_MAIN")
    with pytest.raises(ProviderUnavailable, match="serves chain"):
        await chain.head()
    await chain.close()


async def test_of_two_nodes_the_one_behind_is_known_and_not_followed(node: StarknetNode) -> None:
    behind = await serve_frozen(node, 2)
    for _ in range(5):
        await node.seal()
    chain = starknet_at(behind.url, "SN_SEPOLIA", node.url)
    try:
        head = await chain.head()
        assert head.number == node.ledger.newest.number
        agreed = chain.pool.agreement
        assert agreed is not None
        assert agreed.lags["node0"] == head.number - 2
        found = await chain.read_range([LogFilter((), ())], 0, head.number)
        assert max(found.headers) == head.number
    finally:
        await chain.close()
        await behind.stop()


def test_the_last_word_of_a_panic_is_its_reason() -> None:
    nested = {
        "transaction_index": 0,
        "execution_error": {
            "contract_address": "0x1",
            "error": "(0x454e545259504f494e545f4641494c4544 ('ENTRYPOINT_FAILED'), "
            "0x4a6f6220616c726561647920636f6d706c65746564 ('Job already completed'))",
        },
    }
    assert reason(nested) == "Job already completed"
    assert reason("0x4f7574206f6620676173 ('Out of gas')") == "Out of gas"
    assert reason({"revert_error": "something else"}) == "something else"
    assert reason(None) == ""
