"""New heads and reorganisations told by a Starknet node over WebSocket: a hint to look sooner."""

from __future__ import annotations

from causeway.chains.evm import heads


class HeadFeed(heads.HeadFeed):
    """One node's subscription to new heads, which tells of reorganisations too."""

    request = ("starknet_subscribeNewHeads", {"block_id": "latest"})
    told = frozenset({"starknet_subscriptionNewHeads", "starknet_subscriptionReorg"})
