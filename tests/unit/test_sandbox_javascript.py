"""JSON as JavaScript writes it; expected texts are those of V8."""

from __future__ import annotations

import pytest

from causeway.sandbox.javascript import stringify

CASES: list[tuple[object, str]] = [
    (1.0, "1"),
    (-0.0, "0"),
    (0.1, "0.1"),
    (1e20, "100000000000000000000"),
    (1e21, "1e+21"),
    (1.5e300, "1.5e+300"),
    (0.00001234, "0.00001234"),
    (1e-7, "1e-7"),
    (5e-324, "5e-324"),
    (2**53 + 1, "9007199254740992"),
    (12345.678, "12345.678"),
    (None, "null"),
    (True, "true"),
    ("Ähre 🎨 \x7f \u2028", '"Ähre 🎨 \x7f \u2028"'),
    ('\x00\n"\\/', '"\\u0000\\n\\"\\\\/"'),
    ("\ud800x", '"\\ud800x"'),
    ([1, [], {}], "[1,[],{}]"),
    (
        {"name": "GLISK S0 #42", "image": "ipfs://x"},
        '{"name":"GLISK S0 #42","image":"ipfs://x"}',
    ),
    ({"b": 1, "10": 2, "2": 3, "01": 4, "-1": 5}, '{"2":3,"10":2,"b":1,"01":4,"-1":5}'),
]


@pytest.mark.parametrize(("value", "text"), CASES)
def test_values_are_written_as_javascript_does(value: object, text: str) -> None:
    assert stringify(value) == text


def test_what_json_cannot_hold_is_refused() -> None:
    with pytest.raises(TypeError):
        stringify(object())
