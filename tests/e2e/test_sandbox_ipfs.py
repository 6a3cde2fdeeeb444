"""The gateway, kubo's RPC and the self-hosted generators over real sockets."""

from __future__ import annotations

import base64
import hashlib
import json
from io import BytesIO

import httpx2
import pytest
from PIL import Image

from causeway.sandbox.dag import KUBO_V1, UNIXFS_V0_2015, build, car, parse_cid
from causeway.sandbox.server import SandboxServer

pytest_plugins = ["tests.sandbox_fixtures"]

LARGE = hashlib.shake_256(b"ipfs").digest(600_000)


async def add(
    sandbox: SandboxServer, http: httpx2.AsyncClient, data: bytes, query: str = "cid-version=1"
) -> httpx2.Response:
    url = f"{sandbox.kubo_url}/api/v0/add?{query}"
    return await http.post(url, files={"path": ("a.bin", data)})


async def test_kubo_adds_and_the_gateway_serves(
    sandbox: SandboxServer, http: httpx2.AsyncClient
) -> None:
    query = "cid-version=1&raw-leaves=true&chunker=size-262144&pin=true"
    answer = await add(sandbox, http, LARGE, query)
    dag = build(LARGE, KUBO_V1)
    assert [json.loads(line) for line in answer.text.splitlines()] == [
        {"Name": "a.bin", "Hash": str(dag.root), "Size": str(dag.cumulative_bytes)}
    ]
    served = await http.get(f"{sandbox.gateway_url}/ipfs/{dag.root}")
    assert served.content == LARGE
    assert served.headers["etag"] == f'"{dag.root}"'
    archive = await http.get(
        f"{sandbox.gateway_url}/ipfs/{dag.root}?format=car",
        headers={"Accept": "application/vnd.ipld.car"},
    )
    assert archive.headers["content-type"].startswith("application/vnd.ipld.car; version=1")
    assert archive.content == car(dag.root, dag.blocks.get)
    export = await http.post(f"{sandbox.kubo_url}/api/v0/dag/export?arg={dag.root}")
    assert export.content == archive.content
    raw = await http.get(f"{sandbox.gateway_url}/ipfs/{dag.root}?format=raw")
    assert raw.content == dag.blocks[bytes(dag.root.digest)]
    head = await http.head(f"{sandbox.gateway_url}/ipfs/{dag.root}")
    assert (head.headers["content-length"], head.content) == ("600000", b"")


async def test_kubo_obeys_its_options(sandbox: SandboxServer, http: httpx2.AsyncClient) -> None:
    plain = (await add(sandbox, http, b"hello world", "")).json()
    assert (plain["Hash"], plain["Size"]) == (
        "Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD",
        "19",
    )
    leaf = (await add(sandbox, http, b"hello world", "cid-version=1&raw-leaves=false")).json()
    assert leaf["Hash"] == "bafybeihykld7uyxzogax6vgyvag42y7464eywpf55gxi5qpoisibh3c5wa"
    small = (await add(sandbox, http, LARGE, "cid-version=1&chunker=size-1048576")).json()
    assert small["Hash"].startswith("bafkrei")
    for query in ("cid-version=2", "chunker=size-0", "chunker=rabin", "pin=perhaps"):
        refused = await add(sandbox, http, b"x", query)
        assert refused.status_code >= 400
        assert refused.json()["Type"] == "error"


async def test_kubo_answers_post_only(sandbox: SandboxServer, http: httpx2.AsyncClient) -> None:
    for command in ("add", "cat?arg=x", "version", "pin/ls"):
        assert (await http.get(f"{sandbox.kubo_url}/api/v0/{command}")).status_code == 405
    version = await http.post(f"{sandbox.kubo_url}/api/v0/version")
    assert version.json()["Version"]
    assert (await http.post(f"{sandbox.kubo_url}/api/v0/add")).json()["Type"] == "error"


async def test_kubo_pins_unless_told_not_to(
    sandbox: SandboxServer, http: httpx2.AsyncClient
) -> None:
    kept = (await add(sandbox, http, b"kept")).json()["Hash"]
    loose = (await add(sandbox, http, b"loose", "cid-version=1&pin=false")).json()["Hash"]
    api = f"{sandbox.kubo_url}/api/v0"
    assert set((await http.post(f"{api}/pin/ls")).json()["Keys"]) == {kept}
    assert (await http.post(f"{api}/cat?arg=/ipfs/{loose}")).content == b"loose"
    missing = await http.post(f"{api}/pin/ls?arg={loose}")
    assert (missing.status_code, missing.json()["Message"]) == (
        500,
        f"path '{loose}' is not pinned",
    )
    assert (await http.post(f"{api}/pin/add?arg={loose}")).json() == {"Pins": [loose]}
    assert (await http.post(f"{api}/pin/rm?arg={kept}")).json() == {"Pins": [kept]}
    assert set((await http.post(f"{api}/pin/ls")).json()["Keys"]) == {loose}
    assert (await http.post(f"{api}/pin/rm?arg={kept}")).status_code == 500
    absent = build(b"nobody has this", KUBO_V1).root
    assert (await http.post(f"{api}/cat?arg={absent}")).json()["Type"] == "error"
    assert (await http.post(f"{api}/dag/export?arg={absent}")).status_code == 500


async def test_kubo_gives_other_cids_when_told_so(
    sandbox: SandboxServer, http: httpx2.AsyncClient
) -> None:
    sandbox.fault("kubo", "wrong_cid", 1)
    sandbox.fault("kubo", "other_cid", 1)
    cids = [(await add(sandbox, http, b"hello world")).json()["Hash"] for _ in range(3)]
    served = [(await http.get(f"{sandbox.gateway_url}/ipfs/{cid}")).content for cid in cids]
    assert len(set(cids)) == 3
    assert [content == b"hello world" for content in served] == [False, True, True]


async def test_one_node_answers_to_both_of_its_cids(
    sandbox: SandboxServer, http: httpx2.AsyncClient
) -> None:
    await add(sandbox, http, LARGE, "cid-version=0")
    old = build(LARGE, UNIXFS_V0_2015).root
    new = parse_cid(str(old)).set(base="base32", version=1)
    for cid in (old, new):
        assert (await http.get(f"{sandbox.gateway_url}/ipfs/{cid}")).content == LARGE


async def test_the_gateway_guesses_types_and_knows_what_it_has_not(
    sandbox: SandboxServer, http: httpx2.AsyncClient
) -> None:
    png = BytesIO()
    Image.new("RGB", (4, 4)).save(png, "PNG")
    types: list[str] = []
    for data in (png.getvalue(), b'{"a":1}', b"text", b"\xff\xfe\x00", b"RIFF\x00\x00\x00\x00WEBP"):
        cid = (await add(sandbox, http, data)).json()["Hash"]
        answer = await http.get(f"{sandbox.gateway_url}/ipfs/{cid}")
        types.append(answer.headers["content-type"].partition(";")[0])
    assert types == [
        *("image/png", "application/json", "text/plain"),
        *("application/octet-stream", "image/webp"),
    ]
    unknown = f"{sandbox.gateway_url}/ipfs/{build(b'nobody has this', KUBO_V1).root}"
    assert (await http.get(unknown)).status_code == 404
    assert (await http.get(unknown + "?format=car")).status_code == 404
    assert (await http.get(unknown + "?format=raw")).status_code == 404
    sandbox.settings.gateway_unknown_status = 504
    assert (await http.get(unknown)).status_code == 504
    assert (await http.get(f"{sandbox.gateway_url}/ipfs/nonsense")).status_code == 400
    sandbox.fault("gateway", "missing", 1)
    known = f"{sandbox.gateway_url}/ipfs/{(await add(sandbox, http, b'text')).json()['Hash']}"
    assert [(await http.get(known)).status_code for _ in range(2)] == [504, 200]


async def test_cog_answers_with_the_picture_itself(
    sandbox: SandboxServer, http: httpx2.AsyncClient
) -> None:
    url = f"{sandbox.selfhosted_url}/predictions"
    answer = await http.post(url, json={"input": {"prompt": "a heron", "seed": 3}})
    body = answer.json()
    assert (answer.status_code, body["status"], body["error"]) == (200, "succeeded", None)
    head, _, data = body["output"].partition(",")
    assert head == "data:image/png;base64"
    Image.open(BytesIO(base64.b64decode(data))).load()
    assert (await http.post(url, json={"input": {}})).status_code == 422
    assert (await http.post(url, json={"input": {"prompt": 1}})).status_code == 422
    assert (await http.post(url, content=b"{")).status_code == 422
    refused = (await http.post(url, json={"input": {"prompt": "forbidden"}})).json()
    assert (refused["status"], refused["output"]) == ("failed", None)
    health = await http.get(f"{sandbox.selfhosted_url}/health-check")
    assert health.json()["status"] == "READY"


async def test_cog_works_once_for_an_id(sandbox: SandboxServer, http: httpx2.AsyncClient) -> None:
    url = f"{sandbox.selfhosted_url}/predictions/token-42"
    answers = [
        (await http.put(url, json={"input": {"prompt": "a heron"}})).json() for _ in range(2)
    ]
    assert answers[0] == answers[1]
    assert answers[0]["id"] == "token-42"
    assert sandbox.counts().predictions_by_key == {"token-42": 1}


async def test_automatic1111_answers_in_its_own_shape(
    sandbox: SandboxServer, http: httpx2.AsyncClient
) -> None:
    url = f"{sandbox.automatic1111_url}/sdapi/v1/txt2img"
    sent = {"prompt": "a heron", "seed": 5, "width": 64, "height": 32, "steps": 4}
    body = (await http.post(url, json=sent)).json()
    image = Image.open(BytesIO(base64.b64decode(body["images"][0])))
    assert (image.format, image.size) == ("PNG", (64, 32))
    assert body["parameters"] == sent
    assert json.loads(body["info"])["seed"] == 5
    again = (await http.post(url, json=sent)).json()
    assert again["images"] == body["images"]
    random = (await http.post(url, json={"prompt": "a heron"})).json()
    assert json.loads(random["info"])["seed"] >= 0
    sandbox.fault("selfhosted", "fail", 1, match="/automatic1111/")
    failed = await http.post(url, json=sent)
    assert (failed.status_code, set(failed.json())) == (500, {"error", "detail", "body", "errors"})
    bad = await http.post(url, json={**sent, "width": 100_000})
    assert bad.status_code == 422


@pytest.mark.parametrize("path", ["/kubo/nope", "/selfhosted/nope", "/delivery/x", "/nope"])
async def test_unknown_paths_are_a_404(
    sandbox: SandboxServer, http: httpx2.AsyncClient, path: str
) -> None:
    assert (await http.get(sandbox.url + path)).status_code == 404
