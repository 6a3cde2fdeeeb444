"""Who may link and let go: signatures of keys and of contract wallets, over HTTP."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from eth_abi.abi import encode
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from causeway.base import logging
from causeway.sandbox.anvil import AnvilNode, DevAccount
from causeway.sandbox.motify_chain import MotifyContract, people
from tests.glisk_app import personal_sign, until
from tests.motify_app import (
    WAKA_KEY,
    Served,
    connecting,
    disconnecting,
    moment,
    served_motify,
)

pytestmark = [pytest.mark.asyncio(loop_scope="module")]

ANN, BOB = people(2)
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
BUILD = Path(__file__).parents[2] / "contracts" / "build"
NO_MATCH = (401, "Signature does not match wallet address")
STALE = (401, "Signature timestamp is too old or in the future")
USED = (401, "Signature was already used")

#: Serves Motify with these settings.
Serve = Callable[..., AbstractAsyncContextManager[Served]]


@pytest_asyncio.fixture(name="contract", scope="module", loop_scope="module")
async def _contract() -> AsyncGenerator[MotifyContract]:
    async with AnvilNode.start() as node:
        yield await MotifyContract.deploy(node)


@pytest.fixture(name="serve")
def _serve(database_url: str, contract: MotifyContract, monkeypatch: pytest.MonkeyPatch) -> Serve:
    return partial(served_motify, database_url, contract.node, contract, monkeypatch)


@pytest_asyncio.fixture(name="m", loop_scope="module")
async def _served(serve: Serve) -> AsyncGenerator[Served]:
    async with serve() as served:
        yield served


def told(answer: httpx2.Response) -> tuple[int, str]:
    """Return status and detail of a refusal."""
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["detail"]


def message(wallet: str, at: int, provider: str = "github") -> str:
    return f"Connect OAuth provider {provider} to wallet {wallet.lower()} at {at}"


async def connect(m: Served, wallet: str, at: int | str, signature: str) -> httpx2.Response:
    query = {"wallet_address": wallet, "signature": signature, "timestamp": at}
    return await m.get("/oauth/connect/github", **query)


async def test_a_key_signs_in_every_form(m: Served) -> None:
    forms: list[Callable[[str], str]] = [
        str,
        lambda s: s[2:],
        lambda s: "0x" + s[2:].upper(),
        lambda s: s[:-2] + f"{int(s[-2:], 16) - 27:02x}",
        compact,
    ]
    for form in forms:
        at = moment()
        signature = form(personal_sign(ANN, message(ANN.address, at)))
        answer = await connect(m, ANN.address, at, signature)
        assert answer.status_code == 200, answer.text


def compact(signature: str) -> str:
    """Write 65 bytes as 64 (EIP-2098)."""
    parity = int(signature[-2:], 16) - 27
    s = int(signature[66:130], 16) | parity << 255
    return signature[:66] + f"{s:064x}"


async def test_the_wallet_may_be_written_in_any_case(m: Served) -> None:
    for wallet in (ANN.address, ANN.address.lower(), "0x" + ANN.address[2:].upper()):
        query = connecting(ANN, "github")
        answer = await m.get("/oauth/connect/github", **query | {"wallet_address": wallet})
        assert answer.status_code == 200, answer.text


async def test_the_providers_spelling_of_the_path_may_be_signed(m: Served) -> None:
    for path, signed in (("GitHub", "GitHub"), ("GitHub", "github"), ("github", "github")):
        answer = await m.get(f"/oauth/connect/{path}", **connecting(ANN, signed))
        assert answer.status_code == 200, answer.text
    other = await m.get("/oauth/connect/github", **connecting(ANN, "GitHub"))
    assert told(other) == NO_MATCH


@pytest.mark.parametrize("offset", [-301, -86_400, 302, 10**9, -(10**9)])
async def test_old_and_future_signatures_are_refused(m: Served, offset: int) -> None:
    at = int(time.time()) + offset
    answer = await m.get("/oauth/connect/github", **connecting(ANN, "github", at))
    assert told(answer) == STALE
    # Also before anything is looked at that is signed.
    assert told(await connect(m, ANN.address, at, "no hex")) == STALE


@pytest.mark.parametrize("offset", [-295, 295])
async def test_clocks_may_be_five_minutes_apart(m: Served, offset: int) -> None:
    at = int(time.time()) + offset
    answer = await m.get("/oauth/connect/github", **connecting(ANN, "github", at))
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "signature",
    ["", "0x", "hello", "0x123", "0x" + "zz" * 65, "0x" + "ab" * 16_385, "0x" + " 1" * 65],
)
async def test_what_is_no_signature_is_told_so(m: Served, signature: str) -> None:
    answer = await connect(m, ANN.address, moment(), signature)
    status, detail = told(answer)
    if signature == "0x":
        assert (status, detail) == NO_MATCH
        return
    assert status == 400
    assert detail.startswith("Invalid signature format: ")
    assert "ab" * 20 not in detail


@pytest.mark.parametrize("length", [1, 63, 64, 65, 66, 128, 16_384])
async def test_bytes_that_nobody_signed_are_refused(m: Served, length: int) -> None:
    answer = await connect(m, ANN.address, moment(), "0x" + "11" * length)
    assert told(answer) == NO_MATCH


async def test_the_twin_of_a_signature_is_refused(m: Served) -> None:
    at = moment()
    good = personal_sign(ANN, message(ANN.address, at))
    high = f"{ORDER - int(good[66:130], 16):064x}"
    twin = good[:66] + high + ("1b" if good.endswith("1c") else "1c")
    assert told(await connect(m, ANN.address, at, twin)) == NO_MATCH
    assert (await connect(m, ANN.address, at, good)).status_code == 200


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ({}, {"wallet_address", "signature", "timestamp"}),
        ({"wallet_address": "0x12", "signature": "0x12", "timestamp": "1"}, {"wallet_address"}),
        ({"wallet_address": "%", "signature": "0x12", "timestamp": "1"}, {"wallet_address"}),
        ({"wallet_address": ANN.address, "signature": "0x12", "timestamp": "x"}, {"timestamp"}),
        ({"wallet_address": ANN.address, "signature": "0x12", "timestamp": "-1"}, {"timestamp"}),
        ({"wallet_address": ANN.address, "signature": "1", "timestamp": "9" * 400}, {"timestamp"}),
    ],
)
async def test_input_that_is_none_is_named(
    m: Served, query: dict[str, str], fields: set[str]
) -> None:
    answer = await m.get("/oauth/connect/github", **query)
    assert answer.status_code == 422
    assert {error["field"] for error in answer.json()["errors"]} == fields
    assert isinstance(answer.json()["detail"], str)


async def test_a_signature_is_for_one_wallet_provider_action_and_time(m: Served) -> None:
    query = connecting(ANN, "github")
    wallet, at, signature = (query[name] for name in ("wallet_address", "timestamp", "signature"))
    others: list[dict[str, Any]] = [
        {"wallet_address": BOB.address},
        {"timestamp": at + 1},
    ]
    for change in others:
        answer = await m.get("/oauth/connect/github", **query | change)
        assert told(answer) == NO_MATCH
    path = f"/oauth/disconnect/github/{wallet}"
    proof = {"signature": signature, "timestamp": at}
    assert told(await m.http.delete(path, params=proof)) == NO_MATCH
    answer = await m.http.post(
        "/oauth/wakatime/api-key", json=proof | {"wallet_address": wallet, "api_key": WAKA_KEY}
    )
    assert told(answer) == NO_MATCH
    assert told(await m.get(f"/challenges/0/evidence/{wallet}", **proof)) == NO_MATCH
    # None of these tries used it up.
    assert (await m.get("/oauth/connect/github", **query)).status_code == 200
    assert told(await m.get("/oauth/connect/github", **query)) == USED


async def test_another_domains_text_is_none_of_ours(m: Served) -> None:
    """A signature for the same words in another text (EIP-4361, a prefix, a newline) is none."""
    at = moment()
    ours = message(ANN.address, at)
    for text in (
        f"evil.example wants you to sign in with your Ethereum account:\n{ANN.address}\n\n{ours}",
        ours + "\n",
        " " + ours,
        ours.replace(ANN.address.lower(), ANN.address),
        ours.replace("Connect", "connect"),
    ):
        assert told(await connect(m, ANN.address, at, personal_sign(ANN, text))) == NO_MATCH


async def test_of_many_at_once_one_is_accepted(m: Served) -> None:
    query = connecting(ANN, "github")
    answers = await asyncio.gather(*[m.get("/oauth/connect/github", **query) for _ in range(8)])
    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 7


async def test_the_same_signature_in_another_form_was_used_too(m: Served) -> None:
    at = moment()
    signature = personal_sign(ANN, message(ANN.address, at))
    assert (await connect(m, ANN.address, at, signature)).status_code == 200
    assert told(await connect(m, ANN.address.lower(), at, compact(signature))) == USED


async def test_unknown_providers_are_refused(m: Served) -> None:
    wallet = ANN.address
    for answer in (
        await m.get("/oauth/connect/Gitlab", **connecting(ANN, "gitlab")),
        await m.get(f"/oauth/status/Gitlab/{wallet}"),
        await m.http.delete(
            f"/oauth/disconnect/Gitlab/{wallet}", params=disconnecting(ANN, "gitlab")
        ),
    ):
        assert told(answer) == (400, "Provider 'gitlab' not supported")


@dataclass
class Wallets:
    """A contract wallet of ANN, and one that is not deployed yet."""

    node: AnvilNode
    factory: str
    deployed: str
    future: str

    def wrapped(self, signature: str, owner: DevAccount = ANN) -> str:
        """Return a signature as ERC-6492 wraps it."""
        calldata = function("deploy(address,bytes32)", owner.address, SALT)
        inner = bytes.fromhex(signature[2:])
        kinds = ["address", "bytes", "bytes"]
        return "0x" + encode(kinds, [self.factory, calldata, inner]).hex() + "6492" * 16


SALT = b"\x07" * 32


def function(signature: str, *values: Any) -> bytes:
    kinds = signature[signature.index("(") + 1 : -1].split(",")
    return keccak(text=signature)[:4] + encode(kinds, values)


def bytecode(name: str) -> str:
    return json.loads((BUILD / f"{name}.json").read_text())["bytecode"]


@pytest_asyncio.fixture(name="wallets", scope="module", loop_scope="module")
async def _wallets(contract: MotifyContract) -> Wallets:
    node = contract.node

    async def deployed(code: str) -> str:
        sender = node.accounts[3].address
        sent = {"from": sender, "data": code, "gas": hex(3_000_000)}
        tx_hash = await node.rpc("eth_sendTransaction", sent)
        async with asyncio.timeout(10):
            while (receipt := await node.rpc("eth_getTransactionReceipt", tx_hash)) is None:
                await asyncio.sleep(0.005)
        return str(to_checksum_address(receipt["contractAddress"]))

    factory = await deployed(bytecode("ContractWalletFactory"))
    wallet = await deployed(bytecode("ContractWallet") + encode(["address"], [ANN.address]).hex())
    asked = function("addressOf(address,bytes32)", ANN.address, SALT)
    answer = await node.rpc("eth_call", {"to": factory, "data": "0x" + asked.hex()}, "latest")
    return Wallets(node, factory, wallet, str(to_checksum_address("0x" + answer[-40:])))


async def test_a_contract_wallet_signs(m: Served, wallets: Wallets) -> None:
    at = moment()
    text = message(wallets.deployed, at)
    assert told(await connect(m, wallets.deployed, at, personal_sign(BOB, text))) == NO_MATCH
    assert told(await connect(m, wallets.deployed, at, "0x1234")) == NO_MATCH
    good = personal_sign(ANN, text)
    assert (await connect(m, wallets.deployed, at, good)).status_code == 200
    assert told(await connect(m, wallets.deployed, at, good)) == USED


async def test_a_wallet_that_is_not_deployed_yet_signs(m: Served, wallets: Wallets) -> None:
    at = moment()
    text = message(wallets.future, at)
    good = personal_sign(ANN, text)
    for bad in (
        good,
        wallets.wrapped(personal_sign(BOB, text)),
        wallets.wrapped(good, BOB),
        "0x" + "6492" * 16,
    ):
        assert told(await connect(m, wallets.future, at, bad)) == NO_MATCH
    assert (await connect(m, wallets.future, at, wallets.wrapped(good))).status_code == 200
    assert await wallets.node.rpc("eth_getCode", wallets.future, "latest") == "0x"
    # Coinbase's wallet wraps also after it is deployed.
    at = moment()
    wrapped = wallets.wrapped(personal_sign(ANN, message(wallets.deployed, at)))
    assert (await connect(m, wallets.deployed, at, wrapped)).status_code == 200


async def test_a_verifier_that_misbehaves_is_a_no(m: Served, wallets: Wallets) -> None:
    for code in (
        "0x60006000fd",  # reverts
        "0xfe",  # burns all gas
        "0x5b600056",  # never ends
        "0x00",  # says nothing
        "0x631626ba7e60e01b60005260046000f3",  # four bytes instead of a word
    ):
        wallet = str(to_checksum_address("0x" + keccak(text=code)[:20].hex()))
        await wallets.node.rpc("anvil_setCode", wallet, code)
        assert told(await connect(m, wallet, moment(), "0x" + "11" * 65)) == NO_MATCH


async def test_a_chain_that_is_silent_is_503_and_uses_nothing_up(
    m: Served, wallets: Wallets
) -> None:
    at = moment()
    signature = personal_sign(ANN, message(wallets.deployed, at))
    wallets.node.pause()
    try:
        silent = await connect(m, wallets.deployed, at, signature)
        assert silent.status_code == 503
        assert isinstance(silent.json()["detail"], str)
        # Who signs with a key needs no chain.
        answer = await m.get("/oauth/connect/github", **connecting(BOB, "github"))
        assert answer.status_code == 200
    finally:
        wallets.node.resume()

    async def accepted() -> bool:
        answer = await connect(m, wallets.deployed, at, signature)
        assert answer.status_code in (200, 503), answer.text
        return answer.status_code == 200

    await until(accepted, 60)


async def test_no_signature_is_in_the_access_log(m: Served) -> None:
    query = connecting(ANN, "github")
    log = StringIO()
    logging.configure("DEBUG", "json", log)
    assert (await m.get("/oauth/connect/github", **query)).status_code == 200
    gone = disconnecting(ANN, "github")
    path = f"/oauth/disconnect/github/{ANN.address}"
    assert (await m.http.delete(path, params=gone)).status_code == 200
    written = log.getvalue()
    assert "/oauth/connect/github" in written
    assert path in written
    for secret in (query["signature"], gone["signature"]):
        assert secret not in written
        assert secret[2:30] not in written
    assert "signature" not in written
    assert "timestamp=" not in written
