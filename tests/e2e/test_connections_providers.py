"""What people did, read from providers, and the cases a score must tell apart: nothing done, no
data, a refused token, an outage."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from causeway.base.errors import (
    ConfigurationError,
    InvalidInput,
    ProviderUnavailable,
    RateLimited,
    TransientError,
)
from causeway.connections.credential import Account, Credential
from causeway.connections.errors import CredentialRefused, NoData
from causeway.connections.neynar import Neynar
from causeway.connections.oauth_state import Started
from causeway.connections.wakatime import is_api_key
from causeway.sandbox.github import account_id
from tests.connections import ALICE, WAKA_KEY, Providers, providers

FIRST, LAST = date(2026, 10, 1), date(2026, 10, 7)


@pytest.fixture(name="w")
async def _providers() -> AsyncIterator[Providers]:
    async with providers() as opened:
        yield opened


@pytest.fixture
async def github(w: Providers) -> Credential:
    return await w.token()


@pytest.fixture
def waka() -> Credential:
    return Credential("wakatime", "api_key", SecretStr(WAKA_KEY))


async def test_contributions_of_every_day(w: Providers, github: Credential) -> None:
    w.sandbox.settings.github_contributions = {
        "alice": {
            FIRST - timedelta(days=1): (90, 9, 9),
            FIRST: (3, 2, 1),
            LAST: (5, 4, 0),
            LAST + timedelta(days=1): (90, 9, 9),
        },
        "mallory": {FIRST: (70, 7, 7)},
    }
    found = await w.github.contributions(github, FIRST, LAST)
    assert found.days == {FIRST + timedelta(days=n): {0: 3, 6: 5}.get(n, 0) for n in range(7)}
    assert (found.commits, found.pull_requests) == (6, 1)
    assert found.account == Account(str(account_id("alice")), "alice")
    (reading,) = found.readings
    assert reading["query"] == {"from": "2026-10-01T00:00:00Z", "to": "2026-10-07T23:59:59Z"}
    assert reading["answer"]["login"] == "alice"


async def test_one_day_and_many_years(w: Providers, github: Credential) -> None:
    assert (await w.github.contributions(github, FIRST, FIRST)).days == {FIRST: 0}
    first, last = date(2023, 6, 1), date(2026, 5, 31)  # a leap day is among them
    w.sandbox.settings.github_contributions = {
        "alice": {first: (1, 1, 0), date(2024, 2, 29): (2, 0, 2), last: (4, 3, 1)}
    }
    found = await w.github.contributions(github, first, last)
    assert len(found.days) == 1096
    assert list(found.days) == sorted(found.days)
    assert sum(found.days.values()) == 7
    assert (found.commits, found.pull_requests) == (4, 3)
    assert len(found.readings) == 4


async def test_a_renamed_account_is_the_same_and_another_one_is_refused(
    w: Providers, github: Credential
) -> None:
    renamed = Credential(
        "github", "oauth", github.token, account=Account(str(account_id("alice")), "old-name")
    )
    assert (await w.github.contributions(renamed, FIRST, LAST)).account.name == "alice"
    other = Credential("github", "oauth", github.token, account=Account("1", "alice"))
    with pytest.raises(CredentialRefused, match="another account"):
        await w.github.contributions(other, FIRST, LAST)


async def test_days_left_out_are_not_days_without_contributions(
    w: Providers, github: Credential
) -> None:
    w.sandbox.fault("github", "lost_days")
    with pytest.raises(ProviderUnavailable, match="left out 3 days"):
        await w.github.contributions(github, FIRST, LAST)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"kind": "graphql_error"}, ProviderUnavailable),
        ({"kind": "graphql_error", "error": "RATE_LIMITED"}, RateLimited),
        ({"kind": "graphql_error", "error": "RATE_LIMIT"}, RateLimited),
        ({"kind": "graphql_error", "error": "FORBIDDEN"}, CredentialRefused),
        ({"kind": "status", "status": 502}, ProviderUnavailable),
        ({"kind": "status", "status": 401}, CredentialRefused),
        ({"kind": "status", "status": 403}, CredentialRefused),
        ({"kind": "status", "status": 403, "headers": {"Retry-After": "90"}}, RateLimited),
        (
            {"kind": "status", "status": 403, "body": '{"message": "You have exceeded a secondary'
             ' rate limit. Please wait a few minutes before you try again."}'},
            RateLimited,
        ),
        ({"kind": "rate_limit", "seconds": 90}, RateLimited),
        ({"kind": "html"}, ProviderUnavailable),
        ({"kind": "html", "status": 403}, ProviderUnavailable),
        ({"kind": "html", "status": 401}, ProviderUnavailable),
        ({"kind": "truncate"}, ProviderUnavailable),
        ({"kind": "short"}, ProviderUnavailable),
        ({"kind": "reset"}, ProviderUnavailable),
        ({"kind": "huge"}, ProviderUnavailable),
        ({"kind": "redirect"}, ProviderUnavailable),
        ({"kind": "redirect", "location": "http://127.0.0.1:1/private"}, ProviderUnavailable),
        ({"kind": "status", "status": 200, "body": '{"data": null}'}, ProviderUnavailable),
        ({"kind": "status", "status": 200, "body": '{"data": {"viewer": null}}'},
         ProviderUnavailable),
        ({"kind": "status", "status": 200, "body": '{"errors": "what"}'}, ProviderUnavailable),
        ({"kind": "status", "status": 200, "body": "[]"}, ProviderUnavailable),
    ],
)  # fmt: skip
async def test_github_s_failures_are_told_apart(
    w: Providers, github: Credential, fault: dict[str, Any], error: type[Exception]
) -> None:
    w.sandbox.fault("github", match="graphql", **fault)
    with pytest.raises(error) as raised:
        await w.github.contributions(github, FIRST, LAST)
    assert isinstance(raised.value, TransientError) == (error is not CredentialRefused)
    assert github.token.get_secret_value() not in str(raised.value)


async def test_used_up_points_are_waited_for_until_the_hour_is_over(
    w: Providers, github: Credential
) -> None:
    w.sandbox.settings.github_per_hour = 3
    for _ in range(3):
        await w.github.contributions(github, FIRST, LAST)
    # The answers said so: nothing is sent in vain.
    with pytest.raises(RateLimited) as limited:
        await w.github.contributions(github, FIRST, LAST)
    assert limited.value.retry_after_s == pytest.approx(3600, abs=2)
    assert w.asked("/github-api/graphql") == 3
    # REST is counted apart, and so is everybody else.
    assert (await w.github.account(github)).name == "alice"
    await w.github.contributions(await w.token("bob"), FIRST, LAST)
    w.clock.move(3601)
    await w.github.contributions(github, FIRST, LAST)


async def test_used_up_by_somebody_else_it_is_learned_from_the_answer(
    w: Providers, github: Credential
) -> None:
    w.sandbox.settings.github_per_hour = 2
    other = Credential("github", "oauth", github.token)
    for _ in range(2):
        await w.github.contributions(other, FIRST, LAST)
    with pytest.raises(RateLimited) as limited:
        await w.github.contributions(github, FIRST, LAST)
    assert limited.value.retry_after_s == pytest.approx(3600, abs=2)


async def test_a_token_taken_back_is_seen_at_once_and_asking_costs_nothing(
    w: Providers, github: Credential
) -> None:
    w.sandbox.settings.github_per_hour = 2
    for _ in range(5):
        assert (await w.github.account(github)).name == "alice"
    assert [e.status for e in w.sandbox.log() if e.path == "/github-api/user"] == [200] + [304] * 4
    w.sandbox.settings.github_revoked = ("alice",)
    with pytest.raises(CredentialRefused):
        await w.github.account(github)


async def test_the_days_are_checked(w: Providers, github: Credential, waka: Credential) -> None:
    for provider, credential in ((w.github.contributions, github), (w.wakatime.summaries, waka)):
        with pytest.raises(InvalidInput, match="after the last"):
            await provider(credential, LAST, FIRST)


async def test_coding_time_of_every_day(w: Providers, waka: Credential) -> None:
    w.sandbox.settings.wakatime_seconds = {"alice": {FIRST: 3600.5, LAST: 1800.25}}
    found = await w.wakatime.summaries(waka, FIRST, LAST)
    assert len(found.days) == 7
    assert (found.days[FIRST], found.days[LAST], found.total_s) == (3600.5, 1800.25, 5400.75)
    assert found.reading["cumulative_total"]["seconds"] == 5400.75
    (entry,) = [e for e in w.sandbox.log() if e.template.endswith("summaries")]
    assert entry.query == {"start": "2026-10-01", "end": "2026-10-07", "timezone": "UTC"}


async def test_coding_time_by_a_token(w: Providers) -> None:
    w.sandbox.settings.wakatime_seconds = {"alice": {FIRST: 60.0}}
    credential = await w.token("alice", "wakatime")
    assert (await w.wakatime.summaries(credential, FIRST, LAST)).total_s == 60
    await w.wakatime.revoke(credential.token)
    await w.wakatime.revoke(credential.token)
    with pytest.raises(CredentialRefused):
        await w.wakatime.account(credential)


async def test_wakatime_s_tokens_are_refreshed(w: Providers) -> None:
    assert w.wakatime.oauth is not None
    url = w.wakatime.oauth.authorization_url(Started("state", "challenge"))
    assert "code_challenge" not in url  # not documented there
    back = await w.visit(url)
    tokens = await w.wakatime.oauth.exchange(back["code"], "")
    assert tokens.scopes == ("read_summaries",)
    assert tokens.expires_at == w.clock.now() + timedelta(days=365)
    assert tokens.refresh_token is not None
    again = await w.wakatime.oauth.refresh(tokens.refresh_token)
    assert again.access_token != tokens.access_token
    with pytest.raises(CredentialRefused, match="invalid_grant"):
        await w.wakatime.oauth.refresh(tokens.refresh_token)


async def test_a_short_history_is_no_data_and_not_zero(w: Providers, waka: Credential) -> None:
    w.sandbox.settings.wakatime_history_days = 28
    with pytest.raises(NoData, match="does not tell of 3 days, the first 2026-10-01"):
        await w.wakatime.summaries(waka, FIRST, LAST)
    assert len((await w.wakatime.summaries(waka, date(2026, 10, 4), LAST)).days) == 4
    w.sandbox.fault("wakatime", "status", count=1, status=402)
    with pytest.raises(NoData, match="plan"):
        await w.wakatime.summaries(waka, FIRST, LAST)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"kind": "status", "status": 500}, ProviderUnavailable),
        ({"kind": "rate_limit"}, RateLimited),
        ({"kind": "redirect", "location": "https://wakatime.com/timeout"}, RateLimited),
        ({"kind": "html"}, ProviderUnavailable),
        ({"kind": "status", "status": 401}, CredentialRefused),
        ({"kind": "status", "status": 403}, CredentialRefused),
        ({"kind": "status", "status": 200, "body": '{"data": [{"grand_total": {"total_seconds":'
          ' -1}, "range": {"date": "2026-10-01"}}]}'}, ProviderUnavailable),
        ({"kind": "status", "status": 200, "body": '{"data": [{"grand_total": {"total_seconds":'
          ' 1e9}, "range": {"date": "2026-10-01"}}]}'}, ProviderUnavailable),
        ({"kind": "status", "status": 200, "body": '{"data": []}'}, NoData),
    ],
)  # fmt: skip
async def test_wakatime_s_failures_are_told_apart(
    w: Providers, waka: Credential, fault: dict[str, Any], error: type[Exception]
) -> None:
    w.sandbox.fault("wakatime", match="summaries", **fault)
    with pytest.raises(error):
        await w.wakatime.summaries(waka, FIRST, LAST)
    assert all(WAKA_KEY not in str(entry.query) + entry.path for entry in w.sandbox.log())


@pytest.mark.parametrize("status", [429, 302])
async def test_wakatime_s_limit_is_an_outage_whatever_it_answers(
    w: Providers, waka: Credential, status: int
) -> None:
    w.sandbox.settings.wakatime_per_5_minutes = 2
    w.sandbox.settings.wakatime_limit_status = status  # pyright: ignore[reportAttributeAccessIssue]
    for _ in range(2):
        await w.wakatime.summaries(waka, FIRST, LAST)
    for _ in range(3):
        with pytest.raises(RateLimited) as limited:
            await w.wakatime.summaries(waka, FIRST, LAST)
        assert limited.value.retry_after_s == pytest.approx(60)
    # Asked once too often, and then not again for a while.
    assert w.asked("/wakatime/api/v1/users/current/summaries") == 3
    w.clock.move(301)
    await w.wakatime.summaries(waka, FIRST, LAST)


async def test_a_wrong_key_is_refused_and_a_right_one_probed(w: Providers) -> None:
    wrong = SecretStr("waka_" + "0" * 30)
    with pytest.raises(CredentialRefused):
        await w.wakatime.account(Credential("wakatime", "api_key", wrong))
    right = Credential("wakatime", "api_key", SecretStr(WAKA_KEY))
    assert (await w.wakatime.account(right)).name == "alice"


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        (WAKA_KEY, True),
        ("waka_" + "a-_9" * 5, True),
        ("waka_short", False),
        ("waka_" + "a" * 19, False),
        ("waka_" + "a" * 500, False),
        (WAKA_KEY.removeprefix("waka_"), False),
        (f" {WAKA_KEY}", False),
        (f"{WAKA_KEY}\n", False),
        ("waka_" + "é" * 20, False),
        ("", False),
    ],
)
def test_the_form_of_an_api_key(text: str, fine: bool) -> None:
    assert is_api_key(text) is fine


BEGIN, END = datetime(2026, 10, 1, 10, tzinfo=UTC), datetime(2026, 10, 3, 10, tzinfo=UTC)


async def test_accounts_of_wallets(w: Providers) -> None:
    wallets = [f"0x{n:040x}" for n in range(800)]
    w.sandbox.settings.neynar_accounts = {wallets[3].upper(): (9, 4), wallets[700]: (12,)}
    found = await w.neynar.accounts([wallet.upper() for wallet in wallets])
    assert found == {wallet: () for wallet in wallets} | {wallets[3]: (4, 9), wallets[700]: (12,)}
    assert w.asked("/neynar/v2/farcaster/user/bulk-by-address/") == 3
    assert await w.neynar.account(wallets[3]) == 4
    with pytest.raises(NoData, match="verified"):
        await w.neynar.account(wallets[0])


async def test_a_verification_alone_is_found(w: Providers) -> None:
    w.sandbox.settings.neynar_accounts = {ALICE: (7,)}
    w.sandbox.fault("neynar", "status", status=404, match="bulk-by-address")
    assert await w.neynar.account(ALICE) == 7


@pytest.mark.parametrize(
    "body",
    ['{"result": {"0xabc": [{"fid": 5}, {"fid": 3}]}}', '{"0xABC": [{"fid": 3}, {"fid": 5}]}'],
)
async def test_accounts_in_either_shape(w: Providers, body: str) -> None:
    w.sandbox.fault("neynar", "status", status=200, body=body)
    assert await w.neynar.accounts(["0xAbc"]) == {"0xabc": (3, 5)}


async def test_casts_of_exactly_the_window(w: Providers) -> None:
    inside = [BEGIN, BEGIN + timedelta(hours=1), END - timedelta(milliseconds=1)]
    outside = [BEGIN - timedelta(milliseconds=1), END, END + timedelta(days=9)]
    w.sandbox.settings.neynar_casts = {5: tuple(inside + outside), 6: ()}
    assert [cast.at for cast in await w.neynar.casts(5, BEGIN, END)] == inside
    assert await w.neynar.casts(6, BEGIN, END) == []
    with pytest.raises(NoData, match="no Farcaster account 77"):
        await w.neynar.casts(77, BEGIN, END)


async def test_the_most_active_are_read_to_the_end(w: Providers) -> None:
    """2,000 casts: more than the first ten pages hold."""
    times = tuple(BEGIN + timedelta(seconds=60 * n) for n in range(2000))
    w.sandbox.settings.neynar_casts = {5: times}
    found = await w.neynar.casts(5, BEGIN, END)
    assert [cast.at for cast in found] == list(times)
    assert len({cast.hash for cast in found}) == 2000


async def test_pages_beyond_the_window_are_not_read(w: Providers) -> None:
    old = tuple(BEGIN - timedelta(seconds=60 * n) for n in range(1, 3000))
    w.sandbox.settings.neynar_casts = {5: (BEGIN, *old)}
    assert [cast.at for cast in await w.neynar.casts(5, BEGIN, END)] == [BEGIN]
    assert w.asked("/neynar/v2/farcaster/feed/user/casts/") == 2


async def test_pages_that_lead_in_circles_are_an_error(w: Providers) -> None:
    w.sandbox.settings.neynar_casts = {5: (BEGIN,)}
    w.sandbox.fault("neynar", "same_page")
    with pytest.raises(ProviderUnavailable, match="same page"):
        await w.neynar.casts(5, BEGIN, END)


@pytest.mark.parametrize(
    "body",
    [
        '{"result": {"casts": [{"hash": "0x1", "timestamp": %s}], "next": {"cursor": null}}}',
        '{"casts": [{"hash": "0x1", "timestamp": %s}, {"hash": "0x1", "timestamp": %s}]}',
    ],
)
@pytest.mark.parametrize(
    "written",
    [
        '"2026-10-01T10:00:00Z"',
        '"2026-10-01T12:00:00.000+02:00"',
        str(int(BEGIN.timestamp())),
        str(int(BEGIN.timestamp() * 1000)),
        f'"{int(BEGIN.timestamp())}"',
    ],
)
async def test_times_and_wrappers_in_every_form(w: Providers, body: str, written: str) -> None:
    w.sandbox.fault("neynar", "status", status=200, body=body.replace("%s", written))
    (cast,) = await w.neynar.casts(5, BEGIN, END)
    assert (cast.hash, cast.at) == ("0x1", BEGIN)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"kind": "status", "status": 500}, ProviderUnavailable),
        ({"kind": "rate_limit", "seconds": 60}, RateLimited),
        ({"kind": "status", "status": 402}, ProviderUnavailable),
        ({"kind": "status", "status": 401}, ConfigurationError),
        ({"kind": "html"}, ProviderUnavailable),
        ({"kind": "status", "status": 200, "body": "[]"}, ProviderUnavailable),
        ({"kind": "status", "status": 200, "body": '{"casts": [{"hash": "0x1"}]}'},
         ProviderUnavailable),
        ({"kind": "status", "status": 200,
          "body": '{"casts": [{"hash": "0x1", "timestamp": "yesterday"}]}'}, ProviderUnavailable),
        ({"kind": "status", "status": 200,
          "body": '{"casts": [{"hash": "0x1", "timestamp": 1e300}]}'}, ProviderUnavailable),
    ],
)  # fmt: skip
async def test_neynar_s_failures_are_told_apart(
    w: Providers, fault: dict[str, Any], error: type[Exception]
) -> None:
    w.sandbox.fault("neynar", **fault)
    with pytest.raises(error):
        await w.neynar.casts(5, BEGIN, END)


async def test_another_casts_address_and_no_key(w: Providers) -> None:
    w.sandbox.settings.neynar_casts = {5: (BEGIN,)}
    neynar = Neynar(
        SecretStr(w.sandbox.settings.neynar_api_key),
        api_url="http://127.0.0.1:9",
        casts_url=f"{w.sandbox.neynar_url}/v2/farcaster/feed/user/casts",
    )
    assert len(await neynar.casts(5, BEGIN, END)) == 1
    await neynar.aclose()
    with pytest.raises(InvalidInput):
        Neynar(SecretStr(""))
