"""Signers by reference, and what an installation sets for all relayers."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from eth_account import Account

from causeway.base.errors import ConfigurationError
from causeway.base.settings import load
from causeway.chains.evm.signer_open import open_signer
from causeway.relayer.lane import RelayerSettings
from causeway.relayer.settings import RelayerEnvironment
from causeway.sandbox.kms_aws import AwsKmsServer
from causeway.sandbox.kms_gcp import GcpKmsServer
from tests.unit.test_signer_remote import ADDRESS, AWS_ENV, PRIVATE, transaction


async def test_every_kind_of_reference_gives_the_same_account(tmp_path: Path) -> None:
    keystore = tmp_path / "keeper.json"
    keystore.write_text(
        json.dumps(Account.encrypt(bytes.fromhex(PRIVATE), "open sesame", iterations=2))
    )
    async with (
        AwsKmsServer.start(PRIVATE) as aws,
        GcpKmsServer.start(PRIVATE) as gcp,
        AsyncExitStack() as stack,
    ):
        environment = {
            **AWS_ENV,
            "AWS_ENDPOINT_URL_KMS": aws.url,
            "CAUSEWAY_GCP_KMS_ENDPOINT": gcp.url,
            "GCE_METADATA_HOST": gcp.url.removeprefix("http://"),
            "CAUSEWAY_KEYSTORE_PASSWORD": "open sesame",
            "SECOND_KEY": "0x" + PRIVATE,
        }
        for reference in (
            f"aws-kms:eu-west-1/{aws.alias}",
            f"aws-kms:eu-west-1/arn:aws:kms:eu-west-1:111122223333:key/{aws.key_id}",
            f"gcp-kms:{gcp.version}",
            f"gcp-kms:{gcp.version}@{ADDRESS}",
            f"keystore:{keystore}",
            f"env:SECOND_KEY@{ADDRESS.lower()}",
        ):
            signer = await open_signer(reference, environment, stack)
            assert signer.address == ADDRESS
            signed = await signer.sign(transaction())
            assert Account.recover_transaction(signed.raw) == ADDRESS
            assert PRIVATE not in repr(signer)
        calls = len(aws.calls)
        await open_signer(f"aws-kms:eu-west-1/{aws.alias}@{ADDRESS}", environment, stack)
        assert len(aws.calls) == calls


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("vault:x", "allowed is one of aws-kms:"),
        ("aws-kms:", "no signer"),
        ("aws-kms:eu-west-1/alias/x@0x12", "no address"),
        ("env:NOT_SET", "NOT_SET is not set"),
        ("env:BAD", "not 64 hex digits"),
        ("env:GOOD@0x" + "11" * 20, f"is the key of {ADDRESS}"),
        ("keystore:/not/there", "No such file"),
        ("aws-kms:Ireland/x", "no AWS region"),
        ("gcp-kms:projects/x", "no key version"),
    ],
)
async def test_a_wrong_reference_is_told_without_the_key(reference: str, words: str) -> None:
    environment = {**AWS_ENV, "BAD": "0xshort-but-secret", "GOOD": PRIVATE}
    async with AsyncExitStack() as stack:
        with pytest.raises(ConfigurationError, match=words) as raised:
            await open_signer(reference, environment, stack)
    assert "short-but-secret" not in str(raised.value)
    assert PRIVATE not in str(raised.value)


def test_an_installation_s_limits_only_ever_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAUSEWAY_RELAYER_MAX_FEE_WEI", "50")
    monkeypatch.setenv("CAUSEWAY_RELAYER_DAILY_BUDGET_WEI", "1000")
    monkeypatch.setenv("CAUSEWAY_RELAYER_GAS_LIMIT_MAX", "8000000")
    monkeypatch.setenv("CAUSEWAY_RELAYER_BALANCE_WARNING_WEI", "7")
    limits = load(RelayerEnvironment)
    assert limits.limit(RelayerSettings()) == RelayerSettings(
        max_fee_wei=50, daily_budget_wei=1000, gas_limit_max=8_000_000, balance_warning_wei=7
    )
    stricter = RelayerSettings(
        max_fee_wei=20,
        daily_budget_wei=10,
        gas_limit_max=21_000,
        balance_warning_wei=9,
        in_flight_max=2,
    )
    assert limits.limit(stricter) == stricter
    assert load(RelayerEnvironment).limit(stricter).in_flight_max == 2


def test_signers_are_found_by_app_and_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAUSEWAY_SIGNERS", "glisk/base=env:A, glisk/base=env:B,motify/base=env:C")
    found = load(RelayerEnvironment)
    assert found.references("glisk", "base") == ["env:A", "env:B"]
    assert found.references("motify", "base") == ["env:C"]
    assert found.references("motify", "mantle") == []
    monkeypatch.setenv("CAUSEWAY_SIGNERS", "glisk=env:A")
    with pytest.raises(ConfigurationError, match="entry 1 must be app/chain"):
        load(RelayerEnvironment)
    monkeypatch.setenv("CAUSEWAY_RELAYER_DAILY_BUDGET_WEI", "-1")
    with pytest.raises(ConfigurationError, match="CAUSEWAY_RELAYER_DAILY_BUDGET_WEI"):
        load(RelayerEnvironment)
