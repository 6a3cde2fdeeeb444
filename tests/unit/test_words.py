"""Many logs decoded as arrays say what each of them says when it is decoded by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from causeway.chains.evm.abi import Abi
from causeway.chains.evm.words import signed_64, words_of
from tests.unit.test_decoder import STATIC, Event, decoded, events, mutilated, values_of


def word_of(value: Any, kind: str) -> bytes:
    """Return the word an argument is written as (Solidity ABI)."""
    if isinstance(value, bytes):
        return value.ljust(32, b"\0")
    if isinstance(value, str):
        return bytes(12) + bytes.fromhex(value[2:])
    return int(value).to_bytes(32, "big", signed=kind.startswith("int"))


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_words_are_what_the_decoder_reads_from_each_log(data: st.DataObject) -> None:
    event: Event = data.draw(events(STATIC))
    true = [event.log(one) for one in data.draw(st.lists(values_of(event), min_size=1, max_size=4))]
    bend = data.draw(st.booleans())
    logs = [data.draw(mutilated(one)) if bend and data.draw(st.booleans()) else one for one in true]
    decoder = event.decoder()
    found = words_of(Abi.from_json(event.json).event("E"), logs)
    one_by_one = [decoded(decoder, log) for log in logs]
    if found is None:
        assert bend or not event.arguments or len({len(log.data) for log in logs}) > 1
        return
    for at, values in enumerate(one_by_one):
        assert values is not None  # what does not fit is never among the arrays
        for argument, words, value in zip(event.arguments, found, values, strict=True):
            assert words[at].tobytes() == word_of(value, argument.kind.type)


@given(st.lists(st.integers(-(2**255), 2**255 - 1) | st.integers(-(2**63), 2**63 - 1), min_size=1))
def test_numbers_fit_64_bits_or_none_does(values: list[int]) -> None:
    words = np.frombuffer(
        b"".join(value.to_bytes(32, "big", signed=True) for value in values), np.uint8
    ).reshape(-1, 32)
    found = signed_64(words)
    if all(-(2**63) <= value < 2**63 for value in values):
        assert found is not None
        assert found.tolist() == values
    else:
        assert found is None
