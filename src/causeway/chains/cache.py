"""Answers that cannot change any more: kept in memory, then in the database, never asked again.

What is about a final block is final. Answers are kept as they came, and only after whoever asked
was content with them; nothing is kept that is null, large, or about logs, which are read once.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec
from prometheus_client import Counter

from causeway.chains import methods
from causeway.chains.rpc import Call

_ANSWERS = Counter(
    "causeway_chains_kept_answers_total",
    "Questions about final blocks, by where the answer was",
    ["where"],
)

_LARGEST = 64 << 10
_MEMORY = 32 << 20


class AnswerStore(Protocol):
    """Keeps answers for longer than a process lives."""

    async def load(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """Return those of the answers that are kept."""
        ...

    async def save(self, answers: Mapping[bytes, bytes]) -> None:
        """Keep answers."""
        ...


class _Placed(msgspec.Struct, rename="camel"):
    block_number: str | None = None
    number: str | None = None


_placed = msgspec.json.Decoder(_Placed)


class FinalAnswers:
    """The final answers of one chain. `most_bytes`: how much memory they may take."""

    def __init__(self, store: AnswerStore | None = None, *, most_bytes: int = _MEMORY) -> None:
        #: The newest block known to be final.
        self.final = -1
        self._store = store
        self._most_bytes = most_bytes
        self._held = 0
        self._memory: OrderedDict[bytes, bytes] = OrderedDict()

    async def get(self, calls: Sequence[Call]) -> list[bytes] | None:
        """Return the answers to all of these calls; None unless every one is kept."""
        if not all(self._may_be_kept(call) for call in calls):
            return None
        keys = [_key(call) for call in calls]
        missing = [key for key in keys if key not in self._memory]
        if missing and self._store is not None:
            kept = await self._store.load(missing)
            for key, answer in kept.items():
                self._remember(key, answer)
            missing = [key for key in missing if key not in kept]
            if not missing:
                _ANSWERS.labels("database").inc(len(calls))
        elif not missing:
            _ANSWERS.labels("memory").inc(len(calls))
        if missing:
            _ANSWERS.labels("chain").inc(len(calls))
            return None
        found = [self._memory.get(key) for key in keys]
        for key in keys:
            if key in self._memory:
                self._memory.move_to_end(key)
        return None if None in found else [one for one in found if one is not None]

    async def put(self, calls: Sequence[Call], answers: Sequence[bytes | None]) -> None:
        """Keep those of the answers that are final; None stands for a call that has no answer."""
        final = {
            _key(call): answer
            for call, answer in zip(calls, answers, strict=True)
            if answer is not None and self._is_final(call, answer)
        }
        new = {key: answer for key, answer in final.items() if key not in self._memory}
        for key, answer in new.items():
            self._remember(key, answer)
        if new and self._store is not None:
            await self._store.save(new)

    def _may_be_kept(self, call: Call) -> bool:
        if call[0] in methods.TOLD_BY_ANSWER:
            return self.final >= 0
        block = methods.final_block(call)
        return block is not None and block <= self.final

    def _is_final(self, call: Call, answer: bytes) -> bool:
        if not self._may_be_kept(call) or len(answer) > _LARGEST or answer == b"null":
            return False
        if call[0] not in methods.TOLD_BY_ANSWER:
            return True
        try:
            placed = _placed.decode(answer)
            number = placed.block_number or placed.number
            return number is not None and int(number, 16) <= self.final
        except (msgspec.DecodeError, ValueError):
            return False

    def _remember(self, key: bytes, answer: bytes) -> None:
        self._held += len(answer) - len(self._memory.pop(key, b""))
        self._memory[key] = answer
        while self._held > self._most_bytes:
            _, oldest = self._memory.popitem(last=False)
            self._held -= len(oldest)


def _key(call: Call) -> bytes:
    return hashlib.sha256(msgspec.json.encode([call[0], list(call[1])])).digest()
