"""All logs of one event at once: its arguments as arrays of 32-byte words, checked together.

For events whose arguments are all static; `EventDecoder` reads everything else, and says what is
wrong with a log that does not fit. The two must agree on which logs fit.
"""

from __future__ import annotations

import re
from binascii import unhexlify
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from causeway.chains.evm.abi import EventAbi, Parameter
from causeway.chains.evm.decoder import EventDecoder, RawLog, is_static

Words = npt.NDArray[np.uint8]

_SIZED = re.compile(r"(uint|int|bytes)(\d+)")
_WORD = 32
_PREFIX = np.frombuffer(b"0x", np.uint8)


class WordDecoder(EventDecoder):
    """Decodes the logs of one event, also all at once."""

    def words(self, logs: Sequence[RawLog]) -> list[Words] | None:
        """Return 32 bytes a log for each argument; see `words_of`."""
        return words_of(self.event, logs)


def words_of(event: EventAbi, logs: Sequence[RawLog]) -> list[Words] | None:
    """Return an array of (logs, 32) bytes for each argument of the event.

    None when the event has other than static arguments, or when any of the logs does not fit.
    """
    if not all(is_static(one) for one in event.inputs) or not logs:
        return None
    own = 0 if event.anonymous else 1
    indexed = sum(one.indexed for one in event.inputs)
    in_data = len(event.inputs) - indexed
    topics = [log.topics for log in logs]
    if set(map(len, topics)) != {own + indexed}:
        return None
    by_place = list(zip(*topics, strict=True))
    if own and set(by_place[0]) != {event.topic0}:
        return None
    data = _bytes([log.data for log in logs], in_data * _WORD)
    if data is None:
        return None
    made: list[Words] = []
    topic = own
    word = 0
    for one in event.inputs:
        if one.indexed:
            found = _bytes(by_place[topic], _WORD)
            topic += 1
        else:
            found = data[:, word * _WORD : (word + 1) * _WORD]
            word += 1
        if found is None or not _fits(one, found):
            return None
        made.append(found)
    return made


def _bytes(texts: Sequence[str], size: int) -> Words | None:
    """Return hex texts of so many bytes each as rows of an array; None when one is none."""
    rows, digits = len(texts), 2 * size
    if set(map(len, texts)) != {2 + digits}:
        return None
    try:
        plain = np.frombuffer("".join(texts).encode("ascii"), np.uint8).reshape(rows, 2 + digits)
        if (plain[:, :2] != _PREFIX).any():
            return None
        return np.frombuffer(unhexlify(plain[:, 2:].tobytes()), np.uint8).reshape(rows, size)
    except ValueError:
        return None


def _fits(one: Parameter, words: Words) -> bool:
    """Say whether all words hold values of the argument's type."""
    if one.indexed and one.hashed:
        return True
    if one.type == "address":
        return not words[:, :12].any()
    if one.type == "bool":
        return not words[:, :31].any() and not (words[:, 31] > 1).any()
    sized = _SIZED.fullmatch(one.type)
    if sized is None:
        return False
    if sized[1] == "bytes":
        return not words[:, int(sized[2]) :].any()
    free = _WORD - int(sized[2]) // 8
    if sized[1] == "uint":
        return not words[:, :free].any()
    if not free:
        return True
    sign = np.where(words[:, free] >= 128, np.uint8(255), np.uint8(0))
    return bool((words[:, :free] == sign[:, None]).all())


def signed_64(words: Words) -> npt.NDArray[np.int64] | None:
    """Return words that hold numbers (two's complement) as integers; None when one is too large."""
    low = np.ascontiguousarray(words[:, 24:]).view(">i8").reshape(-1)
    sign = np.where(low < 0, np.uint8(255), np.uint8(0))
    if not (words[:, :24] == sign[:, None]).all():
        return None
    return low.astype(np.int64)
