"""Files of runs are read whatever wrote them, and refused clearly when they hold none."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import math
import re
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causeway.apps.wisp.domain.clean import clean
from causeway.apps.wisp.domain.files import (
    UnreadableFile,
    entries,
    listing,
    read_track,
    to_geojson,
    to_gpx,
    to_tcx,
)
from causeway.apps.wisp.domain.files import reading as reading_module
from causeway.apps.wisp.domain.track import Track
from causeway.base.errors import TooLarge

DATA = Path(__file__).parents[1] / "data" / "wisp"
RIDE = [
    "4801048867.fit.gz",
    "activity_4801048867.tcx.gz",
    "activity_4801048867.gpx.gz",
    "4801048867_strava.gpx.gz",
]


def track(name: str) -> Track:
    return read_track((DATA / name).read_bytes())


def gpx_of(points: str, head: str = "") -> bytes:
    return (
        f'<?xml version="1.0"?>{head}<gpx version="1.1" creator="x"><trk><trkseg>'
        f"{points}</trkseg></trk></gpx>"
    ).encode()


POINTS = "".join(
    f'<trkpt lat="{45 + i / 10000}" lon="7"><time>2026-01-01T10:00:{i:02d}Z</time></trkpt>'
    for i in range(10)
)


def test_one_activity_is_the_same_in_four_files() -> None:
    runs = [clean(track(name)) for name in RIDE]
    assert [run.track.source for run in runs] == ["fit", "tcx", "gpx", "gpx"]
    distances = [run.distance_m for run in runs]
    assert max(distances) - min(distances) < 0.001 * max(distances)
    # What the device says of it in FIT and TCX.
    assert distances[0] == pytest.approx(36322.85, rel=0.001)
    assert len({run.elapsed_s for run in runs}) == 1
    assert len({run.track.started_at for run in runs}) == 1
    middle = [float(np.interp(2500.0, run.t, run.track.lat)) for run in runs]
    assert max(middle) - min(middle) < 1e-5
    beats = [float(np.nanmean(run.track.heart_rate)) for run in runs]
    assert max(beats) - min(beats) < 1.0


def test_a_run_with_a_pause_agrees_with_the_watch() -> None:
    found = track("3173437224.tcx.gz")
    assert found.sport == "run"
    assert len(found) == 3507
    assert found.duration_s == pytest.approx(3903.719)
    ((start, end),) = found.pauses
    assert end - start == pytest.approx(398.719)
    assert found.summary.distance_m == pytest.approx(4508.5, abs=0.1)
    assert found.summary.timer_s == 3510


def test_steps_are_of_both_feet() -> None:
    found = track("3173437224.tcx.gz")
    walking = found.cadence[found.cadence > 0]
    assert 100 < float(np.median(walking)) < 180


def test_a_hike_without_some_times_says_so() -> None:
    found = track("korita-zbevnica.gpx")
    assert len(found) == 513
    assert found.warnings == ("358 samples without a time were left out",)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not GPX, TCX or FIT"),
        (b"hello", "not GPX, TCX or FIT"),
        (b"<html><body>404</body></html>", "not GPX, TCX or FIT"),
        (gpx_of(""), "fewer than two samples"),
        (gpx_of(POINTS)[:-30], "not valid GPX"),
        (gpx_of('<trkpt lat="1" lon="2"/>'), "no times"),
        (gpx_of('<trkpt lat="one" lon="2"/>'), "not valid GPX"),
        (gpx_of(POINTS, '<!DOCTYPE gpx [<!ENTITY a "b">]>'), "document type"),
        (gpx_of(POINTS).replace(b"?>", b' encoding="utf-16"?>', 1), "not utf-16"),
        (gpx_of(POINTS).replace(b"2026", b"1901"), "later than 1995"),
        (b"<TrainingCenterDatabase><Activities/></TrainingCenterDatabase>", "no activity"),
        (b"<TrainingCenterDatabase><Activ", "not valid TCX"),
        (b"\x0e\x10\x00\x00\x10\x00\x00\x00.FITxxxxxxxxxxxx", "FIT|fewer than two"),
        (gzip.compress(gpx_of(POINTS))[:-20], "cut off"),
        (b"\x1f\x8bnonsense", "gzip file is broken"),
        ((DATA / "Mojstrovka.gpx").read_bytes(), "later than 1995"),
        ((DATA / "gpx1.1_with_all_fields.gpx").read_bytes(), "fewer than two"),
        ((DATA / "unicode_with_bom.gpx").read_bytes(), "fewer than two"),
        ((DATA / "track-with-extremes.gpx").read_bytes(), "no times"),
    ],
)
def test_what_holds_no_run_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableFile, match=reason):
        read_track(data)


def test_entities_do_not_hide_in_another_encoding() -> None:
    text = gpx_of(POINTS, '<!DOCTYPE gpx [<!ENTITY a "b">]>').decode()
    with pytest.raises(UnreadableFile, match="document type"):
        read_track(text.encode("utf-16"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_gpx_is_read_in_any_encoding(encoding: str) -> None:
    assert len(read_track(gpx_of(POINTS).decode().encode(encoding))) == 10


def test_a_file_that_unpacks_to_too_much_is_refused_before_it_does() -> None:
    bomb = gzip.compress(b"\0" * 30_000_000)
    tracemalloc.start()
    with pytest.raises(TooLarge):
        read_track(bomb, most_bytes=1_000_000)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_a_fit_file_that_breaks_off_gives_what_it_has() -> None:
    whole = gzip.decompress((DATA / "4801048867.fit.gz").read_bytes())
    found = read_track(whole[: len(whole) // 2])
    assert 2000 < len(found) < 3200
    assert "broken" in found.warnings[-1]


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(0, 4000), noise=st.binary(max_size=40))
def test_a_broken_file_is_refused_and_never_crashes(cut: int, noise: bytes) -> None:
    for name in ("2020-06-01-16-52-40.fit.gz", "activity_5039744860.gpx.gz"):
        whole = gzip.decompress((DATA / name).read_bytes())
        with contextlib.suppress(UnreadableFile):
            read_track(whole[:cut] + noise + whole[cut + len(noise) :])


@pytest.mark.parametrize("form", ["gpx", "tcx"])
@pytest.mark.parametrize("name", ["3173437224.tcx.gz", "cerknicko-jezero.gpx"])
def test_what_is_written_is_read_the_same(name: str, form: str) -> None:
    before = track(name)
    text = to_gpx(before) if form == "gpx" else to_tcx(before, 5000.0, 1500.0)
    after = read_track(text.encode())
    kept = np.isfinite(before.lat)
    assert len(after) == int(kept.sum()) if form == "gpx" else len(before)
    np.testing.assert_allclose(after.t, before.t[kept] - before.t[kept][0], atol=0.0015)
    np.testing.assert_allclose(after.lat, before.lat[kept], atol=1e-7)
    np.testing.assert_allclose(after.lng, before.lng[kept], atol=1e-7)
    np.testing.assert_allclose(after.heart_rate, before.heart_rate[kept])
    np.testing.assert_allclose(after.elevation_m, before.elevation_m[kept], atol=0.006)
    assert after.started_at == before.started_at
    assert len(after.pauses) == len(before.pauses)
    if form == "tcx":
        assert after.summary.distance_m == 5000.0


def test_geojson_has_a_line_between_pauses_and_its_times() -> None:
    found = to_geojson(track("3173437224.tcx.gz"), "Hardlopen")
    json.dumps(found)
    lines = found["geometry"]["coordinates"]
    assert len(lines) == 2
    assert sum(map(len, lines)) == 3507
    assert lines[0][0][:2] == [6.9482215, 48.0524977]
    assert found["properties"]["coordTimes"][0][0] == "2019-01-29T10:25:13Z"


def zipped(members: dict[str, bytes]) -> io.BytesIO:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    file.seek(0)
    return file


def test_an_archive_gives_its_runs_and_names_what_is_broken() -> None:
    gpx = gpx_of(POINTS)
    inner = zipped({"a.fit": b"\x0e\x10\x00\x00\x10\x00\x00\x00.FIT", "b.gpx": gpx}).getvalue()
    archive = zipped(
        {
            "activities.csv": b"Activity ID,Date",
            "activities/1.gpx": gpx,
            "activities/2.gpx.gz": gzip.compress(gpx),
            "activities/3.tcx.gz": b"\x1f\x8bbroken",
            "media/photo.jpg": b"\xff\xd8\xff",
            "DI-Connect/Uploaded/part.zip": inner,
            "activities/4": gpx,
            "broken.zip": b"no zip",
        }
    )
    found = {entry.name: entry for entry in entries(archive)}
    assert list(found) == [
        "activities/1.gpx",
        "activities/2.gpx.gz",
        "activities/3.tcx.gz",
        "DI-Connect/Uploaded/part.zip/a.fit",
        "DI-Connect/Uploaded/part.zip/b.gpx",
        "activities/4",
    ]
    assert found["activities/2.gpx.gz"].data == gpx
    assert found["activities/3.tcx.gz"].reason
    rest = [entry.name for entry in entries(archive, after="activities/3.tcx.gz")]
    assert rest == list(found)[3:]


def test_an_export_says_what_its_files_are_in_any_language() -> None:
    head = "Aktivitäts-ID,Aktivitätsdatum,Name der Aktivität,Aktivitätsart,Beschreibung,Dateiname"
    rows = [
        head,
        '101,"21.11.2026, 06:00:00","Morgens, im Park",Lauf,"Nass\nund kalt",activities/1.gpx',
        "102,21.11.2026,Rad,Radfahrt,,activities/2.fit.gz",
        "103,21.11.2026,von Hand,Lauf,,",
        "broken",
        "broken,activities/4.gpx",
    ]
    text = "\n".join(rows).replace("\\n", "\n")
    found = listing(
        zipped({"activities.csv": text.encode("utf-8-sig") + b"\xff", "activities/1.gpx": b""})
    )
    assert list(found) == ["activities/1.gpx", "activities/2.fit.gz"]
    first = found["activities/1.gpx"]
    assert (first.activity_id, first.title, first.kind) == ("101", "Morgens, im Park", "Lauf")
    assert first.description == "Nass\nund kalt"
    assert found["activities/2.fit.gz"].description is None
    assert listing(zipped({"a.gpx": b""})) == {}
    with pytest.raises(UnreadableFile):
        listing(io.BytesIO(b"no zip"))


def test_an_archive_that_is_none_or_a_bomb_is_refused() -> None:
    with pytest.raises(UnreadableFile):
        list(entries(io.BytesIO(b"PK nothing")))
    (bomb,) = entries(zipped({"bomb.gpx": b"\0" * (reading_module.MOST_BYTES + 10)}))
    assert bomb.reason is not None
    assert re.search("larger than", bomb.reason)


def test_memory_is_flat_over_an_archive_of_any_size(tmp_path: Path) -> None:
    data = gzip.decompress((DATA / "activity_5039744860.gpx.gz").read_bytes())

    def peak(count: int) -> int:
        path = tmp_path / f"{count}.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for i in range(count):
                archive.writestr(f"activities/{i}.gpx", data)
        tracemalloc.start()
        with path.open("rb") as file:
            assert sum(len(read_track(entry.data)) for entry in entries(file)) == count * 96
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    few, many = peak(5), peak(60)
    # Only the list of names grows.
    assert many < few + 60 * 2_000


def test_places_that_are_none_are_left_out() -> None:
    points = (
        '<trkpt lat="91" lon="7"><time>2026-01-01T09:00:00Z</time></trkpt>'
        '<trkpt lat="0" lon="0"><time>2026-01-01T09:59:59Z</time></trkpt>' + POINTS
    )
    found = read_track(gpx_of(points))
    assert len(found) == 11
    assert math.isnan(found.lat[0])
    assert found.warnings == ("1 samples with an impossible place or time",)
