"""What is known of JSON-RPC methods: what they cost, whether they change anything, what of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from causeway.chains.rpc import Call

#: Compute units of one call, the middle of what vendors publish; for budgets counted in units.
_UNITS = {
    "eth_chainId": 1,
    "net_version": 1,
    "eth_blockNumber": 10,
    "eth_getBlockByNumber": 20,
    "eth_getBlockByHash": 20,
    "eth_getTransactionReceipt": 20,
    "eth_getTransactionByHash": 20,
    "eth_getTransactionCount": 20,
    "eth_getBalance": 20,
    "eth_getCode": 20,
    "eth_call": 26,
    "eth_estimateGas": 60,
    "eth_getLogs": 75,
    "eth_getBlockReceipts": 250,
    "debug_traceTransaction": 300,
    "trace_transaction": 300,
    "debug_traceBlockByNumber": 500,
    "eth_sendRawTransaction": 40,
}
_OTHER_UNITS = 26
_CHANGING = (
    "eth_send",
    "anvil_",
    "evm_",
    "hardhat_",
    "personal_",
    "miner_",
    "admin_",
    "starknet_add",
)
_TAGS = frozenset({"latest", "pending", "safe", "finalized", "pre_confirmed"})
#: About blocks by number; never kept, see `final_block`.
_READ_ONCE = frozenset(
    {
        "eth_getLogs",
        "eth_getBlockByNumber",
        "eth_getBlockReceipts",
        "starknet_getEvents",
        "starknet_getBlockWithTxHashes",
    }
)
_TIP = frozenset({"eth_blockNumber", "starknet_blockNumber"})
#: Where the block stands among the parameters of methods that read state.
_STATE_AT = {
    "eth_call": 1,
    "eth_getBalance": 1,
    "eth_getCode": 1,
    "eth_getTransactionCount": 1,
    "eth_getStorageAt": 2,
}


def units(method: str) -> int:
    """Return the compute units one call costs, about."""
    return _UNITS.get(method, _OTHER_UNITS)


def lead(calls: Sequence[Call]) -> str:
    """Return the method that a request of these calls is known by: the dearest of them."""
    return max((method for method, _ in calls), key=units)


def repeatable(calls: Sequence[Call]) -> bool:
    """Say whether all of them may be made twice without changing anything."""
    return not any(method.startswith(_CHANGING) for method, _ in calls)


def about_the_tip(calls: Sequence[Call]) -> bool:
    """Say whether the answer depends on which block is the newest."""
    return any(
        method in _TIP or any(isinstance(one, str) and one in _TAGS for one in params)
        for method, params in calls
    )


def highest_block(calls: Sequence[Call]) -> int | None:
    """Return the highest block number that is asked for by number; None without one."""
    numbers = [number for method, params in calls for number in _numbers(method, params)]
    return max(numbers, default=None)


def state_block(calls: Sequence[Call]) -> int | None:
    """Return the lowest block whose state is asked for by number; None without one."""
    numbers: list[int] = []
    for method, params in calls:
        at = _STATE_AT.get(method)
        if at is not None and len(params) > at:
            number = _number(params[at])
            if number is not None:
                numbers.append(number)
    return min(numbers, default=None)


def final_block(call: Call) -> int | None:
    """Return the block whose finality makes the answer final, where the call names it.

    None for calls about something else, or whose answer itself tells (`TOLD_BY_ANSWER`). Headers by
    number are among the former: by these it is seen that a chain was replaced all the same. So are
    the receipts of whole blocks: they are read once, with their block, and would fill the database.
    """
    method, params = call
    if method in _READ_ONCE:
        return None
    return max(_numbers(method, params), default=None)


#: Methods that ask for something by its hash; the answer says which block it is in.
TOLD_BY_ANSWER = frozenset(
    {"eth_getTransactionReceipt", "eth_getTransactionByHash", "eth_getBlockByHash"}
)


def _numbers(method: str, params: Sequence[object]) -> list[int]:
    if method in ("eth_getBlockByNumber", "eth_getBlockReceipts") and params:
        found = [_number(params[0])]
    elif method == "eth_getLogs" and params and isinstance(params[0], Mapping):
        query = cast("Mapping[str, object]", params[0])
        found = [_number(query.get("toBlock"))]
    else:
        at = _STATE_AT.get(method)
        found = [_number(params[at])] if at is not None and len(params) > at else []
        found += [_named_block(param) for param in params]
    return [number for number in found if number is not None]


def _named_block(param: object) -> int | None:
    """Return the number in `{"block_number": 7}`, also where it ends a range; None without it."""
    if not isinstance(param, Mapping):
        return None
    place = cast("Mapping[str, object]", param)
    number = place.get("block_number")
    if number is None:
        return _named_block(place.get("to_block"))
    return number if isinstance(number, int) else None


def _number(param: object) -> int | None:
    """Return a block number; None for a tag or a hash."""
    if not isinstance(param, str) or not param.startswith("0x") or len(param) > 18:
        return None
    try:
        return int(param, 16)
    except ValueError:
        return None
