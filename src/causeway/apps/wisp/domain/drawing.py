"""A race as one picture (SVG): the way on a map, the gap and both paces over distance.

Plain shapes and the reader's own fonts, no scripts and nothing from elsewhere, so that the picture
opens in any browser and can be sent as it is. Green is ahead of the ghost, red behind it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from causeway.apps.wisp.domain.fixes import Fix
from causeway.apps.wisp.domain.geodesy import Plane
from causeway.apps.wisp.domain.ghost import Ghost
from causeway.apps.wisp.domain.result import Result
from causeway.apps.wisp.domain.simplify import simplified
from causeway.apps.wisp.domain.splits import times_at
from causeway.apps.wisp.domain.standing import Standing

Floats = NDArray[np.float64]

WIDTH, HEIGHT = 1120, 640
_AHEAD, _BEHIND, _RUNNER, _GHOST = "#177245", "#b3261e", "#0b5cad", "#8b9099"
_INK, _FAINT, _PAPER, _CARD = "#1d232b", "#6a717c", "#f4f5f7", "#ffffff"
#: Paces are those of stretches so long, metres.
_PACE_M = 200.0
#: At most so many samples are drawn.
_MOST = 800


@dataclass(frozen=True, slots=True)
class _Box:
    """A rectangle of the picture, and the values at its edges."""

    x: float
    y: float
    width: float
    height: float
    low: tuple[float, float]
    high: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return where a value is; y grows upwards."""
        part_x = (x - self.low[0]) / ((self.high[0] - self.low[0]) or 1.0)
        part_y = (y - self.low[1]) / ((self.high[1] - self.low[1]) or 1.0)
        return self.x + part_x * self.width, self.y + (1 - part_y) * self.height


def duration(seconds: float) -> str:
    """Return `h:mm:ss` or `m:ss`, with a sign when negative."""
    total = round(abs(seconds))
    sign = "-" if seconds < 0 and total else ""
    hours, rest = divmod(total, 3600)
    minutes, left = divmod(rest, 60)
    return f"{sign}{hours}:{minutes:02d}:{left:02d}" if hours else f"{sign}{minutes}:{left:02d}"


def signed(seconds: float) -> str:
    """Return a gap in words: `0:38 ahead`, `0:12 behind`, `level`."""
    if round(abs(seconds)) == 0:
        return "level"
    return f"{duration(abs(seconds))} {'ahead' if seconds < 0 else 'behind'}"


def draw(
    ghost: Ghost,
    fixes: Sequence[Fix],
    standings: Sequence[Standing],
    result: Result,
    *,
    title: str = "Ghost race",
    runner: str = "you",
    opponent: str = "ghost",
) -> str:
    """Return the picture of a race that is over, from its fixes and what it answered to each.

    Raises ValueError without an answer.
    """
    if not standings:
        raise ValueError("a race without a fix has no picture")
    picture = _Picture(title, _headline(result), f"{runner} against {opponent}")
    picture.legend(((_RUNNER, runner), (_GHOST, opponent), (_AHEAD, "ahead"), (_BEHIND, "behind")))
    chosen = _thinned(standings)
    _map(picture, ghost, fixes, chosen)
    _gap_chart(picture, ghost, chosen)
    _pace_chart(picture, ghost, standings, result)
    return picture.text()


def _headline(result: Result) -> str:
    word = {"won": "Won", "lost": "Lost", "abandoned": "Abandoned"}[result.result_status]
    if result.finish_s is None:
        return f"{word} after {result.distance_completed:,.0f} m, {signed(result.time_difference)}"
    flags = f" ({', '.join(result.flags).replace('_', ' ')})" if result.flags else ""
    return f"{word} in {duration(result.finish_s)}, {signed(result.time_difference)}{flags}"


def _thinned(standings: Sequence[Standing]) -> list[Standing]:
    step = max(1, math.ceil(len(standings) / _MOST))
    chosen = list(standings[::step])
    return chosen if chosen[-1] is standings[-1] else [*chosen, standings[-1]]


class _Picture:
    """Collects the shapes of the picture."""

    def __init__(self, title: str, headline: str, subtitle: str) -> None:
        self.root = ElementTree.Element(
            "svg",
            {
                "xmlns": "http://www.w3.org/2000/svg",
                "viewBox": f"0 0 {WIDTH} {HEIGHT}",
                "width": str(WIDTH),
                "height": str(HEIGHT),
                "role": "img",
                "font-family": "system-ui, 'Segoe UI', Helvetica, Arial, sans-serif",
            },
        )
        ElementTree.SubElement(self.root, "title").text = f"{title}: {headline}"
        self.shape("rect", x=0, y=0, width=WIDTH, height=HEIGHT, fill=_PAPER)
        self.words(32, 44, title, size=22, weight="600")
        self.words(32, 68, subtitle, size=13, colour=_FAINT)
        self.words(WIDTH - 32, 44, headline, size=18, weight="600", anchor="end")

    def shape(self, tag: str, **attributes: object) -> None:
        """Add a shape; underscores in names stand for hyphens."""
        ElementTree.SubElement(
            self.root,
            tag,
            {
                name.replace("_", "-"): f"{value:.1f}" if isinstance(value, float) else str(value)
                for name, value in attributes.items()
            },
        )

    def words(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: int = 11,
        colour: str = _INK,
        weight: str = "400",
        anchor: str = "start",
    ) -> None:
        """Add a text."""
        element = ElementTree.SubElement(
            self.root,
            "text",
            {
                "x": f"{x:.1f}",
                "y": f"{y:.1f}",
                "font-size": str(size),
                "fill": colour,
                "font-weight": weight,
                "text-anchor": anchor,
            },
        )
        element.text = text

    def legend(self, entries: Sequence[tuple[str, str]]) -> None:
        """Add what the colours mean, from the right."""
        x = WIDTH - 32.0
        for colour, text in reversed(entries):
            self.words(x, 68, text, size=12, colour=_FAINT, anchor="end")
            x -= 7.0 * len(text) + 6
            self.shape("line", x1=x - 16, y1=64, x2=x, y2=64, stroke=colour, stroke_width=4)
            x -= 32

    def card(self, x: int, y: int, width: int, height: int, heading: str) -> None:
        """Add a white field with a heading."""
        self.shape("rect", x=x, y=y, width=width, height=height, rx=10, fill=_CARD)
        self.words(x + 16, y + 24, heading, size=13, weight="600")

    def path(self, points: Sequence[tuple[float, float]], colour: str, **rest: object) -> None:
        """Add a line through points of the picture."""
        if len(points) < 2:
            return
        d = "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.shape(
            "path",
            d=d,
            fill="none",
            stroke=colour,
            **{"stroke_width": 2, "stroke_linejoin": "round", "stroke_linecap": "round"} | rest,
        )

    def text(self) -> str:
        """Return the document."""
        return ElementTree.tostring(self.root, encoding="unicode", xml_declaration=True) + "\n"


def _map(
    picture: _Picture, ghost: Ghost, fixes: Sequence[Fix], standings: Sequence[Standing]
) -> None:
    """Draw the ghost's way, and the runner's in the colour of the gap he had there."""
    picture.card(24, 88, 500, 528, "The way")
    placed = [fix for fix in fixes if fix.lat is not None and fix.lng is not None]
    if len(placed) < 2:
        picture.words(40, 140, "Without places: by distance alone.", colour=_FAINT)
        return
    lat = np.array([fix.lat for fix in placed], np.float64)
    lng = np.array([fix.lng for fix in placed], np.float64)
    plane = ghost.route.plane if ghost.route is not None else Plane.around(lat, lng)
    own = plane.project(lat, lng)
    way = np.zeros((0, 2))
    if ghost.route is not None:
        first, last = ghost.route.cell(0.0), ghost.route.cell(ghost.length_m)
        way = ghost.route.xy[first : last + 1]
        if not _is_near(own, way):
            way = np.zeros((0, 2))
    box = _square(np.vstack((own, way)), 48, 128, 452, 440)
    if len(way):
        picture.path(_points(box, way), _GHOST, stroke_width=5, opacity="0.55")
    times = [standing.t for standing in standings]
    gaps = np.interp([fix.t for fix in placed], times, [one.gap_seconds for one in standings])
    kept = simplified(lat, lng, max(0.5, (box.high[0] - box.low[0]) / 1500))
    ahead = gaps[kept] <= 0
    start = 0
    for i in range(1, len(kept) + 1):
        if i == len(kept) or ahead[i] != ahead[start]:
            stretch = own[kept[start : min(i + 1, len(kept))]]
            picture.path(_points(box, stretch), _AHEAD if ahead[start] else _BEHIND)
            start = i
    for place, colour, text in ((own[0], _INK, "start"), (own[-1], _RUNNER, "end")):
        x, y = box.at(float(place[0]), float(place[1]))
        picture.shape("circle", cx=x, cy=y, r=5, fill=_CARD, stroke=colour, stroke_width=2)
        above = text == "start"
        picture.words(x + 9, y - 6 if above else y + 15, text, size=12, weight="600")
    _scale_bar(picture, box)


def _is_near(own: Floats, way: Floats) -> bool:
    """Tell whether a runner was anywhere near the ghost's way."""
    reach = float(np.ptp(way, axis=0).max()) + 1000.0
    return bool(np.hypot(*(own[0] - way[0])) <= reach)


def _square(xy: Floats, x: float, y: float, width: float, height: float) -> _Box:
    """Return a box in which a metre is as long in both directions."""
    low, high = xy.min(axis=0), xy.max(axis=0)
    middle = (low + high) / 2
    metres = max(float((high - low)[0]) / width, float((high - low)[1]) / height, 0.05) * 1.06
    half = np.array([width, height]) * metres / 2
    a, b = (middle - half).tolist(), (middle + half).tolist()
    return _Box(x, y, width, height, (a[0], a[1]), (b[0], b[1]))


def _points(box: _Box, xy: Floats) -> list[tuple[float, float]]:
    return [box.at(x, y) for x, y in xy.tolist()]


def _scale_bar(picture: _Picture, box: _Box) -> None:
    metres = box.high[0] - box.low[0]
    bar = next(b for b in (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 20_000) if b > metres / 9)
    length = bar / metres * box.width
    picture.shape("line", x1=40, y1=598, x2=40 + length, y2=598, stroke=_INK, stroke_width=2)
    label = f"{bar // 1000} km" if bar >= 1000 else f"{bar} m"
    picture.words(46 + length, 602, label, colour=_FAINT)


def _ticks(low: float, high: float, steps: Sequence[float], most: int) -> list[float]:
    """Return round values between two, at most so many."""
    step = next((one for one in steps if (high - low) / one <= most), (high - low) or 1.0)
    first = math.ceil(low / step - 1e-9)
    return [step * i for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _distance_axis(picture: _Picture, box: _Box) -> None:
    for metres in _ticks(0.0, box.high[0], (100, 200, 500, 1000, 2000, 5000, 10_000), 8):
        x, _ = box.at(metres, box.low[1])
        picture.shape("line", x1=x, y1=box.y, x2=x, y2=box.y + box.height, stroke="#e7e9ed")
        label = f"{metres / 1000:g} km" if box.high[0] >= 1000 else f"{metres:g} m"
        picture.words(x, box.y + box.height + 16, label, colour=_FAINT, anchor="middle")


_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)


def _gap_chart(picture: _Picture, ghost: Ghost, standings: Sequence[Standing]) -> None:
    """Draw the gap over distance, ahead upwards: the picture of a race is who is in front."""
    picture.card(544, 88, 552, 256, "Gap to the ghost")
    gaps = [one.gap_seconds for one in standings]
    # Ahead is negative and drawn upwards.
    low, high = -max(5.0, *gaps) * 1.08, max(5.0, *(-gap for gap in gaps)) * 1.08
    box = _Box(608, 128, 468, 180, (0.0, low), (ghost.length_m, high))
    _distance_axis(picture, box)
    for value in _ticks(low, high, _SECONDS, 6):
        _, y = box.at(0.0, value)
        line = _FAINT if value == 0 else "#e7e9ed"
        picture.shape("line", x1=box.x, y1=y, x2=box.x + box.width, y2=y, stroke=line)
        picture.words(box.x - 8, y + 4, duration(abs(value)), colour=_FAINT, anchor="end")
    places = [(one.s, -one.gap_seconds) for one in standings]
    _, zero = box.at(0.0, 0.0)
    for colour, keep in ((_AHEAD, 1), (_BEHIND, -1)):
        inside = [box.at(s, max(0.0, gap * keep) * keep) for s, gap in places]
        outline = [(inside[0][0], zero), *inside, (inside[-1][0], zero)]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in outline)
        picture.shape("polygon", points=points, fill=colour, fill_opacity="0.22")
    picture.path([box.at(s, gap) for s, gap in places], _RUNNER)


def _pace_chart(
    picture: _Picture, ghost: Ghost, standings: Sequence[Standing], result: Result
) -> None:
    """Draw both paces over distance, faster upwards, in stretches of 200 m."""
    picture.card(544, 360, 552, 256, "Pace, per kilometre")
    curve = ghost.elapsed if result.clock == "elapsed" else ghost.moving
    s = np.array([0.0, *(one.s for one in standings)])
    t = np.array([0.0, *(one.clock_s for one in standings)])
    own = _paces(np.maximum.accumulate(s), np.maximum.accumulate(t), float(s.max()))
    its = _paces(curve.s, curve.t, curve.length_m)
    both = np.concatenate((own[1], its[1]))
    if not len(both):
        picture.words(560, 412, "Too short for a pace.", colour=_FAINT)
        return
    # A stop is slower than any pace that is worth its room.
    slow = float(min(both.max(), 1.6 * np.median(both)))
    fast = float(both.min())
    room = max(10.0, 0.12 * (slow - fast))
    box = _Box(608, 400, 468, 180, (0.0, -(slow + room)), (ghost.length_m, -(fast - room)))
    _distance_axis(picture, box)
    for value in _ticks(fast - room, slow + room, _SECONDS, 6):
        _, y = box.at(0.0, -value)
        picture.shape("line", x1=box.x, y1=y, x2=box.x + box.width, y2=y, stroke="#e7e9ed")
        picture.words(box.x - 8, y + 4, duration(value), colour=_FAINT, anchor="end")
    for (marks, paces), colour in ((its, _GHOST), (own, _RUNNER)):
        steps: list[tuple[float, float]] = []
        for i, pace in enumerate(paces):
            shown = -min(pace, slow + room)
            steps += [box.at(marks[i], shown), box.at(marks[i + 1], shown)]
        picture.path(steps, colour)


def _paces(s: Floats, t: Floats, length_m: float) -> tuple[list[float], Floats]:
    """Return the ends of stretches and the pace on each, s/km."""
    marks = np.linspace(0.0, length_m, max(1, round(length_m / _PACE_M)) + 1)
    if length_m <= 0:
        return [], np.zeros(0)
    paces = np.diff(times_at(s, t, marks)) / np.diff(marks) * 1000.0
    return marks.tolist(), paces
