"""Signers by reference, as an operator writes them in one line.

    aws-kms:eu-west-1/alias/keeper      a key in AWS KMS, by id, ARN or alias
    gcp-kms:projects/…/cryptoKeyVersions/1
    keystore:/run/keeper.json           an encrypted file; CAUSEWAY_KEYSTORE_PASSWORD opens it
    env:KEEPER_2_PRIVATE_KEY            a private key in that variable

With `@0x…` at the end a key service is first asked when it has to sign, and the key must turn out
to have that address.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack

from eth_utils.address import is_address

from causeway.base.clock import SYSTEM_CLOCK, Clock
from causeway.base.errors import ConfigurationError
from causeway.base.logging import conceal
from causeway.chains.evm.aws_credentials import CredentialSource
from causeway.chains.evm.signer import LocalSigner, Signer
from causeway.chains.evm.signer_aws import AwsKmsKey
from causeway.chains.evm.signer_gcp import ENDPOINT, GcpKmsKey, GcpTokens
from causeway.chains.evm.signer_remote import RemoteSigner

KINDS = ("aws-kms", "gcp-kms", "keystore", "env")


async def open_signer(
    reference: str,
    environment: Mapping[str, str],
    stack: AsyncExitStack,
    *,
    clock: Clock = SYSTEM_CLOCK,
) -> Signer:
    """Return the signer that a reference names; `stack` closes its connections.

    The services' own variables are read from `environment` (AWS_ENDPOINT_URL_KMS and those of
    credentials). Raises `ConfigurationError` that says what is wrong with the reference, and
    `TransientError` when a service does not answer.
    """
    kind, _, rest = reference.partition(":")
    rest, _, address = rest.partition("@")
    if kind not in KINDS or not rest:
        forms = ", ".join(f"{one}:…" for one in KINDS)
        raise ConfigurationError(f"{reference!r} is no signer; allowed is one of {forms}")
    if address and not is_address(address):
        raise ConfigurationError(f"{reference!r}: {address!r} is no address")
    if kind == "aws-kms":
        region, _, key_id = rest.partition("/")
        key = AwsKmsKey(
            key_id,
            region=region,
            credentials=CredentialSource(environment, clock=clock),
            endpoint=environment.get("AWS_ENDPOINT_URL_KMS"),
            clock=clock,
        )
        stack.push_async_callback(key.aclose)
        return await RemoteSigner.open(key, address or None)
    if kind == "gcp-kms":
        tokens = GcpTokens(environment, clock=clock)
        endpoint = environment.get("CAUSEWAY_GCP_KMS_ENDPOINT", ENDPOINT)
        version = GcpKmsKey(rest, tokens, endpoint=endpoint)
        stack.push_async_callback(version.aclose)
        return await RemoteSigner.open(version, address or None)
    signer = await _local(kind, rest, environment)
    if address and signer.address.lower() != address.lower():
        raise ConfigurationError(f"{kind}:{rest} is the key of {signer.address}, not of {address}")
    return signer


async def _local(kind: str, rest: str, environment: Mapping[str, str]) -> LocalSigner:
    if kind == "env":
        secret = environment.get(rest)
        if not secret:
            raise ConfigurationError(f"env:{rest}: the variable {rest} is not set")
        conceal(secret)
        return LocalSigner.from_private_key(secret)
    password = environment.get("CAUSEWAY_KEYSTORE_PASSWORD", "")
    if password:
        conceal(password)
    return await asyncio.to_thread(LocalSigner.from_keystore, rest, password)
