"""The Replicate stand-in over real sockets."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from io import BytesIO
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from fastapi import FastAPI, Request, Response
from PIL import Image
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from causeway.sandbox.models import MODELS
from causeway.sandbox.server import SandboxServer

pytest_plugins = ["tests.sandbox_fixtures"]

FLUX = "/models/black-forest-labs/flux-schnell/predictions"
AUTH = {"Authorization": "Bearer r8_sandbox"}
WAIT = {**AUTH, "Prefer": "wait"}


async def create(
    sandbox: SandboxServer,
    http: httpx2.AsyncClient,
    path: str = FLUX,
    *,
    headers: dict[str, str] = AUTH,
    envelope: dict[str, Any] | None = None,
    **sent: object,
) -> httpx2.Response:
    body = {"input": {"prompt": "a heron", **sent}, **(envelope or {})}
    return await http.post(sandbox.replicate_url + path, json=body, headers=headers)


async def until_over(
    http: httpx2.AsyncClient, prediction: dict[str, Any], deadline_s: float = 5
) -> dict[str, Any]:
    ends = time.monotonic() + deadline_s
    while prediction["status"] in ("starting", "processing"):
        assert time.monotonic() < ends, "the prediction did not end"
        await asyncio.sleep(0.005)
        prediction = (await http.get(prediction["urls"]["get"], headers=AUTH)).json()
    return prediction


async def test_a_prediction_is_created_polled_and_downloaded(
    sandbox: SandboxServer, http: httpx2.AsyncClient
) -> None:
    sandbox.settings.latency_s = 2
    answer = await create(sandbox, http, seed=7, output_format="png")
    assert answer.status_code == 202
    made = answer.json()
    assert (made["status"], made["output"], made["completed_at"]) == ("starting", None, None)
    assert made["model"] == "black-forest-labs/flux-schnell"
    assert made["input"] == {"prompt": "a heron", "seed": 7, "output_format": "png"}

    done = await until_over(http, made)
    assert (done["status"], done["error"], done["data_removed"]) == ("succeeded", None, False)
    assert done["metrics"]["predict_time"] == pytest.approx(1.5)
    assert done["created_at"] < done["started_at"] < done["completed_at"]
    file = await http.get(done["output"][0])
    assert file.headers["content-type"] == "image/png"
    image = Image.open(BytesIO(file.content))
    image.load()
    assert image.size == (256, 256)

    sandbox.settings.latency_s = 0.04
    again = await until_over(http, (await create(sandbox, http, seed=7)).json())
    assert again["output"][0].endswith("/out-0.webp")
    other = await until_over(
        http, (await create(sandbox, http, seed=8, output_format="png")).json()
    )
    assert (await http.get(other["output"][0])).content != file.content


async def test_waiting_holds_the_answer_until_there_is_output(
    sandbox: SandboxServer, http: httpx2.AsyncClient
) -> None:
    answer = await create(sandbox, http, headers=WAIT)
    assert answer.status_code == 201
    # Output comes before the status says so, as with the real service.
    assert answer.json()["output"]
    sandbox.settings.latency_s = 30
    started = time.monotonic()
    late = await create(sandbox, http, headers={**AUTH, "Prefer": "wait=1"})
    assert (late.status_code, late.json()["output"]) == (202, None)
    assert 0.9 < time.monotonic() - started < 3
    assert (await create(sandbox, http, headers={**AUTH, "Prefer": "wait=61"})).status_code == 422


async def test_models_answer_in_their_own_shapes(
    sandbox: SandboxServer, http: httpx2.AsyncClient
) -> None:
    four = (await create(sandbox, http, headers=WAIT, num_outputs=4, aspect_ratio="16:9")).json()
    assert len(four["output"]) == 4
    files = [(await http.get(url)).content for url in four["output"]]
    assert len(set(files)) == 4
    assert Image.open(BytesIO(files[0])).size == (256, 144)
    one = (
        await create(sandbox, http, "/models/sandbox/prompt-only/predictions", headers=WAIT)
    ).json()
    assert one["output"].startswith(sandbox.delivery_url)
    data = (
        await create(sandbox, http, "/models/sandbox/data-uri/predictions", headers=WAIT)
    ).json()
    head, _, body = data["output"].partition(",")
    assert head == "data:image/png;base64"
    Image.open(BytesIO(base64.b64decode(body))).load()


async def test_versions_choose_the_model(sandbox: SandboxServer, http: httpx2.AsyncClient) -> None:
    flux = MODELS["black-forest-labs/flux-schnell"]
    for version in (flux.version, f"{flux.name}:{flux.version}", flux.name):
        answer = await create(sandbox, http, "/predictions", envelope={"version": version})
        assert (answer.is_success, answer.json()["model"]) == (True, flux.name)
    unknown = await create(sandbox, http, "/predictions", envelope={"version": "a" * 64})
    assert unknown.status_code == 422
    assert unknown.json()["title"] == "Invalid version or not permitted"
    missing = await create(sandbox, http, "/predictions")
    assert missing.json()["invalid_fields"][0]["description"] == "version is required"
    model = await http.get(f"{sandbox.replicate_url}/models/{flux.name}", headers=AUTH)
    assert model.json()["latest_version"] == {"id": flux.version}


@pytest.mark.parametrize(
    ("sent", "detail"),
    [
        ({"prompt": 5}, "- input.prompt: Invalid type. Expected: string, given: integer\n"),
        ({"num_outputs": 5}, "- input.num_outputs: Must be less than or equal to 4\n"),
        ({"num_outputs": 0}, "- input.num_outputs: Must be greater than or equal to 1\n"),
        ({"seed": "1"}, "- input.seed: Invalid type. Expected: integer, given: string\n"),
        ({"go_fast": 1}, "- input.go_fast: Invalid type. Expected: boolean, given: integer\n"),
        (
            {"output_format": "svg"},
            '- input.output_format: output_format must be one of the following: "webp", "jpg", '
            '"png"\n',
        ),
    ],
)
async def test_bad_input_is_refused_in_the_real_words(
    sandbox: SandboxServer, http: httpx2.AsyncClient, sent: dict[str, Any], detail: str
) -> None:
    answer = await create(sandbox, http, **sent)
    body = answer.json()
    assert (answer.status_code, body["status"]) == (422, 422)
    assert (body["title"], body["detail"]) == ("Input validation failed", detail)
    assert sandbox.counts().paid() == 0


async def test_unknown_input_is_refused_only_where_models_do(
    sandbox: SandboxServer, http: httpx2.AsyncClient
) -> None:
    assert (await create(sandbox, http, colour="red")).is_success
    strict = await create(sandbox, http, "/models/sandbox/prompt-only/predictions", seed=1)
    assert strict.json()["invalid_fields"] == [
        {
            "type": "additional_property_not_allowed",
            "field": "input",
            "description": "Additional property seed is not allowed",
        }
    ]
    sandbox.settings.refuse_unknown_input = True
    assert (await create(sandbox, http, colour="red")).status_code == 422


async def test_who_may_not_is_told_so(sandbox: SandboxServer, http: httpx2.AsyncClient) -> None:
    nobody = await create(sandbox, http, headers={})
    assert nobody.json() == {
        "title": "Unauthenticated",
        "detail": "You did not pass an authentication token",
        "status": 401,
    }
    wrong = await create(sandbox, http, headers={"Authorization": "Bearer r8_other"})
    assert (wrong.status_code, wrong.json()["title"]) == (401, "Unauthenticated")
    assert (await create(sandbox, http, "/models/no/model/predictions")).status_code == 404
    gone = await http.get(f"{sandbox.replicate_url}/predictions/none", headers=AUTH)
    assert (gone.status_code, set(gone.json())) == (404, {"title", "detail", "status"})
    broken = await http.post(sandbox.replicate_url + FLUX, content=b"{", headers=AUTH)
    assert broken.status_code == 400
    sandbox.settings.credit = "none"
    poor = await create(sandbox, http)
    assert (poor.status_code, poor.json()["title"]) == (402, "Insufficient credit")
    assert sandbox.counts().paid() == 0


async def test_creations_are_limited_and_more_so_with_little_credit(
    sandbox: SandboxServer, http: httpx2.AsyncClient
) -> None:
    sandbox.settings.creations_per_minute = 2
    assert [(await create(sandbox, http)).is_success for _ in range(2)] == [True, True]
    throttled = await create(sandbox, http)
    assert throttled.status_code == 429
    assert throttled.json() == {"detail": "Request was throttled. Your rate limit resets in ~30s."}
    assert "retry-after" not in throttled.headers
    sandbox.reset()
    sandbox.settings.credit = "low"
    assert (await create(sandbox, http)).is_success
    slow = await create(sandbox, http)
    assert slow.status_code == 429
    assert "6 requests per minute" in slow.json()["detail"]
    assert slow.json()["retry_after"] == 10


async def test_the_list_has_newest_first_and_pages(
    sandbox: SandboxServer, http: httpx2.AsyncClient
) -> None:
    sandbox.settings.page_size = 2
    ids = [(await create(sandbox, http, seed=seed)).json()["id"] for seed in range(5)]
    url: str | None = f"{sandbox.replicate_url}/predictions"
    pages: list[list[str]] = []
    while url:
        page = (await http.get(url, headers=AUTH)).json()
        pages.append([prediction["id"] for prediction in page["results"]])
        url = page["next"]
    newest = ids[::-1]
    assert pages == [newest[:2], newest[2:4], newest[4:]]
    third = (await http.get(f"{sandbox.replicate_url}/predictions/{ids[2]}", headers=AUTH)).json()
    query = {"created_after": third["created_at"]}
    since = await http.get(f"{sandbox.replicate_url}/predictions", params=query, headers=AUTH)
    assert [prediction["id"] for prediction in since.json()["results"]] == newest[:2]
    assert since.json()["results"][0]["input"] == {"prompt": "a heron", "seed": 4}


async def test_cancelling_ends_what_runs_and_changes_nothing_afterwards(
    sandbox: SandboxServer, http: httpx2.AsyncClient
) -> None:
    sandbox.settings.latency_s = 30
    made = (await create(sandbox, http)).json()
    canceled = await http.post(made["urls"]["cancel"], headers=AUTH)
    assert (canceled.status_code, canceled.json()["status"]) == (200, "canceled")
    assert canceled.json()["completed_at"]
    sandbox.settings.latency_s = 0
    done = (await create(sandbox, http)).json()
    assert (await http.post(done["urls"]["cancel"], headers=AUTH)).json()["status"] == "succeeded"


async def test_a_deadline_ends_a_prediction(
    sandbox: SandboxServer, http: httpx2.AsyncClient
) -> None:
    sandbox.settings.latency_s = 30
    headers = {**AUTH, "Cancel-After": "1s", "Prefer": "wait=10"}
    answer = await create(sandbox, http, headers=headers)
    # Stopped before it started, which costs nothing.
    assert (answer.status_code, answer.json()["status"]) == (201, "aborted")
    bad = await create(sandbox, http, headers={**AUTH, "Cancel-After": "soon"})
    assert bad.status_code == 422


async def test_a_forbidden_word_is_refused_by_a_failed_prediction(
    sandbox: SandboxServer, http: httpx2.AsyncClient
) -> None:
    answer = await create(sandbox, http, headers=WAIT, prompt="a Forbidden garden")
    body = answer.json()
    assert (answer.status_code, body["status"], body["output"]) == (201, "failed", None)
    assert "NSFW" in body["error"] or "flagged as sensitive" in body["error"]
    fine = await create(sandbox, http, headers=WAIT, prompt="an unforbiddenly fine garden")
    assert fine.json()["error"] is None


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("nsfw", "failed"),
        ("fail", "failed"),
        ("canceled", "canceled"),
        ("drop_output", "succeeded"),
    ],
)
async def test_predictions_end_badly_when_told_so(
    sandbox: SandboxServer, http: httpx2.AsyncClient, kind: Any, status: str
) -> None:
    sandbox.fault("replicate", kind, 1, **({"error": "(E005) no"} if kind == "nsfw" else {}))
    body = (await create(sandbox, http, headers=WAIT)).json()
    assert (body["status"], body["output"]) == (status, None)
    if kind == "nsfw":
        assert body["error"] == "(E005) no"
    if kind == "drop_output":
        assert (body["data_removed"], body["input"]) == (True, {})
    assert (await create(sandbox, http, headers=WAIT)).json()["output"]


async def test_black_pictures_and_stuck_predictions(
    sandbox: SandboxServer, http: httpx2.AsyncClient
) -> None:
    sandbox.fault("replicate", "black", 1)
    body = (await create(sandbox, http, headers=WAIT, output_format="png")).json()
    image = Image.open(BytesIO((await http.get(body["output"][0])).content))
    assert image.getextrema() == ((0, 0), (0, 0), (0, 0))
    sandbox.fault("replicate", "stuck", 1)
    stuck = await create(sandbox, http, headers={**AUTH, "Prefer": "wait=1"})
    assert (stuck.status_code, stuck.json()["status"]) == (202, "processing")
    canceled = await http.post(stuck.json()["urls"]["cancel"], headers=AUTH)
    assert canceled.json()["status"] == "canceled"


async def test_output_and_files_are_deleted_when_their_time_is_over(
    sandbox: SandboxServer, http: httpx2.AsyncClient
) -> None:
    body = (await create(sandbox, http, headers=WAIT)).json()
    await until_over(http, body)
    assert (await http.get(body["output"][0])).status_code == 200
    sandbox.settings.output_lifetime_s = 1e-6
    gone = (await http.get(body["urls"]["get"], headers=AUTH)).json()
    assert (gone["status"], gone["data_removed"]) == ("succeeded", True)
    assert (gone["output"], gone["input"]) == (None, {})
    assert (await http.get(body["output"][0])).status_code == 404
    assert (await http.get(f"{sandbox.delivery_url}/none/out-0.png")).status_code == 404


class Listener:
    """Somebody's webhook address; answers `refuse` requests with 500 first."""

    def __init__(self) -> None:
        self.url = ""
        self.refuse = 0
        self.got: asyncio.Queue[tuple[dict[str, str], bytes]] = asyncio.Queue()

    async def receive(self, request: Request) -> Response:
        self.got.put_nowait((dict(request.headers), await request.body()))
        self.refuse -= 1
        return Response(status_code=500 if self.refuse >= 0 else 200)


@pytest_asyncio.fixture
async def listener() -> AsyncIterator[Listener]:
    app, target = FastAPI(), Listener()
    app.add_api_route("/hook", target.receive, methods=["POST"])
    config = Config(app, ws="none", lifespan="off", log_config=None)
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: HttpToolsProtocol(config, state, {}), "127.0.0.1", 0
    )
    target.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    yield target
    server.close()
    for connection in list(state.connections):
        connection.shutdown()
    await server.wait_closed()


async def test_webhooks_are_signed_and_repeated_until_accepted(
    sandbox: SandboxServer, http: httpx2.AsyncClient, listener: Listener
) -> None:
    listener.refuse = 2
    sandbox.settings.webhook_retry_delays_s = (0.01, 0.01, 0.01)
    hook = {"webhook": listener.url, "webhook_events_filter": ["completed"]}
    made = (await create(sandbox, http, envelope=hook)).json()
    deliveries = [await asyncio.wait_for(listener.got.get(), 5) for _ in range(3)]
    # The same message three times, not three messages.
    assert len({headers["webhook-id"] for headers, _ in deliveries}) == 1
    headers, body = deliveries[-1]
    document = json.loads(body)
    assert (document["id"], document["status"]) == (made["id"], "succeeded")
    answer = await http.get(f"{sandbox.replicate_url}/webhooks/default/secret", headers=AUTH)
    key = base64.b64decode(answer.json()["key"].removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"


async def test_webhooks_without_a_filter_tell_every_step(
    sandbox: SandboxServer, http: httpx2.AsyncClient, listener: Listener
) -> None:
    await create(sandbox, http, envelope={"webhook": listener.url})
    bodies = [json.loads((await asyncio.wait_for(listener.got.get(), 5))[1]) for _ in range(3)]
    assert [body["status"] for body in bodies] == ["processing", "processing", "succeeded"]
    assert [bool(body["output"]) for body in bodies] == [False, True, True]
    bad = await create(sandbox, http, envelope={"webhook": "x", "webhook_events_filter": ["end"]})
    assert {p["field"] for p in bad.json()["invalid_fields"]} == {
        "webhook",
        "webhook_events_filter",
    }


async def test_what_was_paid_for_is_counted(
    sandbox: SandboxServer, http: httpx2.AsyncClient
) -> None:
    await create(sandbox, http, seed=1)
    await create(sandbox, http, seed=1)
    await create(sandbox, http, seed=2, headers={**AUTH, "Idempotency-Key": "token-42"})
    counts = sandbox.counts()
    assert (counts.paid(), counts.paid("a heron", 1), counts.paid(seed=2)) == (3, 2, 1)
    assert counts.predictions_by_key == {"token-42": 1}
    template = "POST /replicate/v1/models/{owner}/{name}/predictions"
    assert counts.requests == {"replicate": {template: 3}}
