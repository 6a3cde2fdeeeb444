"""One change of one device, merged into the row as the server has it: pure, field by field.

A row remembers for each field in which version it last changed and by which device, so a three-way
merge needs no old copies: against a change that a device made on version `base`, the others changed
exactly the fields whose version is above `base` and whose device is another.

- Fields that only one side changed are merged.
- A field that both changed: for what people write, the later arrival wins, and the value that loses
  is given back and kept; what was measured (a track, times, a distance) is written once, and a
  later, other value is refused with the one that is there.
- A deletion beats edits. An edit that is newer than the tombstone brings the row back if it asks
  for that; otherwise it is refused, with the row as it is.

"Given back and kept" is what makes no edit silently lost: every value that a device ever sent is
in the row, or in `Merged.lost`, which the caller keeps in the history of the row.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

#: A device's clock that is further off than this is corrected.
SKEW_TOLERATED = timedelta(minutes=2)


class Op(StrEnum):
    """What a change does."""

    UPSERT = "upsert"
    DELETE = "delete"


class Status(StrEnum):
    """What became of a change."""

    #: Nobody else had changed the row.
    APPLIED = "applied"
    #: Others had; both are in the row, but for what `lost` names.
    MERGED = "merged"
    #: Nothing of it is in the row, and the row is given back.
    CONFLICT = "conflict"
    #: It can never be applied: `errors` says why.
    REJECTED = "rejected"


@dataclass(frozen=True)
class Rules:
    """Which fields of a table devices may write, and how."""

    #: Written by people: the later arrival wins.
    free: Set[str]
    #: Measured: written once.
    measured: Set[str] = frozenset()
    #: Fields without which there is no row.
    required: Set[str] = frozenset()

    def unknown(self, names: Set[str]) -> list[str]:
        """Return the fields that devices may not write, in order."""
        return sorted(names - self.free - self.measured)


@dataclass(frozen=True)
class Mark:
    """The last change of a field: the version it made, and the device."""

    version: int
    device: str


@dataclass(frozen=True)
class Row:
    """A row as the server has it; deleted ones keep their fields until they are purged."""

    version: int
    fields: Mapping[str, Any]
    #: When and by whom each field last changed.
    changed: Mapping[str, Mark]
    #: When it was deleted, by the corrected clock of the device that did it.
    deleted_at: datetime | None = None


@dataclass(frozen=True)
class Change:
    """What a device did to a row that it knew as of `base_version`; 0: it made it."""

    op: Op
    device: str
    base_version: int
    #: When, by the device's clock, corrected (`corrected`).
    client_time: datetime
    fields: Mapping[str, Any] = field(default_factory=dict[str, Any])
    #: Bring the row back if it was deleted before this edit.
    restore: bool = False


@dataclass(frozen=True)
class Merged:
    """What became of a change."""

    status: Status
    #: The row afterwards; None only when there was none and nothing was made.
    row: Row | None
    #: Values that are not in the row: what this change replaced, or was not able to write.
    lost: Mapping[str, Any] = field(default_factory=dict[str, Any])
    errors: tuple[str, ...] = ()


def corrected(client_time: datetime, sent_at: datetime, received_at: datetime) -> datetime:
    """Return a device's time as our clock would have told it.

    `sent_at` is the device's time when it sent the request that arrived at `received_at`. What is
    within two minutes is believed as it is; nothing was done later than it arrived.
    """
    skew = received_at - sent_at
    if abs(skew) > SKEW_TOLERATED:
        client_time += skew
    return min(client_time, received_at)


def merge(row: Row | None, change: Change, rules: Rules) -> Merged:
    """Return the row with a change merged into it, and what is not in it afterwards."""
    unknown = rules.unknown(set(change.fields))
    if unknown:
        errors = tuple(f"{name} is not written by devices" for name in unknown)
        return Merged(Status.REJECTED, row, dict(change.fields), errors)
    if change.op is Op.UPSERT:
        missing = _missing(change, rules, new=row is None)
        if missing:
            errors = tuple(f"{name} is required" for name in missing)
            return Merged(Status.REJECTED, row, dict(change.fields), errors)
    if row is None:
        return _made(change)
    if change.base_version > row.version:
        told = f"base_version {change.base_version} is above {row.version}, the newest there is"
        return Merged(Status.REJECTED, row, dict(change.fields), (told,))
    if change.op is Op.DELETE:
        return _deleted(row, change)
    if row.deleted_at is not None:
        if not (change.restore and change.client_time > row.deleted_at):
            return Merged(Status.CONFLICT, row, dict(change.fields))
        row = replace(row, version=row.version + 1, deleted_at=None)
        found = _edited(row, change, rules)
        return replace(found, status=Status.MERGED, row=found.row or row)
    return _edited(row, change, rules)


def _missing(change: Change, rules: Rules, *, new: bool) -> list[str]:
    """Return the required fields that a change would leave empty."""
    emptied = {name for name, value in change.fields.items() if value is None}
    absent = rules.required - set(change.fields) if new else frozenset[str]()
    return sorted(rules.required & emptied | absent)


def _made(change: Change) -> Merged:
    if change.op is Op.DELETE:
        # Made and deleted before anybody heard of it: there is nothing to forget.
        return Merged(Status.APPLIED, None)
    fields = dict(change.fields)
    return Merged(Status.APPLIED, Row(1, fields, dict.fromkeys(fields, Mark(1, change.device))))


def _deleted(row: Row, change: Change) -> Merged:
    if row.deleted_at is not None:
        return Merged(Status.APPLIED, row)
    # The fields stay on the tombstone; what the device had not seen is given back as well.
    unseen = {name: row.fields[name] for name in row.fields if _is_unseen(row, name, change)}
    gone = replace(row, version=row.version + 1, deleted_at=change.client_time)
    return Merged(Status.MERGED if unseen else Status.APPLIED, gone, unseen)


def _edited(row: Row, change: Change, rules: Rules) -> Merged:
    fields, changed = dict(row.fields), dict(row.changed)
    mark = Mark(row.version + 1, change.device)
    lost: dict[str, Any] = {}
    refused: dict[str, Any] = {}
    for name, value in change.fields.items():
        if name in fields and fields[name] == value:
            continue
        if name in rules.measured and fields.get(name) is not None:
            refused[name] = value
            continue
        if _is_unseen(row, name, change):
            lost[name] = fields[name]
        fields[name], changed[name] = value, mark
    if mark not in changed.values():
        return Merged(Status.CONFLICT if refused else Status.APPLIED, row, refused)
    others = any(_is_unseen(row, name, change) for name in row.changed)
    status = Status.MERGED if others or refused else Status.APPLIED
    now = replace(row, version=mark.version, fields=fields, changed=changed)
    return Merged(status, now, lost | refused)


def _is_unseen(row: Row, name: str, change: Change) -> bool:
    """Say whether a field holds what another device wrote and this one had not seen."""
    mark = row.changed.get(name)
    return (
        mark is not None
        and mark.version > change.base_version
        and mark.device != change.device
        and name in row.fields
    )
