"""The Grafana dashboard asks for metrics that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY

from causeway.apps.mobs import app
from causeway.ops import metrics

FILE = Path(__file__).parents[2] / "docs" / "grafana" / "mobs.json"
_NAME = re.compile(r"causeway_\w+")


def _names() -> set[str]:
    """Return the names under which the declared metrics are shown."""
    assert app.name == "mobs"
    assert metrics.router
    found: set[str] = set()
    for collector in REGISTRY.collect():
        base = collector.name
        suffixes = {
            "counter": ("_total",),
            "histogram": ("_bucket", "_sum", "_count"),
        }.get(collector.type, ("",))
        found |= {base + suffix for suffix in suffixes}
    return found


def test_every_metric_it_asks_for_is_declared() -> None:
    board: dict[str, Any] = json.loads(FILE.read_text())
    asked = {
        name
        for panel in board["panels"]
        for target in panel["targets"]
        for name in _NAME.findall(target["expr"])
    }
    assert len(asked) > 15
    assert asked <= _names()


def test_panels_have_a_place_of_their_own() -> None:
    board: dict[str, Any] = json.loads(FILE.read_text())
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
