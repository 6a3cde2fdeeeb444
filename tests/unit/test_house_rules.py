"""House rules that no linter knows, checked on the syntax trees of the source.

Each rule is a function from a module to the lines that break it, and has a small offender below
that shows it can fail.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "causeway"


@dataclass(frozen=True)
class Module:
    """One file of the source: where it is, below `src/causeway`, and what it says."""

    path: str
    tree: ast.Module

    def is_in(self, *rooms: str) -> bool:
        return self.path.startswith(rooms)


Rule = Callable[[Module], Iterator[int]]


def calls(module: Module) -> Iterator[tuple[ast.Call, str, str]]:
    """Yield every call with what it is called on (its last name) and its own name."""
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name):
            yield node, "", node.func.id
        elif isinstance(node.func, ast.Attribute):
            on = node.func.value
            name = on.attr if isinstance(on, ast.Attribute) else getattr(on, "id", "")
            yield node, name, node.func.attr


def no_naive_time(module: Module) -> Iterator[int]:
    """A time without a zone is never made."""
    for call, on, name in calls(module):
        given = {keyword.arg for keyword in call.keywords}
        if name in ("utcnow", "utcfromtimestamp"):
            yield call.lineno
        if on == "datetime" and name == "now" and not call.args and "tz" not in given:
            yield call.lineno
        if on == "datetime" and name == "fromtimestamp" and len(call.args) < 2:
            if "tz" not in given:
                yield call.lineno
        if name == "DateTime":
            zones = [keyword for keyword in call.keywords if keyword.arg == "timezone"]
            aware = zones and getattr(zones[0].value, "value", False) is True
            if not aware and not (call.args and getattr(call.args[0], "value", False) is True):
                yield call.lineno


def time_comes_from_the_clock(module: Module) -> Iterator[int]:
    """Time is read from `base.clock`, so that tests own it; the store runs real processes."""
    if module.is_in("base/", "store/", "sandbox/", "cli/"):
        return
    for call, on, name in calls(module):
        if on in ("datetime", "time") and name in ("now", "time", "monotonic", "today", "time_ns"):
            yield call.lineno


def sessions_are_committed_by_the_store(module: Module) -> Iterator[int]:
    """`commit` is called on a unit of work; on a session or a connection only by the store."""
    if module.is_in("store/"):
        return
    for call, on, name in calls(module):
        # With arguments it is something else that ends well (`lane.commit(lease)`).
        plain = name == "commit" and not call.args and not call.keywords
        if plain and "uow" not in on and on != "unit_of_work":
            yield call.lineno


def only_the_command_line_prints(module: Module) -> Iterator[int]:
    """Everything but the commands speaks through the log."""
    # An app's commands are its `cli.py`.
    if module.is_in("cli/") or module.path.endswith("/cli.py"):
        return
    for call, on, name in calls(module):
        if not on and name == "print":
            yield call.lineno


def nothing_sleeps_in_the_event_loop(module: Module) -> Iterator[int]:
    """`time.sleep` stops every task; the store's own processes and threads have no loop."""
    if module.is_in("store/postgres_", "store/embedded.py"):
        return
    for call, on, name in calls(module):
        if on == "time" and name == "sleep":
            yield call.lineno


def domain_imports_no_framework(module: Module) -> Iterator[int]:
    """What raises errors knows nothing of how they are shown: `base.errors` stands alone."""
    if module.path != "base/errors.py":
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] not in (
            "__future__",
            "collections",
            "dataclasses",
            "typing",
        ):
            yield node.lineno


RULES: list[Rule] = [
    no_naive_time,
    time_comes_from_the_clock,
    sessions_are_committed_by_the_store,
    only_the_command_line_prints,
    nothing_sleeps_in_the_event_loop,
    domain_imports_no_framework,
]


def modules() -> list[Module]:
    """Return every module of the source."""
    return [
        Module(path.relative_to(SOURCE).as_posix(), ast.parse(path.read_text(), str(path)))
        for path in sorted(SOURCE.rglob("*.py"))
    ]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_its_rules(rule: Rule) -> None:
    broken = [f"{m.path}:{line}" for m in modules() for line in rule(m)]
    assert not broken, f"{rule.__doc__} {', '.join(broken)}"


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [
        (no_naive_time, "apps/x.py", "datetime.now()"),
        (no_naive_time, "apps/x.py", "datetime.datetime.utcnow()"),
        (no_naive_time, "apps/x.py", "datetime.fromtimestamp(block.time)"),
        (no_naive_time, "apps/x.py", "DateTime()"),
        (no_naive_time, "apps/x.py", "DateTime(timezone=False)"),
        (time_comes_from_the_clock, "relayer/x.py", "datetime.now(UTC)"),
        (time_comes_from_the_clock, "relayer/x.py", "time.monotonic()"),
        (sessions_are_committed_by_the_store, "apps/x.py", "await session.commit()"),
        (sessions_are_committed_by_the_store, "apps/x.py", "await self._uow.session.commit()"),
        (only_the_command_line_prints, "apps/glisk/stages.py", "print(1)"),
        (nothing_sleeps_in_the_event_loop, "chains/x.py", "time.sleep(1)"),
        (domain_imports_no_framework, "base/errors.py", "from fastapi import HTTPException"),
    ],
)
def test_each_rule_finds_what_breaks_it(rule: Rule, path: str, text: str) -> None:
    parsed = ast.parse(f"async def f():\n    {text}")
    assert list(rule(Module(path, parsed))) == [2]


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [
        (no_naive_time, "apps/x.py", "datetime.now(UTC)"),
        (no_naive_time, "apps/x.py", "datetime.fromtimestamp(block.time, UTC)"),
        (no_naive_time, "apps/x.py", "DateTime(timezone=True)"),
        (time_comes_from_the_clock, "relayer/x.py", "self._clock.now()"),
        (sessions_are_committed_by_the_store, "apps/x.py", "await uow.commit()"),
        (sessions_are_committed_by_the_store, "apps/x.py", "await self._uow.commit()"),
        (sessions_are_committed_by_the_store, "relayer/x.py", "lane.commit(lease)"),
        (only_the_command_line_prints, "apps/glisk/cli.py", "print(1)"),
        (only_the_command_line_prints, "apps/glisk/stages.py", "console.print(1)"),
    ],
)
def test_no_rule_forbids_what_is_right(rule: Rule, path: str, text: str) -> None:
    parsed = ast.parse(f"async def f():\n    {text}")
    assert list(rule(Module(path, parsed))) == []
