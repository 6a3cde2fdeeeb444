"""A race that goes on, as a few kilobytes: so that a restart need not tell it every fix again.

The bytes hold what a race has come to know, exactly, and neither the ghost nor the rules, which are
immutable and kept elsewhere. A race that is restored and told the rest says what the first would
have said. Bytes of another format are refused, and the race is told its fixes from the start.
"""

from __future__ import annotations

from collections import deque
from dataclasses import asdict
from typing import Any, cast

import msgspec
import numpy as np

from causeway.apps.wisp.domain.fixes import Gate
from causeway.apps.wisp.domain.following import Follower
from causeway.apps.wisp.domain.geodesy import Plane
from causeway.apps.wisp.domain.ghost import Ghost
from causeway.apps.wisp.domain.odometer import MovingPlane, Odometer, Stillness
from causeway.apps.wisp.domain.progress import Progress
from causeway.apps.wisp.domain.race import Race
from causeway.apps.wisp.domain.standing import Event, Rules, Split, Standing

#: Counted up whenever what a race knows changes its shape.
FORMAT = 1

#: Parts of a race that have a state of their own, and what is made again instead of kept.
_PARTS = (Follower, Progress, Odometer, Stillness, Gate)
_MADE_AGAIN = {"ghost", "rules", "route", "_route", "_curve", "_at"}
_VALUES = {"Event": Event, "Split": Split, "Standing": Standing, "Plane": Plane}


class OtherFormat(ValueError):
    """The bytes are not a race of this format."""


def dump(race: Race) -> bytes:
    """Return what a race knows."""
    return msgspec.msgpack.encode({"format": FORMAT, "race": _state(race)})


def restore(ghost: Ghost, rules: Rules, data: bytes) -> Race:
    """Return the race of these bytes, which was of this ghost and these rules.

    Raises OtherFormat when they are not of this format.
    """
    race = Race(ghost, rules)
    try:
        told: dict[str, Any] = msgspec.msgpack.decode(data, type=dict[str, Any])
        if told["format"] != FORMAT:
            raise OtherFormat(f"format {told['format']!r} is not {FORMAT}")
        _apply(race, told["race"])
    except (msgspec.MsgspecError, AttributeError, KeyError, TypeError) as error:
        raise OtherFormat(str(error)) from error
    return race


def _names(part: object) -> list[str]:
    """Return the names of the attributes that are kept."""
    slots: tuple[str, ...] = getattr(type(part), "__slots__", ())
    return [name for name in slots or vars(part) if name not in _MADE_AGAIN]


def _state(part: object) -> dict[str, Any]:
    return {name: _plain(getattr(part, name)) for name in _names(part)}


def _plain(value: Any) -> Any:
    """Return a value as messages know it; what they do not is an object with its kind."""
    if isinstance(value, _PARTS):
        return {"": "part", "of": _state(value)}
    if isinstance(value, MovingPlane):
        return {"": "MovingPlane", "of": _state(value)}
    if isinstance(value, tuple(_VALUES.values())):
        return {"": type(value).__name__, "of": asdict(value)}
    if isinstance(value, np.ndarray):
        array = cast("np.ndarray[Any, np.dtype[np.float64]]", value)
        return {"": "array", "of": array.tobytes(), "shape": list(array.shape)}
    if isinstance(value, (tuple, deque, list)):
        items = [_plain(one) for one in cast("tuple[Any, ...]", value)]
        return {"": type(cast("Any", value)).__name__, "of": items}
    if isinstance(value, dict):
        return {"": "dict", "of": cast("dict[str, int]", value)}
    return value


def _apply(part: object, state: dict[str, Any]) -> None:
    """Put a state into a part that was made anew, and into the parts it has."""
    if sorted(state) != sorted(_names(part)):
        raise OtherFormat(f"{type(part).__name__} knows other things")
    for name, told in state.items():
        kept = cast("dict[str, Any]", told) if isinstance(told, dict) else {}
        if kept.get("") == "part":
            _apply(getattr(part, name), kept["of"])
        else:
            setattr(part, name, _value(told))


def _value(told: Any) -> Any:
    """Return the value of a message."""
    if not isinstance(told, dict):
        return told
    kept = cast("dict[str, Any]", told)
    kind, of = kept[""], kept["of"]
    if kind == "array":
        return np.frombuffer(of, np.float64).reshape(kept["shape"]).copy()
    if kind == "dict":
        return of
    if kind == "MovingPlane":
        plane = MovingPlane(0.0, 0.0)
        _apply(plane, of)
        return plane
    if kind in _VALUES:
        return _VALUES[kind](**of)
    makers: dict[str, Any] = {"tuple": tuple, "deque": deque, "list": list}
    return makers[kind](_value(one) for one in of)
