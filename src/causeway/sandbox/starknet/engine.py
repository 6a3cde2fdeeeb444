"""The process that executes contracts, and the virtual environment it needs.

`cairo-lang` holds the engine of Starknet's first sequencer. It pins packages of its own, so that it
is installed apart, once for each user, and spoken to over a pipe. `CAUSEWAY_STARKNET_ENGINE` names
a Python that has it; otherwise it is made below the data folder from `engine-requirements.txt`.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from causeway.base.errors import CausewayError, ConfigurationError

_HERE = Path(__file__).parent
_REQUIREMENTS = _HERE / "engine-requirements.txt"


class ContractFailed(CausewayError):
    """A contract refused, or could not be run; the message is its reason."""


def installed() -> Path | None:
    """Return the engine's Python where there is one; None when it has to be made first."""
    named = os.environ.get("CAUSEWAY_STARKNET_ENGINE")
    if named:
        if not os.access(named, os.X_OK):
            raise ConfigurationError(
                f"CAUSEWAY_STARKNET_ENGINE names no program: {named}",
                hint="set it to a Python that has cairo-lang, or unset it",
            )
        return Path(named)
    python = _folder() / "bin" / "python"
    return python if (_folder() / "ready").exists() else None


def _folder() -> Path:
    """Return where the environment of these very packages is."""
    digest = hashlib.sha256(_REQUIREMENTS.read_bytes()).hexdigest()[:12]
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "causeway" / f"starknet-engine-{digest}"


async def install() -> Path:
    """Make the environment (some 350 MB, a minute or two); return its Python.

    Raises `ConfigurationError` with what the installer said when that fails.
    """
    found = installed()
    if found is not None:
        return found
    folder = _folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as alone:
        # Several processes may want it at once; the others find it made.
        await asyncio.to_thread(fcntl.flock, alone, fcntl.LOCK_EX)
        return installed() or await _make(folder)


async def _make(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    uv = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
    # The package's sources are of the time of Python 3.9 to 3.11.
    await _run(uv, "venv", "--quiet", "--seed", "--python", "3.11", str(folder))
    python = folder / "bin" / "python"
    await _run(uv, "pip", "install", "--quiet", "--python", str(python), "-r", str(_REQUIREMENTS))
    (folder / "ready").touch()
    return python


async def _run(*command: str) -> None:
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
    except OSError as error:
        raise ConfigurationError(f"{command[0]} cannot be started: {error.strerror}") from None
    output, _ = await process.communicate()
    if process.returncode:
        raise ConfigurationError(
            "the Starknet engine could not be installed: " + output.decode(errors="replace")[-500:],
            hint="install cairo-lang in a virtual environment of Python 3.11 yourself and name its "
            "Python in CAUSEWAY_STARKNET_ENGINE",
        )


class Engine:
    """One engine process. Requests are answered one after the other, whoever asks."""

    def __init__(self, python: Path) -> None:
        self._python = python
        self._process: subprocess.Popen[bytes] | None = None
        self._turn = threading.Lock()

    def start(self) -> None:
        """Start the process; it takes seconds until it answers."""
        self._process = subprocess.Popen(  # noqa: S603 - our own file
            # -P: without the script's folder, whose names must not be taken for packages.
            [str(self._python), "-P", str(_HERE / "engine_process.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def stop(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is None:
            return
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    async def ask(self, do: str, **fields: Any) -> Mapping[str, Any]:
        """Have the engine do something; raises `ContractFailed` when a contract refused."""
        asked = json.dumps({"do": do, **fields}).encode() + b"\n"
        # A question that nobody waits for any more is still answered before the next is asked.
        line = await asyncio.to_thread(self._exchange, asked)
        if not line:
            raise CausewayError("the Starknet engine has ended")
        answer = json.loads(line)
        if answer.get("error") == "reverted":
            raise ContractFailed(answer["reason"])
        if "error" in answer:
            raise CausewayError(f"the Starknet engine failed: {answer['reason']}")
        return answer

    def _exchange(self, asked: bytes) -> bytes:
        with self._turn:
            process = self._process
            if process is None or process.stdin is None or process.stdout is None:
                return b""
            try:
                process.stdin.write(asked)
                process.stdin.flush()
                return process.stdout.readline()
            except (OSError, ValueError):
                return b""
