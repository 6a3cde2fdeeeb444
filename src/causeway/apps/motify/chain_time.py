"""Time as the contract sees it: the timestamps of blocks that are deep enough to decide on.

Ends, grace and deadlines are compared with this and never with a clock of ours, which the contract
does not know.
"""

from __future__ import annotations

from causeway.apps.motify.context import CHAIN, MotifyContext
from causeway.base.errors import ChainBehind
from causeway.chains.protocol import Block

#: For how long one look at the chain is good enough, seconds.
_FRESH_S = 1.0


async def final_block(ctx: MotifyContext) -> Block:
    """Return the newest block that is as deep as `MOTIFY_FINALITY` asks for."""
    now = ctx.clock.monotonic()
    kept = ctx.services.final
    if kept is not None and now - kept[0] < _FRESH_S:
        return kept[1]
    chain, depth = ctx.chains[CHAIN], ctx.settings.motify_finality
    if isinstance(depth, int):
        head = await chain.head()
        found = head if depth == 0 else await chain.block(max(0, head.number - depth))
    else:
        found = await chain.block(depth)
    if found is None:
        raise ChainBehind(f"the chain has no {depth} block yet")
    if kept is not None and kept[1].number > found.number:
        found = kept[1]  # another provider is behind: what was final stays so
    ctx.services.final = (now, found)
    return found


def seconds(block: Block) -> int:
    """Return a block's time, Unix seconds."""
    return int(block.timestamp.timestamp())
