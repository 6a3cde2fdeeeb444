"""Strava through the kernel: connecting, refreshing, letting go, reading, uploading, changing."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import text

from causeway.base.errors import (
    ConfigurationError,
    InvalidInput,
    NotAllowed,
    ProviderUnavailable,
    RateLimited,
)
from causeway.connections import flow
from causeway.connections.errors import (
    AuthorizationFailed,
    CredentialRefused,
    NoData,
    NotConnected,
)
from causeway.connections.revocation import Revoked, revoke_due
from causeway.connections.strava import UploadRefused
from causeway.connections.strava_models import Activity, Upload
from causeway.sandbox.strava_activities import athlete_id
from causeway.store.engine import Database
from tests.strava import ALL_SCOPES, ANNA, BEN, GPX, Runners, runners


@pytest.fixture(name="w")
async def _runners(database: Database) -> AsyncIterator[Runners]:
    async with runners(database) as opened:
        yield opened


def run(number: int, day: int, **more: Any) -> dict[str, Any]:
    return {"id": number, "start_date": f"2026-10-{day:02}T06:00:00Z", **more}


# Connecting


async def test_where_the_person_is_sent(w: Runners) -> None:
    begun = await flow.begin(w.vault, w.strava, ANNA)
    assert urlsplit(begun.url).path == "/strava/oauth/authorize"
    query = {name: values[0] for name, values in parse_qs(urlsplit(begun.url).query).items()}
    assert query.pop("state") == begun.state
    assert query == {
        "client_id": "12345",
        "redirect_uri": "https://wisp.example/strava/callback",
        "response_type": "code",
        "approval_prompt": "auto",
        "scope": "read,activity:read,activity:read_all,activity:write",
    }


async def test_what_was_granted_comes_from_the_redirect(w: Runners) -> None:
    w.sandbox.settings.strava_unticked = ("activity:write", "activity:read_all")
    connection = await w.connect()
    assert connection.scopes == ("read", "activity:read")
    assert connection.account is not None
    assert connection.account.id == str(athlete_id("anna"))
    # What was not granted is said before anything is asked, and is no reason to connect again.
    with pytest.raises(NotAllowed, match="activity:write"):
        await w.connections.call(
            "strava", ANNA, lambda c: w.strava.upload(c, GPX, "gpx", external_id="wisp-1")
        )
    assert w.asked("/strava/api/v3/uploads") == 0
    kept = await w.vault.find("strava", ANNA)
    assert kept is not None
    assert kept.rejected_at is None
    # A refresh says nothing of permissions; they stay.
    w.clock.move(21600)
    await w.connections.credential("strava", ANNA)
    kept = await w.vault.find("strava", ANNA)
    assert kept is not None
    assert kept.scopes == ("read", "activity:read")


async def test_a_redirect_cannot_grant_what_was_not_asked_for(w: Runners) -> None:
    begun = await flow.begin(w.vault, w.strava, ANNA)
    back = await w.visit(begun.url)
    connection = await flow.finish(
        w.vault,
        w.strava,
        code=back["code"],
        state=back["state"],
        granted="read,profile:write,activity:write",
    )
    assert connection.scopes == ("read", "activity:write")


async def test_who_declines_is_not_connected(w: Runners) -> None:
    w.sandbox.settings.strava_decision = "deny"
    begun = await flow.begin(w.vault, w.strava, ANNA)
    back = await w.visit(begun.url)
    assert back == {"state": begun.state, "error": "access_denied"}
    with pytest.raises(AuthorizationFailed) as failed:
        await flow.finish(w.vault, w.strava, code=None, state=back["state"], error=back["error"])
    assert failed.value.code == "access_denied"
    assert await w.vault.find("strava", ANNA) is None


async def test_a_code_buys_tokens_once(w: Runners) -> None:
    assert w.strava.oauth is not None
    begun = await flow.begin(w.vault, w.strava, ANNA)
    back = await w.visit(begun.url)
    await w.strava.oauth.exchange(back["code"], "")
    with pytest.raises(CredentialRefused, match="AuthorizationCode invalid"):
        await w.strava.oauth.exchange(back["code"], "")


# Refreshing


async def test_five_minutes_before_its_end_a_token_is_refreshed(w: Runners) -> None:
    await w.connect()
    first = (await w.connections.credential("strava", ANNA)).token
    w.clock.move(21600 - 301)
    assert (await w.connections.credential("strava", ANNA)).token == first
    w.clock.move(2)
    second = (await w.connections.credential("strava", ANNA)).token
    assert second != first
    # The old refresh token is worth nothing; the one that came with the answer is kept.
    w.clock.move(21600)
    assert (await w.connections.credential("strava", ANNA)).token not in (first, second)
    assert w.sandbox.wasted_refreshes("strava") == 0


async def test_many_at_once_refresh_once(w: Runners) -> None:
    await w.connect()
    w.clock.move(21600)
    found = await asyncio.gather(*[w.connections.credential("strava", ANNA) for _ in range(20)])
    assert len({credential.token for credential in found}) == 1
    assert w.asked("/strava/oauth/token") == 2
    assert w.sandbox.wasted_refreshes("strava") == 0


async def test_a_revocation_is_noted_and_the_connection_stays(w: Runners) -> None:
    await w.connect()
    w.sandbox.settings.strava_revoked = ("anna",)
    with pytest.raises(CredentialRefused):
        await w.connections.call("strava", ANNA, w.strava.account)
    kept = await w.vault.find("strava", ANNA)
    assert kept is not None
    assert kept.rejected_at is not None
    assert "RefreshToken invalid" in (kept.rejected_why or "")


@pytest.mark.parametrize(
    "fault", [{"kind": "status", "status": 502}, {"kind": "reset"}, {"kind": "html", "status": 403}]
)
async def test_an_outage_disconnects_nobody(w: Runners, fault: dict[str, Any]) -> None:
    await w.connect()
    w.clock.move(21600)
    w.sandbox.fault("strava", **fault)
    with pytest.raises(ProviderUnavailable):
        await w.connections.call("strava", ANNA, w.strava.account)
    w.sandbox.clear_faults()
    account = await w.connections.call("strava", ANNA, w.strava.account)
    assert account.id == str(athlete_id("anna"))


async def test_a_wrong_secret_of_ours_disconnects_nobody(w: Runners) -> None:
    await w.connect()
    w.clock.move(21600)
    w.sandbox.settings.strava_client_secret = "another"
    with pytest.raises(ConfigurationError):
        await w.connections.call("strava", ANNA, w.strava.account)
    kept = await w.vault.find("strava", ANNA)
    assert kept is not None
    assert kept.rejected_at is None


# Letting go


async def revoke(w: Runners) -> Revoked:
    async with w.vault.database.transaction() as session:
        await session.execute(text("UPDATE causeway.connection_revocations SET due_at = now()"))
    return await revoke_due(w.vault.database, w.keyring, "wisp", w.connections.providers)


async def test_disconnecting_tells_strava_also_when_the_access_token_is_over(w: Runners) -> None:
    await w.connect()
    w.clock.move(7 * 86_400)
    assert await w.vault.remove("strava", ANNA)
    with pytest.raises(NotConnected):
        await w.connections.credential("strava", ANNA)
    w.sandbox.fault("strava", "status", 3, status=503)
    assert await revoke(w) == Revoked(later=1)
    w.sandbox.clear_faults()
    assert await revoke(w) == Revoked(done=1)
    assert w.sandbox.tokens("strava") == {}
    (entry,) = [e for e in w.sandbox.log() if e.path.endswith("/revoke") and e.status == 200]
    # Not in the address; the header is hidden in the log.
    assert entry.query == {}
    assert "authorization" in entry.headers


async def test_connecting_again_ends_nothing(w: Runners) -> None:
    """Strava takes back everything with any token, so the old one is left alone."""
    await w.connect()
    await w.connect()
    assert await revoke(w) == Revoked()
    # Also when the person let go in between, and Strava has not been told yet.
    await w.vault.remove("strava", ANNA)
    await w.connect()
    assert await revoke(w) == Revoked()
    assert (await w.connections.call("strava", ANNA, w.strava.account)).name == "anna S."


async def test_another_account_in_its_place_ends_the_first(w: Runners) -> None:
    await w.connect(athlete="anna")
    await w.connect(athlete="annas-club")
    assert await revoke(w) == Revoked(done=1)
    assert set(w.sandbox.tokens("strava").values()) == {"annas-club"}


async def test_an_account_of_somebody_else_is_refused_and_they_keep_it(w: Runners) -> None:
    await w.connect(ANNA, "anna")
    with pytest.raises(AuthorizationFailed) as failed:
        await w.connect(BEN, "anna")
    assert failed.value.code == "account_already_linked"
    assert ANNA not in str(failed.value)
    await revoke(w)
    assert (await w.connections.call("strava", ANNA, w.strava.account)).name == "anna S."


# Reading


async def test_pages_of_activities(w: Runners) -> None:
    w.sandbox.settings.strava_activities = {
        "anna": tuple(run(n, n) for n in range(1, 8)),
        "ben": (run(99, 3),),
    }
    anna = await w.credential()
    newest = await w.strava.activities(anna, per_page=3)
    assert [a.id for a in newest] == [7, 6, 5]
    # With `after`, oldest first: new ones do not move the pages.
    after = datetime(2026, 10, 2, 12, tzinfo=UTC)
    pages = [
        [a.id for a in await w.strava.activities(anna, after=after, page=n, per_page=2)]
        for n in (1, 2, 3, 4)
    ]
    assert pages == [[3, 4], [5, 6], [7], []]
    before = await w.strava.activities(anna, before=after)
    assert [a.id for a in before] == [2, 1]
    between = await w.strava.activities(anna, after=after, before=after + timedelta(days=2))
    assert [a.id for a in between] == [3, 4]
    for page, per_page in ((1, 201), (1, 0), (0, 30)):
        with pytest.raises(InvalidInput):
            await w.strava.activities(anna, page=page, per_page=per_page)


async def test_what_an_activity_says(w: Runners) -> None:
    w.sandbox.settings.strava_activities = {
        "anna": (
            run(
                5,
                1,
                sport_type="TrailRun",
                timezone="(GMT+01:00) Europe/Rome",
                average_cadence=86.5,
                start_date_local="2026-10-01T00:00:01Z",
                start_latlng=[45.1, 7.2],
                description="wet",
            ),
            run(6, 2, sport_type="Ride", average_cadence=80.0),
        )
    }
    anna = await w.credential()
    trail = await w.strava.activity(anna, 5)
    assert trail.is_run
    assert trail.time_zone == "Europe/Rome"
    assert trail.steps_per_minute == 173.0
    assert trail.hides_start
    assert trail.start_date == datetime(2026, 10, 1, 6, tzinfo=UTC)
    assert (trail.start_latlng, trail.description) == ((45.1, 7.2), "wet")
    ride = await w.strava.activity(anna, 6)
    assert (ride.is_run, ride.steps_per_minute, ride.hides_start) == (False, 80.0, False)


async def test_what_is_deleted_hidden_or_somebody_else_s_is_not_there(w: Runners) -> None:
    w.sandbox.settings.strava_activities = {
        "anna": (run(1, 1), run(2, 2, visibility="only_me")),
        "ben": (run(3, 3),),
    }
    w.sandbox.settings.strava_unticked = ("activity:read_all",)
    anna = await w.credential()
    assert [a.id for a in await w.strava.activities(anna)] == [1]
    for number in (2, 3, 4):
        with pytest.raises(NoData):
            await w.strava.activity(anna, number)
        with pytest.raises(NoData):
            await w.strava.streams(anna, number)
    w.sandbox.strava.activities.delete(1)
    with pytest.raises(NoData):
        await w.strava.activity(anna, 1)


async def test_streams_by_key(w: Runners) -> None:
    series = {
        "time": [0, 1, 2],
        "distance": [0.0, 3.1, 6.2],
        "latlng": [[45.0, 7.0], [45.0, 7.00004], [45.0, 7.00008]],
        "cadence": [80, None, 90],
    }
    w.sandbox.settings.strava_activities = {
        "anna": (run(1, 1, streams=series), run(2, 2)),
    }
    anna = await w.credential()
    found = await w.strava.streams(anna, 1)
    assert found.points == 3
    assert {key: stream.data for key, stream in found.by_key.items()} == series
    assert found.steps_per_minute() == [160.0, None, 180.0]
    assert found.values("heartrate") is None
    # `distance` comes unasked, and is left out.
    assert set((await w.strava.streams(anna, 1, ("time", "temp"))).by_key) == {"time"}
    with pytest.raises(NoData):  # entered by hand
        await w.strava.streams(anna, 2)
    with pytest.raises(InvalidInput, match="pulse"):
        await w.strava.streams(anna, 1, ("pulse",))


async def test_streams_of_different_lengths_are_not_believed(w: Runners) -> None:
    w.sandbox.settings.strava_activities = {
        "anna": (run(1, 1, streams={"time": [0, 1], "distance": [0.0]}),)
    }
    with pytest.raises(ProviderUnavailable, match="different lengths"):
        await w.strava.streams(await w.credential(), 1)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"kind": "status", "status": 500}, ProviderUnavailable),
        ({"kind": "status", "status": 401}, CredentialRefused),
        ({"kind": "status", "status": 403}, NotAllowed),
        ({"kind": "html", "status": 401}, ProviderUnavailable),
        ({"kind": "rate_limit"}, RateLimited),
        ({"kind": "truncate"}, ProviderUnavailable),
        ({"kind": "short"}, ProviderUnavailable),
        ({"kind": "redirect"}, ProviderUnavailable),
        ({"kind": "status", "status": 200, "body": "{}"}, ProviderUnavailable),
        ({"kind": "status", "status": 200, "body": '[{"id": -1}]'}, ProviderUnavailable),
    ],
)
async def test_failures_are_told_apart(
    w: Runners, fault: dict[str, Any], error: type[Exception]
) -> None:
    anna = await w.credential()
    w.sandbox.fault("strava", match="athlete/activities", **fault)
    with pytest.raises(error) as raised:
        await w.strava.activities(anna)
    assert anna.token.get_secret_value() not in str(raised.value)


async def test_a_permission_that_is_missing_there_is_no_dead_token(w: Runners) -> None:
    w.sandbox.settings.strava_unticked = ("activity:write",)
    anna = await w.credential(knows_scopes=False)
    with pytest.raises(NotAllowed):
        await w.strava.upload(anna, GPX, "gpx", external_id="wisp-1")


async def test_nothing_of_an_answer_is_kept(w: Runners) -> None:
    anna = await w.credential()
    for _ in range(2):
        w.sandbox.fault(
            "strava", "status", 1, status=200, body="[]", headers={"Cache-Control": "max-age=99"}
        )
        await w.strava.activities(anna)
    assert w.asked("/strava/api/v3/athlete/activities") == 2


# Writing


async def test_a_file_becomes_an_activity(w: Runners) -> None:
    w.sandbox.settings.strava_processing_s = 4.0
    anna = await w.credential()
    upload = await w.strava.upload(
        anna, GPX, "gpx", external_id="wisp-7", name="Dawn", description="wet"
    )
    assert (upload.state, upload.external_id, upload.result) == ("processing", "wisp-7", None)
    w.clock.slept.clear()
    number = await w.strava.uploaded(anna, upload)
    # From one second, backing off.
    assert w.clock.slept == [1.0, 2.0, 4.0]
    made = await w.strava.activity(anna, number)
    assert (made.name, made.description, made.external_id) == ("Dawn", "wet", "wisp-7")


@pytest.mark.parametrize("words", ["link", "number"])
async def test_a_file_that_is_there_already_is_a_success(w: Runners, words: Any) -> None:
    w.sandbox.settings.strava_duplicate_words = words
    anna = await w.credential()
    first = await w.strava.upload(anna, GPX, "gpx", external_id="wisp-7")
    number = await w.strava.uploaded(anna, first)
    # The answer to an upload may be lost: doing it again makes no second activity.
    packed = gzip.compress(GPX)
    w.sandbox.fault("strava", "lose_answer", 1, match="uploads", method="POST")
    with pytest.raises(ProviderUnavailable):
        await w.strava.upload(anna, packed, "gpx.gz", external_id="wisp-7")
    again = await w.strava.upload(anna, packed, "gpx.gz", external_id="wisp-7")
    assert await w.strava.uploaded(anna, again) == number
    assert [a.id for a in await w.strava.activities(anna)] == [number]


async def test_a_file_without_a_track_is_refused_with_the_reason(w: Runners) -> None:
    anna = await w.credential()
    upload = await w.strava.upload(anna, b"<gpx/>", "gpx", external_id="wisp-8")
    with pytest.raises(UploadRefused, match="Time information is missing"):
        await w.strava.uploaded(anna, upload)
    with pytest.raises(InvalidInput, match=r"none of fit, fit\.gz"):
        await w.strava.upload(anna, GPX, "kml", external_id="wisp-8")  # pyright: ignore[reportArgumentType]


async def test_an_upload_that_takes_long_is_asked_for_again_later(w: Runners) -> None:
    w.sandbox.settings.strava_processing_s = 300.0
    anna = await w.credential()
    upload = await w.strava.upload(anna, GPX, "gpx", external_id="wisp-9")
    with pytest.raises(ProviderUnavailable, match="still works") as late:
        await w.strava.uploaded(anna, upload)
    assert late.value.retry_after_s == 30.0
    w.clock.move(300)
    assert await w.strava.uploaded(anna, upload)


@pytest.mark.parametrize(
    ("error", "number"),
    [
        ("run.gpx duplicate of activity 1234", 1234),
        (
            "run.fit duplicate of <a href='/activities/98765432101' target='_blank'>A</a>",
            98765432101,
        ),
        ("activity 77.gpx duplicate of activity 1234", 1234),
        ("run.gpx duplicate of something", None),
        ("Time information is missing from file.", None),
        ("activity 12 is empty", None),
        (None, None),
    ],
)
def test_the_number_in_the_sentence(error: str | None, number: int | None) -> None:
    assert Upload(id=1, error=error).duplicate_of == number


async def test_titles_can_be_changed_later(w: Runners) -> None:
    w.sandbox.settings.strava_activities = {"anna": (run(1, 1),), "ben": (run(2, 1),)}
    anna = await w.credential()
    # Lost once: it is sent again by itself, because twice is once.
    w.sandbox.fault("strava", "lose_answer", 1, method="PUT")
    changed = await w.strava.update(anna, 1, name="Dawn", description="wet", sport_type="TrailRun")
    assert (changed.name, changed.description, changed.sport_type) == ("Dawn", "wet", "TrailRun")
    assert isinstance(await w.strava.activity(anna, 1), Activity)
    assert (await w.strava.update(anna, 1, description="")).description == ""
    with pytest.raises(NoData):
        await w.strava.update(anna, 2, name="mine")


async def test_every_scope_that_was_asked_for_was_given(w: Runners) -> None:
    assert (await w.connect()).scopes == ALL_SCOPES
