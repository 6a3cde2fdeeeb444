"""Every method of an EVM chain against a real node."""

from __future__ import annotations

import json
import pickle
from itertools import pairwise
from pathlib import Path

import pytest
from eth_account import Account
from eth_utils.address import is_checksum_address
from pydantic import SecretStr

from causeway.base.errors import ChainBehind, ConfigurationError, TransactionReverted
from causeway.chains.errors import (
    AlreadyKnown,
    InsufficientFunds,
    IntrinsicGasTooLow,
    NonceTooLow,
    ReplacementUnderpriced,
    RpcError,
    Underpriced,
)
from causeway.chains.evm.abi import Abi
from causeway.chains.evm.chain import EvmChain
from causeway.chains.evm.signer import LocalSigner
from causeway.chains.protocol import Chain, LogFilter
from causeway.indexing.source import find_deployment_block
from causeway.sandbox.anvil import AnvilNode
from tests.chain.ledger import LEDGER, SENDER, Ledger, put, transfer

ERRORS = Abi.from_json(
    [{"type": "error", "name": "Refused", "inputs": [{"name": "n", "type": "uint256"}]}]
)


async def deploy(anvil: AnvilNode, runtime: str) -> str:
    """Put a contract with this runtime code on the chain; return its address."""
    code = bytes.fromhex(runtime)
    init = f"0x60{len(code):02x}80600b6000396000f3{runtime}"
    made = await anvil.rpc("eth_sendTransaction", {"from": SENDER, "data": init})
    await anvil.mine(1)
    receipt = await anvil.rpc("eth_getTransactionReceipt", made)
    return str(receipt["contractAddress"])


#: Reverts with all of its call data.
REVERTS = "366000600037366000fd"
#: Returns all of its call data.
ECHOES = "366000600037366000f3"


async def test_blocks_are_found_by_number_hash_and_tag(chain: EvmChain, anvil: AnvilNode) -> None:
    protocol: Chain = chain
    await protocol.verify()
    await anvil.mine(5)
    head = await protocol.head()
    assert head.number == 5
    assert await protocol.block(5) == await protocol.block(head.hash) == head
    assert await protocol.block("latest") == head
    assert await protocol.block(6) is None
    assert await protocol.block("0x" + "ab" * 32) is None
    assert [b and b.number for b in await protocol.look("latest", "finalized", 6, 2)] == [
        5,
        0,
        None,
        2,
    ]
    blocks = await protocol.blocks(0, 5)
    assert blocks[-1] == head
    for parent, child in pairwise(blocks):
        assert child.parent_hash == parent.hash
    assert head.timestamp.utcoffset() is not None
    with pytest.raises(ChainBehind, match="block 6"):
        await protocol.blocks(4, 7)
    assert await chain.gas_limit_of_block() == 30_000_000


async def test_logs_come_in_chain_order_by_range_and_by_hash(
    chain: EvmChain, ledger: Ledger
) -> None:
    first = await ledger.block(put(1, 10), put(2, 20, "größer"))
    await ledger.block()
    last = await ledger.block(put(3, 2**256 - 1))
    wanted = LogFilter((ledger.address,), (LEDGER.event("Put").topic0,))
    logs = await chain.logs(wanted, first, last)
    assert [(log.block_number - first, log.log_index) for log in logs] == [(0, 0), (0, 1), (2, 0)]
    events = [LEDGER.decode_log(log) for log in logs]
    assert [e.args for e in events if e] == [
        {"key": 1, "amount": 10, "note": ""},
        {"key": 2, "amount": 20, "note": "größer"},
        {"key": 3, "amount": 2**256 - 1, "note": ""},
    ]
    blocks = await chain.blocks(first, last)
    assert [log.block_hash for log in logs] == [blocks[0].hash] * 2 + [blocks[2].hash]
    assert {log.block_timestamp for log in logs} <= {None, *(b.timestamp for b in blocks)}
    by_hash = await chain.logs_of(wanted, [b.hash for b in blocks])
    assert by_hash == logs
    assert await chain.logs(LogFilter((ledger.address,), ("0x" + "00" * 32,)), first, last) == []
    assert await chain.logs(LogFilter(("0x" + "22" * 20,), ()), first, last) == []
    assert await chain.logs(LogFilter((), ()), first, last) == logs
    assert await chain.logs(wanted, first, last, last_hash=blocks[2].hash) == logs
    with pytest.raises(ChainBehind):
        await chain.logs(wanted, first, last, last_hash=blocks[1].hash)
    with pytest.raises(ChainBehind):
        await chain.logs(wanted, first, last + 1)
    with pytest.raises(ChainBehind):
        await chain.logs_of(wanted, ["0x" + "ab" * 32])


async def test_calls_return_data_and_reverts_carry_theirs(
    chain: EvmChain, anvil: AnvilNode
) -> None:
    echo, refuse = await deploy(anvil, ECHOES), await deploy(anvil, REVERTS)
    reason = ERRORS.errors[next(s for s, e in ERRORS.errors.items() if e.name == "Refused")]
    data = reason.selector + (7).to_bytes(32, "big")
    assert await chain.call(echo, b"hello") == b"hello"
    assert await chain.call(echo, b"hello", sender=SENDER, at="latest") == b"hello"
    head = await chain.head()
    assert await chain.call(echo, b"", at=head.hash) == b""
    with pytest.raises(TransactionReverted) as reverted:
        await chain.call(refuse, data)
    assert reverted.value.data == data
    assert ERRORS.explain(reverted.value).message == "Refused(7)"
    with pytest.raises(TransactionReverted) as silent:
        await chain.call(refuse, b"")
    assert silent.value.data == b""
    outputs = await chain.call_many([(echo, b"a"), (refuse, data), (echo, b"b")])
    assert [outputs[0], outputs[2]] == [b"a", b"b"]
    assert isinstance(outputs[1], TransactionReverted)
    assert await chain.call_many([]) == []
    with pytest.raises(TransactionReverted) as estimated:
        await chain.estimate_gas(SENDER, refuse, data)
    assert estimated.value.data == data
    assert await chain.estimate_gas(SENDER, echo, b"hello", 1) > 21_000
    with pytest.raises(InsufficientFunds):
        await chain.estimate_gas(SENDER, echo, b"", 10**30)
    assert (await chain.code(echo)).hex() == ECHOES
    assert await chain.code(SENDER) == b""


async def test_fees_balances_and_nonces_are_numbers(chain: EvmChain, anvil: AnvilNode) -> None:
    await anvil.mine(3)
    history = await chain.fee_history(2, [25.0, 75.0])
    assert len(history.base_fee_per_gas) == 3
    assert [len(tips) for tips in history.rewards] == [2, 2]
    assert await chain.max_priority_fee() > 0
    assert await chain.balance(SENDER) == 10_000 * 10**18
    assert await chain.nonce(SENDER) == await chain.nonce(SENDER, "pending") == 0


async def test_a_signed_transaction_is_sent_and_found_again(
    chain: EvmChain, anvil: AnvilNode
) -> None:
    await anvil.rpc("evm_setAutomine", False)
    sent = await transfer(anvil)
    assert await chain.receipt(sent.hash) is None
    assert await chain.transaction(sent.hash) is None
    assert await chain.send_raw(sent.raw) == sent.hash
    assert await chain.receipt(sent.hash) is None
    assert (await chain.transaction(sent.hash) or {})["hash"] == sent.hash
    assert (await chain.nonce(SENDER), await chain.nonce(SENDER, "pending")) == (0, 1)
    await anvil.mine()
    receipt = await chain.receipt(sent.hash)
    assert receipt is not None
    block = await chain.block(receipt.block_number)
    assert block is not None
    assert receipt.block_hash == block.hash
    assert (receipt.status, receipt.gas_used, receipt.logs, receipt.l1_fee) == (1, 21_000, (), None)
    assert receipt.effective_gas_price > 0
    assert await chain.nonce(SENDER) == 1


async def test_a_receipt_tells_a_revert_and_the_logs(
    chain: EvmChain, ledger: Ledger, anvil: AnvilNode
) -> None:
    made = await anvil.rpc("eth_sendTransaction", ledger.transaction(put(5, 6)))
    await ledger.block()
    receipt = await chain.receipt(made)
    assert receipt is not None
    assert [LEDGER.decode_log(log) for log in receipt.logs] == [
        LEDGER.decode_log(log)
        for log in await chain.logs_of(LogFilter((), ()), [receipt.block_hash])
    ]
    refuse = await deploy(anvil, REVERTS)
    sent = await transfer(anvil, await chain.nonce(SENDER), to=refuse, gas=90_000)
    await chain.send_raw(sent.raw)
    await ledger.block()
    failed = await chain.receipt(sent.hash)
    assert failed is not None
    assert failed.status == 0


async def test_refused_sends_are_told_apart_by_a_real_node(
    chain: EvmChain, anvil: AnvilNode
) -> None:
    first = await transfer(anvil)
    await chain.send_raw(first.raw)
    await anvil.mine()
    waiting = await transfer(anvil, 5)
    await chain.send_raw(waiting.raw)
    for transaction, error in (
        (first, NonceTooLow),
        (waiting, AlreadyKnown),
        (await transfer(anvil, 5, value=2), ReplacementUnderpriced),
        (await transfer(anvil, 1, value=10**30), InsufficientFunds),
        (await transfer(anvil, 1, maxFeePerGas=1, maxPriorityFeePerGas=1), Underpriced),
        (await transfer(anvil, 1, gas=100), IntrinsicGasTooLow),
    ):
        with pytest.raises(error) as refused:
            await chain.send_raw(transaction.raw)
        assert type(refused.value) is error
    with pytest.raises(RpcError):
        await chain.send_raw(b"\x02\x01")


async def test_the_deployment_block_is_found(chain: EvmChain, anvil: AnvilNode) -> None:
    await anvil.mine(7)
    address = await deploy(anvil, ECHOES)
    await anvil.mine(9)
    assert await find_deployment_block(chain, address) == 8
    assert await find_deployment_block(chain, SENDER) is None


async def test_a_signer_signs_for_its_address_and_never_shows_its_key(
    anvil: AnvilNode, tmp_path: Path
) -> None:
    key = anvil.accounts[0].private_key
    signer = LocalSigner.from_private_key(SecretStr(key))
    assert signer.address.lower() == SENDER
    assert is_checksum_address(signer.address)
    same = LocalSigner.from_private_key(key.removeprefix("0x").upper())
    assert same.address == signer.address
    path = tmp_path / "key.json"
    path.write_text(
        json.dumps(Account.encrypt(bytes.fromhex(key[2:]), "correct horse", iterations=2))
    )
    stored = LocalSigner.from_keystore(path, SecretStr("correct horse"))
    assert stored.address == signer.address
    fields = {"chainId": 1, "nonce": 0, "to": SENDER, "value": 0, "gas": 21000, "gasPrice": 1}
    assert await stored.sign(fields) == await signer.sign(fields)
    signed = await signer.sign(fields)
    assert Account.recover_transaction(signed.raw) == signer.address
    assert key[2:] not in f"{signer!r} {signer} {vars(type(signer))}"
    with pytest.raises(TypeError):
        pickle.dumps(signer)
    for wrong in ("", "0x12", key + "00", "zz" * 32, "00" * 32, "ff" * 32):
        with pytest.raises(ConfigurationError) as refused:
            LocalSigner.from_private_key(wrong)
        assert not wrong or wrong not in str(refused.value)
    with pytest.raises(ConfigurationError, match="wrong password"):
        LocalSigner.from_keystore(path, "wrong")
    with pytest.raises(ConfigurationError, match="No such file"):
        LocalSigner.from_keystore(tmp_path / "none.json", "x")
