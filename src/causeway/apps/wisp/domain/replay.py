"""A race run again from a whole track: the final result, the same each time it is asked for.

While a race is live some fixes come late, or never; its result is provisional until the run is
stored. Then the race is told every sample of the track in order of time, with the pauses of the
device, and that result counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from causeway.apps.wisp.domain.fixes import Fix
from causeway.apps.wisp.domain.ghost import Ghost
from causeway.apps.wisp.domain.race import Race
from causeway.apps.wisp.domain.standing import Rules
from causeway.apps.wisp.domain.track import Track


def fixes(track: Track, start_s: float = 0.0) -> Iterator[Fix]:
    """Yield the samples of a track as fixes, in order; times count from `start_s` into it."""
    order = np.argsort(track.t, kind="stable").tolist()
    columns = [
        [None if math.isnan(value) else value for value in column.tolist()]
        for column in (
            track.lat,
            track.lng,
            track.accuracy_m,
            track.distance_m,
            track.elevation_m,
        )
    ]
    t = track.t.tolist()
    for i in order:
        if t[i] >= start_s:
            lat, lng, accuracy_m, distance_m, elevation_m = (column[i] for column in columns)
            yield Fix(t[i] - start_s, lat, lng, accuracy_m, distance_m, elevation_m)


def replay(ghost: Ghost, track: Track, rules: Rules | None = None, *, start_s: float = 0.0) -> Race:
    """Return the race of a whole track, over: finished if it gets there, else abandoned.

    The race begins `start_s` into the track. A race by the device's own pauses needs no other.
    """
    race = Race(ghost, rules)
    changes = sorted(
        (at - start_s, is_pause)
        for pause in track.pauses
        for at, is_pause in ((pause[0], True), (pause[1], False))
        if at >= start_s
    )
    last = 0.0
    for fix in fixes(track, start_s):
        # A sample taken when the timer stopped or went on belongs to the run.
        while changes and (changes[0][0] < fix.t or (changes[0] == (fix.t, False))):
            at, is_pause = changes.pop(0)
            (race.pause if is_pause else race.resume)(at)
        race.add(fix)
        last = fix.t
    race.finish(last)
    return race
