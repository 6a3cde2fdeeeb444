"""A PostgreSQL server as a child process: made, started, recognised and stopped.

Only the standard library is used, because the keeper (`postgres_keeper`) is a process of its own
that should be there in an instant. Linux and macOS.

A folder has two parts: `cluster/`, PostgreSQL's own data, and beside it what we need (locks, log).
The server listens on a Unix socket only; whoever may enter the socket's folder (mode 0700) is let
in without a password.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from causeway.base.errors import ConfigurationError, ProviderUnavailable

SUPERUSER = "postgres"
PORT = 5432  # part of the socket's name; nothing listens on TCP

_SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
_PR_SET_PDEATHSIG = 1
_LOG_LIMIT_BYTES = 10_000_000


@dataclass(frozen=True)
class Account:
    """The user and group a server runs as, and owns its folder as."""

    name: str
    uid: int
    gid: int

    @property
    def is_ours(self) -> bool:
        """Whether this process is that user already."""
        return self.uid == os.geteuid()

    @property
    def foreign_uid(self) -> int | None:
        """What a child must become; None when it is that already."""
        return None if self.is_ours else self.uid

    @property
    def foreign_gid(self) -> int | None:
        """The group a child must become; None when it is that already."""
        return None if self.is_ours else self.gid

    @property
    def foreign_groups(self) -> list[int] | None:
        """The further groups a child must have: none of ours."""
        return None if self.is_ours else []


@dataclass(frozen=True)
class Layout:
    """Where a server's things are, and with which programs and settings it runs."""

    home: Path
    socket_dir: Path
    bin_dir: Path
    account: Account
    settings: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def cluster(self) -> Path:
        """PostgreSQL's data folder."""
        return self.home / "cluster"

    @property
    def socket_path(self) -> Path:
        """The socket the server answers on."""
        return self.socket_dir / f".s.PGSQL.{PORT}"

    @property
    def log_path(self) -> Path:
        """What the server says."""
        return self.home / "postgres.log"

    @property
    def pid_path(self) -> Path:
        """The server's own pid file."""
        return self.cluster / "postmaster.pid"


def program_version(bin_dir: Path, account: Account) -> int:
    """Return the major version of the server in `bin_dir`, run as `account`.

    Raises `ConfigurationError` when it cannot be run.
    """
    program = bin_dir / "postgres"
    try:
        done = _run([str(program), "--version"], account)
    except OSError as error:
        raise ConfigurationError(
            f"{program} cannot be run as user {account.name}: {error.strerror}"
        ) from error
    found = re.search(r"\(PostgreSQL\) (\d+)", done.stdout)
    if done.returncode or not found:
        raise ConfigurationError(
            f"{program} cannot be run as user {account.name}: {(done.stderr or done.stdout)[-500:]}"
        )
    return int(found[1])


def data_version(layout: Layout) -> int | None:
    """Return the major version that made the data; None when there is none yet."""
    try:
        return int((layout.cluster / "PG_VERSION").read_text().split(".")[0])
    except FileNotFoundError:
        return None


def initialise(layout: Layout) -> None:
    """Make the data folder unless it is there; complete or not at all.

    UTF-8, locale C (the same order on every machine), data checksums. Raises `ConfigurationError`
    with what `initdb` said.
    """
    if layout.cluster.exists():
        return
    for left_over in layout.home.glob("cluster.new-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    fresh = layout.home / f"cluster.new-{os.getpid()}-{time.monotonic_ns()}"
    command = [str(layout.bin_dir / "initdb"), "-D", str(fresh), "-U", SUPERUSER]
    command += ["--auth-local=trust", "--auth-host=reject", "-E", "UTF8", "--locale=C"]
    command += ["--data-checksums", "--no-instructions"]
    if layout.settings.get("fsync") == "off":
        command.append("--no-sync")
    done = _run(command, layout.account)
    if done.returncode:
        shutil.rmtree(fresh, ignore_errors=True)
        raise ConfigurationError(
            f"no database could be made in {layout.home}: {(done.stderr or done.stdout)[-1000:]}"
        )
    fresh.rename(layout.cluster)


def start(layout: Layout) -> subprocess.Popen[bytes]:
    """Start the server as a child of this process; it may not accept connections yet.

    On Linux, when called from the main thread, the server shuts down (fast) when this process
    ends, however it ended.
    """
    with suppress(FileNotFoundError):
        if layout.log_path.stat().st_size > _LOG_LIMIT_BYTES:
            layout.log_path.replace(layout.log_path.with_suffix(".log.1"))
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(layout.socket_dir),
        "unix_socket_permissions": "0700",
        "port": str(PORT),
        "max_connections": "200",
        "password_encryption": "scram-sha-256",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "jit": "off",
        **layout.settings,
    }
    command = [str(layout.bin_dir / "postgres"), "-D", str(layout.cluster)]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    environment = _environment()
    recorded = recorded_pid(layout)
    if recorded is not None and not is_server(layout, recorded):
        # The file is left from a machine or container that went away, and its pid may since be
        # anybody's. The server would believe that process to be itself. Removing the file is a
        # race; telling the server to disregard this pid is not, and it still checks for itself
        # that nobody uses the data's shared memory.
        environment["PG_GRANDPARENT_PID"] = str(recorded)
    with open_log(layout) as log:
        return subprocess.Popen(  # noqa: S603 - our own programs
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=layout.home,
            env=environment,
            start_new_session=True,
            preexec_fn=_die_with_parent(),
            user=layout.account.foreign_uid,
            group=layout.account.foreign_gid,
            extra_groups=layout.account.foreign_groups,
        )


def open_owned(layout: Layout, path: Path, flags: int) -> int:
    """Open a file in the server's folder, made for its user with mode 0600; no symbolic link."""
    flags |= os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    if not layout.account.is_ours:
        os.fchown(descriptor, layout.account.uid, layout.account.gid)
    return descriptor


def open_log(layout: Layout) -> BinaryIO:
    """Open the server's log to write at its end."""
    return os.fdopen(open_owned(layout, layout.log_path, os.O_WRONLY | os.O_APPEND), "ab")


def answers(layout: Layout) -> bool:
    """Whether a server answers on the socket (it may still be recovering, or shutting down)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(5)
        try:
            client.connect(str(layout.socket_path))
            client.sendall(_SSL_REQUEST)
            return client.recv(1) != b""
        except OSError:
            return False


def recorded_pid(layout: Layout) -> int | None:
    """Return the pid in the server's pid file, dead or alive; None when there is no file."""
    try:
        return int(layout.pid_path.read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None


def is_server(layout: Layout, pid: int) -> bool:
    """Whether process `pid` lives and is a PostgreSQL server on this very data folder."""
    if not _is_alive(pid):
        return False
    if sys.platform != "linux":
        said = _run(["/bin/ps", "-o", "command=", "-p", str(pid)], None).stdout
        return "postgres" in said and str(layout.cluster) in said
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return os.fsencode(layout.cluster) in command and command[0].endswith(b"postgres")


def stop(
    pid: int, *, patience_s: float = 20.0, child: subprocess.Popen[bytes] | None = None
) -> str:
    """Stop the server `pid` and wait until it is gone; return how (`fast`, `immediate`, `killed`).

    Fast (transactions are rolled back, data is written) for `patience_s` seconds, then immediate
    (the next start recovers), then the kernel's way.
    """
    for name, number, wait_s in (
        ("fast", signal.SIGINT, patience_s),
        ("immediate", signal.SIGQUIT, 5.0),
        ("killed", signal.SIGKILL, 5.0),
    ):
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline:
            if (child.poll() is not None) if child is not None else not _is_alive(pid):
                return name
            time.sleep(0.02)
    raise ProviderUnavailable(f"the PostgreSQL server {pid} cannot be stopped")


def log_tail(layout: Layout, size: int = 1500) -> str:
    """Return the last `size` characters the server has said."""
    try:
        return layout.log_path.read_text(errors="replace")[-size:].strip()
    except OSError:
        return ""


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    if sys.platform == "linux":
        with suppress(OSError):  # a zombie has ended, whatever its parent makes of it
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


def _die_with_parent() -> Callable[[], None] | None:
    # The kernel watches the thread that started the child, not the process.
    if sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return None
    parent, libc = os.getpid(), ctypes.CDLL(None)  # loaded here: the child only calls it

    def in_the_child() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)
        if os.getppid() != parent:  # it died before the call above
            os._exit(1)

    return in_the_child


def _environment() -> dict[str, str]:
    # PGDATA, PGHOST and their like in the user's environment are about some other server.
    return {k: v for k, v in os.environ.items() if not k.startswith("PG")} | {"LC_ALL": "C"}


def _run(command: list[str], account: Account | None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own programs
        command,
        check=False,
        capture_output=True,
        text=True,
        cwd="/",
        env=_environment(),
        user=None if account is None else account.foreign_uid,
        group=None if account is None else account.foreign_gid,
        extra_groups=None if account is None else account.foreign_groups,
    )
