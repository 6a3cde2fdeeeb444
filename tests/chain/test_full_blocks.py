"""Whole blocks: read in three ways, and no lie about them gets through."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any

import msgspec
import pytest

from causeway.base.errors import ChainBehind
from causeway.chains.evm.blocks import Header, full_blocks, trace_block
from causeway.chains.evm.chain import EvmChain
from causeway.sandbox.anvil import AnvilNode
from tests.chain.ledger import SENDER, chain_at
from tests.chain.proxy import FaultProxy, fault_proxy

#: Reverts with all of its call data; and leaves a log with one topic.
REVERTS = "0x" + "aa" * 20
LOGS = "0x" + "bb" * 20


@pytest.fixture
async def busy(anvil: AnvilNode) -> AnvilNode:
    """A node with an empty block and one of 120 transactions: logs, failures, a contract."""
    await anvil.rpc("anvil_setCode", REVERTS, "0x366000600037366000fd")
    await anvil.rpc("anvil_setCode", LOGS, "0x60aa60006000a100")
    await anvil.mine(1)
    await anvil.rpc("evm_setAutomine", False)
    for number in range(119):
        to = (REVERTS, LOGS, SENDER)[number % 3]
        call = {"from": SENDER, "to": to, "gas": "0xc350", "data": "0x" + f"{number:08x}"}
        await anvil.rpc("eth_sendTransaction", call)
    await anvil.rpc("eth_sendTransaction", {"from": SENDER, "data": "0x00", "gas": "0x186a0"})
    await anvil.mine(1)
    await anvil.rpc("evm_setAutomine", True)
    return anvil


@pytest.fixture
async def proxy(busy: AnvilNode) -> AsyncGenerator[FaultProxy]:
    """Something between us and the node."""
    async with fault_proxy(busy.url) as running:
        yield running


@pytest.mark.parametrize("way", ["block", "batches", "singles"])
async def test_a_whole_block_is_the_same_however_it_is_read(
    busy: AnvilNode, proxy: FaultProxy, way: str
) -> None:
    if way != "block":
        proxy.errors["eth_getBlockReceipts"] = (-32601, "the method does not exist", None)
    proxy.takes_batches = way != "singles"
    chain = chain_at(proxy.url, busy.chain_id)
    try:
        empty, full = await full_blocks(chain, [1, 2])
    finally:
        await chain.close()
    assert (empty.block.number, empty.transactions, empty.receipts) == (1, [], ())
    assert full.block.parent_hash == empty.block.hash
    assert len(full.transactions) == len(full.receipts) == 120
    statuses = [int(one.status or "", 16) for one in full.receipts]
    assert statuses == [int(n % 3 != 0) for n in range(119)] + [1]
    assert [int(one.transaction_index, 16) for one in full.receipts] == list(range(120))
    assert full.receipts[-1].contract_address
    assert full.transactions[-1].to is None
    assert full.transactions[5].input == "0x00000005"
    assert full.transactions[0].kind in (0, 2)
    assert int(full.header.gas_used, 16) == sum(int(r.gas_used, 16) for r in full.receipts)
    asked = proxy.calls["eth_getTransactionReceipt"]
    # A refused batch has been counted, too, before its parts were asked one by one.
    assert asked == {"block": 0, "batches": 120, "singles": asked}[way]
    if way == "singles":
        assert asked >= 120


async def test_receipts_older_than_statuses_get_theirs_by_trace(
    busy: AnvilNode, proxy: FaultProxy
) -> None:
    def older(true: Any) -> Any:
        for receipt in true:
            del receipt["status"]
            receipt["root"] = "0x" + "12" * 32
        return true

    def without(true: Any) -> Any:
        for receipt in older(true):
            del receipt["root"]
        return true

    proxy.lies["eth_getBlockReceipts"] = older
    chain = chain_at(proxy.url, busy.chain_id)
    try:
        (full,) = await full_blocks(chain, [2])
        statuses = [one.status for one in full.receipts]
        assert statuses == ["0x0" if n % 3 == 0 else "0x1" for n in range(119)] + ["0x1"]
        # Nobody traces: it stays unknown, and is not taken for a failure.
        proxy.errors["debug_traceBlockByHash"] = (-32601, "the method does not exist", None)
        (full,) = await full_blocks(chain, [2])
        assert {one.status for one in full.receipts} == {None}
        # A receipt of today without a status is a wrong answer.
        proxy.lies["eth_getBlockReceipts"] = without
        with pytest.raises(ChainBehind, match="without a status"):
            await full_blocks(chain, [2])
    finally:
        await chain.close()


def _receipts(change: Callable[[list[dict[str, Any]]], None]) -> Callable[[Any], Any]:
    def lie(true: Any) -> Any:
        change(true)
        return true

    return lie


def _transactions(change: Callable[[dict[str, Any]], None]) -> Callable[[Any], Any]:
    def lie(true: Any) -> Any:
        for one in true["transactions"][:2] if true else ():
            change(one)
        return true

    return lie


LIES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "one receipt fewer": ("eth_getBlockReceipts", _receipts(lambda rs: rs.remove(rs[7]))),
    "none at all": ("eth_getBlockReceipts", lambda _: None),
    "an empty list": ("eth_getBlockReceipts", lambda _: []),
    "another order": ("eth_getBlockReceipts", _receipts(lambda rs: rs.reverse())),
    "another block's": (
        "eth_getBlockReceipts",
        _receipts(lambda rs: rs[3].update(blockHash="0x" + "11" * 32)),
    ),
    "another index": (
        "eth_getBlockReceipts",
        _receipts(lambda rs: rs[3].update(transactionIndex="0x4")),
    ),
    "less gas": (
        "eth_getBlockReceipts",
        _receipts(lambda rs: rs[-1].update(cumulativeGasUsed="0x1")),
    ),
    "other gas": ("eth_getBlockReceipts", _receipts(lambda rs: rs[2].update(gasUsed="0x5208"))),
    "one of many equal logs fewer": (
        "eth_getBlockReceipts",
        _receipts(lambda rs: rs[1].update(logs=[], logsBloom=None)),
    ),
    "logs that its bloom denies": (
        "eth_getBlockReceipts",
        _receipts(lambda rs: rs[117].update(logs=rs[1]["logs"])),
    ),
    "a status nobody has": (
        "eth_getBlockReceipts",
        _receipts(lambda rs: rs[0].update(status="0x2")),
    ),
    "another block": ("eth_getBlockByNumber", lambda b: b and {**b, "number": "0x7"}),
    "no block": ("eth_getBlockByNumber", lambda _: None),
    "no transactions": ("eth_getBlockByNumber", lambda b: b and {**b, "transactions": []}),
    "a transaction fewer": (
        "eth_getBlockByNumber",
        lambda b: b and {**b, "transactions": b["transactions"][:-1]},
    ),
    **{
        f"{field}: {value[:9]}": (
            "eth_getBlockByNumber",
            _transactions(lambda one, field=field, value=value: one.update({field: value})),
        )
        for field, value in (
            ("input", "0x123"),
            ("input", "0xzz"),
            ("from", "0x12"),
            ("hash", "0x" + "gg" * 32),
            ("value", "many"),
            ("value", "0x1" + "0" * 64),
            ("transactionIndex", "0x9"),
        )
    },
    "gas that is no number": (
        "eth_getBlockReceipts",
        _receipts(lambda rs: rs[5].update(gasUsed="lots")),
    ),
    "hashes only": (
        "eth_getBlockByNumber",
        lambda b: b and {**b, "transactions": [t["hash"] for t in b["transactions"]]},
    ),
}


@pytest.mark.parametrize("name", LIES)
async def test_a_lie_is_dropped_and_another_endpoint_asked(
    busy: AnvilNode, proxy: FaultProxy, name: str
) -> None:
    method, lie = LIES[name]
    honest = chain_at(busy.url, busy.chain_id)
    both = chain_at(proxy.url, busy.chain_id, busy.url)
    alone = chain_at(proxy.url, busy.chain_id)
    try:
        (true,) = await full_blocks(honest, [2])
        proxy.lies[method] = lie
        (found,) = await full_blocks(both, [2])
        assert found.header == true.header
        assert found.receipts == true.receipts
        assert proxy.calls[method] >= 1
        with pytest.raises(Exception, match=r".") as caught:
            await full_blocks(alone, [2])
        assert getattr(caught.value, "transient", True)
    finally:
        for chain in (honest, both, alone):
            await chain.close()


async def test_a_block_that_is_not_there_is_waited_for(busy: AnvilNode, chain: EvmChain) -> None:
    with pytest.raises(ChainBehind, match="block 3"):
        await full_blocks(chain, [2, 3])


async def test_a_blocks_traces_come_in_the_order_of_its_transactions(
    busy: AnvilNode, chain: EvmChain
) -> None:
    (full,) = await full_blocks(chain, [2])
    frames = await trace_block(chain, full.block.hash, 120)
    assert [frame and frame.to for frame in frames[:3]] == [REVERTS, LOGS, SENDER.lower()]
    assert frames[0] is not None
    assert frames[0].error
    assert frames[0].output == "0x00000000"


def test_deposits_and_unknown_types_are_read() -> None:
    deposit = {
        "hash": "0x" + "01" * 32,
        "from": "0xdeaddeaddeaddeaddeaddeaddeaddeaddead0001",
        "to": "0x4200000000000000000000000000000000000015",
        "gas": "0xf4240",
        "value": "0x0",
        "input": "0x440a5e20",
        "sourceHash": "0x" + "02" * 32,
        "mint": "0x0",
        "ethValue": "0x0",
        "isSystemTx": False,
        "v": "0x0",
    }
    for written, kind in (("0x7e", 126), ("0x7E", 126), (126, 126), ("0x99", 153), (None, 0)):
        header = {
            "number": "0x1",
            "hash": "0x" + "aa" * 32,
            "parentHash": "0x" + "bb" * 32,
            "timestamp": "0x1",
            "gasUsed": "0x0",
            "gasLimit": "0x0",
            "transactions": [{**deposit, "type": written}],
        }
        (one,) = msgspec.json.decode(msgspec.json.encode(header), type=Header).transactions
        assert one.kind == kind
        assert one.gas_price is None
