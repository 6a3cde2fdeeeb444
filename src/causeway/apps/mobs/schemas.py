"""What goes over the wire, in the shapes that existing clients know."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

AlertType = Literal["failure_rate", "gas_spike", "provider_down", "custom"]
Severity = Literal["info", "warning", "critical"]
Name = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Threshold = Annotated[
    Decimal, Field(ge=Decimal(-999_999_999_999), le=Decimal(999_999_999_999), allow_inf_nan=False)
]


#: Times beyond are no times; up to here every client can write them.
LAST_TS = 2**53 - 1
#: Ids are integers of the database; greater ones are nobody's.
LAST_ID = 2**63 - 1

Seconds = Annotated[int, Field(ge=0, le=LAST_TS)]


class Body(BaseModel):
    """A request's body: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _storable(cls, given: Any) -> Any:
        """Refuse what PostgreSQL cannot keep, wherever it is: NUL, and integers of any length."""
        waiting: list[Any] = [given]
        while waiting:
            one = waiting.pop()
            match one:
                case str() if "\x00" in one:
                    raise ValueError("a text holds the character NUL, which is not allowed")
                case int() if not -LAST_ID <= one <= LAST_ID:
                    raise ValueError(f"a number is greater than {LAST_ID}")
                case dict():
                    whole = cast("dict[Any, Any]", one)
                    waiting += [*whole.keys(), *whole.values()]
                case list():
                    waiting += cast("list[Any]", one)
                case _:
                    pass
        return given


class Webhook(Body):
    """A channel that is posted to."""

    type: Literal["webhook", "slack"]
    url: Annotated[
        str,
        StringConstraints(
            pattern=r"^(https?://[^\s]+|env:MOBS_CHANNEL_[A-Z0-9_]{1,64})$", max_length=500
        ),
    ]


class Email(Body):
    """A channel that is written to."""

    type: Literal["email"]
    to: Annotated[str, StringConstraints(pattern=r"^[^\s@]+@[^\s@]+$", max_length=200)]


class LogChannel(Body):
    """The log of the worker."""

    type: Literal["log"]


Channel = Annotated[Webhook | Email | LogChannel, Field(discriminator="type")]


class NewAlert(Body):
    """A rule to be made."""

    name: Name
    description: str | None = None
    alert_type: AlertType
    conditions: dict[str, Any] = {}
    threshold: Threshold
    window_minutes: int = Field(default=5, ge=1, le=1440)
    cooldown_minutes: int = Field(default=15, ge=1, le=1440)
    for_minutes: int = Field(default=0, ge=0, le=1440)
    severity: Severity = "warning"
    no_data: Literal["ok", "keep", "alert"] = "keep"
    contract_ids: list[int] = []
    channels: list[Channel] = Field(default=[], max_length=20)


class AlertChange(Body):
    """What may be changed of a rule; what is not named stays."""

    name: Name | None = None
    description: str | None = None
    conditions: dict[str, Any] | None = None
    threshold: Threshold | None = None
    window_minutes: int | None = Field(default=None, ge=1, le=1440)
    cooldown_minutes: int | None = Field(default=None, ge=1, le=1440)
    for_minutes: int | None = Field(default=None, ge=0, le=1440)
    severity: Severity | None = None
    no_data: Literal["ok", "keep", "alert"] | None = None
    is_enabled: bool | None = None
    contract_ids: list[int] | None = None
    channels: list[Channel] | None = Field(default=None, max_length=20)


class AlertTest(NewAlert):
    """A rule to be tried on history; times in Unix seconds."""

    start_ts: Seconds
    end_ts: Seconds


class NewContract(Body):
    """A contract to be watched."""

    address: str
    name: Name
    tags: list[Annotated[str, StringConstraints(min_length=1, max_length=32)]] = Field(
        default=[], max_length=16
    )
    abi_json: list[Any] | None = None


class ContractChange(Body):
    """What may be changed of a contract."""

    name: Name | None = None
    tags: list[Annotated[str, StringConstraints(min_length=1, max_length=32)]] | None = Field(
        default=None, max_length=16
    )
    abi_json: list[Any] | None = None
    is_watched: bool | None = None


class Acknowledgement(Body):
    """Who has seen an event."""

    by: Annotated[str, StringConstraints(min_length=1, max_length=64)]


class NewSilence(Body):
    """Notifications to be kept quiet; times in Unix seconds."""

    matchers: dict[str, Any]
    starts_at: Seconds
    ends_at: Seconds
    author: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    comment: str = ""


class NewProvider(Body):
    """A provider to be watched and read from."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    url: Annotated[str, StringConstraints(max_length=256)]


class ProviderChange(Body):
    """What may be changed of a provider."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    is_active: bool | None = None
    priority: int | None = Field(default=None, ge=0, le=32_000)
