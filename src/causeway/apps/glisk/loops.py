"""GLISK's loops and schedules: what runs by the clock, once in the whole installation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from causeway.apps.glisk.settings import GliskSettings
from causeway.apps.glisk.stages.reveal import collect
from causeway.apps.glisk.upkeep import audit, check_reveals, probe, take_recoveries
from causeway.pipelines.loops import LeasedLoop
from causeway.pipelines.schedules import Schedule

#: How long a dead process's loop stands still, seconds.
LEASE_S = 6.0


def loops(settings: GliskSettings) -> Sequence[LeasedLoop]:
    """Return the loops; none that asks the chain when no chain is configured."""
    if settings.missing():
        return ()
    loop = partial(LeasedLoop, lease_s=LEASE_S)
    made = [
        loop(name="glisk:probe", interval_s=10.0, work=probe),
        loop(name="glisk:check-reveals", interval_s=2.0, work=check_reveals),
        loop(name="glisk:recoveries", interval_s=5.0, work=take_recoveries),
    ]
    if settings.enable_reveal_worker:
        interval_s = min(0.5, settings.worker_poll_interval)
        made.append(loop(name="glisk:collect", interval_s=interval_s, work=collect))
    return made


def schedules(settings: GliskSettings) -> Sequence[Schedule]:
    """Return the hourly audit: what exists on chain is what is known here."""
    if settings.missing():
        return ()
    return (Schedule(name="audit", cron="17 * * * *", work=audit),)
