"""EIP-712 typed data: what a wallet shows field by field and signs.

    LINK = TypedData(
        Domain(name="Motify", version="1", chain_id=8453, verifying_contract=contract),
        "Link",
        {"Link": [("wallet", "address"), ("account", "string")]},
    )
    verdict = await verify(chain, wallet, LINK.digest(message), signature)

Domain and types are the server's own and never come from a request, so that a signature for another
site, chain or contract, or of another kind, is a signature of something else. The encoding is
eth-account's; it guesses at values that do not fit (a missing string is empty, the text "0" is
false), so they are checked here first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from eth_account.messages import encode_typed_data
from eth_utils.address import to_checksum_address

from causeway.base.errors import Field, InvalidInput
from causeway.chains.evm.hashing import keccak

#: A struct's members in order: names and Solidity types.
Members = Sequence[tuple[str, str]]

_ARRAY = re.compile(r"(?P<item>.+)\[(?P<length>[0-9]*)\]")
_INTEGER = re.compile(r"(?P<unsigned>u?)int(?P<bits>[0-9]+)")
_BYTES = re.compile(r"bytes(?P<length>[0-9]+)")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_HEX = re.compile(r"0x(?:[0-9a-fA-F]{2})*")
_DECIMAL = re.compile(r"-?[0-9]{1,78}")
#: Deeper than any message a person reads.
_DEEPEST = 16


@dataclass(frozen=True, kw_only=True)
class Domain:
    """Who asks for a signature; what is None is not part of the domain."""

    name: str
    chain_id: int
    version: str | None = None
    verifying_contract: str | None = None
    salt: bytes | None = None

    def members(self) -> list[tuple[str, str, Any]]:
        """Return name, type and value of each part, in the standard's order."""
        contract = self.verifying_contract
        parts = [
            ("name", "string", self.name),
            ("version", "string", self.version),
            ("chainId", "uint256", self.chain_id),
            ("verifyingContract", "address", contract and str(to_checksum_address(contract))),
            ("salt", "bytes32", None if self.salt is None else "0x" + self.salt.hex()),
        ]
        return [part for part in parts if part[2] is not None]


@dataclass(frozen=True)
class TypedData:
    """A kind of message: a domain, and the struct that is signed with the structs in it.

    Raises `ValueError` for types that are not defined, are defined in vain, or contain themselves.
    """

    domain: Domain
    primary_type: str
    types: Mapping[str, Members]

    def __post_init__(self) -> None:
        used: set[str] = set()
        self._look_at(self.primary_type, (), used)
        unused = set(self.types) - used
        if unused:
            raise ValueError(f"no part of {self.primary_type}: {', '.join(sorted(unused))}")

    def _look_at(self, kind: str, above: tuple[str, ...], used: set[str]) -> None:
        while found := _ARRAY.fullmatch(kind):
            kind = found["item"]
        if kind not in self.types:
            if not _is_plain(kind):
                raise ValueError(f"not a type: {kind!r}")
            return
        if kind in above or len(above) >= _DEEPEST:
            raise ValueError(f"contains itself: {kind!r}")
        used.add(kind)
        for _, member in self.types[kind]:
            self._look_at(member, (*above, kind), used)

    def read(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of `message`: integers, bytes, addresses in EIP-55.

        Raises `InvalidInput` naming every field that is missing, unknown or of another type.
        """
        wrong: list[Field] = []
        values = self._value(self.primary_type, message, "message", wrong)
        if wrong:
            raise InvalidInput(fields=wrong)
        return cast("dict[str, Any]", values)

    def digest(self, message: Mapping[str, Any]) -> bytes:
        """Return the 32 bytes a wallet signs for `message`, whose values are as in JSON.

        Integers may also be decimal or 0x text, as JSON needs above 2^53; bytes are 0x text or
        bytes. Raises `InvalidInput` as `read` does.
        """
        values = self.read(message)
        signable = encode_typed_data(
            domain_data={name: value for name, _, value in self.domain.members()},
            message_types={
                name: [{"name": n, "type": t} for n, t in members]
                for name, members in self.types.items()
            },
            message_data=values,
        )
        return keccak(b"\x19" + signable.version + signable.header + signable.body)

    def payload(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Return what `eth_signTypedData_v4` is given for `message`: plain JSON.

        Raises `InvalidInput` as `read` does.
        """
        members = self.domain.members()
        structs = {"EIP712Domain": [(name, kind) for name, kind, _ in members], **self.types}
        return {
            "types": {
                name: [{"name": n, "type": t} for n, t in struct]
                for name, struct in structs.items()
            },
            "primaryType": self.primary_type,
            "domain": {name: value for name, _, value in members},
            "message": _plain_json(self.read(message)),
        }

    def _value(self, kind: str, value: object, path: str, wrong: list[Field]) -> Any:
        """Return a value as the encoder takes it; what is wrong with it goes to `wrong`."""
        array = _ARRAY.fullmatch(kind)
        if array is not None:
            length = int(array["length"]) if array["length"] else None
            if not isinstance(value, list):
                wrong.append(_field(path, value, "a list"))
                return []
            items = cast("list[object]", value)
            if length is not None and len(items) != length:
                wrong.append(_field(path, f"{len(items)} items", f"a list of {length}"))
            return [
                self._value(array["item"], item, f"{path}[{number}]", wrong)
                for number, item in enumerate(items)
            ]
        if kind not in self.types:
            read = _read(kind, value)
            if read is None:
                wrong.append(_field(path, value, _allowed(kind)))
            return read
        if not isinstance(value, Mapping):
            wrong.append(_field(path, value, f"an object ({kind})"))
            return {}
        given = cast("Mapping[str, object]", value)
        names = [name for name, _ in self.types[kind]]
        wrong.extend(
            _field(f"{path}.{name}", given[name], f"a member of {kind}: {', '.join(names)}")
            for name in given
            if name not in names
        )
        wrong.extend(_field(f"{path}.{name}", "", "missing") for name in names if name not in given)
        return {
            name: self._value(member, given[name], f"{path}.{name}", wrong)
            for name, member in self.types[kind]
            if name in given
        }


def _is_plain(kind: str) -> bool:
    integer, fixed = _INTEGER.fullmatch(kind), _BYTES.fullmatch(kind)
    if integer is not None:
        bits = int(integer["bits"])
        return bits % 8 == 0 and 8 <= bits <= 256
    if fixed is not None:
        return 1 <= int(fixed["length"]) <= 32
    return kind in ("address", "bool", "string", "bytes")


def _read(kind: str, value: object) -> Any:
    """Return a value of a plain type as the encoder takes it; None when it is none."""
    if kind == "bool":
        return value if isinstance(value, bool) else None
    if kind == "string":
        return value if isinstance(value, str) and _is_unicode(value) else None
    if kind == "address":
        good = isinstance(value, str) and _ADDRESS.fullmatch(value)
        return str(to_checksum_address(str(value))) if good else None
    integer = _INTEGER.fullmatch(kind)
    if integer is not None:
        return _integer(value, bool(integer["unsigned"]), int(integer["bits"]))
    if isinstance(value, str) and _HEX.fullmatch(value):
        value = bytes.fromhex(value[2:])
    if not isinstance(value, bytes):
        return None
    fixed = _BYTES.fullmatch(kind)
    return value if fixed is None or len(value) == int(fixed["length"]) else None


def _integer(value: object, unsigned: bool, bits: int) -> int | None:
    if isinstance(value, str):
        if _DECIMAL.fullmatch(value):
            value = int(value)
        elif _HEX.fullmatch(value) and 2 < len(value) <= 66:
            value = int(value, 16)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    lowest, highest = (0, 2**bits - 1) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return value if lowest <= value <= highest else None


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _allowed(kind: str) -> str:
    if kind == "address":
        return "an address: 0x and 40 hexadecimal digits"
    if kind.startswith("bytes"):
        size = f"{kind[5:]} " if kind != "bytes" else ""
        return f"{size}bytes in hexadecimal with 0x"
    return {"bool": "true or false", "string": "a text"}.get(kind, f"an integer in {kind}")


def _field(path: str, value: object, allowed: str) -> Field:
    return Field(path, str(value)[:100], allowed)


def _plain_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain_json(one) for name, one in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_plain_json(one) for one in cast("list[Any]", value)]
    if isinstance(value, bytes):
        return "0x" + value.hex()
    # JavaScript reads larger numbers as the nearest it has.
    return str(value) if isinstance(value, int) and abs(value) > 2**53 - 1 else value
