"""Motify's environment variables, with the names its specification gives."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any, Literal

from eth_utils.address import is_address
from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, SecretStr

from causeway.base.settings import (
    CommaSeparated,
    Confirmations,
    PrivateKey,
    SecretList,
    Settings,
    WebAddress,
)
from causeway.connections import github, neynar, wakatime

#: The contract on Base.
MAINNET = (8453, "0xa9849d7627ad1156b97cdf84accd67b86611c200")

#: Seconds after the end of a challenge from which people may take their stake back undeclared.
TIMEOUT_S = 7 * 86_400

MILLION = 1_000_000


def _lower_address(value: str) -> str:
    if not is_address(value):
        raise ValueError("must be an address, 0x and 40 hex digits")
    return value.lower()


def _clamped(value: Any) -> Any:
    if isinstance(value, str) and value.strip().lstrip("+-").isdigit():
        value = int(value)
    return min(MILLION, max(0, value)) if isinstance(value, int) else value


def _yes(value: Any) -> Any:
    """Anything but 1, true and yes is no: money moves only when somebody clearly said so."""
    return value.strip().lower() in ("1", "true", "yes") if isinstance(value, str) else value


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"must be a regular expression: {error}") from None
    return value


Address = Annotated[str, AfterValidator(_lower_address)]
Ppm = Annotated[int, BeforeValidator(_clamped)]
Yes = Annotated[bool, BeforeValidator(_yes)]

_LOCAL = tuple(
    f"http://{host}:{port}"
    for host, ports in (("localhost", (3000, 5173, 8080)), ("127.0.0.1", (3000, 8080)))
    for port in ports
)
_FRONTENDS = (*_LOCAL, "https://motify.live", "https://www.motify.live")


class MotifySettings(Settings):
    """What Motify can be told."""

    env: str = Field("production", description="development opens /jobs to this machine")

    # chain
    web3_rpc_url: SecretList = Field((), description="RPC addresses of the chain, comma separated")
    chain_id: int = Field(MAINNET[0], ge=1, description="a node of another chain is refused")
    motify_contract_address: Address | None = Field(
        None, description="the contract; default: the one on Base"
    )
    motify_contract_abi_path: str | None = Field(
        None, description="its ABI: a JSON array, or an artifact with `abi`; default: built in"
    )
    motify_start_block: int | None = Field(
        None, ge=0, description="first block read; default: the contract's deployment"
    )
    motify_finality: Confirmations = Field(
        "finalized", description="how deep a block must be to decide on it: blocks, or a tag"
    )
    motify_poll_seconds: float = Field(
        2.0, ge=0.05, le=60, description="how often the chain's head is asked for"
    )
    motify_log_range: int = Field(2000, ge=1, le=100_000, description="blocks asked for at once")
    stake_token_decimals: int = Field(6, ge=0, le=36, description="decimals of the stakes")

    # declaring
    private_key: PrivateKey | None = Field(
        None,
        validation_alias=AliasChoices("PRIVATE_KEY", "SERVER_SIGNER_PRIVATE_KEY"),
        description="key of the contract's owner; without it nothing is declared",
    )
    other_signers: CommaSeparated = Field(
        (),
        validation_alias="CAUSEWAY_SIGNERS",
        description="motify/base=…: the owner's key in a key service instead",
    )
    send_tx: Yes = Field(
        False,
        validation_alias=AliasChoices("SEND_TX", "TX_SEND"),
        description="1, true or yes: declare on chain; anything else: only show what would be",
    )
    finalize: bool = Field(True, description="finalize challenges whose people are all declared")
    max_fee_gwei: Decimal | None = Field(None, gt=0, description="the most paid per gas")
    gas_limit: int | None = Field(
        None, ge=21_000, le=2**24, description="the most gas of one transaction"
    )
    chunk_size: int = Field(200, ge=1, le=200, description="participants a transaction")
    motify_stuck_seconds: float = Field(
        60, ge=1, le=86_400, description="unmined for this long: sent again with more gas"
    )

    # scoring
    default_percent_ppm: Ppm = Field(
        MILLION, description="share for who cannot be measured until the deadline, 0 to 1000000"
    )
    no_connection_percent_ppm: Ppm | None = Field(
        None, description="share for who connected nothing; default: DEFAULT_PERCENT_PPM"
    )
    scoring_grace_seconds: int = Field(
        86_400, ge=0, le=6 * 86_400, description="readings are repeated this long after the end"
    )
    decide_before_timeout_seconds: int = Field(
        86_400,
        ge=0,
        le=6 * 86_400,
        description="how long before the contract's 7 days run out all is decided",
    )
    motify_lease_seconds: float = Field(
        30, ge=1, le=3600, description="a worker that is gone is found out after this"
    )
    motify_measure_batch: int = Field(
        32, ge=1, le=500, description="participants measured at once in one process"
    )

    # providers
    github_client_id: str | None = None
    github_client_secret: SecretStr | None = None
    github_api_base_url: WebAddress = github.API_URL
    github_oauth_base_url: WebAddress = github.OAUTH_URL
    neynar_api_key: SecretStr | None = None
    neynar_api_base_url: WebAddress = neynar.API_URL
    neynar_requests_per_minute: int = Field(
        neynar.RATE.requests, ge=1, le=100_000, description="of your plan, for one endpoint"
    )
    farcaster_user_casts_url: WebAddress | None = Field(
        None, description="default: Neynar's feed of a user"
    )
    wakatime_api_base_url: WebAddress = wakatime.API_URL

    # people
    backend_url: WebAddress = Field("http://localhost:8000", description="where GitHub sends back")
    frontend_url: WebAddress = Field("http://localhost:5173", description="where people are")
    motify_oauth_result: Literal["redirect", "page"] = Field(
        "redirect", description="page: for a frontend at this backend's own origin"
    )
    motify_allow_unsigned_wakatime: bool = Field(
        False, description="admit WakaTime calls without signatures, during a migration"
    )
    cron_secret: SecretStr | None = Field(None, description="x-cron-secret of /jobs")
    cors_origins: CommaSeparated = Field(_FRONTENDS, description="origins of frontends")
    cors_origin_pattern: Annotated[str, AfterValidator(_pattern)] | None = Field(
        None, description="regular expression for whole origins of preview deployments"
    )
    reminder_webhook_url: WebAddress | None = Field(None, description="told of reminders")
    reminder_webhook_secret: SecretStr | None = Field(None, description="signs them, HMAC-SHA256")
    admin_token: SecretStr | None = Field(None, description="bearer token of operators")

    # of the original, where storage was Supabase and tokens were looked up in its tables
    supabase_url: str | None = Field(None, description="ignored")
    supabase_anon_key: SecretStr | None = Field(None, description="ignored")
    supabase_service_role_key: SecretStr | None = Field(None, description="ignored")
    user_tokens_table: str | None = Field(None, description="ignored")

    @property
    def contract(self) -> str | None:
        """The contract's address in lower case; None when it is not known on this chain."""
        if self.motify_contract_address is not None:
            return self.motify_contract_address
        return MAINNET[1] if self.chain_id == MAINNET[0] else None

    @property
    def no_connection_ppm(self) -> int:
        """The share of who connected nothing, in millionths."""
        given = self.no_connection_percent_ppm
        return self.default_percent_ppm if given is None else given

    @property
    def fallbacks(self) -> tuple[int, int]:
        """The shares of who cannot be measured, and of who connected nothing, in millionths."""
        return self.default_percent_ppm, self.no_connection_ppm

    def grace_end(self, end_time: int) -> int:
        """Return the chain time from which readings count as they are, Unix seconds."""
        return end_time + self.scoring_grace_seconds

    def decision_time(self, end_time: int) -> int:
        """Return the chain time at which those who could not be measured are decided on."""
        return end_time + TIMEOUT_S - self.decide_before_timeout_seconds

    def ignored(self) -> list[str]:
        """Return the names of settings of the original that mean nothing here."""
        names = ("supabase_url", "supabase_anon_key", "supabase_service_role_key")
        return [n.upper() for n in (*names, "user_tokens_table") if getattr(self, n) is not None]

    def missing(self) -> list[str]:
        """Return what must be set before the chain can be read at all."""
        problems: list[str] = []
        if not self.web3_rpc_url:
            problems.append("WEB3_RPC_URL: no way to ask the chain")
        if self.contract is None:
            problems.append(f"MOTIFY_CONTRACT_ADDRESS: not known on chain {self.chain_id}")
        return problems

    def missing_for_production(self) -> list[str]:
        """Return what production must not run without."""
        problems = self.missing()
        if self.cron_secret is None:
            problems.append("CRON_SECRET: without it /jobs is closed")
        own = self.private_key is not None
        if (
            self.send_tx
            and not own
            and not any(o.startswith("motify/") for o in self.other_signers)
        ):
            problems.append("PRIVATE_KEY: SEND_TX is on and nobody can sign")
        if self.motify_allow_unsigned_wakatime:
            problems.append(
                "MOTIFY_ALLOW_UNSIGNED_WAKATIME: anybody may overwrite anybody's key, unset it"
            )
        if (self.github_client_id is None) != (self.github_client_secret is None):
            problems.append("GITHUB_CLIENT_ID and GITHUB_CLIENT_SECRET belong together")
        return problems
