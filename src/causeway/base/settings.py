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
from typing import Annotated, Any, Literal, TypeVar

from dotenv import dotenv_values
from pydantic import AliasChoices, BeforeValidator, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from causeway.base.errors import ConfigurationError

S = TypeVar("S", bound="Settings")


def _split(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


#: A list written in one variable, separated by commas.
CommaSeparated = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]

#: The same, of values that are never shown.
SecretList = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_split)]


class Settings(BaseSettings):
    """Base of the kernel's and every app's settings."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
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
    environment: Literal["development", "production"] = Field(
        "development",
        validation_alias=AliasChoices("CAUSEWAY_ENV", "APP_ENV"),
        description="production refuses unsafe or missing settings at the start",
    )
    host: str = Field("127.0.0.1", validation_alias="CAUSEWAY_HOST", description="address served")
    port: int = Field(
        8000, ge=0, le=65535, validation_alias="CAUSEWAY_PORT", description="0 = any free port"
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
    grace_s: float = Field(
        20.0,
        ge=0,
        le=600,
        validation_alias="CAUSEWAY_GRACE_SECONDS",
        description="how long a stop may take to finish what is in hand",
    )


def load(kind: type[S], **overrides: Any) -> S:
    """Read settings of that kind; `ConfigurationError` lists everything that is wrong."""
    try:
        return kind(**overrides)
    except ValidationError as error:
        raise ConfigurationError(list(_problems(kind, error))) from None


def _problems(kind: type[Settings], error: ValidationError) -> Iterator[str]:
    for item in error.errors(include_url=False, include_context=False):
        first = str(item["loc"][0]) if item["loc"] else kind.__name__
        name, field = _field_named(kind, first)
        value = _given(name)
        shown = "" if field is None or _is_secret(field) or value is None else f" (is {value!r})"
        yield f"{name}{shown}: {item['msg']}"


def _field_named(kind: type[Settings], name: str) -> tuple[str, FieldInfo | None]:
    for field_name, field in kind.model_fields.items():
        names = variable_names(field_name, field)
        if name.upper() in names or name == field_name:
            set_here = [n for n in names if _given(n) is not None]
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


def _given(name: str) -> str | None:
    by_upper = {k.upper(): v for k, v in os.environ.items()}
    return by_upper.get(name) or _env_file().get(name)


@dataclass(frozen=True)
class Setting:
    """One setting as `causeway config` shows it."""

    name: str
    value: str
    origin: Literal["environment", ".env", "default"]
    description: str


def describe(settings: Settings) -> list[Setting]:
    """Return every setting in force and where its value came from, secrets hidden."""
    environment = {k.upper(): v for k, v in os.environ.items()}
    file = _env_file()
    shown: list[Setting] = []
    for field_name, field in type(settings).model_fields.items():
        names = variable_names(field_name, field)
        origin: Literal["environment", ".env", "default"] = "default"
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
        return ",".join(str(v) for v in value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return str(value)
