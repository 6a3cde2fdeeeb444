"""GLISK's rules without a database: pictures, metadata, seeds, art, deliveries, settings, logs."""

from __future__ import annotations

import importlib
import io
import json
import logging as std
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from causeway.apps.glisk.art import contact_sheet, draw
from causeway.apps.glisk.deliveries import BATCH_MINTED, parse
from causeway.apps.glisk.images import examine
from causeway.apps.glisk.metadata import (
    TokenMetadata,
    generation_seed,
    metadata_bytes,
    prompt_sha256,
    token_uri,
)
from causeway.apps.glisk.models import EDGES, TokenStatus
from causeway.apps.glisk.settings import GliskSettings
from causeway.base import logging
from causeway.base.errors import ConfigurationError, InvalidInput, PermanentError
from causeway.base.settings import describe, load
from causeway.sandbox.picture import bomb

TEMPLATE = "GLISK S0 #{token_id}"
DESCRIPTION = "GLISK Season 0. https://x.com/getglisk"


def picture(fmt: str, size: tuple[int, int] = (8, 6), colour: str = "red") -> bytes:
    """Return a small picture."""
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, fmt)
    return out.getvalue()


@pytest.mark.parametrize(
    ("fmt", "mime", "extension"),
    [
        ("PNG", "image/png", "png"),
        ("JPEG", "image/jpeg", "jpg"),
        ("WEBP", "image/webp", "webp"),
        ("GIF", "image/gif", "gif"),
    ],
)
def test_a_picture_is_known_by_its_bytes(fmt: str, mime: str, extension: str) -> None:
    facts = examine(picture(fmt))
    assert (facts.mime, facts.extension, facts.width, facts.height) == (mime, extension, 8, 6)
    assert not facts.suspected_black
    assert examine(picture(fmt, colour="black")).suspected_black


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html><body>not found</body></html>",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        picture("PNG", (64, 64))[:-20],
        picture("JPEG", (64, 64))[:200],
        bomb(),
        picture("BMP"),
    ],
)
def test_what_is_no_whole_picture_is_refused_in_plain_words(content: bytes) -> None:
    with pytest.raises(PermanentError, match="picture"):
        examine(content)


def test_metadata_is_exactly_these_bytes() -> None:
    token = TokenMetadata(42, "bafyimage", twitter_handle="jörg", farcaster_handle=None)
    assert (
        metadata_bytes(token, name_template=TEMPLATE, description=DESCRIPTION)
        == (
            '{"name":"GLISK S0 #42","description":"GLISK Season 0. https://x.com/getglisk",'
            '"image":"ipfs://bafyimage","attributes":'
            '[{"trait_type":"Author X Handle","value":"@jörg"}]}'
        ).encode()
    )
    plain = metadata_bytes(TokenMetadata(1, "c"), name_template=TEMPLATE, description="d")
    assert json.loads(plain)["attributes"] == []
    assert token_uri("bafy") == "ipfs://bafy"


@given(st.text(max_size=300))
def test_handles_are_data_or_refused(handle: str) -> None:
    token = TokenMetadata(1, "c", twitter_handle=handle)
    try:
        made = metadata_bytes(token, name_template=TEMPLATE, description="d")
    except PermanentError:
        assert len(handle) > 255 or not handle.isprintable()
        return
    values = [a["value"] for a in json.loads(made)["attributes"]]
    assert values == ([f"@{handle.lstrip('@')}"] if handle else [])


def test_seeds_can_be_repeated_by_anybody_and_differ() -> None:
    place = (8453, "0xAb" + "0" * 38, 7, "0x" + "1" * 64)
    assert generation_seed(*place) == generation_seed(8453, place[1].lower(), 7, place[3])
    seeds = {generation_seed(8453, place[1], i, place[3]) for i in range(200)}
    assert len(seeds) == 200
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert prompt_sha256("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_art_is_the_same_for_ever_and_different_for_each() -> None:
    one = draw("a prompt", 1, 128)
    assert one == draw("a prompt", 1, 128)
    assert len({one, draw("a prompt", 2, 128), draw("another", 1, 128)}) == 3
    facts = examine(contact_sheet([("#1", one), ("#2", one)], columns=2, cell_px=64))
    assert facts.mime == "image/png"


def graphql(**block: Any) -> dict[str, Any]:
    """Return a Custom webhook."""
    return {
        "id": "whevt",
        "type": "GRAPHQL",
        "event": {"data": {"block": {"number": 5, "hash": "0x" + "a" * 64, **block}}},
    }


LOG: dict[str, Any] = {
    "account": {"address": "0x" + "2" * 40},
    "topics": [BATCH_MINTED, "0x" + "3" * 64],
    "data": "0x",
    "index": 7,
    "transaction": {"hash": "0x" + "b" * 64, "status": 1},
}
FLAT: dict[str, Any] = {
    "address": "0x" + "2" * 40,
    "topics": [BATCH_MINTED],
    "transactionHash": "0x" + "b" * 64,
    "logIndex": "0x7",
    "blockNumber": "0x5",
}


@pytest.mark.parametrize(
    "body",
    [
        graphql(logs=[LOG]),
        graphql(logs=[FLAT]),
        graphql(logs=[LOG], hash=None, number=None) | {"type": "CUSTOM"},
        graphql(transactions=[{"hash": "0x" + "b" * 64, "status": 1, "logs": [{**FLAT}]}]),
    ],
)
def test_every_shape_of_a_custom_webhook_names_its_log(body: dict[str, Any]) -> None:
    (hint,) = parse(body).concerning("0x" + "2" * 40)
    assert (hint.tx_hash, hint.log_index) == ("0x" + "b" * 64, 7)


def test_activity_webhooks_hint_at_their_block() -> None:
    entry = {
        "hash": "0x" + "b" * 64,
        "blockNum": "0x5",
        "rawContract": {"address": "0x" + "2" * 40},
        "erc721TokenId": "0x1",
    }
    body = {"id": "w", "type": "ADDRESS_ACTIVITY", "event": {"activity": [entry]}}
    (hint,) = parse(body).concerning("0x" + "2" * 40)
    assert hint.block_number == 5


def test_logs_that_did_not_happen_concern_nobody() -> None:
    failed = {**LOG, "transaction": {"hash": "0x" + "b" * 64, "status": 0}}
    removed = {**LOG, "removed": True}
    delivery = parse(graphql(logs=[failed, removed]))
    assert delivery.concerning("0x" + "2" * 40) == []
    assert len(delivery.taken_back("0x" + "2" * 40)) == 1
    assert parse(graphql(logs=[])).hints == ()
    over = {"id": "w", "type": "GRAPHQL", "event": {"error": "monthly capacity"}}
    assert parse(over).problem == "monthly capacity"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(
    st.sampled_from(["account", "topics", "index", "transaction", "data", "removed"]), JSON, JSON
)
def test_whatever_comes_is_read_or_refused_by_path(name: str, value: Any, event: Any) -> None:
    for body in (graphql(logs=[{**LOG, name: value}]), {**graphql(), "event": event}, event):
        try:
            parse(body)
        except InvalidInput as refused:
            paths = [field.path for field in refused.fields]
        else:
            continue
        assert all(paths)
        assert paths


def test_settings_tell_everything_that_is_wrong_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_POLL_INTERVAL", "9")
    monkeypatch.setenv("BATCH_REVEAL_MAX_TOKENS", "51")
    monkeypatch.setenv("KEEPER_PRIVATE_KEY", "0xsecret-but-wrong")
    with pytest.raises(ConfigurationError) as failure:
        load(GliskSettings)
    told = "\n".join(failure.value.problems)
    assert "WORKER_POLL_INTERVAL (is '9'): Input should be less than or equal to 5" in told
    assert "BATCH_REVEAL_MAX_TOKENS (is '51')" in told
    assert "KEEPER_PRIVATE_KEY: " in told
    assert "secret-but-wrong" not in told


def test_keys_are_taken_with_and_without_0x_and_never_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for key in ("ab" * 32, "0x" + "ab" * 32):
        monkeypatch.setenv("KEEPER_PRIVATE_KEY", key)
        monkeypatch.setenv("RPC_URLS", "https://x.example/v2/topsecretkey,https://y.example")
        settings = load(GliskSettings)
        assert settings.keeper_private_key is not None
        assert settings.keeper_private_key.get_secret_value() == "0x" + "ab" * 32
        shown = repr(settings) + str(describe(settings))
        assert "ab" * 32 not in shown
        assert "topsecretkey" not in shown
        origins = {row.name: row.origin for row in describe(settings)}
        assert origins["KEEPER_PRIVATE_KEY"] == "environment"
        assert origins["GAS_STRATEGY"] == "default"


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("private_key", "0x" + "ab" * 32, "abab"),
        ("authorization", "Bearer r8_0123456789", "0123456789"),
        ("url", "https://base-mainnet.g.alchemy.com/v2/AbCdEfGhIjKlMnOpQrSt", "AbCdEfGh"),
        ("text", "asked with Bearer abcdefghijklmnop", "abcdefghijklmnop"),
        ("text", "postgresql://glisk:hunter22@db/x", "hunter22"),
        ("text", "token r8_AAAABBBBCCCC", "AAAABBBBCCCC"),
        ("error", ValueError("whsec_0123456789abcdef"), "0123456789abcdef"),
        ("nested", {"api_key": "zzzzz", "deep": ["?key=qqqqqq"]}, "qqqqqq"),
    ],
)
@pytest.mark.parametrize("fmt", ["json", "pretty"])
def test_secrets_never_reach_a_log_line(
    name: str, value: Any, secret: str, fmt: Any, request: pytest.FixtureRequest
) -> None:
    stream = io.StringIO()
    handlers, level = std.getLogger().handlers[:], std.getLogger().level
    request.addfinalizer(structlog.reset_defaults)
    request.addfinalizer(lambda: std.getLogger().handlers.__setitem__(slice(None), handlers))
    request.addfinalizer(lambda: std.getLogger().setLevel(level))
    logging.configure("INFO", fmt, stream)
    structlog.get_logger("t").error("something", **{name: value}, token_id=42)
    try:
        raise RuntimeError(f"with {value}")
    except RuntimeError:
        if name not in ("private_key", "nested"):
            structlog.get_logger("t").exception("failed")
    assert secret not in stream.getvalue()
    assert "42" in stream.getvalue()


def test_the_database_guards_exactly_the_edges_the_app_declares() -> None:
    newest = importlib.import_module("causeway.apps.glisk.migrations.versions.g0001_season_0")
    assert set(newest.EDGES) == set(EDGES)
    assert {status for edge in EDGES for status in edge} == set(TokenStatus)
