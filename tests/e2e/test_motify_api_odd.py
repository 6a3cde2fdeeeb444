"""Whatever is sent to Motify's endpoints, the answer is a refusal in its shape, never our error."""

from __future__ import annotations

import json
import random
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from causeway.sandbox.anvil import AnvilNode
from causeway.sandbox.motify_chain import MotifyContract
from tests.motify_app import CRON_SECRET, Served, served_motify

WALLET = "0x" + "a1" * 20
ODD = [
    "", "0", "-1", "1e3", str(2**63), str(2**256 - 1), str(2**256), "9" * 5000, "NaN", "1_000", "٣",
    "\0", "a\0b", "%", "'", '"', "<script>", "\u2028", "😀", "../..", "null", "[]", " ", "\n",
    WALLET, WALLET.upper(), "0x" + "g" * 40, "github", "GitHub", "wakatime", "x" * 3000,
    "0x" + "11" * 65, "1700000000", "waka_" + "a" * 30,
]  # fmt: skip
BODIES = [b"", b"{", b"\xff\xfe", b"[]", b"null", b'"x"', b"1", b'{"wallet_address":"\\ud800"}']
MEMBERS = ("wallet_address", "api_key", "signature", "timestamp")


def some_request(rnd: random.Random, path: str, operation: dict[str, Any]) -> dict[str, Any]:
    """Make up a request of one operation."""
    query: list[str] = []
    for one in operation.get("parameters", ()):
        value = quote(rnd.choice(ODD), safe="")
        if one["in"] == "path":
            path = path.replace(f"{{{one['name']}}}", value or "x")
        elif one["in"] == "query" and rnd.random() < 0.8:
            query += [f"{one['name']}={value}"] * (1 + (rnd.random() < 0.1))
            if rnd.random() < 0.05:
                query.append(f"{one['name']}=%ff")
    headers = {"x-cron-secret": CRON_SECRET} if rnd.random() < 0.8 else {}
    request: dict[str, Any] = {"url": f"{path}?{'&'.join(query)}", "headers": headers}
    if "requestBody" in operation:
        values: list[Any] = [rnd.choice(ODD), None, 1, 2.5, [], {}, True, 10**400]
        members = {name: rnd.choice(values) for name in MEMBERS if rnd.random() < 0.8}
        whole = rnd.random() < 0.7
        request["content"] = json.dumps(members).encode() if whole else rnd.choice(BODIES)
        headers["content-type"] = rnd.choice(["application/json", "text/plain"])
    return request


def check(path: str, answer: httpx2.Response) -> None:
    """Hold an answer to what is promised of it."""
    assert answer.status_code < 500, answer.text
    if path.startswith("/oauth/callback") and answer.status_code not in (404, 405):
        assert answer.status_code == 303
    elif answer.status_code >= 400 and path.startswith("/jobs"):
        assert set(answer.json()) == {"ok", "error"}
    elif answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert isinstance(answer.json()["detail"], str)


async def ask_oddly(m: Served, seed: int, times: int) -> int:
    """Ask each operation that many odd things; return how many requests that was."""
    rnd = random.Random(seed)
    spec = (await m.get("/openapi.json")).json()
    asked = 0
    for path, operations in spec["paths"].items():
        for method, operation in operations.items():
            if path.startswith("/relayer"):
                continue
            for _ in range(times):
                request = some_request(rnd, path, operation)
                answer = await m.http.request(method.upper(), **request)
                asked += 1
                # A path that odd characters took apart is another one.
                if answer.status_code != 404:
                    check(path, answer)
                assert answer.status_code < 500
    return asked


@pytest.mark.parametrize(
    ("seed", "times"), [(1, 12), *(pytest.param(n, 150, marks=pytest.mark.long) for n in (2, 3))]
)
async def test_no_input_is_an_error_of_ours(
    database_url: str,
    anvil: AnvilNode,
    motify_contract: MotifyContract,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    times: int,
) -> None:
    async with served_motify(database_url, anvil, motify_contract, monkeypatch) as m:
        assert await ask_oddly(m, seed, times) >= 15 * times
