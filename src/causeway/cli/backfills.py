"""Bars for the sources that read history, below what is logged, on a terminal."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.file_proxy import FileProxy
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from causeway.indexing.observe import Backfill, backfills

#: Between two looks at how far they are, seconds.
_LOOK_EVERY_S = 0.5


@contextmanager
def bars(screen: Console) -> Generator[Any]:
    """Show bars inside the block; give the stream to log to, whose lines stand above them."""
    stop = threading.Event()
    thread = threading.Thread(target=_show, args=(screen, stop), name="backfill-bars", daemon=True)
    thread.start()
    try:
        yield FileProxy(screen, screen.file)
    finally:
        stop.set()
        thread.join()


def _show(screen: Console, stop: threading.Event) -> None:
    shown: Progress | None = None
    tasks: dict[str, TaskID] = {}
    while True:
        found = {one.source: one for one in backfills()} if not stop.is_set() else {}
        if found and shown is None:
            shown = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f} %  {task.fields[pace]}"),
                console=screen,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            shown.start()
        if shown is not None:
            _update(shown, tasks, found)
        if shown is not None and not found:
            shown.stop()
            shown = None
        if stop.wait(_LOOK_EVERY_S) and shown is None:
            return


def _update(shown: Progress, tasks: dict[str, TaskID], found: dict[str, Backfill]) -> None:
    for source in [one for one in tasks if one not in found]:
        shown.remove_task(tasks.pop(source))
    for source, one in found.items():
        if source not in tasks:
            tasks[source] = shown.add_task(source, pace="")
        total, done = one.head - one.first, one.applied - one.first
        shown.update(tasks[source], total=total, completed=done, pace=pace(one))


def pace(one: Backfill) -> str:
    """Return how far a source is, in words."""
    said = f"block {one.applied:,} of {one.head:,}, {one.blocks_per_s:,.0f} blocks/s"
    return said if one.seconds_left is None else f"{said}, {duration(one.seconds_left)} left"


def duration(seconds: float) -> str:
    """Return a time in hours, minutes and seconds, as far as that matters."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
