"""How far a prediction is, at every moment of its life, and the pictures it makes."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import pytest
from PIL import Image
from pydantic import ValidationError

from causeway.sandbox.faults import Fault, FaultBook
from causeway.sandbox.limits import MinuteWindow, TokenBucket
from causeway.sandbox.picture import bomb, picture
from causeway.sandbox.prediction import progress
from causeway.sandbox.state import Prediction

MADE = Prediction(
    id="p",
    service="replicate",
    model="black-forest-labs/flux-schnell",
    version="hidden",
    input={"prompt": "a heron"},
    prompt="a heron",
    seed=1,
    used_seed=1,
    key=None,
    created_at=1000.0,
    latency_s=10.0,
)


@pytest.mark.parametrize(
    ("prediction", "statuses"),
    [
        # at 0, 3, 9.5, 10 and 5000 seconds
        (MADE, "starting processing processing succeeded succeeded"),
        (replace(MADE, outcome="nsfw"), "starting processing processing failed failed"),
        (replace(MADE, outcome="canceled"), "starting processing processing canceled canceled"),
        (replace(MADE, outcome="stuck"), "starting processing processing processing processing"),
        (replace(MADE, canceled_at=1002), "starting canceled canceled canceled canceled"),
        (replace(MADE, canceled_at=1009.4), "starting processing canceled canceled canceled"),
        (replace(MADE, canceled_at=1011), "starting processing processing succeeded succeeded"),
        (replace(MADE, deadline_s=2), "starting aborted aborted aborted aborted"),
        (replace(MADE, deadline_s=9), "starting processing canceled canceled canceled"),
    ],
)
def test_a_prediction_goes_through_its_statuses(prediction: Prediction, statuses: str) -> None:
    seen = [progress(prediction, 1000 + at, 3600).status for at in (0, 3, 9.5, 10, 5000)]
    assert seen == statuses.split()


def test_output_is_there_before_the_end_and_deleted_after_an_hour() -> None:
    at = {s: progress(MADE, 1000 + s, 3600) for s in (8.9, 9.1, 10, 3609, 3611)}
    assert [moment.has_output for moment in at.values()] == [False, True, True, True, False]
    assert [moment.removed for moment in at.values()] == [False, False, False, False, True]


def test_a_dropped_output_was_never_there() -> None:
    dropped = replace(MADE, outcome="drop_output")
    at = [progress(dropped, 1000 + s, 3600) for s in (9.1, 10)]
    assert [(m.status, m.has_output, m.removed) for m in at] == [
        ("processing", False, False),
        ("succeeded", False, True),
    ]


@pytest.mark.parametrize(("fmt", "name"), [("png", "PNG"), ("jpg", "JPEG"), ("webp", "WEBP")])
def test_pictures_are_real_files_of_the_size_asked_for(fmt: str, name: str) -> None:
    image = Image.open(BytesIO(picture("a heron", 1, width=64, height=36, fmt=fmt)))  # pyright: ignore[reportArgumentType] - parametrized text
    image.load()
    assert (image.format, image.size) == (name, (64, 36))


def test_pictures_depend_on_prompt_and_seed_alone() -> None:
    files = {picture(p, s, width=32, height=32) for p in ("a", "b") for s in (1, 2)}
    assert len(files) == 4
    picture.cache_clear()
    assert picture("a", 1, width=32, height=32) in files
    black = Image.open(BytesIO(picture("a", 1, width=32, height=32, black=True)))
    assert black.getextrema() == ((0, 0), (0, 0), (0, 0))


def test_the_bomb_is_small_and_claims_to_be_large() -> None:
    with pytest.raises(Image.DecompressionBombError):
        Image.open(BytesIO(bomb()))
    assert len(bomb()) < 10_000


def test_faults_happen_in_order_as_often_as_asked() -> None:
    book = FaultBook()
    book.add(Fault(service="pinata", kind="reset", count=2, skip=1, match="/pinning/"))
    book.add(Fault(service="pinata", kind="hang", method="post"))

    def kinds(method: str, path: str) -> str | None:
        fault = book.take("pinata", method, path, wire=True)
        return fault.kind if fault else None

    assert kinds("GET", "/pinata/pinning/a") is None
    assert [kinds("POST", "/pinata/pinning/a") for _ in range(3)] == ["reset", "reset", "hang"]
    assert kinds("POST", "/pinata/data/a") == "hang"
    assert kinds("GET", "/pinata/pinning/a") is None
    assert book.take("pinata", "POST", "/pinata/pinning/a", wire=False) is None
    assert [fault.kind for fault in book.all()] == ["hang"]


def test_a_fault_its_service_cannot_have_is_refused() -> None:
    with pytest.raises(ValidationError, match="gateway has no fault of kind nsfw"):
        Fault(service="gateway", kind="nsfw")


def test_limits_let_through_what_they_say() -> None:
    bucket = TokenBucket()
    assert [bucket.take(0.0, 60) for _ in range(60)] == [None] * 60
    assert bucket.take(0.0, 60) == pytest.approx(1.0)
    assert bucket.take(1.0, 60) is None
    window = MinuteWindow()
    assert [window.take(at, 2) for at in (0, 1, 59, 60, 61, 62)] == [True, True, False] * 2
