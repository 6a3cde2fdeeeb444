"""Several devices, offline as long as they like: all end up with the same, nothing unseen lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causeway.apps.wisp.sync.merging import (
    Change,
    Mark,
    Merged,
    Op,
    Row,
    Rules,
    Status,
    corrected,
    merge,
)

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
RUNS = Rules(
    free={"title", "description"}, measured={"distance", "moving_time"}, required={"title"}
)


def change(
    fields: Mapping[str, Any],
    *,
    device: str = "phone",
    base: int = 1,
    minutes: int = 0,
    op: Op = Op.UPSERT,
    restore: bool = False,
) -> Change:
    """Return a change made that long after noon."""
    return Change(op, device, base, NOON + timedelta(minutes=minutes), fields, restore)


def row(**fields: Any) -> Row:
    """Return a row as another device made it."""
    return Row(1, fields, dict.fromkeys(fields, Mark(1, "watch")))


def test_different_fields_are_merged_and_the_same_one_goes_to_the_later_arrival() -> None:
    first = merge(row(title="Run"), change({"title": "Dawn"}), RUNS)
    assert (first.status, first.lost) == (Status.APPLIED, {})
    second = merge(first.row, change({"description": "wet"}, device="watch"), RUNS)
    assert (second.status, second.lost) == (Status.MERGED, {})
    assert second.row is not None
    assert second.row.fields == {"title": "Dawn", "description": "wet"}
    third = merge(second.row, change({"title": "Dusk"}, device="watch"), RUNS)
    assert (third.status, third.lost) == (Status.MERGED, {"title": "Dawn"})


def test_a_device_does_not_conflict_with_itself() -> None:
    first = merge(row(title="Run"), change({"title": "Dawn"}), RUNS)
    second = merge(first.row, change({"title": "Dusk"}), RUNS)
    assert (second.status, second.lost) == (Status.APPLIED, {})


def test_what_was_measured_is_written_once() -> None:
    there = row(title="Run", distance=5000.0)
    found = merge(there, change({"distance": 5100.0, "moving_time": 1200}), RUNS)
    assert (found.status, found.lost) == (Status.MERGED, {"distance": 5100.0})
    assert found.row is not None
    assert found.row.fields["moving_time"] == 1200
    again = merge(there, change({"distance": 5100.0}), RUNS)
    assert (again.status, again.row) == (Status.CONFLICT, there)
    same = merge(there, change({"distance": 5000.0}), RUNS)
    assert (same.status, same.row) == (Status.APPLIED, there)


def test_a_deletion_beats_edits_unless_a_newer_one_asks_for_the_row_back() -> None:
    deleted = merge(row(title="Run"), change({}, op=Op.DELETE, minutes=5), RUNS)
    assert deleted.row is not None
    assert deleted.row.deleted_at == NOON + timedelta(minutes=5)
    edit = {"title": "Dawn"}
    for other in (
        change(edit, device="watch", minutes=9),
        change(edit, device="watch", minutes=4, restore=True),
    ):
        refused = merge(deleted.row, other, RUNS)
        assert (refused.status, refused.lost) == (Status.CONFLICT, edit)
    back = merge(deleted.row, change(edit, device="watch", minutes=9, restore=True), RUNS)
    assert back.status is Status.MERGED
    assert back.row is not None
    assert (back.row.deleted_at, back.row.fields) == (None, {"title": "Dawn"})
    assert back.row.version > deleted.row.version


def test_a_deletion_gives_back_what_its_device_had_not_seen() -> None:
    edited = merge(row(title="Run"), change({"description": "wet"}, device="watch"), RUNS)
    gone = merge(edited.row, change({}, op=Op.DELETE, base=1), RUNS)
    assert (gone.status, gone.lost) == (Status.MERGED, {"description": "wet"})


@pytest.mark.parametrize(
    ("there", "what", "told"),
    [
        (row(title="Run"), change({"user_id": "x"}), "user_id is not written by devices"),
        (row(title="Run"), change({"title": None}), "title is required"),
        (None, change({"description": "wet"}, base=0), "title is required"),
        (row(title="Run"), change({"title": "Dawn"}, base=7), "base_version 7 is above 1"),
    ],
)
def test_what_can_never_be_applied_is_refused_with_the_reason(
    there: Row | None, what: Change, told: str
) -> None:
    found = merge(there, what, RUNS)
    assert (found.status, found.row) == (Status.REJECTED, there)
    assert told in found.errors[0]
    assert found.lost == what.fields


def test_clocks_that_are_off_are_corrected_and_nothing_comes_from_the_future() -> None:
    late = NOON - timedelta(hours=3)
    assert corrected(late, late, NOON) == NOON
    assert corrected(late - timedelta(minutes=10), late, NOON) == NOON - timedelta(minutes=10)
    assert corrected(NOON - timedelta(hours=1), NOON - timedelta(seconds=90), NOON) == (
        NOON - timedelta(hours=1)
    )
    assert corrected(NOON + timedelta(minutes=1), NOON, NOON) == NOON


@dataclass
class Device:
    """A replica, and what it has not been able to say yet."""

    name: str
    rows: dict[str, Row] = field(default_factory=dict[str, Row])
    pending: list[tuple[int, str, Change]] = field(default_factory=list[tuple[int, str, Change]])
    seen: set[Any] = field(default_factory=set[Any])
    made: int = 0

    def do(self, key: str, op: Op, fields: Mapping[str, Any], at: datetime, *, back: bool) -> None:
        """Change a row here, now; it is told when there is a connection."""
        there = self.rows.get(key)
        base = 0 if there is None else there.version
        if there is None and (op is Op.DELETE or "title" not in fields):
            return
        self.made += 1
        self.pending.append((self.made, key, Change(op, self.name, base, at, fields, back)))
        self.seen.update(fields.values())

    def pull(self, rows: Mapping[str, Row]) -> None:
        """Adopt the rows of the server."""
        self.rows = {key: replace(one) for key, one in rows.items()}
        self.seen.update(v for one in self.rows.values() for v in one.fields.values())


@dataclass
class Server:
    """Rows, what was lost of each, and the answers that were given already."""

    rows: dict[str, Row] = field(default_factory=dict[str, Row])
    lost: set[Any] = field(default_factory=set[Any])
    answers: dict[tuple[str, int], Merged] = field(default_factory=dict[tuple[str, int], Merged])

    def push(self, device: Device, number: int, key: str, what: Change) -> None:
        """Take one change; a repetition changes nothing."""
        if (device.name, number) in self.answers:
            return
        before = self.rows.get(key)
        found = merge(before, what, RUNS)
        if found.row is not None:
            assert before is None or found.row.version >= before.version
            self.rows[key] = found.row
        self.answers[device.name, number] = found
        self.lost.update(found.lost.values())
        after = dict(found.row.fields) if found.row is not None else {}
        # Whatever is not in the row any more was seen by who replaced it, or is kept.
        for name, value in (dict(before.fields) if before is not None else {}).items():
            if after.get(name) != value:
                assert value in device.seen or value in self.lost
        for name, value in what.fields.items():
            assert after.get(name) == value or value in self.lost


OPS = st.tuples(
    st.integers(0, 2),  # the device
    st.sampled_from(["edit", "edit", "edit", "delete", "push", "pull"]),
    st.sampled_from(["a", "b"]),
    st.sets(st.sampled_from(["title", "description", "distance"]), min_size=1),
    st.integers(-300, 300),  # minutes by which its clock is off
    st.booleans(),  # asks for the row back, or loses the answer
    st.integers(0, 3),  # requests that arrive before the connection is lost
)


@settings(max_examples=400, deadline=None)
@given(st.lists(OPS, max_size=40))
def test_all_replicas_converge_and_no_edit_is_silently_lost(
    ops: list[tuple[int, str, str, set[str], int, bool, int]],
) -> None:
    server = Server()
    devices = [Device(name) for name in ("phone", "watch", "web")]
    for moment, (which, what, key, names, skew, flag, most) in enumerate(ops):
        device = devices[which]
        now = NOON + timedelta(minutes=moment)
        if what in ("edit", "delete"):
            at = corrected(now + timedelta(minutes=skew), now + timedelta(minutes=skew), now)
            op = Op.UPSERT if what == "edit" else Op.DELETE
            values = {name: (device.name, moment, name) for name in names}
            device.do(key, op, values if op is Op.UPSERT else {}, at, back=flag)
        elif what == "pull":
            device.pull(server.rows)
        else:
            for number, row_key, sent in device.pending[:most]:
                server.push(device, number, row_key, sent)
            if not flag:  # otherwise the answer was lost, and they are sent again
                device.pending = device.pending[most:]
    for device in devices:
        for _ in range(2):  # the second time as a client does that never heard the first answer
            for number, row_key, sent in device.pending:
                server.push(device, number, row_key, sent)
    for device in devices:
        device.pull(server.rows)
    assert devices[0].rows == devices[1].rows == devices[2].rows == server.rows
