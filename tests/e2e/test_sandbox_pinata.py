"""The Pinata stand-in over real sockets."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any

import httpx2
import pytest

from causeway.sandbox.dag import KUBO_V1, PRIVATE, UNIXFS_V0_2015, build
from causeway.sandbox.server import SandboxServer

pytest_plugins = ["tests.sandbox_fixtures"]

JWT = {"Authorization": "Bearer sandbox.pinata.jwt"}
PAIR = {"pinata_api_key": "sandbox-key", "pinata_secret_api_key": "sandbox-secret"}
HELLO = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"


async def pin_file(
    sandbox: SandboxServer,
    http: httpx2.AsyncClient,
    data: bytes = b"hello world",
    *,
    headers: dict[str, str] = JWT,
    options: str = '{"cidVersion":1}',
    metadata: object = None,
) -> httpx2.Response:
    fields = {"pinataOptions": options, "pinataMetadata": json.dumps(metadata or {})}
    return await http.post(
        f"{sandbox.pinata_url}/pinning/pinFileToIPFS",
        files={"file": ("s0-token-42.png", data, "image/png")},
        data=fields,
        headers=headers,
    )


async def pin_json(
    sandbox: SandboxServer, http: httpx2.AsyncClient, body: bytes, headers: dict[str, str] = JWT
) -> httpx2.Response:
    typed = {**headers, "Content-Type": "application/json"}
    return await http.post(
        f"{sandbox.pinata_url}/pinning/pinJSONToIPFS", content=body, headers=typed
    )


@pytest.mark.parametrize("headers", [JWT, PAIR], ids=["jwt", "pair"])
async def test_both_kinds_of_credentials_open(
    sandbox: SandboxServer, http: httpx2.AsyncClient, headers: dict[str, str]
) -> None:
    answer = await http.get(f"{sandbox.pinata_url}/data/testAuthentication", headers=headers)
    assert answer.status_code == 200
    assert answer.json()["message"].startswith("Congratulations!")
    assert (await pin_file(sandbox, http, headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer other"},
        {**PAIR, "pinata_api_key": "other"},
        # A JWT that is there counts, whatever the pair says.
        {**PAIR, "Authorization": "Bearer other"},
    ],
)
async def test_bad_credentials_are_refused(
    sandbox: SandboxServer, http: httpx2.AsyncClient, headers: dict[str, str]
) -> None:
    answer = await pin_file(sandbox, http, headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"]["reason"] == "INVALID_CREDENTIALS"
    assert sandbox.counts().uploads == 0


async def test_a_key_without_scopes_may_only_say_hello(
    sandbox: SandboxServer, http: httpx2.AsyncClient
) -> None:
    headers = {"Authorization": "Bearer sandbox.pinata.no-scopes"}
    hello = await http.get(f"{sandbox.pinata_url}/data/testAuthentication", headers=headers)
    assert hello.status_code == 200
    answer = await pin_file(sandbox, http, headers=headers)
    assert (answer.status_code, answer.json()["error"]["reason"]) == (403, "NO_SCOPES_FOUND")


async def test_a_file_is_pinned_once_however_often_it_comes(
    sandbox: SandboxServer, http: httpx2.AsyncClient
) -> None:
    first = (await pin_file(sandbox, http)).json()
    assert (first["IpfsHash"], first["PinSize"]) == (HELLO, 11)
    assert first["Timestamp"].endswith("Z")
    assert "isDuplicate" not in first
    second = (await pin_file(sandbox, http)).json()
    assert second == {**first, "isDuplicate": True}
    counts = sandbox.counts()
    assert (counts.pins, counts.uploads, counts.files_pinned) == ({HELLO: 2}, 2, 1)


async def test_large_files_and_version_0_have_the_cid_of_their_dag(
    sandbox: SandboxServer, http: httpx2.AsyncClient
) -> None:
    data = hashlib.shake_256(b"large").digest(600_000)
    new = (await pin_file(sandbox, http, data)).json()
    dag = build(data, KUBO_V1)
    assert (new["IpfsHash"], new["PinSize"]) == (str(dag.root), dag.cumulative_bytes)
    old = (await pin_file(sandbox, http, data, options='{"cidVersion":0}')).json()
    assert old["IpfsHash"] == str(build(data, UNIXFS_V0_2015).root)
    assert old["IpfsHash"].startswith("Qm")
    for cid in (new["IpfsHash"], old["IpfsHash"]):
        assert (await http.get(f"{sandbox.gateway_url}/ipfs/{cid}")).content == data


async def test_json_is_pinned_as_javascript_writes_it(
    sandbox: SandboxServer, http: httpx2.AsyncClient
) -> None:
    spaced = """{"pinataContent": {"name": "GLISK S0 #42 \\u00e9 🎨", "b": 1.0, "a": [1, 2]},
        "pinataOptions": {"cidVersion": 1}, "pinataMetadata": {"name": "m.json"}}"""
    answer = await pin_json(sandbox, http, spaced.encode())
    expected = '{"name":"GLISK S0 #42 é 🎨","b":1,"a":[1,2]}'.encode()
    assert answer.json()["IpfsHash"] == str(build(expected, KUBO_V1).root)
    served = await http.get(f"{sandbox.gateway_url}/ipfs/{answer.json()['IpfsHash']}")
    assert served.content == expected
    assert served.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'{"pinataContent":"text"}', b'{"pinataContent":NaN}']
)
async def test_what_is_no_json_document_is_refused(
    sandbox: SandboxServer, http: httpx2.AsyncClient, body: bytes
) -> None:
    answer = await pin_json(sandbox, http, body)
    assert (answer.status_code, set(answer.json()["error"])) == (400, {"reason", "details"})


@pytest.mark.parametrize(
    ("options", "metadata"),
    [
        ('{"cidVersion":99}', {}),
        ("{", {}),
        ("[]", {}),
        ("{}", {"keyvalues": {str(n): "x" for n in range(11)}}),
        ("{}", {"keyvalues": {"a": {"b": 1}}}),
        ("{}", {"name": 5}),
    ],
)
async def test_bad_options_and_metadata_pin_nothing(
    sandbox: SandboxServer, http: httpx2.AsyncClient, options: str, metadata: dict[str, Any]
) -> None:
    answer = await pin_file(sandbox, http, options=options, metadata=metadata)
    assert answer.status_code == 400
    assert answer.json()["error"]["reason"].startswith("INVALID_")
    assert sandbox.counts().uploads == 0


async def test_a_form_without_exactly_one_file_is_refused(
    sandbox: SandboxServer, http: httpx2.AsyncClient
) -> None:
    url = f"{sandbox.pinata_url}/pinning/pinFileToIPFS"
    none = await http.post(url, files={"other": ("a", b"a")}, headers=JWT)
    two = await http.post(url, files=[("file", ("a", b"a")), ("file", ("b", b"b"))], headers=JWT)
    plain = await http.post(url, content=b"a", headers=JWT)
    assert [answer.status_code for answer in (none, two, plain)] == [400, 400, 400]
    assert isinstance(none.json()["error"], str)


async def test_too_large_a_file_is_refused_before_it_is_read(
    sandbox: SandboxServer, http: httpx2.AsyncClient
) -> None:
    sandbox.settings.pinata_max_bytes = 1000
    answer = await pin_file(sandbox, http, bytes(2000))
    assert (answer.status_code, answer.headers["content-type"][:9]) == (413, "text/html")
    reader, writer = await asyncio.open_connection("127.0.0.1", sandbox.port)
    writer.write(
        b"POST /pinata/pinning/pinFileToIPFS HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n"
        b"Authorization: Bearer sandbox.pinata.jwt\r\n"
        b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    )
    # Not a byte of the body was sent.
    line = await asyncio.wait_for(reader.readline(), 5)
    assert line.startswith(b"HTTP/1.1 413 ")
    writer.close()


async def test_pins_are_listed_and_removed(
    sandbox: SandboxServer, http: httpx2.AsyncClient
) -> None:
    values = {"season": "0", "token_id": 42}
    for n in range(3):
        metadata = {"name": f"s0-token-{n}.png", "keyvalues": values}
        await pin_file(sandbox, http, b"%d" % n, metadata=metadata)

    async def listed(**query: str) -> list[dict[str, Any]]:
        url = f"{sandbox.pinata_url}/data/pinList"
        return (await http.get(url, params=query, headers=JWT)).json()["rows"]

    rows = await listed(status="pinned")
    assert [row["metadata"]["name"] for row in rows] == [f"s0-token-{n}.png" for n in (2, 1, 0)]
    assert rows[0]["metadata"]["keyvalues"] == values
    assert await listed(pageLimit="1", pageOffset="1") == rows[1:2]
    assert await listed(**{"metadata[name]": "token-0"}) == rows[2:]
    cid = rows[0]["ipfs_pin_hash"]
    assert await listed(hashContains=cid) == rows[:1]

    url = f"{sandbox.pinata_url}/pinning/unpin/{cid}"
    removed = await http.delete(url, headers=JWT)
    assert (removed.status_code, removed.text) == (200, "OK")
    again = await http.delete(url, headers=JWT)
    assert again.status_code == 400
    assert again.json()["error"]["reason"] == "CURRENT_USER_HAS_NOT_PINNED_CID"
    assert await listed(status="pinned") == rows[1:]
    assert [row["ipfs_pin_hash"] for row in await listed(status="unpinned")] == [cid]
    # Pinned anew it is no duplicate.
    assert "isDuplicate" not in (await pin_file(sandbox, http, b"2")).json()
    assert (await pin_file(sandbox, http, b"2")).json()["isDuplicate"] is True
    assert len(await listed(status="pinned")) == 3


async def test_requests_are_limited_per_minute(
    sandbox: SandboxServer, http: httpx2.AsyncClient
) -> None:
    sandbox.settings.pinata_per_minute = 2
    first = await pin_file(sandbox, http)
    assert (first.headers["x-ratelimit-limit"], first.headers["x-ratelimit-remaining"]) == (
        "2",
        "1",
    )
    await pin_file(sandbox, http)
    limited = await pin_file(sandbox, http)
    assert limited.status_code == 429
    assert 1 <= int(limited.headers["retry-after"]) <= 60
    # Looking things up has a limit of its own.
    hello = await http.get(f"{sandbox.pinata_url}/data/testAuthentication", headers=JWT)
    assert hello.headers["x-ratelimit-limit"] == "30"


async def test_a_wrong_cid_is_that_of_other_bytes(
    sandbox: SandboxServer, http: httpx2.AsyncClient
) -> None:
    sandbox.fault("pinata", "wrong_cid", 1)
    wrong = (await pin_file(sandbox, http)).json()["IpfsHash"]
    assert wrong != HELLO
    served = await http.get(f"{sandbox.gateway_url}/ipfs/{wrong}")
    assert (served.status_code, served.content == b"hello world") == (200, False)
    assert (await pin_file(sandbox, http)).json()["IpfsHash"] == HELLO


async def test_another_cid_can_still_be_the_right_bytes(
    sandbox: SandboxServer, http: httpx2.AsyncClient
) -> None:
    sandbox.fault("pinata", "other_cid", 1)
    data = hashlib.shake_256(b"other").digest(100_000)
    cid = (await pin_file(sandbox, http, data)).json()["IpfsHash"]
    assert cid == str(build(data, PRIVATE).root)
    assert (await http.get(f"{sandbox.gateway_url}/ipfs/{cid}")).content == data


async def test_unknown_routes_are_a_400(sandbox: SandboxServer, http: httpx2.AsyncClient) -> None:
    answer = await http.get(f"{sandbox.pinata_url}/pinning/pinFileToIPFS", headers=JWT)
    assert (answer.status_code, answer.json()["error"]["reason"]) == (400, "INVALID_ROUTES")
