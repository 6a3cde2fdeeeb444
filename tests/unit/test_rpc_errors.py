"""What the errors of many vendors are taken for, and that no secret is ever shown."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from causeway.base.errors import (
    ChainBehind,
    ConfigurationError,
    ProviderUnavailable,
    RateLimited,
    TransactionReverted,
)
from causeway.chains.classify import ErrorReply, classify, revert_data
from causeway.chains.endpoint import Endpoint, SecretUrl
from causeway.chains.errors import (
    AlreadyKnown,
    BlockUnknown,
    FeeCapExceeded,
    InsufficientFunds,
    IntrinsicGasTooLow,
    MethodUnsupported,
    NonceTooHigh,
    NonceTooLow,
    RangeTooLarge,
    ReplacementUnderpriced,
    RpcError,
    Underpriced,
)
from causeway.chains.rpc import retry_after_s
from causeway.indexing.span import Span

SEND = [
    (-32000, "already known", AlreadyKnown),
    (-32000, "Known transaction: 0xab", AlreadyKnown),
    (-32010, "Transaction with the same hash was already imported.", AlreadyKnown),
    (-32603, "ALREADY_EXISTS: already known", AlreadyKnown),
    (-32003, "transaction already imported", AlreadyKnown),
    (-32000, "unknown transaction type", RpcError),
    (-32000, "nonce too low: next nonce 7, tx nonce 5", NonceTooLow),
    (-32003, "Transaction nonce is too low. Try incrementing the nonce.", NonceTooLow),
    (-32000, "replacement transaction underpriced", ReplacementUnderpriced),
    (-32000, "INTERNAL_ERROR: could not replace existing tx", ReplacementUnderpriced),
    (-32000, "nonce too high", NonceTooHigh),
    (-32000, "insufficient funds for gas * price + value: balance 1", InsufficientFunds),
    (-32003, "Insufficient funds for gas * price + value", InsufficientFunds),
    (-32000, "transaction underpriced: tip needed 1, tip permitted 0", Underpriced),
    (-32000, "max fee per gas less than block base fee: address 0x", Underpriced),
    (-32000, "tx fee (2.00 ether) exceeds the configured cap (1.00 ether)", FeeCapExceeded),
    (-32000, "intrinsic gas too low: gas 100, minimum needed 21000", IntrinsicGasTooLow),
    (-32000, "exceeds block gas limit", RpcError),
    (-32602, "rlp: expected input list", RpcError),
    (-32603, "internal error", ProviderUnavailable),
    (-32005, "limit exceeded", RateLimited),
]


@pytest.mark.parametrize(("code", "text", "kind"), SEND)
def test_a_refused_send_is_told_apart(code: int, text: str, kind: type[Exception]):
    assert type(classify("eth_sendRawTransaction", ErrorReply(code, text))) is kind


RANGES = [
    (-32602, "Log response size exceeded. this block range should work: [0x0, 0x3e7]"),
    (-32600, "You can make eth_getLogs requests with up to a 10 block range on a free plan"),
    (-32005, "query returned more than 10000 results. Try with this block range [0x1, 0x2]."),
    (-32602, "query exceeds max block range 100000"),
    (-32602, "query exceeds max results 20000, retry with the range 24383075-24383096"),
    (-32614, "eth_getLogs is limited to a 10,000 range"),
    (-32000, "requested too many blocks from 0 to 5000, maximum is set to 2048"),
    (-32701, "Please specify an address in your request or, to remove restrictions, order"),
    (-32000, "exceed maximum block range: 50000"),
    (-32000, "block range is too wide"),
    (35, "ranges over 10000 blocks are not supported on freetier"),
    (-32000, "Exceeded max range limit for eth_getLogs: 1000"),
    (-32002, "request timed out"),
    (1, "no reason at all"),
]


@pytest.mark.parametrize(("code", "text"), RANGES)
def test_a_refused_range_is_known_whatever_the_text(code: int, text: str):
    assert type(classify("eth_getLogs", ErrorReply(code, text))) is RangeTooLarge


REST = [
    ("eth_getLogs", -32602, "block range extends beyond current head block", ChainBehind),
    ("eth_getLogs", -32000, "unknown block", ChainBehind),
    ("eth_getLogs", -32005, "daily request count exceeded, request rate limited", RateLimited),
    ("eth_getLogs", -32601, "the method eth_getLogs does not exist", MethodUnsupported),
    ("eth_call", -32016, "over rate limit", RateLimited),
    ("eth_call", 429, "Your app has exceeded its compute units per second", RateLimited),
    ("eth_call", -32000, "header not found", ChainBehind),
    ("eth_call", -32603, "Internal error", ProviderUnavailable),
    ("eth_call", -32602, "invalid argument 0", RpcError),
    ("eth_call", -32000, "execution reverted", TransactionReverted),
    ("eth_call", 3, "whatever", TransactionReverted),
    ("eth_estimateGas", -32000, "insufficient funds for transfer", InsufficientFunds),
    ("eth_getBlockByNumber", -32000, "finalized block not found", BlockUnknown),
    ("eth_getBlockByNumber", -39001, "Unknown block", BlockUnknown),
    ("eth_getBlockByNumber", -32005, "limit", RateLimited),
    ("eth_blockNumber", 3, "execution reverted", RpcError),
]


@pytest.mark.parametrize(("method", "code", "text", "kind"), REST)
def test_other_errors_are_told_apart(method: str, code: int, text: str, kind: type[Exception]):
    assert type(classify(method, ErrorReply(code, text))) is kind


@pytest.mark.parametrize(
    "data",
    [
        "0xa3a57894",
        "Reverted 0xa3a57894",
        {"data": "0xa3a57894"},
        {"originalError": 1, "data": {"result": "0xa3a57894"}},
    ],
)
def test_revert_data_is_found_in_any_dress(data: object):
    found = classify("eth_call", ErrorReply(-32015, "VM execution error.", data))
    assert isinstance(found, TransactionReverted)
    assert found.data.hex() == "a3a57894"


@pytest.mark.parametrize("data", [None, 7, "", "why not", {"see": "https://x.y/0xdoc"}, ["0x00"]])
def test_other_data_is_no_revert_data(data: object):
    assert revert_data(data) is None


SECRETS = [
    (
        "https://user:hunter2@rpc.example.org:8545/v2/hunter2?key=hunter2",
        "https://rpc.example.org:8545/…",
    ),
    ("https://base.example.com/hunter2", "https://base.example.com/…"),
    ("http://127.0.0.1:8545", "http://127.0.0.1:8545"),
    ("http://[::1]:8545/", "http://[::1]:8545"),
]


@pytest.mark.parametrize(("url", "shown"), SECRETS)
def test_an_url_shows_no_more_than_its_host(url: str, shown: str):
    secret = SecretUrl(url)
    assert str(secret) == shown
    assert f"{secret}" == shown
    assert "hunter2" not in repr(secret) + repr(Endpoint(secret, "one"))
    assert secret.reveal() == url
    assert secret == SecretUrl(url)


@pytest.mark.parametrize("url", ["", "ftp://x", "hunter2", "https://", "http://x:hunter2/"])
def test_a_wrong_url_is_refused_without_being_shown(url: str):
    with pytest.raises(ConfigurationError) as refused:
        SecretUrl(url)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("2", 2.0),
        ("-5", 0.0),
        ("1e9", 600.0),
        ("Fri, 20 Nov 2026 12:00:30 GMT", 30.0),
        ("Fri, 20 Nov 2026 11:00:00 GMT", 0.0),
    ],
)
def test_retry_after_is_read_in_both_forms(header: str | None, seconds: float | None):
    assert retry_after_s(header, datetime(2026, 11, 20, 12, tzinfo=UTC)) == seconds


def test_an_endpoint_rests_longer_after_each_failure_and_returns_at_once():
    endpoint = Endpoint(SecretUrl("http://127.0.0.1:1"), "one")
    rests: list[float] = []
    for _ in range(8):
        endpoint.failed(100.0)
        rests.append(endpoint.cooling_until - 100)
    assert rests == [1, 2, 4, 8, 16, 32, 60, 60]
    endpoint.failed(100.0, retry_after_s=5)
    assert endpoint.cooling_until == 105
    endpoint.succeeded()
    assert (endpoint.failures_in_a_row, endpoint.cooling_until) == (0, 0)


@pytest.mark.parametrize("limit", [1, 3, 10, 999, 2000, 5000])
def test_a_span_finds_what_the_provider_takes(limit: int):
    span = Span(2000)
    refusals = 0
    for _ in range(60):
        asked = span.blocks
        if asked > limit:
            span.refused(asked)
            refusals += 1
        else:
            span.answered(asked)
    assert min(limit, 2000) * 0.8 <= span.blocks <= 2000
    assert refusals <= 20


def test_a_span_grows_again_after_an_outage():
    span = Span(2000)
    for _ in range(20):
        span.failed(span.blocks)
    assert span.blocks == 1
    for _ in range(11):
        span.answered(span.blocks)
    assert span.blocks == 2000
