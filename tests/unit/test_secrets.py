"""Secrets stay out of what is logged, however they get there."""

from __future__ import annotations

import pytest
from pydantic import Field, SecretStr

from causeway.base.errors import ConfigurationError
from causeway.base.logging import redact_text
from causeway.base.settings import Settings, load


class Service(Settings):
    """Settings of a service."""

    service_key: SecretStr | None = Field(default=None, validation_alias="SERVICE_PROOF")
    service_url: SecretStr | None = Field(default=None, validation_alias="SERVICE_URL")
    count: int = Field(default=1, ge=1, le=9, validation_alias="SERVICE_COUNT")


@pytest.mark.parametrize(
    ("said", "secret"),
    [
        ("postgresql://me:hunter2@localhost/x", "hunter2"),
        ("postgresql://me:p@ss@localhost/x", "p@ss"),
        ("https://base.g.alchemy.com/v2/abcdefghijklmnopqrst", "abcdefghijklmnopqrst"),
        ("Authorization: Bearer abc.def-ghi", "abc.def-ghi"),
        ("eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.c2lnbmF0dXJl", "c2lnbmF0dXJl"),
        ("GET /callback?code=4/P7q7W91&state=xyz", "4/P7q7W91"),
        ("KeyError: {'api_key': 'sesame-open'}", "sesame-open"),
        ("PASSWORD=sesame-open", "sesame-open"),
    ],
)
def test_what_looks_like_a_secret_is_taken_out(said: str, secret: str) -> None:
    assert secret not in redact_text(said)


def test_what_was_read_from_the_settings_is_found_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    key = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d"
    monkeypatch.setenv("SERVICE_PROOF", key)
    monkeypatch.setenv("SERVICE_URL", "https://node.example/some/0123456789abcdef0")
    load(Service)
    assert redact_text(f"cannot parse {key[2:].upper()} here") == "cannot parse *** here"
    told = redact_text("no answer of https://node.example/some/0123456789abcdef0")
    assert told == "no answer of https://node.example/some/***"


def test_a_wrong_setting_is_told_with_name_value_and_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_COUNT", "12")
    with pytest.raises(ConfigurationError) as caught:
        load(Service)
    (line,) = caught.value.problems
    assert line.startswith("SERVICE_COUNT (is '12'): ")
    assert line.endswith("(allowed: 1 to 9)")


def test_words_that_are_no_secrets_stay() -> None:
    plain = "token_id=42 has 3 tokens at https://gateway.pinata.cloud/ipfs/bafybeigdyrzt5s"
    assert redact_text(plain) == plain
