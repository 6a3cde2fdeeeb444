"""Settings: environment first, then `.env`, then a default that works for the demo.

An app's settings subclass `Settings` and keep the variable names its specification gives. What is
wrong is reported all at once, by variable name, with the value and what is allowed; secret values
are never shown.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from causeway.base.errors import ConfigurationError
from causeway.base.logging import conceal, redact_text

S = TypeVar("S", bound="Settings")


def _split(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


#: A list written in one variable, separated by commas.
CommaSeparated = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]

#: The same, of values that are never shown.
SecretList = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_split)]


def _web_address(value: str) -> str:
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise ValueError("must be an address that begins with http:// or https://") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or " " in value:
        raise ValueError("must be an address that begins with http:// or https://")
    return value.rstrip("/")


#: The address of a service, without a final slash.
WebAddress = Annotated[str, AfterValidator(_web_address)]


def _private_key(value: SecretStr) -> SecretStr:
    digits = value.get_secret_value().removeprefix("0x")
    if len(digits) != 64 or any(c not in "0123456789abcdefABCDEF" for c in digits):
        raise ValueError("must be a private key, 64 hex digits with or without 0x")
    return SecretStr("0x" + digits)


#: The private key of an account, with or without 0x.
PrivateKey = Annotated[SecretStr, AfterValidator(_private_key)]


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdigit() else value


#: How deep a block must be: a number of blocks on top of it, or a finality tag.
Confirmations = Annotated[
    Literal["latest", "safe", "finalized"] | Annotated[int, Field(ge=0, le=10_000)],
    BeforeValidator(_number),
]


class Settings(BaseSettings):
    """Base of the kernel's and every app's settings."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        str_strip_whitespace=True,
        hide_input_in_errors=True,
    )

    def missing_for_production(self) -> list[str]:
        """Return one line for each thing that must be set before this is safe in production."""
        return []


class KernelSettings(Settings):
    """What the kernel itself can be told."""

    database_url: SecretStr | None = Field(
        None, description="PostgreSQL to use; without it one is started in CAUSEWAY_DATA_DIR"
    )
    data_dir: Path = Field(
        Path(".causeway"),
        validation_alias="CAUSEWAY_DATA_DIR",
        description="where the embedded database and the demo's output live",
    )
    encryption_keys: SecretList = Field(
        (),
        validation_alias="CAUSEWAY_ENCRYPTION_KEYS",
        description="keys for tokens at rest, the newest first: it encrypts, all of them decrypt",
    )
    admin_token: SecretStr | None = Field(
        None,
        validation_alias="CAUSEWAY_ADMIN_TOKEN",
        description="bearer token of /relayer; without one only this machine may call it",
    )
    environment: Literal["development", "production"] = Field(
        "development",
        validation_alias=AliasChoices("CAUSEWAY_ENV", "APP_ENV"),
        description="production refuses unsafe or missing settings at the start",
    )
    host: str = Field(
        "127.0.0.1",
        validation_alias=AliasChoices("CAUSEWAY_HOST", "API_HOST"),
        description="address served",
    )
    port: int = Field(
        8000,
        ge=0,
        le=65535,
        validation_alias=AliasChoices("CAUSEWAY_PORT", "API_PORT"),
        description="0 = any free port",
    )
    metrics_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        validation_alias="CAUSEWAY_METRICS_PORT",
        description="port on which a process that serves no API shows its metrics",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO",
        validation_alias=AliasChoices("CAUSEWAY_LOG_LEVEL", "LOG_LEVEL"),
        description="least severe line that is written",
    )
    log_format: Literal["auto", "json", "pretty"] = Field(
        "auto", validation_alias="CAUSEWAY_LOG_FORMAT", description="auto = pretty on a terminal"
    )
    database_pool: int = Field(
        10, ge=2, le=100, validation_alias="CAUSEWAY_DATABASE_POOL", description="connections kept"
    )
    poll_only: bool = Field(
        False,
        validation_alias="CAUSEWAY_POLL_ONLY",
        description="true behind a transaction-mode pooler, where LISTEN does not work",
    )
    rpc_budgets: str = Field(
        "",
        validation_alias="CAUSEWAY_RPC_BUDGETS",
        description="what RPC endpoints may be asked a second: base-mainnet-1=25, mantle-2=330cu",
    )
    grace_s: float = Field(
        20.0,
        ge=0,
        le=600,
        validation_alias="CAUSEWAY_GRACE_SECONDS",
        description="how long a stop may take to finish what is in hand",
    )


def load(kind: type[S], **overrides: Any) -> S:
    """Read settings of that kind; `ConfigurationError` lists everything that is wrong.

    What is secret in them is taken out of everything that is logged from then on.
    """
    try:
        settings = kind(**overrides)
    except ValidationError as error:
        raise ConfigurationError(list(_problems(kind, error))) from None
    for name in kind.model_fields:
        conceal(*_secrets(getattr(settings, name)))
    return settings


def _secrets(value: object) -> Iterator[str]:
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, tuple):
        for part in cast("tuple[object, ...]", value):
            yield from _secrets(part)


def _problems(kind: type[Settings], error: ValidationError) -> Iterator[str]:
    """Yield one line for each variable: its name, its value unless secret, what is allowed."""
    reasons: dict[str, list[str]] = {}
    begins: dict[str, str] = {}
    for item in error.errors(include_url=False, include_context=False):
        first = str(item["loc"][0]) if item["loc"] else ""
        name, field = _field_named(kind, first) if first else ("", None)
        value = given(name)
        shown = "" if field is None or _is_secret(field) or value is None else _quoted(value)
        begins[name] = f"{name}{shown}: " if name else ""
        reason = item["msg"].removeprefix("Value error, ")
        if field is not None and (allowed := _range(field)):
            reason = f"{reason} (allowed: {allowed})"
        if reason not in reasons.setdefault(name, []):
            reasons[name].append(reason)
    for name, told in reasons.items():
        # A value that fits none of several kinds has one reason for each of them.
        yield f"{begins[name]}{'; or: '.join(told)}"


def _quoted(value: str) -> str:
    return f" (is {redact_text(value[:200])!r})"


def _range(field: FieldInfo) -> str:
    """Return what a number or a text's length may be, as people write it; empty without limits."""
    limits: dict[str, object] = {}
    for rule in field.metadata:
        for name in ("ge", "gt", "le", "lt", "min_length", "max_length"):
            if (limit := getattr(rule, name, None)) is not None:
                limits[name] = limit
    shortest, longest = limits.get("min_length", 0), limits.get("max_length")
    if longest is not None:
        return f"{shortest} to {longest} characters"
    least = limits["ge"] if "ge" in limits else limits.get("gt")
    most = limits["le"] if "le" in limits else limits.get("lt")
    above, below = "more than " * ("gt" in limits), "less than " * ("lt" in limits)
    if least is not None and most is not None:
        return f"{above}{least} to {below}{most}"
    if least is not None:
        return f"{above}{least}" + (" or more" if "ge" in limits else "")
    return f"at most {most}" if most is not None else ""


def _field_named(kind: type[Settings], name: str) -> tuple[str, FieldInfo | None]:
    for field_name, field in kind.model_fields.items():
        names = variable_names(field_name, field)
        if name.upper() in names or name == field_name:
            set_here = [n for n in names if given(n) is not None]
            return (set_here or names)[0], field
    return name.upper(), None


def variable_names(field_name: str, field: FieldInfo) -> list[str]:
    """Return the environment variables a field is read from, the first being its own name."""
    alias = field.validation_alias
    if alias is None:
        return [field_name.upper()]
    if isinstance(alias, AliasChoices):
        return [str(choice).upper() for choice in alias.choices]
    return [str(alias).upper()]


def _is_secret(field: FieldInfo) -> bool:
    return "SecretStr" in str(field.annotation)


def _env_file() -> dict[str, str | None]:
    return {k.upper(): v for k, v in dotenv_values(".env").items()} if Path(".env").exists() else {}


def given(name: str) -> str | None:
    """Return a variable as it was written, in the environment or in `.env`; None when unset."""
    by_upper = {k.upper(): v for k, v in os.environ.items()}
    return by_upper.get(name) or _env_file().get(name)


#: Where a value came from; `argument` is what the program itself was told.
Origin = Literal["argument", "environment", ".env", "default"]


@dataclass(frozen=True)
class Setting:
    """One setting as `causeway config` shows it."""

    name: str
    value: str
    origin: Origin
    description: str


def describe(settings: Settings) -> list[Setting]:
    """Return every setting in force and where its value came from, secrets hidden."""
    environment = {k.upper(): v for k, v in os.environ.items()}
    file = _env_file()
    shown: list[Setting] = []
    for field_name, field in type(settings).model_fields.items():
        names = variable_names(field_name, field)
        origin: Origin = "argument" if field_name in settings.model_fields_set else "default"
        name = names[0]
        for candidate in names:
            if environment.get(candidate):
                origin, name = "environment", candidate
                break
            if file.get(candidate):
                origin, name = ".env", candidate
                break
        value = getattr(settings, field_name)
        shown.append(Setting(name, _shown(value, field), origin, field.description or ""))
    return shown


def _shown(value: Any, field: FieldInfo) -> str:
    if value is None:
        return "not set"
    if _is_secret(field):
        many = f" ({len(value)})" if isinstance(value, tuple) else ""  # pyright: ignore[reportUnknownArgumentType]
        return f"set, hidden{many}" if value else "not set"
    if isinstance(value, tuple):
        return redact_text(",".join(str(v) for v in value))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return redact_text(str(value))
