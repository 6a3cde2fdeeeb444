"""Which answers are final with their block, and which are not kept though they are."""

from __future__ import annotations

import pytest

from causeway.chains.methods import final_block


@pytest.mark.parametrize(
    ("method", "params", "block"),
    [
        ("eth_getBalance", ("0x" + "11" * 20, "0x10"), 16),
        ("eth_call", ({"to": "0x"}, "0x10"), 16),
        ("eth_getBalance", ("0x" + "11" * 20, "latest"), None),
        # Read once, with their block: kept, they would fill the database.
        ("eth_getBlockReceipts", ("0x10",), None),
        ("eth_getBlockByNumber", ("0x10", True), None),
        ("eth_getLogs", ({"fromBlock": "0x1", "toBlock": "0x10"},), None),
    ],
)
def test_final_block(method: str, params: tuple[object, ...], block: int | None) -> None:
    assert final_block((method, params)) == block
