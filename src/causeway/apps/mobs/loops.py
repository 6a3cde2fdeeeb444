"""M-OBS's pipelines: what runs by the clock, each by one process at a time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from causeway.apps.mobs.alerts.delivery import deliver
from causeway.apps.mobs.alerts.evaluator import evaluate_rules
from causeway.apps.mobs.probing import probe
from causeway.apps.mobs.rollup import rollup
from causeway.apps.mobs.settings import MobsSettings
from causeway.apps.mobs.tracing import explain_failures
from causeway.apps.mobs.upkeep import beat, retain
from causeway.pipelines.loops import LeasedLoop

#: A dead worker's pipelines are taken over after this, seconds.
LEASE_S = 10.0


def loops(settings: MobsSettings) -> Sequence[LeasedLoop]:
    """Return the loops of the pipelines that are enabled here."""
    loop = partial(LeasedLoop, lease_s=LEASE_S)
    enabled = settings.worker_enabled_pipelines
    made = [
        loop(name="mobs:beat", interval_s=5.0, work=beat),
        loop(name="mobs:retention", interval_s=3600.0, work=retain),
    ]
    if "provider_probe" in enabled:
        made.append(loop(name="mobs:probe", interval_s=settings.poll_interval_probe, work=probe))
    if "block_scanner" in enabled:
        made.append(loop(name="mobs:trace", interval_s=1.0, work=explain_failures))
    if "metrics_rollup" in enabled:
        # Marked minutes are looked for often: one is over when its chain says so.
        interval_s = min(5.0, settings.poll_interval_rollup)
        made.append(loop(name="mobs:rollup", interval_s=interval_s, work=rollup))
    if "alert_evaluator" in enabled:
        made += [
            loop(name="mobs:alerts", interval_s=settings.poll_interval_alerts, work=evaluate_rules),
            loop(name="mobs:deliver", interval_s=1.0, work=deliver),
        ]
    return made
