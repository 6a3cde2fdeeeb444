"""`make bench NAME=pipelines`: runs a benchmark, prints a table, writes bench/results/NAME.json."""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
#: Every module here that has figures to return.
NAMES = sorted(one.stem for one in HERE.glob("*.py") if "async def run()" in one.read_text())


def machine() -> dict[str, Any]:
    """Return what the figures were taken on."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "cores": os.cpu_count(),
        "processor": model,
        "system": f"{platform.system()} {platform.release()}",
        "load_1min": os.getloadavg()[0],
    }


def main() -> None:
    """Run the benchmark that is named."""
    name = sys.argv[1].replace("-", "_") if len(sys.argv) > 1 else ""
    if name not in NAMES:
        sys.exit(f"make bench NAME=…: one of {', '.join(NAMES)}")
    module = importlib.import_module(f"bench.{name}")
    # The loop that production runs on, for everything that is compared.
    figures: dict[str, Any] = uvloop.run(module.run())
    packages = ("causeway", "psycopg", "procrastinate", "sqlalchemy", "uvloop")
    result = {
        "name": name,
        "date": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "machine": machine(),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
        "figures": figures,
    }
    table = Table("figure", "value", title=f"bench {name}", title_justify="left", box=None)
    for figure, value in figures.items():
        table.add_row(figure, f"{value:,.3f}" if isinstance(value, float) else str(value))
    Console().print(table)
    path = HERE / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    Console().print(f"written to {path.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
