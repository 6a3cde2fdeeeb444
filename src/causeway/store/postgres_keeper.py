"""The keeper: a small process of its own that keeps an embedded server while anybody uses it.

Who uses the server holds a shared lock on `users.lock` for as long as it lives; the kernel gives
such locks back however a process ends. The keeper holds `keeper.lock`, runs PostgreSQL as its
child, starts it again should it end, and, when it can take `users.lock` for itself alone, stops the
server and leaves. So it does not matter which process came first or which is killed:

- a user is killed: the others notice nothing; if it was the last, the server is stopped properly;
- the keeper is killed: on Linux the kernel tells the server to shut down, elsewhere it runs on; the
  users notice within half a second, and one of them starts a new keeper, which starts the server
  or takes over the running one;
- the keeper is asked to end (SIGTERM, SIGINT): it waits 20 seconds for the users to leave, then
  stops the server; asked twice, at once.

Run by `causeway.store.embedded`; it leaves the terminal and the process group of who started it.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from causeway.store.postgres_server import (
    Account,
    Layout,
    answers,
    is_server,
    open_log,
    recorded_pid,
    start,
    stop,
)

_POLL_S = 0.1
_LEAVE_S = 20.0
_STARTS_IN_A_ROW = 5


class Keeper:
    """Keeps one server."""

    def __init__(self, layout: Layout, users_lock: int) -> None:
        self._layout = layout
        self._users_lock = users_lock
        self._child: subprocess.Popen[bytes] | None = None
        self._pid: int | None = None
        self._asked_to_end = 0
        self._ending_since = 0.0

    def run(self) -> int:
        """Keep the server until nobody uses it; return the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._asked)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        failures = 0
        while not self._should_end():
            if self._pid is None:
                if failures == _STARTS_IN_A_ROW:
                    return 1
                time.sleep(0.3 * failures)  # an old server's last processes may hold its memory
                self._ensure()
                failures += 1
            elif self._has_ended():
                self._say("the server has ended")
                self._pid = self._child = None
            else:
                if failures and answers(self._layout):
                    failures = 0
                time.sleep(_POLL_S)
        if self._pid is not None and not self._has_ended():
            self._say(f"stopped the server: {stop(self._pid, child=self._child)}")
        return 0

    def _asked(self, _number: int, _frame: object) -> None:
        self._asked_to_end += 1
        self._ending_since = self._ending_since or time.monotonic()

    def _should_end(self) -> bool:
        if self._asked_to_end > 1:
            return True
        if self._asked_to_end and time.monotonic() - self._ending_since > _LEAVE_S:
            return True
        try:
            fcntl.flock(self._users_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True  # and nobody comes in from here on

    def _ensure(self) -> None:
        recorded = recorded_pid(self._layout)
        if recorded is not None and is_server(self._layout, recorded):
            self._pid = recorded
            self._say(f"took over the running server {recorded}")
            return
        self._child = start(self._layout)
        self._pid = self._child.pid

    def _has_ended(self) -> bool:
        if self._child is not None:
            return self._child.poll() is not None
        return self._pid is None or not is_server(self._layout, self._pid)

    @staticmethod
    def _say(what: str) -> None:
        sys.stderr.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f} UTC [keeper] {what}\n")
        sys.stderr.flush()


def spawn(layout: Layout, keeper_lock: int) -> None:
    """Start a keeper that inherits `keeper_lock`, taken by the caller; returns when it is off."""
    told = {
        "home": str(layout.home),
        "socket_dir": str(layout.socket_dir),
        "bin_dir": str(layout.bin_dir),
        "account": [layout.account.name, layout.account.uid, layout.account.gid],
        "settings": dict(layout.settings),
        "keeper_lock": keeper_lock,
    }
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with open_log(layout) as log:
        subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-m", "causeway.store.postgres_keeper", json.dumps(told)],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=layout.home,
            env=environment,
            pass_fds=(keeper_lock,),
            start_new_session=True,
        )


def _main(arguments: str) -> int:
    # The process that was started leaves at once, so that who started it has no child to wait for.
    if os.fork():
        return 0
    told = json.loads(arguments)
    os.set_inheritable(told["keeper_lock"], False)
    layout = Layout(
        Path(told["home"]),
        Path(told["socket_dir"]),
        Path(told["bin_dir"]),
        Account(*told["account"]),
        told["settings"],
    )
    users_lock = os.open(layout.home / "users.lock", os.O_RDWR | os.O_CLOEXEC)
    with suppress(FileNotFoundError):  # the folder was removed under us
        return Keeper(layout, users_lock).run()
    return 1


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1]))
