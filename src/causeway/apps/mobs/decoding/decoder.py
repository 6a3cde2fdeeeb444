"""From revert data and call data to words, with the ABIs that are known.

Nothing here raises on data: whatever a contract returns, the transaction is kept and something
true is said about it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import structlog

from causeway.apps.mobs.decoding.canonical import NotCanonical, decode_canonical, kind_of
from causeway.apps.mobs.decoding.shown import LONGEST, as_json, clean, in_line
from causeway.apps.mobs.decoding.signatures import (
    Signature,
    by_selector,
    errors_of,
    methods_of,
    parse_signature,
)
from causeway.apps.mobs.decoding.standard import ERRORS, METHODS
from causeway.base.errors import InvalidInput
from causeway.chains.evm.abi import Abi

_log = structlog.get_logger(__name__)

ERROR_STRING = bytes.fromhex("08c379a0")
PANIC = bytes.fromhex("4e487b71")

NO_REASON = "Reverted without reason"

_PANICS = {
    0x00: "generic panic",
    0x01: "assertion failed",
    0x11: "arithmetic overflow or underflow",
    0x12: "division or modulo by zero",
    0x21: "value out of range for an enum",
    0x22: "corrupt storage byte array",
    0x31: "pop of an empty array",
    0x32: "array index out of bounds",
    0x41: "out of memory or array too large",
    0x51: "call of an unset function pointer",
}

#: More revert data than this are kept raw and not looked into.
_LARGEST_ERROR = 16 * 1024
#: Call data are compared with foreign signatures up to this size.
_LARGEST_CALL = 128 * 1024
_MOST_CANDIDATES = 8
_LONGEST_MESSAGE = 4096


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a failed transaction's revert data say."""

    #: The first four bytes; None when there are fewer.
    signature: bytes | None
    #: At most 256 characters, safe to store.
    text: str
    params: dict[str, object] | None = None
    #: All readings of an ambiguous selector, the one shown first; empty when there is one at most.
    candidates: tuple[str, ...] = ()


class Decoder:
    """Knows errors and functions: of contracts by their address, and of everybody.

    `abis` by address (20 bytes) in the order of preference; `signatures` are errors somebody wrote
    down, `Name(type name, …)`, wrong ones are skipped.
    """

    def __init__(
        self, abis: Mapping[bytes, Abi] | None = None, signatures: Sequence[str] = ()
    ) -> None:
        self._errors: dict[bytes, dict[bytes, tuple[Signature, ...]]] = {}
        self._methods: dict[bytes, dict[bytes, tuple[Signature, ...]]] = {}
        for address, abi in (abis or {}).items():
            self._errors[address] = by_selector(errors_of(abi))
            self._methods[address] = by_selector(methods_of(abi))
        self._any_error = by_selector(_all(self._errors))
        self._any_method = by_selector(_all(self._methods))
        self._written = by_selector(_parsed(signatures))

    def error(self, data: bytes, *places: bytes | None) -> Decoded:
        """Return what revert data say.

        `places`: the contract that failed, the one that was called, and so on; their ABIs are
        believed before those of others.
        """
        try:
            return self._error(data, places)
        except Exception:  # noqa: BLE001 - a transaction is never lost to what its contract says
            _log.exception("revert data not decoded", data=data[:64].hex())
            return _unknown(data)

    def selectors_of(self, address: bytes) -> list[bytes]:
        """Return the selectors of the custom errors in a contract's ABI."""
        return list(self._errors.get(address, ()))

    def method(self, data: bytes | None, to: bytes | None) -> str | None:
        """Return the name of the function that call data are for; None when it is not known.

        The ABI of the contract itself decides by the selector; a name from elsewhere counts only
        if the arguments are of its types.
        """
        if data is None or len(data) < 4:
            return None
        selector = bytes(data[:4])
        own = self._methods.get(to, {}).get(selector) if to is not None else None
        if own:
            return clean(own[0].name, 128)
        for one in self._any_method.get(selector, ()) + _standard_methods().get(selector, ()):
            if len(data) <= _LARGEST_CALL and _fits(one, data[4:]):
                return clean(one.name, 128)
        return None

    def _error(self, data: bytes, places: Sequence[bytes | None]) -> Decoded:
        if not data:
            return Decoded(None, NO_REASON)
        if len(data) < 4:
            return _unknown(data)
        selector = bytes(data[:4])
        if selector == ERROR_STRING:
            message = _message(data[4:])
            if message is not None:
                shown = clean(message) or "(empty message)"
                return Decoded(selector, shown, {"message": clean(message, _LONGEST_MESSAGE)})
        if selector == PANIC and len(data) == 36:
            code = int.from_bytes(data[4:], "big")
            said = _PANICS.get(code)
            text = f"Panic(0x{code:02x})" + (f": {said}" if said else "")
            return Decoded(selector, clean(text), {"code": str(code)})
        if len(data) > _LARGEST_ERROR:
            return _unknown(data)
        fitting: dict[str, tuple[str, dict[str, object]]] = {}
        for one in self._candidates(selector, places):
            if one.text in fitting:
                continue
            params = _params(one, data[4:])
            if params is not None:
                fitting[one.text] = (_line(one, params), params)
        if not fitting:
            return _unknown(data)
        readings = list(fitting.values())
        text, params = readings[0]
        several = tuple(line for line, _ in readings[:_MOST_CANDIDATES])
        return Decoded(selector, text, params, several if len(several) > 1 else ())

    def _candidates(self, selector: bytes, places: Sequence[bytes | None]) -> Iterator[Signature]:
        for address in places:
            if address is not None:
                yield from self._errors.get(address, {}).get(selector, ())
        yield from self._any_error.get(selector, ())
        yield from _standard_errors().get(selector, ())
        yield from self._written.get(selector, ())


def _all(
    known: Mapping[bytes, Mapping[bytes, tuple[Signature, ...]]],
) -> Iterator[Signature]:
    for of_one in known.values():
        for several in of_one.values():
            yield from several


def _parsed(signatures: Sequence[str]) -> Iterator[Signature]:
    for text in signatures:
        try:
            yield parse_signature(text)
        except InvalidInput as error:
            _log.warning("signature skipped", reason=error.message)


@lru_cache(maxsize=1)
def _standard_errors() -> dict[bytes, tuple[Signature, ...]]:
    return by_selector(map(parse_signature, ERRORS))


@lru_cache(maxsize=1)
def _standard_methods() -> dict[bytes, tuple[Signature, ...]]:
    return by_selector(map(parse_signature, METHODS))


def _unknown(data: bytes) -> Decoded:
    if len(data) < 4:
        return Decoded(None, f"0x{data.hex()}")
    return Decoded(bytes(data[:4]), f"Custom error 0x{data[:4].hex()}")


def _message(data: bytes) -> str | None:
    """Return the text of an `Error(string)`; also one that is not padded, as some assembly writes.

    None when its offset or its length are no text's.
    """
    if len(data) < 64:
        return None
    at = int.from_bytes(data[:32], "big")
    if at > len(data) - 32:
        return None
    size = int.from_bytes(data[at : at + 32], "big")
    if size > len(data) - at - 32:
        return None
    return data[at + 32 : at + 32 + min(size, 8 * _LONGEST_MESSAGE)].decode("utf-8", "replace")


def _fits(one: Signature, data: bytes) -> bool:
    try:
        decode_canonical(one.types, data)
    except NotCanonical:
        return False
    return True


def _params(one: Signature, data: bytes) -> dict[str, object] | None:
    """Return the arguments as JSON; None when the data are not exactly those of this error."""
    try:
        values = decode_canonical(one.types, data)
    except NotCanonical:
        return None
    params: dict[str, object] = {}
    for number, (name, kind, value) in enumerate(zip(one.names, one.types, values, strict=True)):
        key = clean(name, 64) or f"arg{number}"
        if key in params:  # two arguments of one name: an ABI may have them
            key = f"{key}_{number}"
        params[key] = as_json(kind_of(kind), value)
    return params


def _line(one: Signature, params: Mapping[str, object]) -> str:
    shown = ", ".join(f"{name}={in_line(value)}" for name, value in params.items())
    return clean(f"{one.name}({shown})", LONGEST)
