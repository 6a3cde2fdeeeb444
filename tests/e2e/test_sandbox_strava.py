"""The stand-in of Strava answers as developers.strava.com documents, and as people have seen it."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from causeway.sandbox.server import SandboxServer
from causeway.sandbox.settings import SandboxSettings
from tests.connections import HandClock
from tests.strava import GPX

pytest_plugins = ["tests.sandbox_fixtures"]

CLIENT = {"client_id": "12345", "client_secret": "sandbox-strava-secret"}
SCOPE = "activity:read,activity:write"


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture(name="s")
async def _sandbox(clock: HandClock) -> AsyncIterator[SandboxServer]:
    async with SandboxServer.start(settings=SandboxSettings(), clock=clock) as server:
        yield server


async def authorized(
    s: SandboxServer, http: httpx2.AsyncClient, page: str = "authorize", **more: str
) -> dict[str, str]:
    answer = await http.get(
        f"{s.strava_oauth_url}/oauth/{page}",
        params={
            "client_id": "12345",
            "redirect_uri": "https://app.example/cb",
            "response_type": "code",
            "scope": SCOPE,
            "state": "st",
            **more,
        },
    )
    assert answer.status_code == 302
    query = parse_qs(urlsplit(answer.headers["location"]).query)
    return {name: values[0] for name, values in query.items()}


async def token(s: SandboxServer, http: httpx2.AsyncClient, **form: str) -> httpx2.Response:
    return await http.post(f"{s.strava_oauth_url}/oauth/token", data={**CLIENT, **form})


async def bearer(s: SandboxServer, http: httpx2.AsyncClient) -> dict[str, str]:
    back = await authorized(s, http)
    got = (await token(s, http, grant_type="authorization_code", code=back["code"])).json()
    return {"Authorization": f"Bearer {got['access_token']}"}


def wrong(resource: str, field: str, code: str, message: str = "Bad Request") -> dict[str, Any]:
    return {
        "message": message,
        "errors": [{"resource": resource, "field": field, "code": code}],
    }


@pytest.mark.parametrize("page", ["authorize", "mobile/authorize"])
async def test_the_redirect_says_what_was_granted(
    s: SandboxServer, http: httpx2.AsyncClient, page: str
) -> None:
    back = await authorized(s, http, page)
    assert back.pop("code")
    assert back == {"state": "st", "scope": f"read,{SCOPE}"}
    s.settings.strava_unticked = ("activity:write",)
    assert (await authorized(s, http, page))["scope"] == "read,activity:read"
    s.settings.strava_decision = "deny"
    assert await authorized(s, http, page) == {"state": "st", "error": "access_denied"}


async def test_tokens(s: SandboxServer, http: httpx2.AsyncClient, clock: HandClock) -> None:
    back = await authorized(s, http)
    first = await token(s, http, grant_type="authorization_code", code=back["code"])
    body = first.json()
    now = int(clock.now().timestamp())
    assert body["token_type"] == "Bearer"
    assert (body["expires_at"], body["expires_in"]) == (now + 21600, 21600)
    assert body["athlete"]["username"] == "sandbox-runner"
    # While more than an hour is left, a refresh gives the same access token.
    refresh = {"grant_type": "refresh_token", "refresh_token": body["refresh_token"]}
    same = (await token(s, http, **refresh)).json()
    assert "athlete" not in same
    assert (same["access_token"], same["refresh_token"]) == (
        body["access_token"],
        body["refresh_token"],
    )
    clock.move(21600 - 3599)
    new = (await token(s, http, **refresh)).json()
    assert new["access_token"] != body["access_token"]
    assert new["refresh_token"] != body["refresh_token"]
    # "Once a new refresh token code has been returned, the older code will no longer work."
    old = await token(s, http, **refresh)
    assert old.status_code == 400
    assert old.json() == wrong("RefreshToken", "refresh_token", "invalid")


async def test_what_no_token_is_given_for(s: SandboxServer, http: httpx2.AsyncClient) -> None:
    code = await token(s, http, grant_type="authorization_code", code="nothing")
    assert (code.status_code, code.json()) == (400, wrong("AuthorizationCode", "code", "invalid"))
    secret = await token(s, http, grant_type="refresh_token", client_secret="no")
    assert secret.status_code == 401
    assert secret.json() == wrong("Application", "", "invalid", "Authorization Error")


async def test_revocation_is_rfc_7009_with_basic_authentication(
    s: SandboxServer, http: httpx2.AsyncClient
) -> None:
    back = await authorized(s, http)
    got = (await token(s, http, grant_type="authorization_code", code=back["code"])).json()
    url = f"{s.strava_oauth_url}/oauth/revoke"
    form = {"token": got["refresh_token"], "token_type_hint": "refresh_token"}
    refused = await http.post(url, data={**form, **CLIENT})
    assert refused.status_code == 401
    assert s.tokens("strava")
    pair = base64.b64encode(b"12345:sandbox-strava-secret").decode()
    basic = {"Authorization": f"Basic {pair}"}
    for _ in range(2):  # a token that is worth nothing is no error
        assert (await http.post(url, data=form, headers=basic)).status_code == 200
    assert s.tokens("strava") == {}
    gone = await http.get(
        f"{s.strava_api_url}/athlete", headers={"Authorization": f"Bearer {got['access_token']}"}
    )
    assert gone.status_code == 401
    assert gone.json() == wrong("Athlete", "access_token", "invalid", "Authorization Error")


async def test_limits_in_headers_and_at_their_end(
    s: SandboxServer, http: httpx2.AsyncClient, clock: HandClock
) -> None:
    s.settings.strava_limit, s.settings.strava_read_limit = (5, 2000), (3, 1000)
    clock.at = datetime(2026, 11, 1, 12, 14, 59, tzinfo=UTC)
    who = await bearer(s, http)
    for n in (1, 2, 3):
        answer = await http.get(f"{s.strava_api_url}/athlete", headers=who)
        assert answer.status_code == 200
        assert answer.headers["X-RateLimit-Limit"] == "5,2000"
        assert answer.headers["X-RateLimit-Usage"] == f"{n},{n}"
        assert answer.headers["X-ReadRateLimit-Limit"] == "3,1000"
        assert answer.headers["X-ReadRateLimit-Usage"] == f"{n},{n}"
    refused = await http.get(f"{s.strava_api_url}/athlete", headers=who)
    assert refused.status_code == 429
    assert refused.json()["errors"] == [
        {"resource": "Application", "field": "rate limit", "code": "exceeded"}
    ]
    assert "Retry-After" not in refused.headers
    # What is refused counts, too; an upload is no read, and counts for all.
    assert refused.headers["X-ReadRateLimit-Usage"] == "4,4"
    upload = await http.post(
        f"{s.strava_api_url}/uploads",
        data={"data_type": "gpx"},
        files={"file": ("a.gpx", GPX)},
        headers=who,
    )
    assert upload.status_code == 201
    assert upload.headers["X-RateLimit-Usage"] == "5,5"
    assert upload.headers["X-ReadRateLimit-Usage"] == "4,4"
    clock.move(1)
    later = await http.get(f"{s.strava_api_url}/athlete", headers=who)
    assert later.status_code == 200
    assert later.headers["X-RateLimit-Usage"] == "1,6"
    clock.at = datetime(2026, 11, 2, tzinfo=UTC)
    s.settings.strava_token_lifetime_s = 10**6
    who = await bearer(s, http)
    tomorrow = await http.get(f"{s.strava_api_url}/athlete", headers=who)
    assert tomorrow.headers["X-RateLimit-Usage"] == "1,1"


async def test_a_missing_permission(s: SandboxServer, http: httpx2.AsyncClient) -> None:
    s.settings.strava_unticked = ("activity:read",)
    who = await bearer(s, http)
    answer = await http.get(f"{s.strava_api_url}/athlete/activities", headers=who)
    assert answer.status_code == 401
    assert answer.json() == wrong(
        "AccessToken", "activity:read_permission", "missing", "Authorization Error"
    )


async def test_an_activity_and_its_streams(s: SandboxServer, http: httpx2.AsyncClient) -> None:
    series = {"time": [0, 1], "distance": [0.0, 2.5], "heartrate": [120, 121]}
    s.settings.strava_activities = {"sandbox-runner": ({"id": 7, "streams": series},)}
    who = await bearer(s, http)
    (shown,) = (await http.get(f"{s.strava_api_url}/athlete/activities", headers=who)).json()
    assert (shown["resource_state"], shown["sport_type"]) == (2, "Run")
    assert "streams" not in shown
    assert not any(name.startswith("_") for name in shown)
    one = (await http.get(f"{s.strava_api_url}/activities/7", headers=who)).json()
    assert one["resource_state"] == 3
    assert {"description", "calories", "device_name"} <= set(one) - set(shown)
    url = f"{s.strava_api_url}/activities/7/streams"
    by_key = {"keys": "time,cadence", "key_by_type": "true"}
    assert (await http.get(url, params=by_key, headers=who)).json() == {
        "time": {
            "data": [0, 1],
            "series_type": "distance",
            "original_size": 2,
            "resolution": "high",
        },
        "distance": {
            "data": [0.0, 2.5],
            "series_type": "distance",
            "original_size": 2,
            "resolution": "high",
        },
    }
    listed = (await http.get(url, params={"keys": "time"}, headers=who)).json()
    assert [stream["type"] for stream in listed] == ["time", "distance"]
    missing = await http.get(f"{s.strava_api_url}/activities/8", headers=who)
    assert missing.status_code == 404
    assert missing.json()["message"] == "Record Not Found"
    many = await http.get(f"{s.strava_api_url}/athlete/activities?per_page=201", headers=who)
    assert many.status_code == 400


async def test_the_words_of_an_upload(
    s: SandboxServer, http: httpx2.AsyncClient, clock: HandClock
) -> None:
    who = await bearer(s, http)
    url = f"{s.strava_api_url}/uploads"

    async def sent(content: bytes) -> dict[str, Any]:
        answer = await http.post(
            url,
            data={"data_type": "gpx", "external_id": "wisp-1"},
            files={"file": ("a.gpx", content)},
            headers=who,
        )
        assert answer.status_code == 201
        return answer.json()

    async def state(upload: dict[str, Any]) -> dict[str, Any]:
        return (await http.get(f"{url}/{upload['id']}", headers=who)).json()

    first = await sent(GPX)
    assert first == {
        "id": first["id"],
        "id_str": str(first["id"]),
        "external_id": "wisp-1",
        "error": None,
        "status": "Your activity is still being processed.",
        "activity_id": None,
    }
    assert await state(first) == first
    clock.move(1)
    ready = await state(first)
    assert ready["status"] == "Your activity is ready."
    number = ready["activity_id"]
    again = await sent(GPX)
    clock.move(1)
    assert await state(again) == {
        **again,
        "status": "There was an error processing your activity.",
        "error": f"wisp-1 duplicate of <a href='/activities/{number}' target='_blank'>"
        "Morning Run</a>",
    }
    s.strava.activities.delete(number)
    assert (await state(first))["status"] == "The created activity has been deleted."
    bad = await http.post(
        url, data={"data_type": "kml"}, files={"file": ("a.kml", b"")}, headers=who
    )
    assert bad.json() == wrong("Upload", "data_type", "invalid")
    none = await http.post(url, data={"data_type": "gpx"}, headers=who)
    assert none.json() == wrong("Upload", "file", "missing")


async def test_subscriptions(s: SandboxServer, http: httpx2.AsyncClient) -> None:
    url = f"{s.strava_api_url}/push_subscriptions"
    asked = {**CLIENT, "callback_url": "http://127.0.0.1:1/", "verify_token": "t"}
    answer = await http.post(url, data=asked)
    assert answer.status_code == 400
    assert answer.json() == wrong("PushSubscription", "callback url", "not verifiable")
    # An address that answers with something else than the challenge.
    other = await http.post(url, data={**asked, "callback_url": f"{s.control_url}/counts"})
    assert other.json() == wrong("PushSubscription", "callback url", "not verifiable")
    third = await http.post(url, data={**asked, "callback_url": f"{s.url}/nowhere"})
    assert third.json() == wrong(
        "PushSubscription", "callback url", "GET to callback URL does not return 200"
    )
    assert (await http.get(url, params=CLIENT)).json() == []
    assert (await http.get(url)).status_code == 401
    assert (await http.delete(f"{url}/5", params=CLIENT)).status_code == 404


async def test_what_athletes_do_there_over_http(s: SandboxServer, http: httpx2.AsyncClient) -> None:
    s.settings.strava_activities = {"sandbox-runner": ({"id": 7},)}
    who = await bearer(s, http)
    control = f"{s.control_url}/strava"
    assert (await http.delete(f"{control}/activities/7")).status_code == 204
    assert (await http.get(f"{s.strava_api_url}/activities/7", headers=who)).status_code == 404
    assert (await http.delete(f"{control}/activities/7")).status_code == 404
    assert (await http.post(f"{control}/events", json={"times": 0})).status_code == 422
    # Nobody has subscribed: nothing is sent.
    assert (await http.post(f"{control}/events", json={"times": 2})).status_code == 202
    assert s.strava.events.attempts == []
    assert (await http.delete(f"{control}/athletes/sandbox-runner")).status_code == 204
    assert s.tokens("strava") == {}


async def test_secrets_are_in_no_log_of_it(s: SandboxServer, http: httpx2.AsyncClient) -> None:
    await http.get(f"{s.strava_api_url}/push_subscriptions", params=CLIENT)
    await http.get(f"{s.openweather_url}/data/3.0/onecall/timemachine?appid=sandbox-openweather")
    log = (await http.get(f"{s.control_url}/log")).text
    assert "sandbox-strava-secret" not in log
    assert "sandbox-openweather" not in log


async def test_unknown_paths_and_faults_speak_its_words(
    s: SandboxServer, http: httpx2.AsyncClient
) -> None:
    unknown = await http.get(f"{s.strava_api_url}/clubs/1")
    assert (unknown.status_code, unknown.json()["message"]) == (404, "Record Not Found")
    s.fault("strava", "rate_limit", 1)
    full = await http.get(f"{s.strava_api_url}/athlete")
    assert full.status_code == 429
    assert full.json()["errors"][0]["field"] == "rate limit"
