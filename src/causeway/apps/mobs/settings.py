"""M-OBS's environment variables, with the names its specification gives."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

from causeway.apps.mobs.fees import FORKS
from causeway.base.settings import CommaSeparated, SecretList, Settings

PIPELINES = ("provider_probe", "block_scanner", "metrics_rollup", "alert_evaluator")

#: Where Mantle can be read when nothing is configured: the official one, Ankr, PublicNode.
SEEDED = (
    SecretStr("https://rpc.mantle.xyz"),
    SecretStr("https://rpc.ankr.com/mantle"),
    SecretStr("https://mantle-rpc.publicnode.com"),
)


def _pipelines(value: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [one for one in value if one not in PIPELINES]
    if unknown:
        raise ValueError(f"no pipeline is named {unknown[0]!r}; there are {', '.join(PIPELINES)}")
    return value


def _start(value: str) -> str:
    number = value.removeprefix("latest-")
    if value != "latest" and not number.isdigit():
        raise ValueError("must be a block number, latest, or latest-N")
    return value


def _times(value: tuple[str, ...]) -> tuple[str, ...]:
    wrong = [one for one in value if not one.isdigit()]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is no time; allowed are Unix seconds, comma-separated")
    return value


Interval = Annotated[float, Field(gt=0, le=86_400)]
Days = Annotated[int, Field(ge=0, le=36_500)]


class MobsSettings(Settings):
    """What M-OBS can be told. Retention of 0 days keeps for ever."""

    mantle_rpc_endpoints: SecretList = Field(
        default=SEEDED, description="RPC providers, comma-separated"
    )
    chain_id: int = Field(default=5000, ge=1, validation_alias="CHAIN_ID")
    worker_enabled_pipelines: Annotated[CommaSeparated, AfterValidator(_pipelines)] = Field(
        default=PIPELINES, description="pipelines that this worker runs"
    )
    worker_id: str | None = Field(default=None, description="shown as the worker's name")
    start_block: Annotated[str, AfterValidator(_start)] = Field(
        default="latest-100", description="first block: a number or latest-N"
    )
    poll_interval_probe: Interval = 30.0
    poll_interval_scanner: Interval = 2.0
    poll_interval_rollup: Interval = 60.0
    poll_interval_alerts: Interval = 30.0
    max_concurrent_probes: int = Field(default=3, ge=1, le=100)
    block_batch_size: int = Field(default=10, ge=1, le=1000)
    trace_queue_size: int = Field(default=100, ge=0, le=1_000_000)
    max_traces_per_minute: int = Field(default=10, ge=0, le=100_000)
    rpc_timeout_default: float = Field(default=5.0, gt=0, le=300)
    rpc_timeout_trace: float = Field(default=10.0, gt=0, le=300)
    rpc_timeout_block: float = Field(default=30.0, gt=0, le=600)
    max_retries: int = Field(default=3, ge=0, le=100)
    backoff_base: float = Field(default=2.0, ge=1, le=60)
    tentative_depth: int = Field(default=20, ge=0, le=10_000)
    max_reorg_depth: int = Field(default=512, ge=1, le=100_000)
    explorer_url: str = Field(default="https://mantlescan.xyz", description="for links")
    cors_origins: CommaSeparated = ()
    sentry_dsn: SecretStr | None = Field(
        default=None, description="where errors are reported to, with the package sentry-sdk"
    )
    admin_token: SecretStr | None = Field(
        default=None,
        validation_alias="MOBS_ADMIN_TOKEN",
        description="bearer token of those who may change anything; without it only this machine",
    )
    chain_profile: Literal["auto", "mantle", "op", "plain"] = Field(
        default="auto", validation_alias="MOBS_CHAIN_PROFILE", description="how fees are counted"
    )
    fee_forks: Annotated[CommaSeparated, AfterValidator(_times)] = Field(
        default=(),
        validation_alias="MOBS_FEE_FORKS",
        description="times (Unix seconds) of fee upgrades: prices are not compared across them",
    )
    block_time_s: float = Field(default=2.0, gt=0, le=600, validation_alias="MOBS_BLOCK_TIME")
    retention_samples_days: Days = 7
    retention_success_days: Days = 30
    retention_failed_days: Days = 90
    retention_traces_days: Days = 14
    retention_traces_newest: int = Field(default=10_000, ge=0)
    retention_minutes_days: Days = 30
    retention_hours_days: Days = 365
    retention_events_days: Days = 90
    retention_reorgs_days: Days = 365
    private_webhooks: bool = Field(
        default=False,
        validation_alias="MOBS_PRIVATE_WEBHOOKS",
        description="let alert channels be addresses of this network",
    )
    webhook_secret: SecretStr | None = Field(
        default=None, validation_alias="MOBS_WEBHOOK_SECRET", description="signs notifications"
    )
    notification_group_s: float = Field(
        default=30.0,
        ge=0,
        le=3600,
        validation_alias="MOBS_NOTIFICATION_GROUP",
        description="seconds in which alerts of one channel are put together",
    )
    smtp_url: SecretStr | None = Field(
        default=None,
        validation_alias="MOBS_SMTP_URL",
        description="smtp://user:password@host:port for alerts by e-mail",
    )
    smtp_from: str = Field(default="causeway@localhost", validation_alias="MOBS_SMTP_FROM")

    def profile(self) -> Literal["mantle", "op", "plain"]:
        """Return how fees are counted on the configured chain."""
        if self.chain_profile != "auto":
            return self.chain_profile
        if self.chain_id in (5000, 5003):
            return "mantle"
        return "op" if self.chain_id in (10, 8453, 84532, 11155420) else "plain"

    def fork_times(self) -> tuple[int, ...]:
        """Return when prices changed their meaning, Unix seconds: known upgrades and told ones."""
        return tuple(sorted({*FORKS.get(self.chain_id, ()), *map(int, self.fee_forks)}))

    def missing_for_production(self) -> list[str]:
        """Return what must be set before M-OBS may serve strangers."""
        problems: list[str] = []
        if "*" in self.cors_origins:
            problems.append("CORS_ORIGINS: * would let every web page act as the operator")
        if not self.admin_token:
            problems.append("MOBS_ADMIN_TOKEN: without it nobody elsewhere can change anything")
        return problems
