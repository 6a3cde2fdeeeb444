"""One wallet's totals over the archive, in integers until the last step."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import text

from causeway.apps.motify.context import MotifyContext


@dataclass(frozen=True)
class Totals:
    """What a wallet's finished challenges add up to; amounts in minor units."""

    challenges: int = 0
    #: The sum of the shares that came back, in ppm.
    percent_ppm: int = 0
    stake: int = 0
    donation: int = 0

    @property
    def success_percentage(self) -> float:
        """The mean share in percent, unweighted, half up to two decimals; 0 without any."""
        if not self.challenges:
            return 0.0
        hundredths = (2 * self.percent_ppm + 100 * self.challenges) // (200 * self.challenges)
        return hundredths / 100

    def view(self, wallet: str, decimals: int) -> dict[str, Any]:
        """Return them as the frontend reads them; amounts in whole tokens."""
        return {
            "wallet": wallet,
            "challenges_completed": self.challenges,
            "success_percentage_overall": self.success_percentage,
            "total_wagered": _tokens(self.stake, decimals),
            "total_donations": _tokens(self.donation, decimals),
        }


async def totals_of(ctx: MotifyContext, wallet: str) -> Totals:
    """Return the totals of exactly this wallet, in letters of any case."""
    async with ctx.database.sessions() as session:
        row = (
            await session.execute(
                _TOTALS,
                {
                    "chain": ctx.settings.chain_id,
                    "contract": ctx.settings.contract,
                    "wallet": wallet.lower(),
                },
            )
        ).one()
    return Totals(int(row.challenges), int(row.ppm), int(row.stake), int(row.donation))


#: What is given away of each stake is rounded as the contract rounds it, one by one.
_TOTALS = text(
    """
    SELECT count(*) AS challenges, coalesce(sum(percent_ppm), 0) AS ppm,
        coalesce(sum(stake_minor_units), 0) AS stake,
        coalesce(sum(stake_minor_units
            - div(stake_minor_units * ((percent_ppm + 50) / 100), 10000)), 0) AS donation
    FROM motify.finished_participants
    WHERE chain_id = :chain AND contract_address = :contract
        AND lower(participant_address) = :wallet
    """
)


def _tokens(units: int, decimals: int) -> float:
    return float(Decimal(units).scaleb(-decimals))
