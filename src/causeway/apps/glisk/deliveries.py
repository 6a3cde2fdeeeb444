"""What an Alchemy webhook says: parsed by shape, believed by nobody.

Accepts Custom (GraphQL) webhooks in the shapes their queries can give, and Address and NFT
Activity, which only hint at a block. The result names blocks to look at; facts come from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from causeway.base.errors import Field, InvalidInput

BATCH_MINTED = "0x20c0d4a5bab7118059cf1d2fd0403c4f29a05e446d435b347f90b80778374c54"
TRANSFER = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"


@dataclass(frozen=True)
class Hint:
    """One log a delivery names: where it should be on the chain."""

    address: str
    topic0: str
    tx_hash: str
    #: The log's index in its block; None where the delivery does not say.
    log_index: int | None
    block_number: int | None
    block_hash: str | None
    #: The log was taken back by a reorganisation, or its transaction failed.
    gone: bool
    removed: bool


@dataclass(frozen=True)
class Delivery:
    """A delivery with a good signature."""

    id: str
    kind: str
    hints: tuple[Hint, ...]
    #: What the provider says went wrong on its side, instead of data.
    problem: str | None = None

    def concerning(self, contract: str) -> list[Hint]:
        """Return the hints that name this contract's mints and did happen."""
        return [
            h
            for h in self.hints
            if h.address == contract.lower()
            and not h.gone
            and not h.removed
            and (h.topic0 == BATCH_MINTED or (self.is_activity and h.topic0 in (TRANSFER, "")))
        ]

    def taken_back(self, contract: str) -> list[Hint]:
        """Return the hints that say a log of this contract is not on the chain any more."""
        return [h for h in self.hints if h.address == contract.lower() and h.removed]

    @property
    def is_activity(self) -> bool:
        """Whether it reports transfers, not logs: then it only names blocks."""
        return self.kind in ("ADDRESS_ACTIVITY", "NFT_ACTIVITY")


def parse(body: Any) -> Delivery:
    """Return what a delivery says; `InvalidInput` names the path of what is malformed."""
    root = _mapping(body, "body")
    kind = _text(root, "type", "type")
    delivery_id = _text(root, "id", "id")
    event = _mapping(root.get("event"), "event")
    if event.get("error") is not None:
        return Delivery(delivery_id, kind, (), problem=str(event["error"])[:500])
    if kind in ("ADDRESS_ACTIVITY", "NFT_ACTIVITY"):
        return Delivery(delivery_id, kind, tuple(_activity(event)))
    if kind in ("GRAPHQL", "CUSTOM"):
        return Delivery(delivery_id, kind, tuple(_blocks(event)))
    raise InvalidInput(
        fields=[Field("type", kind, "GRAPHQL, CUSTOM, ADDRESS_ACTIVITY or NFT_ACTIVITY")]
    )


def _blocks(event: Mapping[str, Any]) -> Iterator[Hint]:
    data = _mapping(event.get("data"), "event.data")
    block = _mapping(data.get("block"), "event.data.block")
    path = "event.data.block"
    number = _number(block, "number", path, required=False)
    block_hash = _hash(block, "hash", path, required=False)
    seen = False
    if "logs" in block:
        seen = True
        for i, log in enumerate(_list(block["logs"], f"{path}.logs")):
            yield _log(log, f"{path}.logs[{i}]", number, block_hash, None)
    if "transactions" in block:
        seen = True
        transactions = _list(block["transactions"], f"{path}.transactions")
        for t, transaction in enumerate(transactions):
            here = f"{path}.transactions[{t}]"
            outer = _mapping(transaction, here)
            for i, log in enumerate(_list(outer.get("logs", []), f"{here}.logs")):
                yield _log(log, f"{here}.logs[{i}]", number, block_hash, outer)
    if not seen:
        raise InvalidInput(fields=[Field(f"{path}.logs", "missing", "a list of logs")])


def _log(
    log: Any,
    path: str,
    number: int | None,
    block_hash: str | None,
    outer: Mapping[str, Any] | None,
) -> Hint:
    entry = _mapping(log, path)
    topics = _list(entry.get("topics"), f"{path}.topics")
    if not all(isinstance(topic, str) and _is_hex(topic, 64) for topic in topics):
        raise InvalidInput(
            fields=[Field(f"{path}.topics", str(topics)[:100], "a list of 32-byte hex words")]
        )
    if "account" in entry:
        address = _text(_mapping(entry["account"], f"{path}.account"), "address", f"{path}.account")
    else:
        address = _text(entry, "address", path)
    if not _is_hex(address, 40):
        raise InvalidInput(fields=[Field(f"{path}.address", address[:100], "an address")])
    transaction = outer
    if "transaction" in entry:
        transaction = _mapping(entry["transaction"], f"{path}.transaction")
    if transaction is not None:
        tx_hash = _hash(transaction, "hash", f"{path}.transaction")
        status = _number(transaction, "status", f"{path}.transaction", required=False)
    else:
        tx_hash = _hash(entry, "transactionHash", path)
        status = None
    index = _number(entry, "index" if "index" in entry else "logIndex", path)
    return Hint(
        address=address.lower(),
        topic0=str(topics[0]).lower() if topics else "",
        tx_hash=str(tx_hash),
        log_index=index,
        block_number=_number(entry, "blockNumber", path, required=False) or number,
        block_hash=_hash(entry, "blockHash", path, required=False) or block_hash,
        gone=status == 0,
        removed=entry.get("removed") is True,
    )


def _activity(event: Mapping[str, Any]) -> Iterator[Hint]:
    for i, entry in enumerate(_list(event.get("activity"), "event.activity")):
        path = f"event.activity[{i}]"
        item = _mapping(entry, path)
        raw = _mapping(item.get("log") or {}, f"{path}.log")
        contract = _mapping(item.get("rawContract") or {}, f"{path}.rawContract").get("address")
        address = raw.get("address") or contract or item.get("contractAddress") or ""
        topics = _list(raw.get("topics") or [], f"{path}.log.topics")
        yield Hint(
            address=str(address).lower(),
            topic0=str(topics[0]).lower() if topics else "",
            tx_hash=str(_hash(item, "hash" if "hash" in item else "transactionHash", path)),
            log_index=_number(raw, "logIndex", f"{path}.log", required=False),
            block_number=_number(item, "blockNum", path, required=False)
            or _number(item, "blockNumber", path, required=False),
            block_hash=_hash(raw, "blockHash", f"{path}.log", required=False),
            gone=False,
            removed=raw.get("removed") is True,
        )


def _mapping(value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InvalidInput(fields=[Field(path, _shown(value), "an object")])
    return cast("dict[str, Any]", value)


def _list(value: Any, path: str) -> Sequence[Any]:
    if not isinstance(value, list):
        raise InvalidInput(fields=[Field(path, _shown(value), "a list")])
    return cast("list[Any]", value)


def _text(value: Mapping[str, Any], name: str, path: str) -> str:
    path = name if path == name else f"{path}.{name}"
    found = value.get(name)
    if not isinstance(found, str) or not found or len(found) > 500:
        raise InvalidInput(fields=[Field(path, _shown(found), "a text of 1 to 500 characters")])
    return found


def _is_hex(text: str, digits: int) -> bool:
    return (
        len(text) == digits + 2
        and text[:2] == "0x"
        and all(c in "0123456789abcdefABCDEF" for c in text[2:])
    )


def _hash(value: Mapping[str, Any], name: str, path: str, *, required: bool = True) -> str | None:
    found = value.get(name)
    if found is None and not required:
        return None
    if not isinstance(found, str) or not _is_hex(found, 64):
        raise InvalidInput(
            fields=[Field(f"{path}.{name}", _shown(found), "a 32-byte hash, 0x and 64 hex digits")]
        )
    return found.lower()


def _number(value: Mapping[str, Any], name: str, path: str, *, required: bool = True) -> int | None:
    """Return a number written as an integer, a decimal text or a hex text."""
    found = value.get(name)
    if found is None and not required:
        return None
    number: int | None = None
    if isinstance(found, int) and not isinstance(found, bool):
        number = found
    elif isinstance(found, str) and len(found) <= 20:
        try:
            number = int(found, 16) if found.startswith("0x") else int(found)
        except ValueError:
            number = None
    if number is None or not 0 <= number < 2**63:
        raise InvalidInput(
            fields=[Field(f"{path}.{name}", _shown(found), "a number, decimal or 0x hex")]
        )
    return number


def _shown(value: Any) -> str:
    return "missing" if value is None else str(value)[:100]
