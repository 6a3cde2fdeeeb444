"""The embedded database, with real processes that are really killed."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from causeway.base.errors import ConfigurationError, ProviderUnavailable
from causeway.store import postgres_home, postgres_server
from causeway.store.embedded import EmbeddedPostgres
from causeway.store.engine import Database
from tests.postgres_fixtures import binaries, server_account

AS_ROOT = os.geteuid() == 0
only_as_root = pytest.mark.skipif(not AS_ROOT, reason="is about what root's processes do")
only_on_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs the kernel's help")


def until(what: Callable[[], object], within_s: float = 20.0) -> None:
    """Wait until `what()` is true."""
    deadline = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def python_for(uid: int | None) -> str:
    """Return a Python of this version that user `uid` can run; ours may be under root's home."""
    for program in (sys.executable, "/usr/bin/python3"):
        with suppress(OSError):
            done = subprocess.run([program, "-V"], user=uid, capture_output=True, check=False)
            if done.stdout.startswith(b"Python %d.%d." % sys.version_info[:2]):
                return program
    pytest.skip("there is no Python that another user can run")


class Process:
    """Another process that uses the server."""

    def __init__(self, data_dir: Path, uid: int | None = None) -> None:
        self._popen = subprocess.Popen(
            [python_for(uid), Path(__file__).parent / "embedded_user.py", data_dir, binaries()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            user=uid,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    def ready(self) -> Process:
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline()
        assert line, "the process did not start"
        # Lines of the log come first.
        while not line.startswith("{"):
            line = self._popen.stdout.readline()
        said = json.loads(line)
        self.url, self.home = said["url"], Path(said["home"])
        return self

    def has_opened(self, file: Path) -> bool:
        """Whether the process has `file` open; it may be waiting for the lock."""
        try:
            descriptors = [
                entry.resolve() for entry in Path(f"/proc/{self._popen.pid}/fd").iterdir()
            ]
        except OSError:
            return False
        return file in descriptors

    def kill(self) -> None:
        self._popen.kill()
        self._end()

    def leave(self) -> None:
        with suppress(BrokenPipeError):
            assert self._popen.stdin is not None
            self._popen.stdin.close()
        self._end()

    def _end(self) -> None:
        self._popen.wait(40)
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()


@pytest.fixture
def place() -> Generator[Path]:
    """A folder everybody may pass through, as a project's folder is."""
    path = Path(tempfile.mkdtemp(prefix="causeway-place-"))
    path.chmod(0o755)
    yield path
    for home in [*path.rglob("cluster")]:
        pid_file = home / "postmaster.pid"
        if pid_file.exists():  # a failed test leaves nothing behind either
            with suppress(ProcessLookupError, ValueError):
                os.kill(int(pid_file.read_text().split("\n")[0]), signal.SIGQUIT)
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def made_before() -> Generator[Path]:
    """A data folder that was used once, so that not every test makes one from nothing."""
    path = Path(tempfile.mkdtemp(prefix="causeway-made-"))
    path.chmod(0o755)
    with embedded(path / "data"):
        pass
    yield path / "data"
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def data(place: Path, made_before: Path) -> Path:
    """A data folder with an empty database."""
    subprocess.run(["cp", "-a", made_before, place / "data"], check=True)
    (place / "data" / "postgres" / "postgres.log").unlink()
    return place / "data"


def embedded(data_dir: Path) -> EmbeddedPostgres:
    return EmbeddedPostgres(data_dir, bin_dir=binaries())


def read_pid(home: Path) -> int:
    return int((home / "cluster" / "postmaster.pid").read_text().split("\n", 1)[0])


def postmaster(data_dir: Path) -> int | None:
    try:
        return int(
            (data_dir / "postgres" / "cluster" / "postmaster.pid").read_text().split("\n", 1)[0]
        )
    except (FileNotFoundError, ValueError):
        return None


def lives(pid: int) -> bool:
    return postgres_server._is_alive(pid)


def keeper_of(pid: int) -> int:
    """Return the process that started `pid`."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def query(url: str, sql: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(sql.encode()).fetchone()
        assert row is not None
        return row[0]


async def test_first_start_gives_a_working_database_in_a_moment(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    async with EmbeddedPostgres.open(place / "data", bin_dir=binaries()) as server:
        ready_s = time.monotonic() - began
        database = Database(server.url)
        await database.ping()
        await database.close()
    with capsys.disabled():
        print(f" first start {ready_s:.2f} s, all {time.monotonic() - began:.2f} s", end=" ")  # noqa: T201
    assert ready_s < 15


def test_the_role_is_no_superuser_and_row_security_applies_to_it(data: Path) -> None:
    with embedded(data) as server:
        assert query(server.url, "SELECT current_user") == "causeway"
        assert query(server.url, "SHOW is_superuser") == "off"
        with psycopg.connect(server.url) as connection:
            connection.execute("CREATE TABLE secrets (n int)")
            connection.execute("ALTER TABLE secrets ENABLE ROW LEVEL SECURITY")
            connection.execute("ALTER TABLE secrets FORCE ROW LEVEL SECURITY")
            connection.execute("INSERT INTO secrets SELECT 1 WHERE false")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("INSERT INTO secrets VALUES (1)")


def test_only_its_user_may_enter_and_nothing_listens_on_the_network(place: Path) -> None:
    above = [place, *place.parents]
    before = [folder.stat().st_mode for folder in above]
    with embedded(place / "a" / "data") as server:
        assert query(server.url, "SHOW listen_addresses") == ""
        assert query(server.url, "SHOW fsync") == "on"
        home = server.layout.home.stat()
        assert stat.S_IMODE(home.st_mode) == 0o700
        assert home.st_uid == server_account().uid
        assert stat.S_ISSOCK(server.layout.socket_path.stat().st_mode)
    assert [folder.stat().st_mode for folder in above] == before


def test_data_is_there_after_a_restart(data: Path) -> None:
    with embedded(data) as server:
        with psycopg.connect(server.url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS n")
        pid = postmaster(data)
        assert pid is not None
    assert not lives(pid)
    assert postmaster(data) is None
    with embedded(data) as server:
        assert query(server.url, "SELECT n FROM kept") == 42


def test_server_stops_properly_when_its_only_user_is_killed(data: Path) -> None:
    process = Process(data).ready()
    pid = postmaster(data)
    assert pid is not None
    process.kill()
    until(lambda: not lives(pid))
    until(lambda: "stopped the server: fast" in (data / "postgres" / "postgres.log").read_text())
    with embedded(data) as server:
        assert query(server.url, "SELECT 1") == 1


def test_two_processes_share_one_server_and_the_death_of_the_first_is_not_noticed(
    data: Path,
) -> None:
    first = Process(data).ready()
    second = Process(data).ready()
    pid = postmaster(data)
    assert pid is not None
    assert first.url == second.url
    with psycopg.connect(second.url) as connection:
        first.kill()
        third = Process(data).ready()
        third.leave()
        assert postmaster(data) == pid
        row = connection.execute("SELECT 1").fetchone()
        assert row == (1,)
    second.leave()
    assert not lives(pid)


def test_processes_that_come_at_once_get_the_same_server(place: Path) -> None:
    processes = [Process(place / "data") for _ in range(4)]
    urls = {process.ready().url for process in processes}
    assert len(urls) == 1
    log = (place / "data" / "postgres" / "postgres.log").read_text()
    assert log.count("starting PostgreSQL") == 1
    for process in processes:
        process.leave()
    assert postmaster(place / "data") is None


@only_on_linux
def test_users_get_their_server_back_when_the_keeper_is_killed(data: Path) -> None:
    with embedded(data) as server:
        pid = postmaster(data)
        assert pid is not None
        os.kill(keeper_of(pid), signal.SIGKILL)
        until(lambda: postmaster(data) not in (None, pid))
        until(lambda: postgres_server.answers(server.layout))
        until(lambda: _works(server.url))
        new = postmaster(data)
        assert new is not None
    assert not lives(new)
    assert not lives(pid)


def _works(url: str) -> bool:
    try:
        return query(url, "SELECT 1") == 1
    except psycopg.OperationalError:
        return False


@only_on_linux
def test_a_killed_server_is_started_again(data: Path) -> None:
    with embedded(data) as server:
        pid = postmaster(data)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        until(lambda: postmaster(data) not in (None, pid) and _works(server.url))


@only_on_linux
def test_nothing_is_left_running_when_user_and_keeper_are_killed_together(data: Path) -> None:
    process = Process(data).ready()
    pid = postmaster(data)
    assert pid is not None
    keeper = keeper_of(pid)
    os.kill(keeper, signal.SIGKILL)
    process.kill()
    until(lambda: not lives(pid))
    assert not lives(keeper)


def test_a_running_server_without_a_keeper_is_taken_over_and_stopped_at_the_end(
    data: Path,
) -> None:
    with embedded(data) as server:
        layout = postgres_home.with_programs(server.layout)
    orphan = postgres_server.start(layout)
    try:
        until(lambda: _works(server.url))
        with embedded(data) as server:
            assert postmaster(data) == orphan.pid
            assert query(server.url, "SELECT 1") == 1
            until(lambda: "took over" in layout.log_path.read_text())
        orphan.wait(20)
        assert orphan.returncode == 0
    finally:
        if orphan.poll() is None:
            orphan.kill()
            orphan.wait()


def test_a_stale_pid_file_that_names_somebody_elses_process_is_no_hindrance(data: Path) -> None:
    with embedded(data) as server:
        layout = postgres_home.with_programs(server.layout)
    account = layout.account
    stranger = subprocess.Popen(
        ["sleep", "60"], user=account.foreign_uid, extra_groups=account.foreign_groups
    )
    try:
        pid_file = data / "postgres" / "cluster" / "postmaster.pid"
        pid_file.write_text(f"{stranger.pid}\n{layout.cluster}\n1\n5432\n{layout.home}\n\n\n")
        os.chown(pid_file, account.uid, account.gid)
        # The trap is real: a server started plainly believes the stranger.
        plainly = subprocess.run(
            [layout.bin_dir / "postgres", "-D", layout.cluster, "-c", "listen_addresses="],
            check=False,
            capture_output=True,
            text=True,
            user=account.foreign_uid,
            group=account.foreign_gid,
            extra_groups=account.foreign_groups,
            timeout=30,
        )
        assert 'lock file "postmaster.pid" already exists' in plainly.stderr
        with embedded(data) as server:
            assert query(server.url, "SELECT 1") == 1
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("name", ["long" * 30, "with, comma"])
def test_a_folder_whose_path_cannot_hold_a_socket_gets_one_elsewhere(
    place: Path, name: str
) -> None:
    with embedded(place / name / "data") as server:
        assert server.layout.socket_dir != server.layout.home
        assert stat.S_IMODE(server.layout.socket_dir.stat().st_mode) == 0o700
        assert query(server.url, "SELECT 1") == 1
        with Process_(place / name / "data") as other:
            assert other.url == server.url
    shutil.rmtree(server.layout.socket_dir)


class Process_(Process):
    def __enter__(self) -> Process:
        return self.ready()

    def __exit__(self, *_: object) -> None:
        self.leave()


def test_data_of_another_major_version_is_refused_and_left_alone(data: Path) -> None:
    with embedded(data):
        pass
    version = data / "postgres" / "cluster" / "PG_VERSION"
    version.write_text("12\n")
    with pytest.raises(ConfigurationError, match="made by PostgreSQL 12") as refused:
        embedded(data).start()
    assert "dump" in (refused.value.hint or "")
    assert version.read_text() == "12\n"


def test_a_server_that_cannot_start_says_why_and_leaves_nothing_running(data: Path) -> None:
    broken = EmbeddedPostgres(data, bin_dir=binaries(), settings={"max_connections": "many"})
    with pytest.raises(ProviderUnavailable, match=r"max_connections.*many"):
        broken.start()
    assert postmaster(data) is None
    with embedded(data) as server:
        assert query(server.url, "SELECT 1") == 1


def test_a_folder_with_other_things_in_it_is_refused(place: Path) -> None:
    (place / "notes.txt").write_text("beside it is fine")
    (place / "postgres").mkdir(mode=0o755)
    (place / "postgres" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigurationError, match=r"thesis\.txt"):
        embedded(place).start()
    assert stat.S_IMODE((place / "postgres").stat().st_mode) == 0o755


def test_a_start_cut_short_is_completed_by_the_next(data: Path) -> None:
    with embedded(data) as server:
        layout = server.layout
        with server.administrator() as connection:
            connection.execute("DROP DATABASE causeway")
    (layout.home / "cluster.new-1-1").mkdir()
    with embedded(data) as server:
        assert query(server.url, "SELECT 1") == 1


@only_on_linux
def test_who_comes_while_the_server_stops_waits_for_it(data: Path) -> None:
    with embedded(data) as server:
        layout = server.layout
    # What the keeper holds while it stops the server.
    descriptor = postgres_home.open_lock(layout, "users.lock")
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    process = Process(data)
    until(lambda: process.has_opened(layout.home / "users.lock"))
    assert postmaster(data) is None
    os.close(descriptor)
    assert query(process.ready().url, "SELECT 1") == 1
    process.leave()


async def test_cancelling_a_start_leaves_nothing_running(place: Path) -> None:
    async def use() -> None:
        async with EmbeddedPostgres.open(place / "data", bin_dir=binaries()):
            await asyncio.Event().wait()

    task = asyncio.create_task(use())
    await asyncio.to_thread(until, (place / "data" / "postgres" / "start.lock").exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert postmaster(place / "data") is None


@only_as_root
def test_root_puts_the_data_elsewhere_when_the_servers_user_cannot_pass(place: Path) -> None:
    closed = place / "roots"
    closed.mkdir(mode=0o700)
    shelter = place / "shelter"
    wheel = postgres_home.wheel_programs().parent
    programs = closed / wheel.parent.name / wheel.name
    shutil.copytree(wheel, programs)
    libraries = wheel.parent.with_suffix(".libs")
    shutil.copytree(libraries, closed / libraries.name)

    def prepare() -> postgres_server.Layout:
        asked_for = closed / "project" / "data" / "postgres"
        return postgres_home.prepare(asked_for, bin_dir=programs / "bin", shelters=[shelter])

    layout = prepare()
    assert prepare() == layout
    assert layout.home.is_relative_to(shelter)
    assert (closed / "project" / "data" / "postgres" / "location").read_text().strip() == str(
        layout.home
    )
    with EmbeddedPostgres(closed / "project" / "data", bin_dir=layout.bin_dir) as server:
        assert server.layout.home == layout.home
        assert query(server.url, "SELECT 1") == 1
        pid = read_pid(layout.home)
        assert Path(f"/proc/{pid}").stat().st_uid == pwd.getpwnam("nobody").pw_uid
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    shutil.rmtree(layout.home)
    with pytest.raises(ConfigurationError, match="not there any more"):
        prepare()


@only_as_root
def test_root_is_told_when_the_user_to_run_as_does_not_exist(place: Path) -> None:
    with pytest.raises(ConfigurationError, match="CAUSEWAY_EMBEDDED_USER"):
        EmbeddedPostgres(place / "data", user="nobody-of-that-name").start()


@only_as_root
def test_an_ordinary_user_needs_nothing_special_and_roots_folder_is_refused(place: Path) -> None:
    account = server_account()
    mine = place / "mine"
    mine.mkdir()
    os.chown(mine, account.uid, account.gid)
    process = Process(mine / "data", uid=account.uid).ready()
    assert query(process.url, "SELECT current_user") == "causeway"
    # Root may come in meanwhile: the folder's owner stays who runs it.
    with embedded(mine / "data") as server:
        assert server.layout.account.uid == account.uid
        assert server.url == process.url
    process.leave()
    assert postmaster(mine / "data") is None
