"""The `causeway` command as an operator types it: a process for each, without waiting for imports.

One process has imported everything; each command is a fork of it, with an environment and outputs
of its own. So a test of thirty commands does not import thirty times.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_SCREEN = {"COLUMNS": "200", "NO_COLOR": "1"}
_SERVER = """
import json, os, sys
from causeway.cli import main
from causeway.cli.commands import build
build()
for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if not child:
        os.environ.clear()
        os.environ.update(asked["environment"])
        for name, number in (("out", 1), ("err", 2)):
            os.dup2(os.open(asked[name], os.O_WRONLY | os.O_CREAT), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.argv = ["causeway", *asked["arguments"]]
        code = 1
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


@dataclass
class Ran:
    """What a command left."""

    code: int
    out: str
    err: str


class _Server:
    """The process that has imported everything."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def run(self, arguments: tuple[str, ...], environment: dict[str, str]) -> Ran:
        """Run one command, after those that others asked for."""
        with self._lock, tempfile.TemporaryDirectory() as folder:
            process = self._process or self._start()
            assert process.stdin is not None
            assert process.stdout is not None
            asked = {"arguments": arguments, "environment": environment}
            asked |= {name: str(Path(folder) / name) for name in ("out", "err")}
            process.stdin.write(json.dumps(asked) + "\n")
            process.stdin.flush()
            code = process.stdout.readline()
            assert code, "the process that has imported everything has ended"
            out, err = ((Path(folder) / name).read_text() for name in ("out", "err"))
            return Ran(int(code), out, err)

    def _start(self) -> subprocess.Popen[str]:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER],
            cwd=_ROOT,
            env=os.environ | _SCREEN,  # consoles look at it when they are made
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        atexit.register(self._stop)
        return self._process

    def _stop(self) -> None:
        if self._process is not None:
            with self._process as process:
                assert process.stdin is not None
                process.stdin.close()


_server = _Server()


async def causeway(*arguments: str, **environment: str) -> Ran:
    """Run the command with the environment of the test."""
    given = os.environ | _SCREEN | environment
    return await asyncio.wait_for(asyncio.to_thread(_server.run, arguments, given), 60)
