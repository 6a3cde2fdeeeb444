"""Keys in AWS KMS and in Google Cloud KMS as signers, against stand-ins that hold a real key."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
import rlp
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from eth_account import Account
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from causeway.base.errors import (
    CausewayError,
    ConfigurationError,
    InvalidInput,
    ProviderUnavailable,
    RateLimited,
    SignatureInvalid,
    TransientError,
)
from causeway.chains.evm.aws_credentials import AwsCredentials, CredentialSource
from causeway.chains.evm.signer import LocalSigner
from causeway.chains.evm.signer_aws import AwsKmsKey, authorization
from causeway.chains.evm.signer_gcp import GcpKmsKey, GcpTokens, crc32c
from causeway.chains.evm.signer_remote import (
    ORDER,
    DigestKey,
    RemoteSigner,
    normalised,
    public_key_of,
)
from causeway.sandbox.kms_aws import AwsKmsServer, curve_key, sign_digest
from causeway.sandbox.kms_gcp import GcpKmsServer, checksum
from tests.chain.reveals import TestClock

PRIVATE = "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d"
ADDRESS = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
AWS_ENV = {
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
}

Server = AwsKmsServer | GcpKmsServer


def transaction(**changes: object) -> dict[str, object]:
    made: dict[str, object] = {
        "type": 2,
        "chainId": 8453,
        "nonce": 7,
        "to": "0x5FbDB2315678afecb367f032d93F642f64180aa3",
        "data": b"\x01\x02",
        "value": 0,
        "gas": 100_000,
        "maxFeePerGas": 3 * 10**9,
        "maxPriorityFeePerGas": 10**9,
    }
    return made | changes


def decoded(raw: bytes) -> list[Any]:
    assert raw[:1] == b"\x02"
    return cast("list[Any]", cast("Any", rlp).decode(raw[1:]))


@dataclass
class Service:
    """A key service, and keys in it as a relayer has them."""

    server: Server
    #: Makes a key: of the one that is there, or of another name.
    key: Callable[..., DigestKey]


@asynccontextmanager
async def aws(clock: TestClock, **environment: str) -> AsyncGenerator[Service]:
    async with AwsKmsServer.start(PRIVATE, clock=clock) as server:
        made: list[AwsKmsKey] = []

        def key(name: str = server.alias) -> DigestKey:
            source = CredentialSource(environment or AWS_ENV, clock=clock)
            one = AwsKmsKey(
                name,
                region=server.region,
                credentials=source,
                endpoint=server.url,
                clock=clock,
                timeout_s=2,
            )
            made.append(one)
            return one

        yield Service(server, key)
        for one in made:
            await one.aclose()


@asynccontextmanager
async def gcp(clock: TestClock, **environment: str) -> AsyncGenerator[Service]:
    async with GcpKmsServer.start(PRIVATE, clock=clock) as server:
        made: list[GcpKmsKey] = []

        def key(name: str = server.version) -> DigestKey:
            host = {"GCE_METADATA_HOST": server.url.removeprefix("http://")}
            tokens = GcpTokens(host | environment, clock=clock)
            one = GcpKmsKey(name, tokens, endpoint=server.url, timeout_s=2)
            made.append(one)
            return one

        yield Service(server, key)
        for one in made:
            await one.aclose()


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


@pytest.fixture(params=[aws, gcp], ids=["aws", "gcp"])
async def service(request: pytest.FixtureRequest, clock: TestClock) -> AsyncGenerator[Service]:
    async with request.param(clock) as made:
        yield made


async def test_transactions_are_those_the_same_key_signs_here(service: Service) -> None:
    remote = await RemoteSigner.open(service.key())
    assert remote.address == ADDRESS
    for nonce in range(24):  # the service's s is high every other time
        tx = transaction(nonce=nonce, data=bytes(nonce), value=nonce * 10**18)
        signed = await remote.sign(tx)
        assert Account.recover_transaction(signed.raw) == ADDRESS
        theirs = decoded(signed.raw)
        ours = decoded((await LocalSigner.from_private_key(PRIVATE).sign(tx)).raw)
        assert int.from_bytes(theirs[-1]) <= ORDER // 2
        assert theirs[:-3] == ours[:-3]
        assert signed.hash == "0x" + keccak(signed.raw).hex()


async def test_with_an_address_the_service_is_first_asked_when_it_has_to_sign(
    service: Service,
) -> None:
    remote = await RemoteSigner.open(service.key(), ADDRESS.lower())
    assert (service.server.calls, remote.address) == ([], ADDRESS)
    await remote.sign(transaction())
    await remote.sign(transaction())
    assert len(service.server.calls) == 3  # the public key once
    wrong = await RemoteSigner.open(service.key(), "0x" + "11" * 20)
    with pytest.raises(ConfigurationError, match=f"is the key of {ADDRESS}, not of 0x1111"):
        await wrong.sign(transaction())


FAULTS: list[tuple[Any, str, type[CausewayError]]] = [
    (aws, "throttled", RateLimited),
    (gcp, "quota", RateLimited),
    (aws, "unavailable", ProviderUnavailable),
    *((one, "internal", ProviderUnavailable) for one in (aws, gcp)),
    *((one, "cut", ProviderUnavailable) for one in (aws, gcp)),
    *((one, "disabled", ConfigurationError) for one in (aws, gcp)),
    *((one, "denied", ConfigurationError) for one in (aws, gcp)),
    *((one, "garbage", SignatureInvalid) for one in (aws, gcp)),
    *((one, "other_key", SignatureInvalid) for one in (aws, gcp)),
    (aws, "other_digest", SignatureInvalid),
    (gcp, "damaged_digest", ProviderUnavailable),
    (gcp, "damaged_answer", ProviderUnavailable),
]


@pytest.mark.parametrize(("which", "fault", "error"), FAULTS)
async def test_what_goes_wrong_there_gives_no_signature_and_says_what_to_do(
    clock: TestClock, which: Any, fault: str, error: type[CausewayError]
) -> None:
    async with which(clock) as service:
        remote = await RemoteSigner.open(service.key())
        service.server.faults = [fault]
        with pytest.raises(error) as raised:
            await remote.sign(transaction())
        if error is ConfigurationError:
            assert raised.value.hint
        # It is over, and the same signer goes on.
        assert Account.recover_transaction((await remote.sign(transaction())).raw) == ADDRESS


async def test_a_key_that_is_not_there_or_of_another_kind_is_told(service: Service) -> None:
    other = (
        "alias/other"
        if isinstance(service.server, AwsKmsServer)
        else service.server.version[:-1] + "2"
    )
    with pytest.raises(ConfigurationError, match=r"NotFoundException|404"):
        await RemoteSigner.open(service.key(other))
    service.server.curve_key = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(ConfigurationError, match="not on secp256k1"):
        await RemoteSigner.open(service.key())
    if isinstance(service.server, AwsKmsServer):
        service.server.key_usage = "KEY_AGREEMENT"
    else:
        service.server.algorithm = "EC_SIGN_P256_SHA256"
    with pytest.raises(ConfigurationError, match="not for"):
        await RemoteSigner.open(service.key())


async def test_names_that_cannot_be_right_are_refused_at_once(clock: TestClock) -> None:
    source = CredentialSource(AWS_ENV, clock=clock)
    with pytest.raises(ConfigurationError, match="no AWS region"):
        AwsKmsKey("alias/x", region="Ireland", credentials=source)
    with pytest.raises(ConfigurationError, match="no id, ARN or alias"):
        AwsKmsKey("alias/x y", region="eu-west-1", credentials=source)
    with pytest.raises(ConfigurationError, match="no key version"):
        GcpKmsKey("projects/p/cryptoKeys/k", GcpTokens({}, clock=clock))
    await source.aclose()


async def test_requests_with_other_credentials_are_refused(clock: TestClock) -> None:
    async with aws(clock, **(AWS_ENV | {"AWS_SECRET_ACCESS_KEY": "not it"})) as service:
        with pytest.raises(ConfigurationError, match="InvalidSignatureException"):
            await service.key().public_key()
    async with aws(clock, **(AWS_ENV | {"AWS_ACCESS_KEY_ID": "nobody"})) as service:
        with pytest.raises(ConfigurationError, match="UnrecognizedClientException"):
            await service.key().public_key()
    async with aws(clock, AWS_ACCESS_KEY_ID="half") as service:
        with pytest.raises(ConfigurationError, match="set together"):
            await service.key().public_key()
    async with aws(clock, AWS_EC2_METADATA_DISABLED="true") as service:
        with pytest.raises(ConfigurationError, match="no AWS credentials"):
            await service.key().public_key()


async def test_a_clock_that_is_wrong_is_told(clock: TestClock) -> None:
    async with aws(clock) as service:
        late = TestClock()
        late.move(3600)
        source = CredentialSource(AWS_ENV, clock=late)
        server = service.server
        assert isinstance(server, AwsKmsServer)
        key = AwsKmsKey(
            server.alias, region=server.region, credentials=source, endpoint=server.url, clock=late
        )
        with pytest.raises(ConfigurationError, match="Signature expired"):
            await key.public_key()
        await key.aclose()


@pytest.mark.parametrize("place", ["container", "instance"])
async def test_temporary_credentials_are_fetched_and_fetched_again(
    clock: TestClock, place: str
) -> None:
    async with AwsKmsServer.start(PRIVATE, clock=clock) as server:
        environment = {
            "container": {
                "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{server.url}/container",
                "AWS_CONTAINER_AUTHORIZATION_TOKEN": "agent-token",
            },
            "instance": {"AWS_EC2_METADATA_SERVICE_ENDPOINT": server.url},
        }[place]
        source = CredentialSource(environment, clock=clock)
        key = AwsKmsKey(
            server.key_id,
            region=server.region,
            credentials=source,
            endpoint=server.url,
            clock=clock,
        )
        signer = await RemoteSigner.open(key)
        given = len(server.secrets)
        await signer.sign(transaction())
        assert len(server.secrets) == given == 2
        clock.move(6 * 3600 - 200)  # five minutes before their end
        await signer.sign(transaction())
        assert len(server.secrets) == 3
        # Taken back before their time: fetched anew once.
        server.secrets = {"AKIDEXAMPLE": server.secrets["AKIDEXAMPLE"]}
        await signer.sign(transaction())
        assert len(server.secrets) == 2
        await key.aclose()


async def test_an_agent_elsewhere_is_never_sent_the_token_in_the_open() -> None:
    source = CredentialSource(
        {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://agent.example/creds",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": "secret",
        }
    )
    with pytest.raises(ConfigurationError, match="not asked without TLS"):
        await source.get()
    await source.aclose()


async def test_google_s_tokens_are_kept_while_they_are_good(clock: TestClock) -> None:
    async with gcp(clock) as service:
        server = service.server
        assert isinstance(server, GcpKmsServer)
        signer = await RemoteSigner.open(service.key())
        await signer.sign(transaction())
        assert server.tokens_given == 1
        clock.move(3600 - 30)
        await signer.sign(transaction())
        assert server.tokens_given == 2
        server.faults = ["stale_token"]
        await signer.sign(transaction())
        assert server.tokens_given == 3
        server.faults = ["stale_token", "stale_token"]
        with pytest.raises(ConfigurationError, match="401"):
            await signer.sign(transaction())


async def test_a_service_account_s_key_file_gives_tokens(clock: TestClock, tmp_path: Path) -> None:
    file = tmp_path / "account.json"
    async with gcp(clock, GOOGLE_APPLICATION_CREDENTIALS="/dev/null") as service:
        with pytest.raises(ConfigurationError, match="is not JSON"):
            service.key()
    async with GcpKmsServer.start(PRIVATE, clock=clock) as server:
        file.write_bytes(server.key_file())
        environment = {"GOOGLE_APPLICATION_CREDENTIALS": str(file)}
        key = GcpKmsKey(server.version, GcpTokens(environment, clock=clock), endpoint=server.url)
        assert (await RemoteSigner.open(key)).address == ADDRESS
        await key.aclose()
        other = GcpKmsServer(PRIVATE)
        other.url = server.url
        file.write_bytes(other.key_file())
        key = GcpKmsKey(server.version, GcpTokens(environment, clock=clock), endpoint=server.url)
        with pytest.raises(ConfigurationError, match="no access token") as raised:
            await key.public_key()
        assert "PRIVATE" not in str(raised.value)
        await key.aclose()
    for content, words in (
        ("[]", "no key file of a service account"),
        (
            '{"type": "service_account", "private_key": "-----BEGIN"}',
            "lacks a readable private_key",
        ),
    ):
        file.write_text(content)
        with pytest.raises(ConfigurationError, match=words):
            GcpTokens({"GOOGLE_APPLICATION_CREDENTIALS": str(file)})


@given(st.binary(min_size=32, max_size=32), st.booleans())
def test_any_signature_becomes_one_that_nodes_take(digest: bytes, flip: bool) -> None:
    key = curve_key(PRIVATE)
    public = public_key_of(key.public_key(), "test")
    r, s = decode_dss_signature(sign_digest(key, digest))
    der = encode_dss_signature(r, ORDER - s if flip else s)
    found_r, found_s, parity = normalised(der, digest, public)
    assert (found_r, parity in (0, 1)) == (r, True)
    assert found_s <= ORDER // 2
    assert found_s in (s, ORDER - s)


@pytest.mark.parametrize(
    ("r", "s"), [(0, 1), (1, 0), (ORDER, 1), (1, ORDER), (ORDER + 1, 5), (5, 2**256)]
)
def test_numbers_outside_the_order_are_no_signature(r: int, s: int) -> None:
    public = public_key_of(curve_key(PRIVATE).public_key(), "test")
    with pytest.raises(SignatureInvalid):
        normalised(encode_dss_signature(r, s), bytes(32), public)


@given(st.binary(max_size=90))
def test_garbage_is_no_signature(der: bytes) -> None:
    public = public_key_of(curve_key(PRIVATE).public_key(), "test")
    with pytest.raises(SignatureInvalid):
        normalised(der, bytes(32), public)


async def test_other_types_and_missing_fields_are_refused(service: Service) -> None:
    remote = await RemoteSigner.open(service.key())
    with pytest.raises(InvalidInput, match="type 0"):
        await remote.sign(transaction(type=0))
    lacking = transaction()
    del lacking["gas"]
    with pytest.raises(InvalidInput, match="lacks gas"):
        await remote.sign(lacking)


@pytest.mark.parametrize(
    ("method", "signature"),
    [
        ("GET", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        ("POST", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
    ],
)
def test_requests_are_signed_as_in_the_published_examples(method: str, signature: str) -> None:
    """`get-vanilla` and `post-vanilla` of AWS's test suite for Signature Version 4."""
    made = authorization(
        AwsCredentials("AKIDEXAMPLE", SecretStr("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")),
        method=method,
        url="https://example.amazonaws.com/",
        headers={},
        body=b"",
        region="us-east-1",
        service="service",
        at=datetime(2015, 8, 30, 12, 36, tzinfo=UTC),
    )
    assert made["Authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        f"SignedHeaders=host;x-amz-date, Signature={signature}"
    )


def test_checksums_are_castagnoli_s() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert checksum(b"123456789") == str(0xE3069283)


async def test_no_secret_is_in_what_is_said(
    clock: TestClock, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    said: list[str] = []

    async def failing(call: Callable[[], Awaitable[object]]) -> None:
        try:
            await call()
        except CausewayError as error:
            said.append("".join(traceback.format_exception(error)) + repr(error.context))

    async with aws(clock) as one, gcp(clock) as two:
        for service in (one, two):
            signer = await RemoteSigner.open(service.key())
            for fault in ("internal", "denied", "garbage", "cut", "disabled"):
                service.server.faults = [fault]
                await failing(lambda signer=signer: signer.sign(transaction()))
            said += [repr(signer), repr(service.key())]
        given: dict[str, Any] = vars(two.server)["_tokens"]
        secrets = [PRIVATE, AWS_ENV["AWS_SECRET_ACCESS_KEY"], *given]
    local = LocalSigner.from_private_key(PRIVATE)
    said += [
        repr(local),
        str(local),
        repr(CredentialSource(AWS_ENV)),
        repr(AwsCredentials("a", SecretStr("hidden-one"))),
    ]
    captured = capsys.readouterr()
    everything = "\n".join([*said, caplog.text, captured.out, captured.err])
    assert len(said) > 10
    for secret in [*secrets, "hidden-one"]:
        assert secret not in everything


async def test_a_service_that_hangs_is_given_up_in_time(clock: TestClock) -> None:
    async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ended.wait()
        writer.close()

    ended = asyncio.Event()
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    key = AwsKmsKey(
        "alias/keeper",
        region="eu-west-1",
        credentials=CredentialSource(AWS_ENV, clock=clock),
        endpoint=f"http://127.0.0.1:{port}",
        clock=clock,
        timeout_s=0.2,
    )
    with pytest.raises(TransientError, match="did not answer"):
        await key.sign_digest(bytes(32))
    await key.aclose()
    ended.set()
    server.close()
    await server.wait_closed()
