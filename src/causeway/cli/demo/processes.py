"""Causeway's own processes, as an operator starts them, and how a demo waits for them."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from causeway.base.errors import CausewayError


@dataclass
class Process:
    """One of Causeway's own processes, with its log file."""

    name: str
    handle: asyncio.subprocess.Process
    log: Path

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.handle.pid

    def kill(self) -> None:
        """End it as a lost machine would: SIGKILL, no farewell."""
        self.handle.send_signal(signal.SIGKILL)


@dataclass
class Processes:
    """Causeway's processes in one environment, their logs in one folder."""

    folder: Path
    environment: dict[str, str]
    running: list[Process] = field(default_factory=list[Process])

    async def start(self, name: str, *arguments: str) -> Process:
        """Start one more."""
        log = self.folder / "logs" / f"{name}.log"
        log.parent.mkdir(exist_ok=True)
        with log.open("ab") as out:
            handle = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                "from causeway.cli import main; main()",
                *arguments,
                env=self.environment,
                stdout=out,
                stderr=out,
            )
        process = Process(name, handle, log)
        self.running.append(process)
        return process

    async def stop(self) -> None:
        """Stop every process gracefully, and by force after ten seconds."""
        running = [p for p in self.running if p.handle.returncode is None]
        for process in running:
            process.handle.terminate()
        for process in running:
            try:
                async with asyncio.timeout(10):
                    await process.handle.wait()
            except TimeoutError:
                process.kill()
                await process.handle.wait()


def inherited() -> dict[str, str]:
    """Return what Causeway's processes need of this one's environment."""
    return {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "TMPDIR")}


def free_port() -> int:
    """Return a port that was free a moment ago, from the operating system."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def empty(folder: Path) -> None:
    """Have a folder there with nothing in it."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


async def until(condition: Callable[[], Awaitable[bool]], seconds: float, what: str) -> None:
    """Look at a condition until it holds; `CausewayError` says what did not come in time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not await condition():
        if loop.time() > deadline:
            raise CausewayError(f"{what} did not happen within {seconds:.0f} s")
        await asyncio.sleep(0.1)
