"""Reads of GLISK's contract, many tokens in one question."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from causeway.base.errors import TransactionReverted
from causeway.chains.evm.abi import Abi
from causeway.chains.evm.chain import EvmChain


@cache
def contract_abi() -> Abi:
    """Return the contract's ABI."""
    content = files("causeway.apps.glisk").joinpath("abi.json").read_text()
    return Abi.from_json(json.loads(content))


@dataclass(frozen=True)
class Look:
    """A token as the chain shows it; `owner` is None when it does not exist."""

    owner: str | None
    author: str | None
    revealed: bool


async def look_at(
    chain: EvmChain, contract: str, token_ids: Sequence[int], at: int | str = "latest"
) -> dict[int, Look]:
    """Return each token as it is on chain, in one batch of reads."""
    abi = contract_abi()
    names = ("ownerOf", "tokenPromptAuthor", "isRevealed")
    calls = [(contract, abi.encode(name, i)) for i in token_ids for name in names]
    answers = await chain.call_many(calls, at) if calls else []
    looks: dict[int, Look] = {}
    for place, token_id in enumerate(token_ids):
        owner, author, revealed = answers[place * 3 : place * 3 + 3]
        looks[token_id] = Look(
            owner=_text(_one(abi, "ownerOf", owner)),
            author=_text(_one(abi, "tokenPromptAuthor", author)),
            revealed=_one(abi, "isRevealed", revealed) is True,
        )
    return looks


async def uris_of(
    chain: EvmChain, contract: str, token_ids: Sequence[int], at: int | str = "latest"
) -> dict[int, str | None]:
    """Return each token's URI on chain, None where the token does not exist."""
    abi = contract_abi()
    calls = [(contract, abi.encode("tokenURI", i)) for i in token_ids]
    answers = await chain.call_many(calls, at) if calls else []
    return {
        token_id: _text(_one(abi, "tokenURI", answer))
        for token_id, answer in zip(token_ids, answers, strict=True)
    }


def _one(abi: Abi, function: str, answer: bytes | TransactionReverted) -> object | None:
    """Return a function's one result, None when the call reverted: the token is not there."""
    if isinstance(answer, TransactionReverted):
        return None
    return abi.decode_result(function, answer)[0]


def _text(value: object | None) -> str | None:
    return None if value is None else str(value)
