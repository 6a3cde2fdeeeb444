"""The proof at the end of the demo: nothing of it is taken from Causeway's own word."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import orjson
from rich.console import Console
from rich.table import Table

from causeway.apps.glisk.art import contact_sheet
from causeway.cli.demo.world import World
from causeway.sandbox import dag

REVEALED = "0x5f36dfedf769ad12bf71aec843edc397276a255b70d51016d99f5fb020dfd902"


async def check_all(
    world: World, http: httpx2.AsyncClient, token_ids: list[int], console: Console
) -> list[str]:
    """Check every token on chain and on IPFS, print what was found, and return what is wrong.

    The URI on chain must be the CID of the metadata's bytes, the image CID inside it that of the
    picture's bytes (both computed by the sandbox's own code, not the app's), and every token must
    have been revealed by exactly one transaction.
    """
    problems: list[str] = []
    table = Table("token", "author", "metadata CID", "reveal transaction", box=None)
    revealed_by = await _reveals(world)
    for token_id in token_ids:
        uri = await world.contract.token_uri(token_id)
        cid = uri.removeprefix("ipfs://")
        metadata = await _content(world, http, cid)
        problems += [f"token {token_id}: {p}" for p in await _wrong(world, http, cid, metadata)]
        transactions = revealed_by.get(token_id, [])
        if len(transactions) != 1:
            problems.append(f"token {token_id}: revealed by {len(transactions)} transactions")
        known = (await http.get(f"{world.api_url}/admin/token/{token_id}")).json()
        if known.get("reveal_tx_hash") not in transactions:
            problems.append(f"token {token_id}: Causeway names another reveal transaction")
        author = await world.contract.call("tokenPromptAuthor", token_id)
        if author.lower() != known["author"]["wallet_address"].lower():
            problems.append(f"token {token_id}: Causeway names another author")
        table.add_row(
            str(token_id),
            f"{author[:8]}…",
            f"{cid[:16]}…{cid[-6:]}",
            f"{transactions[0][:14]}…" if transactions else "–",
        )
    console.print()
    console.print(table)
    paid = world.sandbox.counts()
    console.print(
        f"\n{len(token_ids)} tokens; {len(set(h for hs in revealed_by.values() for h in hs))} "
        f"reveal transactions; {_paid(paid)} pictures paid for"
    )
    return problems


def _paid(counts: Any) -> int:
    return int(counts.paid())


async def _reveals(world: World) -> dict[int, list[str]]:
    """Return the hashes of the transactions that revealed each token, from the chain's logs."""
    logs: list[dict[str, Any]] = await world.node.rpc(
        "eth_getLogs",
        {"address": world.contract.address, "topics": [REVEALED], "fromBlock": "0x0"},
    )
    found: dict[int, list[str]] = {}
    for log in logs:
        words = bytes.fromhex(log["data"][2:])
        count = int.from_bytes(words[32:64], "big")
        for i in range(count):
            token_id = int.from_bytes(words[64 + 32 * i : 96 + 32 * i], "big")
            found.setdefault(token_id, []).append(log["transactionHash"])
    return found


async def _content(world: World, http: httpx2.AsyncClient, cid: str) -> bytes:
    answer = await http.get(f"{world.sandbox.gateway_url}/ipfs/{cid}")
    return answer.content if answer.status_code == 200 else b""


async def _wrong(world: World, http: httpx2.AsyncClient, cid: str, metadata: bytes) -> list[str]:
    problems: list[str] = []
    if not metadata or str(dag.build(metadata, dag.KUBO_V1).root) != cid:
        return [f"the URI on chain is not the CID of its metadata ({cid})"]
    image_cid = str(orjson.loads(metadata)["image"]).removeprefix("ipfs://")
    image = await _content(world, http, image_cid)
    if not image or str(dag.build(image, dag.KUBO_V1).root) != image_cid:
        problems.append(f"the image CID does not match its bytes ({image_cid})")
    return problems


async def write_sheet(
    world: World, http: httpx2.AsyncClient, token_ids: list[int], path: Path
) -> Path:
    """Write one picture of all pictures, fetched from IPFS by what the chain says."""
    images: list[tuple[str, bytes]] = []
    for token_id in token_ids[:50]:
        cid = (await world.contract.token_uri(token_id)).removeprefix("ipfs://")
        metadata = orjson.loads(await _content(world, http, cid) or b"{}")
        image = await _content(world, http, str(metadata.get("image", ""))[7:])
        if image:
            images.append((str(metadata["name"]), image))
    await asyncio.to_thread(path.write_bytes, contact_sheet(images, columns=5))
    return path
