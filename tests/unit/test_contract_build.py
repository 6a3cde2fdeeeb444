"""The committed builds are what the sources give, and the interface is the published one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

ROOT = Path(__file__).parents[2]


def built(name: str) -> dict[str, Any]:
    """Return a committed build."""
    content = (ROOT / "contracts" / "build" / f"{name}.json").read_text()
    return cast("dict[str, Any]", json.loads(content))


def entry(e: dict[str, Any]) -> tuple[Any, ...]:
    """Return what makes an ABI entry the same as another: parameter names do not."""
    return (
        e["type"],
        e.get("name"),
        tuple((i["type"], i.get("indexed")) for i in e.get("inputs", ())),
        tuple(o["type"] for o in e.get("outputs", ())),
        e.get("stateMutability"),
    )


def test_contract_has_exactly_the_published_interface() -> None:
    published = json.loads((ROOT / "contracts" / "glisk" / "glisk.abi.json").read_text())
    assert {entry(e) for e in built("GliskNFT")["abi"]} == {entry(e) for e in published}
    assert len(published) == 95


def test_app_carries_the_published_interface() -> None:
    carried = (ROOT / "src" / "causeway" / "apps" / "glisk" / "abi.json").read_text()
    assert carried == (ROOT / "contracts" / "glisk" / "glisk.abi.json").read_text()


def test_motify_has_the_published_interface_to_the_letter() -> None:
    published = json.loads((ROOT / "contracts" / "motify" / "motify.abi.json").read_text())
    as_text = [json.dumps(e, sort_keys=True) for e in published]
    assert sorted(json.dumps(e, sort_keys=True) for e in built("Motify")["abi"]) == sorted(as_text)
    assert len(published) == 37


def test_builds_agree_with_their_sources() -> None:
    run = subprocess.run(
        [sys.executable, "scripts/node.py", "contracts/build.mjs", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
