"""Signatures as people write them: `Name(address owner, (uint256,bytes)[] items)`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from eth_utils.crypto import keccak

from causeway.apps.mobs.decoding.canonical import NotCanonical, kind_of, split_types
from causeway.base.errors import InvalidInput
from causeway.chains.evm.abi import Abi, ErrorAbi, FunctionAbi

_SIGNATURE = re.compile(r"\s*([A-Za-z_$][A-Za-z0-9_$]*)\s*\((.*)\)\s*;?\s*\Z", re.DOTALL)
_DIMENSIONS = re.compile(r"((?:\[\d*\])*)\s*(.*)", re.DOTALL)
_ALIASES = {"uint": "uint256", "int": "int256", "byte": "bytes1"}
#: Words of Solidity that may stand between a type and its name.
_PLACES = frozenset({"memory", "calldata", "storage", "payable", "indexed"})


@dataclass(frozen=True, slots=True)
class Signature:
    """The name of an error or a function, and its arguments."""

    name: str
    #: Canonical, as it is hashed: `Name(address,(uint256,bytes)[])`.
    text: str
    types: tuple[str, ...]
    #: Names of the arguments; `arg0`, `arg1` and so on where none is known.
    names: tuple[str, ...]
    selector: bytes


def parse_signature(text: str) -> Signature:
    """Read a signature, with or without argument names; `InvalidInput` when it is none."""
    found = _SIGNATURE.match(text.removeprefix("error ").removeprefix("function "))
    if not found:
        raise InvalidInput(f"not a signature: {text[:80]!r}")
    types: list[str] = []
    names: list[str] = []
    try:
        for number, part in enumerate(split_types(found[2])):
            kind, name = _argument(part)
            kind_of(kind)
            types.append(kind)
            names.append(name or f"arg{number}")
    except NotCanonical as error:
        raise InvalidInput(f"not a signature: {text[:80]!r}: {error}") from error
    return _made(found[1], tuple(types), tuple(names))


def _argument(part: str) -> tuple[str, str]:
    """Return canonical type and name of `uint256 amount` or `(address to, bytes)[] calls`."""
    if part.startswith("tuple("):
        part = part[5:]
    if part.startswith("("):
        depth, end = 0, 0
        for at, sign in enumerate(part):
            depth += (sign == "(") - (sign == ")")
            if depth == 0:
                end = at
                break
        inner = ",".join(_argument(one)[0] for one in split_types(part[1:end]))
        dimensions, rest = _DIMENSIONS.findall(part[end + 1 :])[0]  # it matches anything
        kind, words = f"({inner}){dimensions}", rest.split()
    else:
        kind, *words = part.split() or [""]
        base, bracket, dimensions = kind.partition("[")
        kind = _ALIASES.get(base, base) + bracket + dimensions
    words = [word for word in words if word not in _PLACES]
    return kind, words[0] if words else ""


def _made(name: str, types: tuple[str, ...], names: tuple[str, ...]) -> Signature:
    text = f"{name}({','.join(types)})"
    return Signature(name, text, types, names, keccak(text=text)[:4])


def of_abi(one: ErrorAbi | FunctionAbi) -> Signature:
    """Return the signature of an ABI's error or function."""
    return Signature(
        one.name,
        one.signature,
        tuple(parameter.type for parameter in one.inputs),
        tuple(parameter.name for parameter in one.inputs),
        one.selector,
    )


def by_selector(signatures: Iterable[Signature]) -> dict[bytes, tuple[Signature, ...]]:
    """Return signatures by selector, each once, in their order."""
    found: dict[bytes, dict[str, Signature]] = {}
    for one in signatures:
        found.setdefault(one.selector, {}).setdefault(one.text, one)
    return {selector: tuple(several.values()) for selector, several in found.items()}


def errors_of(abi: Abi) -> Iterator[Signature]:
    """Yield the custom errors of an ABI."""
    for one in abi.errors.values():
        if one.signature not in ("Error(string)", "Panic(uint256)"):
            yield of_abi(one)


def methods_of(abi: Abi) -> Iterator[Signature]:
    """Yield the functions of an ABI."""
    for one in abi.functions.values():
        yield of_abi(one)
