"""Finds the apps that are installed, and checks what they declare before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import cast

from causeway.app import AnyApp, App
from causeway.base.errors import ConfigurationError

GROUP = "causeway.apps"


def installed_names() -> list[str]:
    """Return the names of the installed apps, without importing them."""
    return sorted(point.name for point in entry_points(group=GROUP))


def find_apps(names: Sequence[str] = ()) -> list[AnyApp]:
    """Return the apps with these names, or all that are installed.

    Raises `ConfigurationError` for a name that is not installed and for declarations that clash.
    """
    points = {point.name: point for point in entry_points(group=GROUP)}
    unknown = [name for name in names if name not in points]
    if unknown:
        raise ConfigurationError(
            f"no app named {', '.join(unknown)}; installed: {', '.join(sorted(points)) or 'none'}"
        )
    found: list[AnyApp] = []
    for name in dict.fromkeys(names or sorted(points)):
        app: object = points[name].load()
        if not isinstance(app, App):
            raise ConfigurationError(f"the entry point {name!r} of {GROUP} is not an App")
        found.append(cast("AnyApp", app))
    check(found)
    return found


def check(apps: Sequence[AnyApp]) -> None:
    """Raise `ConfigurationError` listing everything that is wrong with the declarations."""
    problems: list[str] = []
    for field in ("name", "schema"):
        seen: set[str] = set()
        for app in apps:
            value = app.name if field == "name" else str(app.metadata.schema)
            if value in seen or value == "causeway":
                problems.append(f"two apps share the {field} {value!r}")
            seen.add(value)
    for app in apps:
        paths: set[tuple[str, str]] = set()
        for router in app.routers:
            for route in router.routes:
                path = str(getattr(route, "path", ""))
                for method in getattr(route, "methods", None) or ("GET",):
                    if (method, path) in paths:
                        problems.append(f"{app.name}: {method} {path} is served twice")
                    paths.add((method, path))
    if problems:
        raise ConfigurationError(problems)
