"""The stand-ins of GitHub, WakaTime and Neynar answer as the real ones document."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx2
import pytest

from causeway.sandbox.server import SandboxServer
from causeway.sandbox.settings import SandboxSettings
from tests.connections import HandClock

pytest_plugins = ["tests.sandbox_fixtures"]

VERIFIER = "v" * 64
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=")
CALLBACK = "https://app.example/callback?x=1"
JSON = {"Accept": "application/json"}


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture(name="s")
async def _sandbox(clock: HandClock) -> AsyncIterator[SandboxServer]:
    async with SandboxServer.start(settings=SandboxSettings(), clock=clock) as server:
        yield server


async def authorized(s: SandboxServer, http: httpx2.AsyncClient, **more: str) -> dict[str, str]:
    """Visit GitHub's page; return what the browser brings back."""
    answer = await http.get(
        f"{s.github_oauth_url}/login/oauth/authorize",
        params={
            "client_id": "sandbox-github-client",
            "redirect_uri": CALLBACK,
            "scope": "user:email",
            "state": "st",
            "code_challenge": CHALLENGE.decode(),
            "code_challenge_method": "S256",
            **more,
        },
    )
    assert answer.status_code == 302
    location = answer.headers["location"]
    assert location.startswith(CALLBACK)
    return {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}


async def exchange(
    s: SandboxServer, http: httpx2.AsyncClient, *, as_json: bool = True, **form: str
) -> httpx2.Response:
    data = {
        "client_id": "sandbox-github-client",
        "client_secret": "sandbox-github-secret",
        "code_verifier": VERIFIER,
        **form,
    }
    url = f"{s.github_oauth_url}/login/oauth/access_token"
    return await http.post(url, data=data, headers=JSON if as_json else {})


async def github_token(s: SandboxServer, http: httpx2.AsyncClient) -> dict[str, Any]:
    back = await authorized(s, http)
    return (await exchange(s, http, code=back["code"])).json()


async def graphql(
    s: SandboxServer, http: httpx2.AsyncClient, token: str, query: str, **variables: str
) -> httpx2.Response:
    return await http.post(
        f"{s.github_api_url}/graphql",
        json={"query": query, "variables": variables},
        headers={"Authorization": f"bearer {token}"},
    )


async def test_github_s_tokens(s: SandboxServer, http: httpx2.AsyncClient) -> None:
    back = await authorized(s, http)
    assert back["state"] == "st"
    assert re.fullmatch("[0-9a-f]{20}", back["code"])
    answer = (await exchange(s, http, code=back["code"])).json()
    assert re.fullmatch("gho_[0-9a-f]{36}", answer.pop("access_token"))
    assert answer == {"token_type": "bearer", "scope": "user:email"}
    # Errors come with 200; a code is good once, and only with its verifier.
    again = await exchange(s, http, code=back["code"])
    assert again.status_code == 200
    assert again.json()["error"] == "bad_verification_code"
    assert again.json()["error_description"] == "The code passed is incorrect or expired."
    other = await authorized(s, http)
    wrong = await exchange(s, http, code=other["code"], code_verifier="w" * 64)
    assert wrong.json()["error"] == "bad_verification_code"
    client = await exchange(s, http, code="any", client_secret="wrong")
    assert client.json()["error"] == "incorrect_client_credentials"


async def test_github_answers_a_form_unless_json_is_asked_for(
    s: SandboxServer, http: httpx2.AsyncClient
) -> None:
    back = await authorized(s, http)
    answer = await exchange(s, http, as_json=False, code=back["code"])
    assert answer.headers["content-type"].startswith("application/x-www-form-urlencoded")
    assert set(dict(parse_qsl(answer.text))) == {"access_token", "token_type", "scope"}


async def test_a_code_lasts_ten_minutes(
    s: SandboxServer, http: httpx2.AsyncClient, clock: HandClock
) -> None:
    back = await authorized(s, http)
    clock.move(601)
    answer = (await exchange(s, http, code=back["code"])).json()
    assert answer["error"] == "bad_verification_code"


async def test_a_github_app_s_tokens_expire_and_rotate(
    s: SandboxServer, http: httpx2.AsyncClient, clock: HandClock
) -> None:
    s.settings.github_tokens_expire = True
    first = await github_token(s, http)
    assert re.fullmatch("ghu_[0-9a-f]{36}", first["access_token"])
    assert re.fullmatch("ghr_[0-9a-f]{76}", first["refresh_token"])
    assert (first["expires_in"], first["refresh_token_expires_in"]) == (28800, 15897600)
    assert (first["token_type"], first["scope"]) == ("bearer", "")
    spent = str(first["refresh_token"])

    async def refresh() -> httpx2.Response:
        return await exchange(s, http, grant_type="refresh_token", refresh_token=spent)

    second = (await refresh()).json()
    assert second["refresh_token"] != first["refresh_token"]
    # Used once, both old ones are worth nothing.
    used = await refresh()
    assert (used.status_code, used.json()["error"]) == (200, "bad_refresh_token")
    statuses = [
        (await graphql(s, http, t["access_token"], "{viewer{login}}")).status_code
        for t in (first, second)
    ]
    assert statuses == [401, 200]
    clock.move(28801)
    late = await graphql(s, http, second["access_token"], "{viewer{login}}")
    assert late.status_code == 401


async def test_github_s_page_refuses_and_is_refused(
    s: SandboxServer, http: httpx2.AsyncClient
) -> None:
    s.settings.github_decision = "deny"
    back = await authorized(s, http)
    assert back["error"] == "access_denied"
    assert "code" not in back
    page = f"{s.github_oauth_url}/login/oauth/authorize"
    answer = await http.get(page, params={"client_id": "other", "redirect_uri": CALLBACK})
    assert answer.status_code == 404


async def test_github_s_user_and_its_limit(s: SandboxServer, http: httpx2.AsyncClient) -> None:
    token = (await github_token(s, http))["access_token"]
    s.settings.github_per_hour = 2
    headers = {"Authorization": f"Bearer {token}"}
    url = f"{s.github_api_url}/user"
    first = await http.get(url, headers=headers)
    assert {"login": "sandbox-coder", "type": "User"}.items() <= first.json().items()
    assert isinstance(first.json()["id"], int)
    assert first.headers["x-ratelimit-limit"] == "2"
    assert first.headers["x-ratelimit-remaining"] == "1"
    assert first.headers["x-ratelimit-used"] == "1"
    assert first.headers["x-ratelimit-resource"] == "core"
    assert first.headers["x-ratelimit-reset"] == str(
        int(datetime(2026, 11, 1, 13, tzinfo=UTC).timestamp())
    )
    # A conditional request that finds nothing new is not counted.
    same = await http.get(url, headers=headers | {"If-None-Match": first.headers["etag"]})
    assert (same.status_code, same.headers["x-ratelimit-remaining"]) == (304, "1")
    assert (await http.get(url, headers=headers)).status_code == 200
    spent = await http.get(url, headers=headers)
    assert (spent.status_code, spent.headers["x-ratelimit-remaining"]) == (403, "0")
    assert spent.json()["message"].startswith("API rate limit exceeded for user ID ")
    nobody = await http.get(url, headers={"Authorization": "Bearer gho_nothing"})
    assert nobody.status_code == 401
    assert nobody.json()["message"] == "Bad credentials"


async def test_github_s_secondary_limit(s: SandboxServer, http: httpx2.AsyncClient) -> None:
    s.fault("github", "rate_limit", count=1, seconds=60)
    answer = await http.get(f"{s.github_api_url}/user")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")
    assert answer.json()["message"].startswith("You have exceeded a secondary rate limit")


async def test_github_s_contributions(s: SandboxServer, http: httpx2.AsyncClient) -> None:
    s.settings.github_contributions = {
        "sandbox-coder": {date(2026, 10, 1): (3, 2, 1), date(2026, 10, 4): (1, 1, 0)}
    }
    token = (await github_token(s, http))["access_token"]
    query = """query($from: DateTime!, $to: DateTime!) { viewer { login
      contributionsCollection(from: $from, to: $to) { startedAt totalCommitContributions
        contributionCalendar { totalContributions
          weeks { firstDay contributionDays { date weekday contributionCount } } } } } }"""
    window = {"from": "2026-10-01T00:00:00Z", "to": "2026-10-05T23:59:59Z"}
    answer = await graphql(s, http, token, query, **window)
    assert answer.headers["x-ratelimit-resource"] == "graphql"
    viewer = answer.json()["data"]["viewer"]
    assert list(viewer) == ["login", "contributionsCollection"]
    collection = viewer["contributionsCollection"]
    assert collection["startedAt"] == "2026-10-01T00:00:00Z"
    assert collection["totalCommitContributions"] == 3
    weeks = collection["contributionCalendar"]["weeks"]
    # Weeks begin on Sunday; 1 October 2026 is a Thursday.
    assert [week["firstDay"] for week in weeks] == ["2026-09-27", "2026-10-04"]
    days = [day for week in weeks for day in week["contributionDays"]]
    assert [day["date"] for day in days] == [f"2026-10-0{n}" for n in range(1, 6)]
    assert [day["contributionCount"] for day in days] == [3, 0, 0, 1, 0]
    assert [day["weekday"] for day in days] == [4, 5, 6, 0, 1]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("{ viewer { nickname } }", "Cannot query field 'nickname' on type 'User'"),
        ("{ viewer { login ", "Syntax Error"),
        (
            '{ viewer { contributionsCollection(from: "2025-01-01T00:00:00Z", '
            'to: "2026-02-01T00:00:00Z") { startedAt } } }',
            "The total time spanned by 'from' and 'to' must not exceed 1 year",
        ),
    ],
)
async def test_github_s_graphql_errors_come_with_200(
    s: SandboxServer, http: httpx2.AsyncClient, query: str, said: str
) -> None:
    token = (await github_token(s, http))["access_token"]
    answer = await graphql(s, http, token, query)
    assert answer.status_code == 200
    assert said in answer.json()["errors"][0]["message"]


async def test_github_s_points_used_up_come_with_200(
    s: SandboxServer, http: httpx2.AsyncClient
) -> None:
    token = (await github_token(s, http))["access_token"]
    s.settings.github_per_hour = 1
    await graphql(s, http, token, "{viewer{login}}")
    answer = await graphql(s, http, token, "{viewer{login}}")
    assert answer.status_code == 200
    assert answer.json()["errors"][0]["type"] == "RATE_LIMITED"
    assert answer.headers["x-ratelimit-remaining"] == "0"


async def test_github_takes_a_token_back(s: SandboxServer, http: httpx2.AsyncClient) -> None:
    token = (await github_token(s, http))["access_token"]
    url = f"{s.github_api_url}/applications/sandbox-github-client/token"
    app = httpx2.BasicAuth("sandbox-github-client", "sandbox-github-secret")
    statuses = [
        (await http.request("DELETE", url, json={"access_token": t}, auth=auth)).status_code
        for t, auth in ((token, None), (token, app), (token, app))
    ]
    assert statuses == [401, 204, 404]
    malformed = await http.request("DELETE", url, json={}, auth=app)
    assert malformed.status_code == 422
    assert (await graphql(s, http, token, "{viewer{login}}")).status_code == 401


def basic(key: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(key.encode()).decode()}"}


WAKA = "waka_00000000-0000-4000-8000-000000000000"


async def test_wakatime_s_summaries(s: SandboxServer, http: httpx2.AsyncClient) -> None:
    s.settings.wakatime_seconds = {"sandbox-coder": {date(2026, 10, 2): 5400.5}}
    url = f"{s.wakatime_api_url}/users/current/summaries"
    params = {"start": "2026-10-01", "end": "2026-10-03", "timezone": "UTC"}
    # The key alone, as documented, or as a user name without a password.
    for header in (basic(WAKA), basic(f"{WAKA}:")):
        answer = (await http.get(url, params=params, headers=header)).json()
        assert [d["range"]["date"] for d in answer["data"]] == [f"2026-10-0{n}" for n in (1, 2, 3)]
        assert [d["grand_total"]["total_seconds"] for d in answer["data"]] == [0.0, 5400.5, 0.0]
        assert answer["data"][1]["grand_total"]["text"] == "1 hrs 30 mins"
        assert answer["data"][1]["range"]["timezone"] == "UTC"
        assert answer["cumulative_total"]["seconds"] == 5400.5
    refused = await http.get(url, params=params, headers=basic("waka_wrong"))
    assert (refused.status_code, refused.json()) == (401, {"error": "Unauthorized"})
    for wrong in ({"start": "2026-10-03", "end": "2026-10-01"}, {"start": "x"}, {}):
        assert (await http.get(url, params=wrong, headers=basic(WAKA))).status_code == 400


async def test_wakatime_s_limit(
    s: SandboxServer, http: httpx2.AsyncClient, clock: HandClock
) -> None:
    s.settings.wakatime_per_5_minutes = 1
    url = f"{s.wakatime_api_url}/users/current"
    statuses: list[int] = []
    for status in (429, 302):
        s.settings.wakatime_limit_status = status
        statuses += [(await http.get(url, headers=basic(WAKA))).status_code for _ in range(2)]
        clock.move(300)
    assert statuses == [200, 429, 200, 302]


async def test_wakatime_s_tokens(
    s: SandboxServer, http: httpx2.AsyncClient, clock: HandClock
) -> None:
    page = f"{s.wakatime_oauth_url}/oauth/authorize"
    params = {
        "client_id": "sandbox-wakatime-client",
        "response_type": "code",
        "redirect_uri": "https://app.example/cb",
        "scope": "read_summaries,email",
        "state": "st",
    }
    location = (await http.get(page, params=params)).headers["location"]
    code = parse_qs(urlsplit(location).query)["code"][0]
    client = {"client_id": "sandbox-wakatime-client", "client_secret": "waka_sec_sandbox"}
    form = client | {"grant_type": "authorization_code", "redirect_uri": params["redirect_uri"]}
    token_url = f"{s.wakatime_oauth_url}/oauth/token"
    answer = await http.post(token_url, data=form | {"code": code})
    assert answer.headers["content-type"].startswith("application/x-www-form-urlencoded")
    tokens = dict(parse_qsl(answer.text))
    assert tokens["access_token"].startswith("waka_tok_")
    assert (tokens["token_type"], tokens["expires_in"]) == ("bearer", str(365 * 86_400))
    refresh = client | {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    # The address has to be named again, as the documentation says.
    assert (await http.post(token_url, data=refresh)).status_code == 400


async def test_neynar_s_accounts(s: SandboxServer, http: httpx2.AsyncClient) -> None:
    s.settings.neynar_accounts = {"0xAb": (9, 4)}
    key = {"x-api-key": "sandbox-neynar"}
    base = f"{s.neynar_url}/v2/farcaster"
    by_address = await http.get(f"{base}/user/bulk-by-address/?addresses=0xAB,0xcd", headers=key)
    assert list(by_address.json()) == ["0xab"]
    assert [user["fid"] for user in by_address.json()["0xab"]] == [9, 4]
    nobody = await http.get(f"{base}/user/bulk-by-address?addresses=0xcd", headers=key)
    assert (nobody.status_code, nobody.json()["code"]) == (404, "NotFound")
    users = await http.get(f"{base}/user/bulk?fids=4,5", headers=key)
    assert [user["fid"] for user in users.json()["users"]] == [4]
    verified = await http.get(f"{base}/verification/by-address?address=0xAB", headers=key)
    assert [user["fid"] for user in verified.json()["users"]] == [9, 4]
    many = ",".join(f"0x{n}" for n in range(351))
    too_many = await http.get(f"{base}/user/bulk-by-address?addresses={many}", headers=key)
    assert too_many.status_code == 400
    refused = await http.get(f"{base}/user/bulk?fids=4")
    assert (refused.status_code, refused.json()["message"]) == (401, "Incorrect or missing API key")
    assert "sandbox-neynar" not in str([entry.headers for entry in s.log()])


async def test_neynar_s_casts(s: SandboxServer, http: httpx2.AsyncClient, clock: HandClock) -> None:
    begin = datetime(2026, 10, 1, tzinfo=UTC)
    s.settings.neynar_casts = {5: tuple(begin + timedelta(minutes=n) for n in range(200))}
    key = {"x-api-key": "sandbox-neynar"}
    url = f"{s.neynar_url}/v2/farcaster/feed/user/casts/?fid=5&limit=150&include_replies=true"
    first = (await http.get(url, headers=key)).json()
    assert len(first["casts"]) == 150
    assert first["casts"][0]["timestamp"] == "2026-10-01T03:19:00.000Z"
    assert re.fullmatch("0x[0-9a-f]{40}", first["casts"][0]["hash"])
    assert first["casts"][0]["author"]["fid"] == 5
    second = (await http.get(f"{url}&cursor={first['next']['cursor']}", headers=key)).json()
    assert len(second["casts"]) == 50
    assert second["next"] == {"cursor": None}
    assert len({cast["hash"] for cast in first["casts"] + second["casts"]}) == 200
    assert (await http.get(url.replace("150", "151"), headers=key)).status_code == 400
    assert (await http.get(url.replace("fid=5", "fid=6"), headers=key)).status_code == 404
    s.settings.neynar_per_minute = 4
    limited = await http.get(url, headers=key)
    assert (limited.status_code, limited.json()["code"]) == (429, "RateLimited")
    assert 0 < int(limited.headers["retry-after"]) <= 60
    clock.move(61)
    assert (await http.get(url, headers=key)).status_code == 200


async def test_a_reset_forgets_how_often_was_asked(
    s: SandboxServer, http: httpx2.AsyncClient
) -> None:
    token = (await github_token(s, http))["access_token"]
    s.settings.github_per_hour = 1
    s.settings.wakatime_per_5_minutes = 1
    s.settings.neynar_per_minute = 1
    requests: list[tuple[str, dict[str, str]]] = [
        (f"{s.github_api_url}/user", {"Authorization": f"Bearer {token}"}),
        (f"{s.wakatime_api_url}/users/current", basic(WAKA)),
        (f"{s.neynar_url}/v2/farcaster/user/bulk?fids=1", {"x-api-key": "sandbox-neynar"}),
    ]
    for expected in ([200, 200, 200], [403, 429, 429]):
        assert [(await http.get(u, headers=h)).status_code for u, h in requests] == expected
    s.reset()
    assert {(await http.get(u, headers=h)).status_code for u, h in requests} == {200}
