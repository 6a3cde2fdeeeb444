"""What the stand-ins remember: predictions, pins and blocks, in one SQLite database.

In a file it outlives `kill -9`, so a test can lose the service and get it back with everything
that was paid for and pinned before. Every write is one committed statement or transaction.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SCHEMA = """
CREATE TABLE IF NOT EXISTS predictions (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, service TEXT NOT NULL,
    model TEXT NOT NULL, version TEXT NOT NULL, input TEXT NOT NULL, prompt TEXT NOT NULL,
    seed INTEGER, used_seed INTEGER NOT NULL, key TEXT, created_at REAL NOT NULL,
    latency_s REAL NOT NULL, canceled_at REAL, deadline_s REAL, outcome TEXT NOT NULL,
    error TEXT, webhook TEXT, webhook_events TEXT NOT NULL, webhook_done INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS pins (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, service TEXT NOT NULL, cid TEXT NOT NULL,
    size INTEGER NOT NULL, name TEXT, keyvalues TEXT NOT NULL, mime_type TEXT NOT NULL,
    pinned_at REAL NOT NULL, unpinned_at REAL, uploads INTEGER NOT NULL, UNIQUE (service, cid)
);
CREATE TABLE IF NOT EXISTS blocks (multihash BLOB PRIMARY KEY, data BLOB NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One generation somebody asked for and would have to pay."""

    id: str
    service: str
    model: str
    version: str
    input: dict[str, Any]
    prompt: str
    #: The seed that was sent, if any; `used_seed` is the one the picture is made of.
    seed: int | None
    used_seed: int
    #: `Idempotency-Key` header, or the id chosen by the client (Cog's PUT).
    key: str | None
    created_at: float
    latency_s: float
    canceled_at: float | None = None
    deadline_s: float | None = None
    #: `ok`, or the kind of the fault that decides how it ends.
    outcome: str = "ok"
    error: str | None = None
    webhook: str | None = None
    webhook_events: tuple[str, ...] = ()
    #: 0 until it is stored; grows with every creation.
    seq: int = 0


@dataclass(frozen=True, slots=True)
class Pin:
    """One CID held by a pinning service, now or formerly."""

    cid: str
    size: int
    name: str | None
    keyvalues: dict[str, Any]
    mime_type: str
    pinned_at: float
    unpinned_at: float | None
    #: How often this content was uploaded; more than one is harmless and worth knowing.
    uploads: int
    seq: int


class State:
    """The database behind the stand-ins; `path` None keeps it in memory."""

    def __init__(self, path: Path | None = None) -> None:
        self._db = sqlite3.connect(path or ":memory:", isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode=WAL")
        # A killed process loses nothing that was handed to the kernel; a lost machine may.
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def clear(self) -> None:
        """Forget everything."""
        self._db.executescript("DELETE FROM predictions; DELETE FROM pins; DELETE FROM blocks;")

    def add_prediction(self, prediction: Prediction) -> Prediction:
        """Store a new prediction and return it with its `seq`."""
        p = prediction
        self._db.execute(
            "INSERT INTO predictions (id, service, model, version, input, prompt, seed, used_seed,"
            " key, created_at, latency_s, canceled_at, deadline_s, outcome, error, webhook,"
            " webhook_events, webhook_done)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
            (
                *(p.id, p.service, p.model, p.version, json.dumps(p.input), p.prompt, p.seed),
                *(p.used_seed, p.key, p.created_at, p.latency_s, p.canceled_at, p.deadline_s),
                *(p.outcome, p.error, p.webhook, json.dumps(p.webhook_events)),
            ),
        )
        stored = self.prediction(p.id)
        assert stored is not None  # noqa: S101 - inserted just above
        return stored

    def prediction(self, prediction_id: str) -> Prediction | None:
        """Return the prediction of that id."""
        found = self._predictions("WHERE id = ?", prediction_id)
        return found[0] if found else None

    def predictions(
        self, service: str, *, below: int | None = None, limit: int | None = None
    ) -> list[Prediction]:
        """Return predictions of a service, newest first, those with `seq` smaller than `below`."""
        return self._predictions(
            "WHERE service = ? AND seq < ? ORDER BY seq DESC LIMIT ?",
            service,
            below if below is not None else 2**62,
            limit if limit is not None else -1,
        )

    def prediction_by_key(self, service: str, key: str) -> Prediction | None:
        """Return the first prediction a client created under its own `key`."""
        found = self._predictions(
            "WHERE service = ? AND key = ? ORDER BY seq LIMIT 1", service, key
        )
        return found[0] if found else None

    def cancel_prediction(self, prediction_id: str, at: float) -> None:
        """Note that cancelling was asked for; the first time counts."""
        self._db.execute(
            "UPDATE predictions SET canceled_at = coalesce(canceled_at, ?) WHERE id = ?",
            (at, prediction_id),
        )

    def owed_webhooks(self) -> list[Prediction]:
        """Return predictions whose last webhook has not been accepted yet."""
        return self._predictions("WHERE webhook IS NOT NULL AND webhook_done = 0 ORDER BY seq")

    def webhook_done(self, prediction_id: str) -> None:
        """Note that the last webhook was accepted or given up."""
        self._db.execute("UPDATE predictions SET webhook_done = 1 WHERE id = ?", (prediction_id,))

    def creations(self) -> list[tuple[str, str, int | None, str | None, int]]:
        """Return (service, prompt, seed, key, how often it was created), in order of creation."""
        return [
            tuple(row)
            for row in self._db.execute(
                "SELECT service, prompt, seed, key, count(*) FROM predictions"
                " GROUP BY service, prompt, seed, key ORDER BY min(seq)"
            )
        ]

    def add_pin(
        self,
        service: str,
        cid: str,
        *,
        size: int,
        at: float,
        name: str | None = None,
        keyvalues: dict[str, Any] | None = None,
        mime_type: str = "",
    ) -> tuple[Pin, bool]:
        """Pin `cid`; return the pin and whether it was held already (then only counted)."""
        before = self.pin(service, cid)
        held = before is not None and before.unpinned_at is None
        if held:
            self._db.execute(
                "UPDATE pins SET uploads = uploads + 1 WHERE service = ? AND cid = ?",
                (service, cid),
            )
        else:
            self._db.execute(
                "INSERT INTO pins (service, cid, size, name, keyvalues, mime_type, pinned_at,"
                " uploads) VALUES (?, ?, ?, ?, ?, ?, ?, 1) ON CONFLICT (service, cid) DO UPDATE"
                " SET unpinned_at = NULL, pinned_at = excluded.pinned_at, name = excluded.name,"
                " keyvalues = excluded.keyvalues, uploads = uploads + 1",
                (service, cid, size, name, json.dumps(keyvalues or {}), mime_type, at),
            )
        after = self.pin(service, cid)
        assert after is not None  # noqa: S101 - written just above
        return after, held

    def pin(self, service: str, cid: str) -> Pin | None:
        """Return the pin of `cid`, also one that was removed."""
        row = self._db.execute(
            "SELECT * FROM pins WHERE service = ? AND cid = ?", (service, cid)
        ).fetchone()
        return _pin(row) if row else None

    def pins(self, service: str) -> list[Pin]:
        """Return all pins of a service, newest first, removed ones too."""
        rows = self._db.execute(
            "SELECT * FROM pins WHERE service = ? ORDER BY pinned_at DESC, seq DESC", (service,)
        )
        return [_pin(row) for row in rows]

    def remove_pin(self, service: str, cid: str, at: float) -> bool:
        """Unpin; return False when it was not pinned. The blocks stay, as caches keep them."""
        cursor = self._db.execute(
            "UPDATE pins SET unpinned_at = ? WHERE service = ? AND cid = ? AND unpinned_at IS NULL",
            (at, service, cid),
        )
        return cursor.rowcount == 1

    def add_blocks(self, blocks: Iterable[tuple[bytes, bytes]]) -> None:
        """Store (multihash, data) pairs in one transaction."""
        self._db.execute("BEGIN")
        self._db.executemany("INSERT OR IGNORE INTO blocks VALUES (?, ?)", blocks)
        self._db.execute("COMMIT")

    def block(self, multihash: bytes) -> bytes | None:
        """Return a block by its multihash: CIDv0 and CIDv1 of one node are one block."""
        row = self._db.execute(
            "SELECT data FROM blocks WHERE multihash = ?", (multihash,)
        ).fetchone()
        return bytes(row["data"]) if row else None

    def _predictions(self, where: str, *values: object) -> list[Prediction]:
        rows = self._db.execute(f"SELECT * FROM predictions {where}", values)
        return [
            Prediction(
                id=row["id"],
                service=row["service"],
                model=row["model"],
                version=row["version"],
                input=json.loads(row["input"]),
                prompt=row["prompt"],
                seed=row["seed"],
                used_seed=row["used_seed"],
                key=row["key"],
                created_at=row["created_at"],
                latency_s=row["latency_s"],
                canceled_at=row["canceled_at"],
                deadline_s=row["deadline_s"],
                outcome=row["outcome"],
                error=row["error"],
                webhook=row["webhook"],
                webhook_events=tuple(json.loads(row["webhook_events"])),
                seq=row["seq"],
            )
            for row in rows
        ]


def _pin(row: sqlite3.Row) -> Pin:
    return Pin(
        cid=row["cid"],
        size=row["size"],
        name=row["name"],
        keyvalues=json.loads(row["keyvalues"]),
        mime_type=row["mime_type"],
        pinned_at=row["pinned_at"],
        unpinned_at=row["unpinned_at"],
        uploads=row["uploads"],
        seq=row["seq"],
    )
