"""The sandbox as a process of its own, to be killed and started again."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from causeway.base.errors import ProviderUnavailable
from causeway.sandbox.server import Addresses
from causeway.sandbox.settings import SandboxSettings

_START_S = 30


class SandboxProcess(Addresses):
    """A `python -m causeway.sandbox`; its address stays the same through kills and restarts."""

    def __init__(self, state: Path, settings: SandboxSettings) -> None:
        super().__init__("")
        self._state = state
        self._settings = settings
        self._process: Process | None = None

    @classmethod
    @asynccontextmanager
    async def start(
        cls, state: Path, *, port: int = 0, settings: SandboxSettings | None = None
    ) -> AsyncGenerator[SandboxProcess, None]:
        """Run it until the block is left; `state` is the file that survives."""
        sandbox = cls(state, settings or SandboxSettings())
        await sandbox._spawn(port)
        try:
            yield sandbox
        finally:
            await sandbox.kill()

    @property
    def pid(self) -> int | None:
        """Return the process id, None while it is not running."""
        return self._process.pid if self._process else None

    async def kill(self) -> None:
        """End it as a lost machine would (SIGKILL); nothing happens when it is not running."""
        if self._process is not None:
            # It may have ended by itself a moment ago.
            with suppress(ProcessLookupError):
                self._process.kill()
            # Reading to the end lets the pipe be closed with the process.
            await self._process.communicate()
            self._process = None

    async def restart(self) -> None:
        """Kill it if need be, and start it again on the same port with the same state."""
        await self.kill()
        await self._spawn(int(self.url.rpartition(":")[2]))

    async def _spawn(self, port: int) -> None:
        arguments = ["--port", str(port), "--state", str(self._state)]
        arguments += ["--settings", self._settings.model_dump_json()]
        command = [sys.executable, "-m", "causeway.sandbox", *arguments]
        self._process = await asyncio.create_subprocess_exec(*command, stdout=PIPE)
        assert self._process.stdout is not None  # noqa: S101 - asked for above
        line = await asyncio.wait_for(self._process.stdout.readline(), _START_S)
        if not line:
            await self.kill()
            raise ProviderUnavailable("the sandbox did not start", hint="see its error output")
        self.url = json.loads(line)["url"]
