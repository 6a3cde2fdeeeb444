"""Motify's stages: participants are measured; challenges decided, verified and archived."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from causeway.apps.motify.context import MotifyContext
from causeway.apps.motify.models import Reminder, Score, Settlement
from causeway.apps.motify.settings import MotifySettings
from causeway.apps.motify.stages.archive import archive
from causeway.apps.motify.stages.decide import decide
from causeway.apps.motify.stages.measure import measure
from causeway.apps.motify.stages.remind import remind
from causeway.apps.motify.stages.verify import verify
from causeway.pipelines.stage import Stage

#: How often rows are looked for that no bell was rung for, seconds.
POLL_S = 0.5


def stages(settings: MotifySettings) -> Sequence[Stage[Any]]:
    """Return the stages; none that asks the chain when no chain is configured."""
    challenge: partial[Stage[MotifyContext]] = partial(
        Stage,
        app="motify",
        model=Settlement,
        key="id",
        working=None,
        failed="failed",
        batch=4,
        lease_s=settings.motify_lease_seconds,
        max_attempts=20,
        poll_interval_s=POLL_S,
        order_by=("end_time", "id"),
        waits_since="created_at",
        enabled=not settings.missing(),
    )
    return (
        Stage(
            name="measure",
            app="motify",
            model=Score,
            key="id",
            claims="waiting",
            working="measuring",
            done="settled",
            failed="failed",
            work=measure,
            batch=settings.motify_measure_batch,
            lease_s=settings.motify_lease_seconds,
            max_attempts=20,
            poll_interval_s=POLL_S,
            # By something that has nothing to do with the provider: all of them are asked at once.
            order_by=("wallet", "id"),
            enabled=not settings.missing(),
        ),
        challenge(name="decide", claims="measuring", done="declaring", work=decide),
        challenge(name="verify", claims="declared", done="finalizing", work=verify),
        challenge(name="archive", claims="finalizing", done="archived", work=archive),
        Stage(
            name="remind",
            app="motify",
            model=Reminder,
            key="id",
            claims="waiting",
            working="sending",
            done="sent",
            failed="failed",
            work=remind,
            batch=4,
            lease_s=settings.motify_lease_seconds,
            max_attempts=12,
            poll_interval_s=POLL_S,
            enabled=settings.reminder_webhook_url is not None,
        ),
    )
