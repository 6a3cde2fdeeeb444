"""GLISK's environment variables, with the names its specification gives."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Annotated, Literal

from eth_utils.address import is_address, to_checksum_address
from pydantic import AfterValidator, AliasChoices, Field, SecretStr

from causeway.base.settings import (
    CommaSeparated,
    Confirmations,
    PrivateKey,
    SecretList,
    Settings,
)


def _checksummed(value: str) -> str:
    if not is_address(value):
        raise ValueError("must be an address, 0x and 40 hex digits")
    return str(to_checksum_address(value))


def _json_object(value: str) -> str:
    if not isinstance(json.loads(value), dict):
        raise ValueError("must be a JSON object")
    return value


Address = Annotated[str, AfterValidator(_checksummed)]

#: What is known of the networks: chain id and host part of the provider's address.
NETWORKS: dict[str, tuple[int, str]] = {
    "BASE_MAINNET": (8453, "base-mainnet"),
    "BASE_SEPOLIA": (84532, "base-sepolia"),
}

#: Deployments of season 0: chain id -> (contract, first block).
DEPLOYMENTS: dict[int, tuple[str, int]] = {
    8453: ("0xb43185E67D4Fb27115AC419C9F8A335cC0B837B9", 37432871),
    84532: ("0x569d456c584Ac2bb2d66b075a31278630E7d43a0", 32652800),
}


class GliskSettings(Settings):
    """What GLISK can be told."""

    # chain
    network: Literal["BASE_MAINNET", "BASE_SEPOLIA", "LOCAL"] = Field(
        "BASE_SEPOLIA", description="LOCAL needs RPC_URLS and GLISK_CHAIN_ID"
    )
    alchemy_api_key: SecretStr | None = Field(None, description="builds the RPC address")
    rpc_urls: SecretList = Field(
        (), description="RPC addresses, used before Alchemy's, comma separated"
    )
    glisk_chain_id: int | None = Field(None, ge=1, description="chain id when NETWORK=LOCAL")
    glisk_nft_contract_address: Address | None = Field(
        None, description="the contract; default: season 0's on the network"
    )
    glisk_start_block: int | None = Field(
        None, ge=0, description="first block read; default: the contract's deployment"
    )
    glisk_log_range: int = Field(
        2000, ge=1, le=100_000, description="blocks asked for at once; shrinks when refused"
    )
    glisk_poll_seconds: float = Field(
        1.0, ge=0.05, le=60, description="how often the chain's head is asked for"
    )

    # webhooks
    alchemy_webhook_secret: SecretList = Field(
        (), description="signing keys, several while rotating"
    )
    glisk_webhook_duplicate_status: Literal[200, 409] = Field(
        409, description="answer to a delivery whose events are all known"
    )

    # keeper and reveals
    keeper_private_key: PrivateKey | None = Field(
        None, description="signs reveals; without it tokens wait in `ready`"
    )
    keeper_keystore: str | None = Field(None, description="encrypted keystore file instead")
    keeper_keystore_password: SecretStr | None = Field(None, description="its password")
    other_signers: CommaSeparated = Field(
        (),
        validation_alias="CAUSEWAY_SIGNERS",
        description="glisk/base=…: keys in key services instead, one or several",
    )
    batch_reveal_wait_seconds: float = Field(
        5.0, ge=0, le=60, description="wait for more tokens after the first is ready"
    )
    batch_reveal_max_tokens: int = Field(50, ge=1, le=50, description="tokens a transaction")
    glisk_reveal_confirmations: Confirmations = Field(
        10, description="depth of mints before, and of reveals after: blocks, or a finality tag"
    )
    gas_strategy: Literal["slow", "medium", "fast"] = Field(
        "medium", validation_alias=AliasChoices("GAS_STRATEGY", "KEEPER_GAS_STRATEGY")
    )
    reveal_gas_buffer_multiplier: Decimal = Field(
        Decimal("1.2"),
        ge=1,
        le=5,
        validation_alias=AliasChoices("REVEAL_GAS_BUFFER_MULTIPLIER", "REVEAL_GAS_BUFFER"),
        description="gas limit = estimate times this, rounded down",
    )
    reveal_max_gas_price_gwei: Decimal | None = Field(
        None, gt=0, description="above it reveals wait; none by default"
    )
    transaction_timeout_seconds: float = Field(
        180, ge=1, le=86_400, description="unmined for this long: sent again with more gas"
    )

    # images
    image_provider: Literal["auto", "replicate", "selfhosted", "automatic1111", "builtin"] = Field(
        "auto", description="auto: Replicate with a token, else self-hosted, else built in"
    )
    replicate_api_token: SecretStr | None = Field(None, description="Replicate's r8_… token")
    replicate_base_url: str = "https://api.replicate.com/v1"
    replicate_model_version: str = "black-forest-labs/flux-schnell"
    replicate_input_json: Annotated[str, AfterValidator(_json_object)] = Field(
        "{}", description="extra input for the model, a JSON object"
    )
    replicate_webhook_secret: SecretStr | None = Field(
        None, description="whsec_… of /webhooks/replicate; a hint only"
    )
    selfhosted_image_api_url: str | None = Field(None, description="fallback generator")
    generation_timeout_seconds: float = Field(300, ge=1, le=3600)
    image_url_allowed_hosts: CommaSeparated = Field(
        ("replicate.delivery", "*.replicate.delivery"), description="where images may come from"
    )
    glisk_allow_insecure_image_urls: bool = Field(
        False, description="http and local addresses; for the sandbox only"
    )
    default_prompt: str = Field("A glitchy digital art piece", min_length=1, max_length=1000)
    fallback_censored_prompt: str = Field(
        "A calm geometric landscape in soft colours, with a small closed door: "
        "the requested prompt was refused",
        min_length=1,
        max_length=1000,
    )
    default_author_wallet: Address | None = Field(
        None, description="author of mints that name none; default: the contract"
    )

    # IPFS
    ipfs_provider: Literal["auto", "pinata", "kubo"] = Field(
        "auto", description="auto: Pinata with credentials, else the node at IPFS_API_URL"
    )
    pinata_jwt: SecretStr | None = None
    pinata_api_key: SecretStr | None = None
    pinata_api_secret: SecretStr | None = None
    pinata_base_url: str = "https://api.pinata.cloud"
    pinata_gateway: str = Field(
        "gateway.pinata.cloud", description="host, or an address with its scheme"
    )
    pinata_rate_per_minute: int = Field(180, ge=1, le=100_000)
    ipfs_api_url: str | None = Field(None, description="RPC of a Kubo node")
    metadata_name_template: str = "GLISK S0 #{token_id}"
    metadata_description: str = "GLISK Season 0. https://x.com/getglisk"
    metadata_external_url: str | None = None

    # workers
    enable_image_worker: bool = True
    enable_ipfs_worker: bool = True
    enable_reveal_worker: bool = True
    worker_poll_interval: float = Field(
        1.0,
        ge=0.1,
        le=5.0,
        validation_alias=AliasChoices("WORKER_POLL_INTERVAL", "POLL_INTERVAL_SECONDS"),
        description="seconds between looks for forgotten work, under the notifications",
    )
    worker_batch_size: int = Field(10, ge=1, le=500, description="tokens in work at once, a stage")
    glisk_lease_seconds: float = Field(120, ge=1, le=3600, description="after a crash")
    glisk_max_attempts: int = Field(10, ge=1, le=1000)
    recovery_batch_size: int = Field(1000, ge=1, le=2000)

    # people
    x_client_id: str | None = None
    x_client_secret: SecretStr | None = None
    x_redirect_uri: str | None = None
    x_authorize_url: str = "https://x.com/i/oauth2/authorize"
    x_api_base_url: str = "https://api.x.com"
    farcaster_rpc_urls: SecretList = Field((), description="Optimism RPC for the id registry")
    farcaster_hub_url: str = "https://fnames.farcaster.xyz"
    frontend_url: str = "http://localhost:5173"
    cors_origins: CommaSeparated = ()
    admin_token: SecretStr | None = Field(
        None, description="bearer token of /admin; without it only this machine may call it"
    )
    glisk_legacy_signatures: bool = Field(False, description="accept the old replayable texts")

    @property
    def chain_id(self) -> int | None:
        """The chain id of the network."""
        if self.network == "LOCAL":
            return self.glisk_chain_id
        return NETWORKS[self.network][0]

    @property
    def contract(self) -> str | None:
        """The contract's address, EIP-55."""
        if self.glisk_nft_contract_address:
            return self.glisk_nft_contract_address
        known = DEPLOYMENTS.get(self.chain_id or 0)
        return known[0] if known else None

    @property
    def first_block(self) -> int | None:
        """The first block to read, when it is known."""
        if self.glisk_start_block is not None:
            return self.glisk_start_block
        known = DEPLOYMENTS.get(self.chain_id or 0)
        return known[1] if known and known[0] == self.contract else None

    @property
    def providers(self) -> tuple[SecretStr, ...]:
        """RPC addresses in the order they are asked."""
        urls = self.rpc_urls
        if self.alchemy_api_key and self.network in NETWORKS:
            host = NETWORKS[self.network][1]
            key = self.alchemy_api_key.get_secret_value()
            urls = (*urls, SecretStr(f"https://{host}.g.alchemy.com/v2/{key}"))
        return urls

    @property
    def author_of_nobody(self) -> str:
        """The author that mints naming the zero address are booked to."""
        return self.default_author_wallet or self.contract or "0x" + "0" * 40

    @property
    def gateway_url(self) -> str:
        """Address of the IPFS gateway, with scheme, without a final slash."""
        gateway = self.pinata_gateway.rstrip("/")
        return gateway if "://" in gateway else f"https://{gateway}"

    def missing(self) -> list[str]:
        """Return what must be set before GLISK can read its chain at all."""
        problems: list[str] = []
        if not self.providers:
            problems.append("RPC_URLS or ALCHEMY_API_KEY: no way to ask the chain")
        if self.chain_id is None:
            problems.append("GLISK_CHAIN_ID: required when NETWORK=LOCAL")
        if self.contract is None:
            problems.append("GLISK_NFT_CONTRACT_ADDRESS: required when NETWORK=LOCAL")
        return problems

    def missing_for_production(self) -> list[str]:
        """Return what production must not run without."""
        problems = self.missing()
        if not self.alchemy_webhook_secret:
            problems.append("ALCHEMY_WEBHOOK_SECRET: without it every webhook is refused")
        own = self.keeper_private_key is not None or self.keeper_keystore is not None
        if not own and not any(one.startswith("glisk/") for one in self.other_signers):
            problems.append("KEEPER_PRIVATE_KEY (or KEEPER_KEYSTORE): nothing can be revealed")
        if not (self.pinata_jwt or (self.pinata_api_key and self.pinata_api_secret)) and (
            self.ipfs_api_url is None
        ):
            problems.append("PINATA_JWT (or PINATA_API_KEY and PINATA_API_SECRET, or IPFS_API_URL)")
        if self.glisk_allow_insecure_image_urls:
            problems.append("GLISK_ALLOW_INSECURE_IMAGE_URLS: is for the sandbox, unset it")
        if self.glisk_legacy_signatures:
            problems.append("GLISK_LEGACY_SIGNATURES: old signatures can be replayed for ever")
        return problems
