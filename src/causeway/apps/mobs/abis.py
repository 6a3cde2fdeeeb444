"""Whether an ABI that was given can be used. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from causeway.base.errors import Field, InvalidInput
from causeway.chains.evm.abi import Abi


def check_abi(entries: Sequence[Any]) -> None:
    """Raise `InvalidInput` naming the first entry that cannot be parsed, and why."""
    for at, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise _wrong(at, entry, "an object")
        try:
            abi = Abi.from_json([cast("dict[str, Any]", entry)])
        except InvalidInput as error:
            raise _wrong(at, entry, error.message) from None
        for error_abi in abi.errors.values():
            for one in error_abi.inputs:
                if not one.type:
                    raise _wrong(at, entry, "an entry whose inputs have types")


def _wrong(at: int, entry: Any, allowed: str) -> InvalidInput:
    shown = str(entry)[:80]
    return InvalidInput(
        f"abi_json[{at}] is {shown}; allowed is {allowed}.",
        fields=[Field(f"abi_json[{at}]", shown, allowed)],
    )
