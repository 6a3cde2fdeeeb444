"""Checks the container files without a container engine: what hadolint and compose would refuse.

Rules for the Dockerfile (hadolint's numbers in brackets): images pinned to a tag that is not
`latest` (DL3006, DL3007), absolute WORKDIR (DL3000), no `sudo` (DL3004), pip without cache
(DL3042), COPY and not ADD (DL3020), CMD and HEALTHCHECK as JSON lists (DL3025), a user that is
not root (DL3002), a health check. For compose: it is YAML, services have an image or a build,
dependencies and volumes exist, the database is version 17, no secret is written down.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]


def dockerfile_problems(text: str) -> list[str]:
    """Return what is wrong with a Dockerfile."""
    problems: list[str] = []
    joined = re.sub(r"\\\n", " ", text)
    stages: set[str] = set()
    user = "root"
    for line in joined.splitlines():
        word, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        if word == "FROM":
            image, _, alias = rest.partition(" AS ")
            if image not in stages and (":" not in image or image.endswith(":latest")):
                problems.append(f"DL3006 {image} is not pinned to a tag")
            stages.add(alias.strip())
            user = "root"
        elif word == "WORKDIR" and not rest.startswith("/"):
            problems.append(f"DL3000 WORKDIR {rest} is not absolute")
        elif word == "ADD":
            problems.append("DL3020 use COPY instead of ADD")
        elif word == "USER":
            user = rest
        elif word in ("CMD", "ENTRYPOINT") and not rest.startswith("["):
            problems.append(f"DL3025 {word} is not a JSON list")
        elif word == "RUN":
            if "sudo" in rest:
                problems.append("DL3004 no sudo")
            if "pip install" in rest and "--no-cache-dir" not in rest:
                problems.append("DL3042 pip install keeps a cache")
    if user in ("root", "0"):
        problems.append("DL3002 the last user is root")
    if "HEALTHCHECK" not in text:
        problems.append("there is no HEALTHCHECK")
    if "python:3.14-slim" not in text:
        problems.append("the base is not python:3.14-slim")
    return problems


def compose_problems(text: str) -> list[str]:
    """Return what is wrong with a compose file."""
    problems: list[str] = []
    document: dict[str, Any] = yaml.safe_load(text)
    services: dict[str, Any] = document.get("services") or {}
    volumes = set(document.get("volumes") or {})
    for name, service in services.items():
        if "image" not in service and "build" not in service:
            problems.append(f"{name} has neither an image nor a build")
        for other in service.get("depends_on") or {}:
            if other not in services:
                problems.append(f"{name} depends on {other}, which is not there")
        for volume in service.get("volumes") or []:
            source = str(volume).partition(":")[0]
            if not source.startswith((".", "/")) and source not in volumes:
                problems.append(f"{name} uses the volume {source}, which is not declared")
        for variable, value in (service.get("environment") or {}).items():
            if re.search("PASSWORD|SECRET|KEY|TOKEN", variable) and "${" not in str(value):
                problems.append(f"{name}: {variable} is written down")
    if services.get("postgres", {}).get("image") != "postgres:17":
        problems.append("the database is not postgres:17")
    return problems


def main() -> None:
    """Print what is wrong and exit 1, or say that all is well."""
    problems = [
        f"{name}: {problem}"
        for name, check in (
            ("Dockerfile", dockerfile_problems),
            ("compose.yaml", compose_problems),
        )
        for problem in check((ROOT / name).read_text())
    ]
    if problems:
        sys.exit("\n".join(problems))
    sys.stdout.write("Dockerfile and compose.yaml are in order\n")


if __name__ == "__main__":
    main()
