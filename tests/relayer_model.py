"""The relayer's rules as a small machine of values, to be explored and to hold the code against.

The world has a chain, a pool of sent bytes, and a ledger. The chain is a row of entries, each one
block: a transaction of ours, a foreign one at our nonce (another program uses the key), or somebody
else's call that does a unit. Its first `deep` entries can never be replaced. The relayer looks
(`Slot`: what it saw, and means to commit) and commits; between the two anything may happen, and a
crash forgets what was seen. What is committed is checked against the ledger only, as the code does.

`ours` are the relayer's moves, `theirs` the world's. A `Shortcut` breaks one of the rules, to show
that the rule is needed and that the exploration would notice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import NamedTuple

from causeway.relayer.states import TransactionState

PENDING, SETTLED = -1, -2


class Shortcut(Enum):
    """A rule that is left out."""

    NEW_NONCE_WHEN_OPEN = auto()  # an answer that is unclear is taken for a refusal: planned anew
    RELEASE_WHEN_MINED = auto()  # units of a cancelled transaction go back before it is deep
    RELEASE_WHEN_CANCELLING = auto()  # ... and even before the no-op is mined
    SETTLE_WHEN_MINED = auto()  # settled at the first receipt
    FORGET_OLD_ATTEMPTS = auto()  # only the newest attempt is watched
    LOST_AT_FIRST_SIGHT = auto()  # a foreign transaction counts before it is deep
    SEND_BEFORE_SAVING = auto()  # bytes leave before they are stored
    NO_WAY_BACK = auto()  # what a reorg takes out stays `mined`


class Tx(NamedTuple):
    """A transaction in the ledger."""

    state: TransactionState
    nonce: int | None
    units: tuple[int, ...]
    #: Its signed attempts: True for a cancellation.
    attempts: tuple[bool, ...] = ()


class Ours(NamedTuple):
    """One of our transactions in a block."""

    tx: int
    attempt: int


class Foreign(NamedTuple):
    """Somebody else's transaction at our nonce."""


class Outsider(NamedTuple):
    """Somebody else's call that does a unit."""

    unit: int
    name: str = "outsider"


class Orphan(NamedTuple):
    """Bytes that left without being stored: nobody here knows of them."""

    nonce: int
    units: tuple[int, ...]
    name: str = "orphan"


Entry = Ours | Foreign | Outsider | Orphan


class Slot(NamedTuple):
    """What was seen and is going to be committed."""

    move: str
    tx: int
    #: The attempt that was mined, or the least nonce to sign with.
    number: int = -1


class State(NamedTuple):
    """Everything."""

    units: tuple[int, ...]
    txs: tuple[Tx, ...] = ()
    chain: tuple[Entry, ...] = ()
    deep: int = 0
    pool: frozenset[Ours | Orphan] = frozenset()
    slot: Slot | None = None
    #: What the world may still do of each, and the relayer of what only costs states.
    left: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Model:
    """The rules, and how far they are explored."""

    #: The contract does each unit once and reverts a batch that holds one that is done.
    guarded: bool = False
    #: All in one transaction, or each in its own, too.
    shortcut: Shortcut | None = None
    most_txs: int = 3
    most_attempts: int = 2

    # What the chain says

    def mined_count(self, s: State) -> int:
        """Return the account's next nonce on chain."""
        return sum(not isinstance(entry, Outsider) for entry in s.chain)

    def place(self, s: State, nonce: int | None) -> int | None:
        """Return where on the chain a nonce was spent."""
        at = -1
        for index, entry in enumerate(s.chain):
            at += not isinstance(entry, Outsider)
            if not isinstance(entry, Outsider) and at == nonce:
                return index
        return None

    def payments(self, s: State, most: int | None = None) -> list[list[int]]:
        """Return, for each unit, the places on the chain that did it."""
        found: list[list[int]] = [[] for _ in s.units]
        for index, entry in enumerate(s.chain[: len(s.chain) if most is None else most]):
            units = self._units_of(s, entry)
            if self.guarded and any(found[unit] for unit in units):
                continue  # reverted
            for unit in units:
                found[unit].append(index)
        return found

    def _units_of(self, s: State, entry: Entry) -> tuple[int, ...]:
        match entry:
            case Ours(tx, attempt):
                one = s.txs[tx]
                return () if one.attempts[attempt] else one.units
            case Outsider(unit):
                return (unit,)
            case Orphan(_, units):
                return units
            case _:
                return ()

    def did_its_work(self, s: State, index: int) -> bool:
        """Return whether the entry at a place did something, and was not reverted."""
        return any(index in places for places in self.payments(s))

    # The relayer's moves

    def ours(self, s: State) -> Iterator[tuple[str, State]]:
        """Yield what the relayer may do."""
        if s.slot is not None:
            yield f"commit {s.slot.move}", self._commit(s, s.slot)
            yield "crash", s._replace(slot=None)
            return
        if len(s.txs) < self.most_txs:
            yield from self._plans(s)
        for index, tx in enumerate(s.txs):
            yield from self._of_tx(s, index, tx)
        if self.guarded:
            deep = self.payments(s, s.deep)
            for unit, state in enumerate(s.units):
                if state == PENDING and deep[unit]:
                    yield f"settle {unit} as done", _with_units(s, (unit,), SETTLED)

    def _plans(self, s: State) -> Iterator[tuple[str, State]]:
        for batch in self.batches(s):
            made = _with_units(s, batch, len(s.txs))
            yield f"plan {batch}", made._replace(txs=(*s.txs, Tx("planned", None, batch)))

    def batches(self, s: State) -> set[tuple[int, ...]]:
        """Return the units that may go together: all that are owed, or one."""
        pending = tuple(unit for unit, state in enumerate(s.units) if state == PENDING)
        return {pending, *((unit,) for unit in pending)} if pending else set()

    def _of_tx(self, s: State, index: int, tx: Tx) -> Iterator[tuple[str, State]]:
        if tx.state == "planned":
            yield f"drop {index}", self._released(_moved(s, index, "dropped"), index)
            # Nonces that were spent without us stop signing until that is deep: a reorg could
            # take them back and leave a gap that nobody fills.
            floor = self.mined_count(s._replace(chain=s.chain[: s.deep]))
            if self.mined_count(s) <= max(floor, _next_nonce(s)):
                yield f"see for signing {index}", s._replace(slot=Slot("sign", index, floor))
        if tx.state in ("signed", "sent"):
            yield from self._of_open(s, index, tx)
        if tx.state == "mined":
            yield from self._of_mined(s, index, tx)
        if tx.state in ("cancelled", "lost", "reverted") and index in s.units:
            yield f"see for review {index}", s._replace(slot=Slot("review", index))

    def _of_open(self, s: State, index: int, tx: Tx) -> Iterator[tuple[str, State]]:
        for attempt in range(len(tx.attempts)):
            bytes_ = Ours(index, attempt)
            if bytes_ not in s.pool and self.place(s, tx.nonce) is None:
                out = s._replace(pool=s.pool | {bytes_})
                # The answer is clear, or it is not: then the state stays, and it goes out again.
                yield f"send {index}.{attempt}", _moved(out, index, "sent")
                if tx.state == "signed":
                    yield f"send {index}.{attempt}, no answer", out
        if len(tx.attempts) < self.most_attempts:
            # What is being cancelled is only ever signed again to cancel it.
            for cancel in (False, True) if not tx.attempts[-1] else (True,):
                left = _spent(s, "cancel") if cancel else s
                if left is not None:
                    new = tx._replace(attempts=(*tx.attempts, cancel))
                    yield f"{'cancel' if cancel else 'bump'} {index}", _with_tx(left, index, new)
        if self.shortcut is Shortcut.NEW_NONCE_WHEN_OPEN and tx.state == "signed":
            yield f"give up {index}", self._released(_moved(s, index, "lost"), index)
        if self.shortcut is Shortcut.RELEASE_WHEN_CANCELLING and tx.attempts[-1]:
            yield f"release {index}", self._released(s, index)
        place = self.place(s, tx.nonce)
        if place is None:
            return
        entry = s.chain[place]
        if isinstance(entry, Ours) and entry.tx == index:
            old = entry.attempt < len(tx.attempts) - 1
            if not (old and self.shortcut is Shortcut.FORGET_OLD_ATTEMPTS):
                yield f"see {index} mined", s._replace(slot=Slot("mined", index, entry.attempt))
                return
        if place < s.deep or self.shortcut is Shortcut.LOST_AT_FIRST_SIGHT:
            yield f"see {index} lost", s._replace(slot=Slot("lost", index))

    def _of_mined(self, s: State, index: int, tx: Tx) -> Iterator[tuple[str, State]]:
        place = self.place(s, tx.nonce)
        entry = None if place is None else s.chain[place]
        if place is None or not isinstance(entry, Ours) or entry.tx != index:
            if self.shortcut is not Shortcut.NO_WAY_BACK:
                yield f"see {index} unmined", s._replace(slot=Slot("unmined", index))
            return
        early = (
            self.shortcut is Shortcut.RELEASE_WHEN_MINED
            if tx.attempts[entry.attempt]
            else self.shortcut is Shortcut.SETTLE_WHEN_MINED
        )
        if place < s.deep or early:
            move = "confirmed" if self.did_its_work(s, place) else "reverted"
            move = "cancelled" if tx.attempts[entry.attempt] else move
            yield f"see {index} {move}", s._replace(slot=Slot(move, index))

    def _commit(self, s: State, slot: Slot) -> State:
        """Commit what was seen, if the ledger still allows it."""
        s, index = s._replace(slot=None), slot.tx
        tx = s.txs[index]
        match slot.move:
            case "sign":
                if tx.state != "planned":
                    return s
                nonce = max(slot.number, _next_nonce(s))
                if self.shortcut is Shortcut.SEND_BEFORE_SAVING:
                    # As if it died right after the wire: nothing of it is in the ledger.
                    return s._replace(pool=s.pool | {Orphan(nonce, tx.units)})
                return _with_tx(
                    s, index, tx._replace(state="signed", nonce=nonce, attempts=(False,))
                )
            case "mined" | "lost":
                return _moved(s, index, slot.move) if tx.state in ("signed", "sent") else s
            case "unmined":
                return _moved(s, index, "sent") if tx.state == "mined" else s
            case "confirmed":
                done = _moved(s, index, "confirmed")
                return _with_units(done, _bound(s, index), SETTLED) if tx.state == "mined" else s
            case "cancelled" | "reverted":
                return _moved(s, index, slot.move) if tx.state == "mined" else s
            case _:
                return self._reviewed(s, index)

    def _reviewed(self, s: State, index: int) -> State:
        deep = self.payments(s, s.deep)
        done = tuple(u for u in _bound(s, index) if self.guarded and deep[u])
        return self._released(_with_units(s, done, SETTLED), index)

    def _released(self, s: State, index: int) -> State:
        return _with_units(s, _bound(s, index), PENDING)

    # The world's moves

    def theirs(self, s: State) -> Iterator[tuple[str, State]]:
        """Yield what may happen to the relayer."""
        count = self.mined_count(s)
        for bytes_ in sorted(s.pool, key=repr):
            nonce = bytes_.nonce if isinstance(bytes_, Orphan) else s.txs[bytes_.tx].nonce
            if nonce == count:
                rest = frozenset(one for one in s.pool if self._nonce(s, one) != nonce)
                yield f"mine {bytes_}", s._replace(chain=(*s.chain, bytes_), pool=rest)
            dropped = _spent(s, "drop")
            if dropped is not None:
                yield f"drop {bytes_} from the pool", dropped._replace(pool=s.pool - {bytes_})
        foreign = _spent(s, "foreign")
        if foreign is not None:
            rest = frozenset(one for one in s.pool if self._nonce(s, one) != count)
            yield "foreign", foreign._replace(chain=(*s.chain, Foreign()), pool=rest)
        outsider = _spent(s, "outsider")
        if self.guarded and outsider is not None:
            for unit, places in enumerate(self.payments(s)):
                if not places:
                    yield (
                        f"outsider does {unit}",
                        outsider._replace(chain=(*s.chain, Outsider(unit))),
                    )
        if s.deep < len(s.chain):
            yield "deepen", s._replace(deep=s.deep + 1)
            reorged = _spent(s, "reorg")
            if reorged is not None:
                for kept in range(s.deep, len(s.chain)):
                    yield from self._reorgs(reorged, kept)

    def _reorgs(self, s: State, kept: int) -> Iterator[tuple[str, State]]:
        """Take the newest entries away; what was in them is in the pool again, or is not."""
        shorter = s._replace(chain=s.chain[:kept])
        yield f"reorg to {kept}, all gone", shorter
        back = {one for one in s.chain[kept:] if isinstance(one, Ours | Orphan)}
        if back:
            yield f"reorg to {kept}, all in the pool", shorter._replace(pool=s.pool | back)

    def _nonce(self, s: State, bytes_: Ours | Orphan) -> int | None:
        return bytes_.nonce if isinstance(bytes_, Orphan) else s.txs[bytes_.tx].nonce

    # What must always hold

    def broken(self, s: State) -> str | None:
        """Return which promise a state breaks."""
        for unit, places in enumerate(self.payments(s)):
            if len(places) > 1:
                return f"unit {unit} is done twice"
        deep = self.payments(s, s.deep)
        for unit, state in enumerate(s.units):
            if state == SETTLED and not deep[unit]:
                return f"unit {unit} is settled and not done for good"
            holders = [
                index
                for index, tx in enumerate(s.txs)
                if unit in tx.units and tx.state in ("planned", "signed", "sent", "mined")
            ]
            if state == PENDING and holders:
                return f"unit {unit} is owed again while transaction {holders[0]} carries it"
            if len(holders) > 1 or (holders and state not in (holders[0], SETTLED)):
                return f"unit {unit} is in transactions {holders}"
        return self._broken_nonces(s)

    def _broken_nonces(self, s: State) -> str | None:
        nonces = [tx.nonce for tx in s.txs if tx.nonce is not None]
        if len(set(nonces)) < len(nonces):
            return "two transactions have one nonce"
        for tx in s.txs:
            if (tx.nonce is None) != (tx.state in ("planned", "dropped")):
                return f"a transaction is {tx.state} with nonce {tx.nonce}"
        return None

    def settle(self, s: State, most: int = 200) -> bool:
        """Return whether everything ends well once the world leaves the relayer alone."""
        calm = replace(self, most_txs=99, most_attempts=99)
        s = s._replace(left=())
        for _ in range(most):
            if all(state == SETTLED for state in s.units) and s.slot is None:
                return True
            step = calm._next(s)
            if step is None:
                return False
            s = step
        return False

    def _next(self, s: State) -> State | None:
        """Return the next move of a relayer and a chain that only go forward."""
        moves = dict(self.ours(s))
        for wanted in ("commit", "see", "settle", "plan"):
            for name, after in moves.items():
                # Signing comes after everything that is seen is committed.
                if name.startswith(wanted):
                    return after
        world = dict(self.theirs(s))
        for wanted in ("mine", "deepen"):
            for name, after in world.items():
                if name.startswith(wanted):
                    return after
        return next((after for name, after in moves.items() if name.startswith("send")), None)


def start(units: int, **left: int) -> State:
    """Return the beginning: units that are owed, and how often the world may do what."""
    return State(units=(PENDING,) * units, left=tuple(sorted(left.items())))


def _spent(s: State, what: str) -> State | None:
    left = dict(s.left)
    if not left.get(what):
        return None
    left[what] -= 1
    return s._replace(left=tuple(sorted(left.items())))


def _next_nonce(s: State) -> int:
    return max((tx.nonce + 1 for tx in s.txs if tx.nonce is not None), default=0)


def _bound(s: State, tx: int) -> tuple[int, ...]:
    return tuple(unit for unit, state in enumerate(s.units) if state == tx)


def _with_units(s: State, units: tuple[int, ...], to: int) -> State:
    return s._replace(units=tuple(to if u in units else old for u, old in enumerate(s.units)))


def _with_tx(s: State, index: int, tx: Tx) -> State:
    return s._replace(txs=(*s.txs[:index], tx, *s.txs[index + 1 :]))


def _moved(s: State, index: int, state: str) -> State:
    return _with_tx(s, index, s.txs[index]._replace(state=state))  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class Towards(Model):
    """The rules, but only where they can still lead to a state of the ledger."""

    target: State = field(default_factory=lambda: State(()))

    def batches(self, s: State) -> set[tuple[int, ...]]:
        """Return the units that the next transaction of the target carries."""
        if len(s.txs) >= len(self.target.txs):
            return set()
        wanted = self.target.txs[len(s.txs)].units
        return {wanted} if all(s.units[unit] == PENDING for unit in wanted) else set()

    def may_lead(self, s: State) -> bool:
        """Return whether the target's transactions may still come of these."""
        return all(
            tx.nonce in (None, end.nonce) and end.attempts[: len(tx.attempts)] == tx.attempts
            for tx, end in zip(s.txs, self.target.txs, strict=False)
        )


def leads_to(before: State, after: State, *, guarded: bool) -> bool:
    """Return whether the relayer's own moves lead from one ledger to the other.

    The chain is that of `after` and stands still; only the ledgers are compared.
    """
    rules = Towards(guarded=guarded, most_txs=99, most_attempts=99, target=after)
    first = before._replace(
        chain=after.chain, deep=after.deep, pool=frozenset(), slot=None, left=(("cancel", 99),)
    )
    seen, todo = {first}, [first]
    while todo:
        state = todo.pop()
        if (state.units, state.txs) == (after.units, after.txs) and state.slot is None:
            return True
        for _, found in rules.ours(state):
            # What is in the pool and how often something was cancelled is not looked at.
            one = found._replace(pool=frozenset(), left=first.left)
            if one not in seen and rules.may_lead(one):
                seen.add(one)
                todo.append(one)
    return False
