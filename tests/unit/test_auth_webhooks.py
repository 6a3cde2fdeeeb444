from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from causeway.auth.webhooks import check_hex_hmac, check_standard_webhook
from causeway.base.errors import NotAuthenticated

BODY = b'{"webhookId":"wh_1","event":{"data":{"block":{"logs":[]}}}}'
KEY = SecretStr("whsec_alchemy")
OTHER = SecretStr("whsec_before")


def hex_hmac(key: SecretStr, body: bytes) -> str:
    return hmac.new(key.get_secret_value().encode(), body, hashlib.sha256).hexdigest()


@pytest.mark.parametrize("secrets", [[KEY], [OTHER, KEY], [KEY, OTHER]])
def test_a_delivery_passes_under_any_of_the_secrets(secrets: list[SecretStr]) -> None:
    check_hex_hmac(secrets, BODY, hex_hmac(KEY, BODY))
    check_hex_hmac(secrets, BODY, hex_hmac(KEY, BODY).upper())


def test_a_published_vector_passes() -> None:
    # RFC 4231, test case 2.
    signature = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    check_hex_hmac([SecretStr("Jefe")], b"what do ya want for nothing?", signature)


@pytest.mark.parametrize(
    "signature",
    [
        None,
        "",
        "0x" + hex_hmac(KEY, BODY),
        "sha256=" + hex_hmac(KEY, BODY),
        hex_hmac(KEY, BODY)[:-1],
        hex_hmac(KEY, BODY)[:-1] + "g",
        hex_hmac(KEY, BODY) + "00",
        hex_hmac(KEY, BODY + b" "),
        hex_hmac(OTHER, BODY),
        hex_hmac(SecretStr(""), BODY),
        "é" * 64,
        "٣" * 64,
    ],
)
def test_any_other_signature_is_refused(signature: str | None) -> None:
    with pytest.raises(NotAuthenticated) as refused:
        check_hex_hmac([KEY], BODY, signature)
    assert "whsec" not in str(refused.value)


def test_every_bit_of_the_signature_counts() -> None:
    good = int(hex_hmac(KEY, BODY), 16)
    for bit in range(256):
        with pytest.raises(NotAuthenticated):
            check_hex_hmac([KEY], BODY, f"{good ^ 1 << bit:064x}")


@pytest.mark.parametrize("secrets", [[], [SecretStr("")], [SecretStr("  "), SecretStr("")]])
def test_everything_is_refused_without_a_secret(secrets: list[SecretStr]) -> None:
    for key in ("", "  "):
        with pytest.raises(NotAuthenticated, match="no webhook secret"):
            check_hex_hmac(secrets, BODY, hex_hmac(SecretStr(key), BODY))
    with pytest.raises(NotAuthenticated, match="no webhook secret"):
        check_standard_webhook(secrets, standard(b""), BODY, now=NOW)


NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
RAW = b"0123456789abcdef0123456789abcdef"
STANDARD = SecretStr("whsec_" + base64.b64encode(RAW).decode())


def standard(
    raw: bytes, body: bytes = BODY, at: datetime = NOW, id_: str = "msg_1", version: str = "v1"
) -> dict[str, str]:
    stamp = str(int(at.timestamp()))
    signed = f"{id_}.{stamp}.".encode() + body
    digest = base64.b64encode(hmac.new(raw, signed, hashlib.sha256).digest()).decode()
    return {
        "webhook-id": id_,
        "webhook-timestamp": stamp,
        "webhook-signature": f"{version},{digest}",
    }


def test_a_standard_webhook_passes_and_names_its_delivery() -> None:
    assert check_standard_webhook([STANDARD], standard(RAW), BODY, now=NOW) == "msg_1"
    bare = SecretStr(base64.b64encode(RAW).decode())
    assert check_standard_webhook([bare], standard(RAW), BODY, now=NOW) == "msg_1"
    rotated = [SecretStr("whsec_" + base64.b64encode(b"other").decode()), STANDARD]
    assert check_standard_webhook(rotated, standard(RAW), BODY, now=NOW) == "msg_1"


def test_the_published_vector_passes() -> None:
    # The example of the Standard Webhooks reference libraries.
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    secret = SecretStr("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    at = datetime.fromtimestamp(1614265330, UTC)
    assert check_standard_webhook([secret], headers, b'{"test": 2432232314}', now=at)


def test_one_good_signature_among_others_is_enough() -> None:
    headers = standard(RAW)
    headers["webhook-signature"] = f"v1a,AAAA v1,AAAA v1,!!! {headers['webhook-signature']} v2,x"
    assert check_standard_webhook([STANDARD], headers, BODY, now=NOW)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        standard(b"another key"),
        standard(RAW, BODY + b" "),
        standard(RAW, version="v1a"),
        standard(RAW) | {"webhook-id": "msg_2"},
        standard(RAW) | {"webhook-id": ""},
        standard(RAW) | {"webhook-timestamp": "1"},
        standard(RAW) | {"webhook-timestamp": "-1"},
        standard(RAW) | {"webhook-timestamp": "1e9"},
        standard(RAW) | {"webhook-signature": ""},
        standard(RAW) | {"webhook-signature": "v1,"},
        standard(RAW) | {"webhook-signature": "v1"},
    ],
)
def test_any_other_standard_webhook_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(NotAuthenticated):
        check_standard_webhook([STANDARD], headers, BODY, now=NOW)


def test_an_undecodable_secret_lets_nothing_pass() -> None:
    with pytest.raises(NotAuthenticated, match="no usable"):
        check_standard_webhook([SecretStr("whsec_***")], standard(b""), BODY, now=NOW)


@pytest.mark.parametrize("seconds", [-301, 301])
def test_a_recorded_standard_webhook_is_refused_later(seconds: int) -> None:
    within = NOW + timedelta(seconds=seconds - seconds // abs(seconds))
    assert check_standard_webhook([STANDARD], standard(RAW), BODY, now=within)
    with pytest.raises(NotAuthenticated, match="too far"):
        check_standard_webhook(
            [STANDARD], standard(RAW), BODY, now=NOW + timedelta(seconds=seconds)
        )
