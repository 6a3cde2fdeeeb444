"""Linking X and Farcaster accounts: our clients against the stand-ins, over real connections."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from eth_abi.abi import encode
from eth_account import Account
from eth_account.messages import encode_defunct
from eth_utils.crypto import keccak
from pydantic import SecretStr

from causeway.apps.glisk import linking_x
from causeway.apps.glisk.linking_farcaster import FarcasterLinker, FarcasterRefused
from causeway.apps.glisk.linking_x import XClient, XLinkFailed, profile_url
from causeway.auth.eip4361 import SignInText
from causeway.base.clock import iso
from causeway.base.errors import ProviderUnavailable
from causeway.base.http import HttpClient
from causeway.chains.evm.chain import EvmChain
from causeway.chains.pool import Endpoint, ProviderPool, SecretUrl
from causeway.connections import oauth_state
from causeway.sandbox.anvil import AnvilNode
from causeway.sandbox.server import SandboxServer
from causeway.store.engine import Database

pytest_plugins = ["tests.sandbox_fixtures"]

WALLET = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
CALLBACK = "https://api.glisk.example/api/authors/x/callback"
BUILD = Path(__file__).parents[2] / "contracts" / "build"


# X


@pytest.fixture
async def x(sandbox: SandboxServer) -> AsyncGenerator[XClient]:
    client = HttpClient(name="x", base_url=sandbox.x_url, timeout_s=5)
    yield XClient(
        client,
        client_id=sandbox.settings.x_client_id,
        client_secret=SecretStr(sandbox.settings.x_client_secret),
        redirect_uri=CALLBACK,
        authorize_url=sandbox.x_authorize_url,
    )
    await client.aclose()


async def decide(http: httpx2.AsyncClient, url: str) -> dict[str, str]:
    """Go to X's page, and return what the browser brings to the callback."""
    answer = await http.get(url)
    assert answer.status_code == 302, answer.text
    back = answer.headers["location"]
    assert back.startswith(CALLBACK + "?")
    return {name: values[0] for name, values in parse_qs(urlsplit(back).query).items()}


async def finish(database: Database, x: XClient, back: dict[str, str]) -> tuple[str, str]:
    return await linking_x.finish(
        database, x, code=back.get("code"), state=back.get("state"), error=back.get("error")
    )


async def refused(database: Database, x: XClient, back: dict[str, str]) -> str:
    with pytest.raises(XLinkFailed) as failed:
        await finish(database, x, back)
    return failed.value.code


def test_the_authorization_address_is_exactly_the_published_one() -> None:
    x = XClient(
        HttpClient(name="x", base_url="https://api.x.com"),
        client_id="id",
        client_secret=SecretStr("secret"),
        redirect_uri=CALLBACK,
    )
    assert x.authorization_url(oauth_state.Started("st", "ch")) == (
        "https://x.com/i/oauth2/authorize?response_type=code&client_id=id"
        "&redirect_uri=https%3A%2F%2Fapi.glisk.example%2Fapi%2Fauthors%2Fx%2Fcallback"
        "&scope=tweet.read%20users.read&state=st&code_challenge=ch&code_challenge_method=S256"
    )


async def test_an_x_account_is_linked_once(
    database: Database, sandbox: SandboxServer, http: httpx2.AsyncClient, x: XClient
) -> None:
    sandbox.settings.x_username = "Glisk_Author"
    started = await oauth_state.start(database, linking_x.ACTION, WALLET)
    back = await decide(http, x.authorization_url(started))
    assert await finish(database, x, back) == (WALLET, "Glisk_Author")
    assert await refused(database, x, back) == "state_mismatch"
    requests = sandbox.counts().requests["x"]
    assert requests["POST /x/2/oauth2/token"] == 1
    assert requests["GET /x/2/users/me"] == 1


async def test_a_callback_that_is_not_ours_links_nothing(
    database: Database, sandbox: SandboxServer, http: httpx2.AsyncClient, x: XClient
) -> None:
    first = await oauth_state.start(database, linking_x.ACTION, WALLET)
    second = await oauth_state.start(database, linking_x.ACTION, "somebody else")
    back = await decide(http, x.authorization_url(first))
    assert await refused(database, x, {"code": back["code"]}) == "missing_params"
    assert await refused(database, x, {"state": back["state"]}) == "missing_params"
    assert await refused(database, x, {}) == "missing_params"
    assert await refused(database, x, back | {"state": "forged"}) == "state_mismatch"
    # A code and a state that do not belong together: PKCE has X refuse the code.
    assert await refused(database, x, back | {"state": second.state}) == "token_exchange_failed"
    # X gives nothing for a code that was tried.
    assert await refused(database, x, back) == "token_exchange_failed"
    assert "GET /x/2/users/me" not in sandbox.counts().requests["x"]


async def test_a_person_who_declines_is_told_so_and_the_state_is_used_up(
    database: Database, sandbox: SandboxServer, http: httpx2.AsyncClient, x: XClient
) -> None:
    sandbox.settings.x_decision = "deny"
    started = await oauth_state.start(database, linking_x.ACTION, WALLET)
    back = await decide(http, x.authorization_url(started))
    assert await refused(database, x, back) == "access_denied"
    assert await refused(database, x, {"state": back["state"], "code": "x"}) == "state_mismatch"
    strange = {"error": "<script>", "state": "x"}
    assert await refused(database, x, strange) == "unexpected_error"


async def test_whatever_x_does_ends_in_a_known_code(
    database: Database, sandbox: SandboxServer, http: httpx2.AsyncClient, x: XClient
) -> None:
    async def attempt(match: str, kind: Any, **more: Any) -> str:
        started = await oauth_state.start(database, linking_x.ACTION, WALLET)
        back = await decide(http, x.authorization_url(started))
        sandbox.fault("x", kind, 1, match=match, **more)
        return await refused(database, x, back)

    for path, code in (
        ("oauth2/token", "token_exchange_failed"),
        ("users/me", "validation_failed"),
    ):
        assert await attempt(path, "status", status=503) == code
        assert await attempt(path, "status", status=403) == code
        assert await attempt(path, "rate_limit") == code
        assert await attempt(path, "html") == code
        assert await attempt(path, "reset") == code
        assert await attempt(path, "truncate") == code
        assert await attempt(path, "status", status=200, body='{"data":[]}') == code
    name = '{"data":{"username":"a\\u0000<b>"}}'
    assert await attempt("users/me", "status", status=200, body=name) == "validation_failed"


async def test_a_wrong_client_secret_buys_nothing_and_is_not_shown(
    database: Database, sandbox: SandboxServer, http: httpx2.AsyncClient, x: XClient
) -> None:
    started = await oauth_state.start(database, linking_x.ACTION, WALLET)
    back = await decide(http, x.authorization_url(started))
    sandbox.settings.x_client_secret = "another"
    with pytest.raises(XLinkFailed) as failed:
        await finish(database, x, back)
    assert failed.value.code == "token_exchange_failed"
    assert "sandbox-x-secret" not in repr(failed.value) + repr(x)


def test_the_browser_is_sent_back_with_the_outcome() -> None:
    assert profile_url("https://glisk.example/", username="a_b") == (
        "https://glisk.example/profile?tab=author&x_linked=true&username=a_b"
    )
    assert profile_url("https://glisk.example", error="access_denied") == (
        "https://glisk.example/profile?tab=author&x_linked=false&error=access_denied"
    )


# Farcaster

SITE = "https://glisk.example"
FID = 1001
CUSTODY = Account.from_key("0x" + "33" * 32)
AUTH = Account.from_key("0x" + "44" * 32)
STRANGER = Account.from_key("0x" + "55" * 32)
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@dataclass
class Registries:
    """The two registries on a node of their own, which stands for Optimism."""

    node: AnvilNode
    chain: EvmChain
    ids: str
    keys: str

    async def send(self, to: str | None, data: bytes) -> Any:
        transaction = {"from": self.node.accounts[0].address, "data": "0x" + data.hex()}
        sent = await self.node.rpc(
            "eth_sendTransaction", transaction | ({} if to is None else {"to": to})
        )
        async with asyncio.timeout(10):
            while (receipt := await self.node.rpc("eth_getTransactionReceipt", sent)) is None:
                await asyncio.sleep(0.005)
        assert receipt["status"] == "0x1"
        return receipt

    async def register(self, custody: str, fid: int) -> None:
        arguments = encode(["address", "uint256"], [custody, fid])
        await self.send(self.ids, keccak(text="register(address,uint256)")[:4] + arguments)

    async def set_key(self, fid: int, address: str, state: int, kind: int) -> None:
        key = encode(["address"], [address])
        arguments = encode(["uint256", "bytes", "uint8", "uint32"], [fid, key, state, kind])
        await self.send(self.keys, keccak(text="set(uint256,bytes,uint8,uint32)")[:4] + arguments)


@pytest.fixture
async def registries(anvil: AnvilNode) -> AsyncGenerator[Registries]:
    pool = ProviderPool([Endpoint(SecretUrl(anvil.url), "anvil")], timeout_s=5)
    made = Registries(anvil, EvmChain("optimism", anvil.chain_id, pool), "", "")
    for name, place in (("TestIdRegistry", "ids"), ("TestKeyRegistry", "keys")):
        code = json.loads((BUILD / f"{name}.json").read_text())["bytecode"]
        receipt = await made.send(None, bytes.fromhex(code[2:]))
        setattr(made, place, receipt["contractAddress"])
    await made.register(CUSTODY.address, FID)
    yield made
    await made.chain.close()


@pytest.fixture
async def fnames(sandbox: SandboxServer) -> AsyncGenerator[HttpClient]:
    client = HttpClient(name="farcaster", base_url=sandbox.fnames_url, timeout_s=5)
    yield client
    await client.aclose()


def linker(registries: Registries, http: HttpClient) -> FarcasterLinker:
    return FarcasterLinker(
        http,
        registries.chain,
        site=SITE,
        id_registry=registries.ids,
        key_registry=registries.keys,
    )


def text_of(signer: Any = CUSTODY, **changed: Any) -> str:
    said: dict[str, Any] = {
        "domain": "glisk.example",
        "address": signer.address,
        "statement": "Farcaster Auth",
        "uri": "https://glisk.example/login",
        "chain_id": 10,
        "nonce": "abcdefgh12345678",
        "issued_at": iso(NOW),
        "expiration_time": iso(NOW + timedelta(minutes=10)),
        "resources": (f"farcaster://fid/{FID}",),
    }
    return str(SignInText(**said | changed))


def sign(message: str, by: Any = CUSTODY) -> str:
    return "0x" + bytes(by.sign_message(encode_defunct(text=message)).signature).hex()


async def part(linker: FarcasterLinker, message: str, signature: str, **changed: Any) -> str:
    claimed: dict[str, Any] = {"fid": FID, "username": "sandbox-author", "now": NOW}
    with pytest.raises(FarcasterRefused) as failed:
        await linker.check(message, signature, **claimed | changed)
    return failed.value.part


async def test_a_farcaster_account_is_linked_by_its_custody_or_auth_address(
    registries: Registries, fnames: HttpClient
) -> None:
    check = linker(registries, fnames)
    message = text_of()
    found = await check.check(message, sign(message), fid=FID, username="Sandbox-Author", now=NOW)
    assert (found.fid, found.username, found.signer) == (FID, "sandbox-author", CUSTODY.address)
    assert found.nonce == "abcdefgh12345678"

    message = text_of(AUTH, resources=(f"farcaster://fid/{FID}", "farcaster://signer/type/custody"))
    assert await part(check, message, sign(message, AUTH)) == "signer"
    for state, kind in ((1, 1), (2, 2), (0, 2)):  # an app's key, a removed one, none
        await registries.set_key(FID, AUTH.address, state, kind)
        assert await part(check, message, sign(message, AUTH)) == "signer"
    await registries.set_key(FID, AUTH.address, 1, 2)
    found = await check.check(
        message, sign(message, AUTH), fid=FID, username="sandbox-author", now=NOW
    )
    assert found.signer == AUTH.address


async def test_nobody_links_what_is_not_theirs(
    registries: Registries, sandbox: SandboxServer, fnames: HttpClient
) -> None:
    check = linker(registries, fnames)
    message = text_of()
    # Somebody else's signature under the owner's address, and an owner of another fid.
    assert await part(check, message, sign(message, STRANGER)) == "signature"
    theirs = text_of(STRANGER)
    assert await part(check, theirs, sign(theirs, STRANGER)) == "signer"
    await registries.register(STRANGER.address, 2002)
    assert await part(check, theirs, sign(theirs, STRANGER)) == "signer"
    # Names: of another fid, of nobody, and one that was given away.
    sandbox.settings.farcaster_transfers = (
        ("sandbox-author", 0, FID),
        ("dwr", 0, 3),
        ("moved", 0, FID),
        ("moved", FID, 3),
        ("given-up", 0, FID),
        ("given-up", FID, 0),
        ("alice.eth", 0, 3),
    )
    for name in ("dwr", "nobody", "moved", "given-up", "alice.eth.x/../y", "", "a b", "ä"):
        assert await part(check, message, sign(message), username=name) == "username"
    assert await part(check, message, sign(message), fid=3) == "message"


@pytest.mark.parametrize(
    "changed",
    [
        {"domain": "evil.example"},
        {"domain": "glisk.example:8080"},
        {"chain_id": 1},
        {"expiration_time": iso(NOW)},
        {"not_before": iso(NOW + timedelta(seconds=1))},
        {"resources": None},
        {"resources": ()},
        {"resources": ("farcaster://fid/1002",)},
        {"resources": ("farcaster://fid/1001", "farcaster://fid/1002")},
        {"resources": ("farcaster://fid/01001",)},
        {"resources": ("https://evil.example/farcaster://fid/1001",)},
    ],
)
async def test_a_text_that_says_something_else_is_refused_unasked(changed: dict[str, Any]) -> None:
    client = HttpClient(name="farcaster", base_url="http://127.0.0.1:9")
    check = FarcasterLinker(client, None, site=SITE)
    message = text_of(**changed)
    assert await part(check, message, sign(message)) == "message"
    assert await part(check, "no such text", "0x") == "message"
    await client.aclose()


async def test_ens_names_are_asked_of_a_hub(
    registries: Registries, sandbox: SandboxServer, fnames: HttpClient
) -> None:
    sandbox.settings.farcaster_transfers = (("alice.eth", 0, FID), ("bob", 0, FID), ("c.eth", 0, 3))
    message = text_of()
    hub = HttpClient(name="farcaster", base_url=sandbox.hub_url, timeout_s=5)
    check = linker(registries, hub)
    for name in ("alice.eth", "bob"):
        found = await check.check(message, sign(message), fid=FID, username=name, now=NOW)
        assert found.username == name
    assert await part(check, message, sign(message), username="c.eth") == "username"
    with pytest.raises(ProviderUnavailable):
        await linker(registries, fnames).check(
            message, sign(message), fid=FID, username="alice.eth", now=NOW
        )
    await hub.aclose()


async def test_nothing_is_linked_while_it_cannot_be_checked(
    registries: Registries, sandbox: SandboxServer, fnames: HttpClient
) -> None:
    check = linker(registries, fnames)
    message = text_of()

    async def unavailable(check: FarcasterLinker) -> None:
        with pytest.raises(ProviderUnavailable):
            await check.check(message, sign(message), fid=FID, username="sandbox-author", now=NOW)

    faults: list[tuple[Any, dict[str, Any]]] = [
        ("status", {"status": 500}),
        ("status", {"status": 401}),
        ("rate_limit", {}),
        ("html", {}),
        ("reset", {}),
        ("truncate", {}),
        ("status", {"status": 200, "body": "{}"}),
    ]
    for kind, more in faults:
        sandbox.fault("farcaster", kind, 1, **more)
        await unavailable(check)
    # The wrong chain, or none: nothing there, or nobody there.
    elsewhere = FarcasterLinker(fnames, registries.chain, site=SITE, id_registry=STRANGER.address)
    await unavailable(elsewhere)
    await unavailable(FarcasterLinker(fnames, None, site=SITE))
    await registries.node.stop()
    await unavailable(check)
