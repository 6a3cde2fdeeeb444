"""What an operator may set for all relayers of an installation."""

from __future__ import annotations

import re
from dataclasses import replace

from pydantic import Field, field_validator

from causeway.base.settings import CommaSeparated, Settings
from causeway.relayer.lane import RelayerSettings

_ENTRY = re.compile(r"(?P<app>[a-z][a-z0-9_-]*)/(?P<chain>[a-z0-9][a-z0-9_-]*)=(?P<reference>\S+)")


class RelayerEnvironment(Settings):
    """Signers and limits; what is not set leaves an app's own choice as it is."""

    signers: CommaSeparated = Field(
        (),
        validation_alias="CAUSEWAY_SIGNERS",
        description="who signs instead of an app's own key: app/chain=aws-kms:region/key, and "
        "gcp-kms:, keystore:, env: alike; several for one chain share its work",
    )
    max_fee_wei: int | None = Field(
        None,
        gt=0,
        validation_alias="CAUSEWAY_RELAYER_MAX_FEE_WEI",
        description="the most ever paid per gas",
    )
    daily_budget_wei: int | None = Field(
        None,
        gt=0,
        validation_alias="CAUSEWAY_RELAYER_DAILY_BUDGET_WEI",
        description="the most an account spends in 24 hours",
    )
    balance_warning_wei: int | None = Field(
        None,
        gt=0,
        validation_alias="CAUSEWAY_RELAYER_BALANCE_WARNING_WEI",
        description="an account that holds less is reported",
    )
    gas_limit_max: int | None = Field(
        None,
        ge=21_000,
        le=2**24,
        validation_alias="CAUSEWAY_RELAYER_GAS_LIMIT_MAX",
        description="the most gas one transaction may have",
    )
    in_flight_max: int | None = Field(
        None,
        ge=1,
        le=64,
        validation_alias="CAUSEWAY_RELAYER_IN_FLIGHT_MAX",
        description="transactions of one account that wait to be mined, at most",
    )

    @field_validator("signers")
    @classmethod
    def _entries(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for number, entry in enumerate(value, 1):
            if not _ENTRY.fullmatch(entry):
                raise ValueError(f"entry {number} must be app/chain=kind:key")
        return value

    def references(self, app: str, chain: str) -> list[str]:
        """Return the references of the signers that are set for an app on a chain."""
        found = [_ENTRY.fullmatch(entry) for entry in self.signers]
        return [m["reference"] for m in found if m and (m["app"], m["chain"]) == (app, chain)]

    def limit(self, settings: RelayerSettings) -> RelayerSettings:
        """Return an app's settings within these limits: of two maxima the lower one counts."""
        warnings = [settings.balance_warning_wei, self.balance_warning_wei]
        return replace(
            settings,
            max_fee_wei=_least(settings.max_fee_wei, self.max_fee_wei),
            daily_budget_wei=_least(settings.daily_budget_wei, self.daily_budget_wei),
            balance_warning_wei=max((one for one in warnings if one is not None), default=None),
            gas_limit_max=_least(settings.gas_limit_max, self.gas_limit_max) or 0,
            in_flight_max=_least(settings.in_flight_max, self.in_flight_max) or 1,
        )


def _least(*limits: int | None) -> int | None:
    return min((one for one in limits if one is not None), default=None)
