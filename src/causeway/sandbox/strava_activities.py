"""What athletes have on Strava: activities from the settings, and from files that were uploaded."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from causeway.sandbox.strava_events import Events
from causeway.sandbox.world import World, instant

_TYPES = ("fit", "fit.gz", "tcx", "tcx.gz", "gpx", "gpx.gz")
#: What a file with measurements has in it.
_MARKS = {"fit": b".FIT", "tcx": b"<Trackpoint", "gpx": b"<trkpt"}

PROCESSING = "Your activity is still being processed."
READY = "Your activity is ready."
FAILED = "There was an error processing your activity."
DELETED = "The created activity has been deleted."


def athlete_id(username: str) -> int:
    """Return the number of an athlete, always the same."""
    return 1_000_000 + int.from_bytes(hashlib.sha256(username.encode()).digest()[:4])


def athlete_json(username: str) -> dict[str, Any]:
    """Return an athlete as the API shows it."""
    return {
        "id": athlete_id(username),
        "username": username,
        "resource_state": 2,
        "firstname": username,
        "lastname": "S.",
        "city": None,
        "state": None,
        "country": None,
        "sex": None,
        "premium": False,
        "summit": False,
        "created_at": "2020-01-01T00:00:00Z",
        "updated_at": "2026-01-01T00:00:00Z",
        "profile_medium": "avatar/athlete/medium.png",
        "profile": "avatar/athlete/large.png",
    }


@dataclass
class _File:
    id: int
    who: str
    external_id: str
    digest: str
    is_good: bool
    name: str
    description: str | None
    ready_at: float
    activity_id: int | None = None
    error: str | None = None
    is_done: bool = False


class Activities:
    """The activities of all athletes."""

    def __init__(self, world: World, events: Events) -> None:
        self._world = world
        self._events = events
        self._files: dict[int, _File] = {}
        self._made: dict[int, dict[str, Any]] = {}
        self._changes: dict[int, dict[str, Any]] = {}
        self._deleted: set[int] = set()
        self._last_id = 17_000_000_000

    def listed(
        self, who: str, before: int | None, after: int | None, *, with_private: bool
    ) -> list[dict[str, Any]]:
        """Return an athlete's activities, newest first, or with `after` oldest first."""
        found = [a for a in self._of(who) if with_private or not a["private"]]
        at = {a["id"]: datetime.fromisoformat(a["start_date"]).timestamp() for a in found}
        chosen = [
            a
            for a in found
            if (before is None or at[a["id"]] < before) and (after is None or at[a["id"]] > after)
        ]
        chosen.sort(key=lambda a: at[a["id"]], reverse=after is None)
        hidden = ("_who", "streams", "description", "calories", "device_name")
        return [{k: v for k, v in a.items() if k not in hidden} for a in chosen]

    def find(self, who: str, number: str) -> dict[str, Any] | None:
        """Return an activity of this athlete."""
        return next((a for a in self._of(who) if str(a["id"]) == number), None)

    def detailed(self, activity: dict[str, Any]) -> dict[str, Any]:
        """Return an activity as it is shown alone."""
        shown = {k: v for k, v in activity.items() if k not in ("streams", "_who")}
        return {**shown, "resource_state": 3}

    def change(self, activity: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
        """Change an activity, and tell of its title and its sport."""
        number, who = activity["id"], activity["_who"]
        self._changes.setdefault(number, {}).update(changes)
        updates = {
            told: str(changes[field])
            for field, told in (("name", "title"), ("sport_type", "type"))
            if field in changes and changes[field] != activity[field]
        }
        if updates:
            self._tell(who, number, "update", updates)
        after = self.find(who, str(number))
        return after or activity

    def delete(self, number: int) -> bool:
        """Delete an activity, as its athlete does on Strava; say whether there was one."""
        who = next((a["_who"] for a in self._all() if a["id"] == number), None)
        if who is None:
            return False
        self._deleted.add(number)
        self._tell(who, number, "delete", {})
        return True

    def upload(
        self, who: str, content: bytes, filename: str, words: dict[str, str]
    ) -> dict[str, Any] | None:
        """Take a file; None when its type is none."""
        data_type = words.get("data_type", "")
        if data_type not in _TYPES:
            return None
        is_good = True
        if data_type.endswith(".gz"):
            try:
                content = gzip.decompress(content)
            except (OSError, EOFError, zlib.error):
                is_good = False
        is_good = is_good and _MARKS[data_type.removesuffix(".gz")] in content
        self._last_id += 1
        file = _File(
            id=self._last_id,
            who=who,
            external_id=words.get("external_id") or filename,
            digest=hashlib.sha256(content).hexdigest(),
            is_good=is_good,
            name=words.get("name") or "Morning Run",
            description=words.get("description"),
            ready_at=self._world.now() + self._world.settings.strava_processing_s,
        )
        self._files[file.id] = file
        return self._state(file)

    def upload_state(self, who: str, number: str) -> dict[str, Any] | None:
        """Return how far an upload of this athlete is."""
        file = self._files.get(int(number)) if number.isdigit() else None
        return None if file is None or file.who != who else self._state(file)

    def work(self) -> None:
        """Do what is due with the files that came, in their order."""
        for file in self._files.values():
            if file.is_done or file.ready_at > self._world.now():
                continue
            file.is_done = True
            there = next(
                (
                    other.activity_id
                    for other in self._files.values()
                    if other.digest == file.digest
                    and other.who == file.who
                    and other.activity_id is not None
                    and other.activity_id not in self._deleted
                ),
                None,
            )
            if there is not None:
                file.error = f"{file.external_id} duplicate of {self._named(there)}"
            elif not file.is_good:
                file.error = "Time information is missing from file."
            else:
                self._make(file)

    def _named(self, number: int) -> str:
        if self._world.settings.strava_duplicate_words == "number":
            return f"activity {number}"
        name = self._made[number]["name"]
        return f"<a href='/activities/{number}' target='_blank'>{name}</a>"

    def _make(self, file: _File) -> None:
        self._last_id += 1
        file.activity_id = self._last_id
        self._made[file.activity_id] = {
            "_who": file.who,
            "id": file.activity_id,
            "name": file.name,
            "description": file.description,
            "external_id": file.external_id,
            "upload_id": file.id,
            "upload_id_str": str(file.id),
            "start_date": instant(float(int(file.ready_at))),
        }
        self._tell(file.who, file.activity_id, "create", {})

    def _state(self, file: _File) -> dict[str, Any]:
        status = READY
        if not file.is_done:
            status = PROCESSING
        elif file.error is not None:
            status = FAILED
        elif file.activity_id in self._deleted:
            status = DELETED
        return {
            "id": file.id,
            "id_str": str(file.id),
            "external_id": file.external_id,
            "error": file.error,
            "status": status,
            "activity_id": file.activity_id if status == READY else None,
        }

    def _tell(self, who: str, number: int, aspect: str, updates: dict[str, str]) -> None:
        self._events.send(
            object_type="activity",
            object_id=number,
            aspect_type=aspect,
            owner_id=athlete_id(who),
            updates=updates,
        )

    def _of(self, who: str) -> list[dict[str, Any]]:
        return [a for a in self._all() if a["_who"] == who]

    def _all(self) -> list[dict[str, Any]]:
        given: list[dict[str, Any]] = [
            {"_who": who, **activity}
            for who, activities in self._world.settings.strava_activities.items()
            for activity in activities
        ]
        return [
            _complete({**activity, **self._changes.get(activity["id"], {})})
            for activity in (*given, *self._made.values())
            if activity["id"] not in self._deleted
        ]


def _complete(given: dict[str, Any]) -> dict[str, Any]:
    """Return an activity with everything that the API shows."""
    start = given.get("start_date") or "2026-10-01T06:00:00Z"
    local = datetime.fromisoformat(start).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    sport = given.get("sport_type", "Run")
    visibility = given.get("visibility", "everyone")
    return {
        "resource_state": 2,
        "athlete": {"id": athlete_id(given["_who"]), "resource_state": 1},
        "name": "Morning Run",
        "distance": 5000.0,
        "moving_time": 1500,
        "elapsed_time": 1560,
        "total_elevation_gain": 20.0,
        "type": sport if sport != "TrailRun" else "Run",
        "sport_type": sport,
        "start_date_local": local,
        "timezone": "(GMT+00:00) GMT",
        "utc_offset": 0.0,
        "start_latlng": [],
        "end_latlng": [],
        "map": {"id": f"a{given['id']}", "summary_polyline": "", "resource_state": 2},
        "trainer": False,
        "commute": False,
        "manual": False,
        "private": visibility == "only_me",
        "average_speed": 3.333,
        "max_speed": 5.0,
        "has_heartrate": False,
        "external_id": None,
        "upload_id": None,
        "visibility": visibility,
        "description": None,
        "calories": 0.0,
        "device_name": None,
        **given,
        "start_date": start,
    }
