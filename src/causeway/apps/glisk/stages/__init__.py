"""GLISK's state machine, step by step: image, ipfs, and the reveal of many at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from causeway.apps.glisk.models import Token, TokenStatus
from causeway.apps.glisk.settings import GliskSettings
from causeway.apps.glisk.stages.image import generate
from causeway.apps.glisk.stages.ipfs import upload
from causeway.pipelines.stage import Stage


def stages(settings: GliskSettings) -> Sequence[Stage[Any]]:
    """Return the two stages that work token by token."""
    shared: dict[str, Any] = {
        "app": "glisk",
        "model": Token,
        "key": "token_id",
        "failed": TokenStatus.FAILED.value,
        "batch": settings.worker_batch_size,
        "lease_s": settings.glisk_lease_seconds,
        "max_attempts": settings.glisk_max_attempts,
        "poll_interval_s": settings.worker_poll_interval,
        "order_by": ("mint_timestamp", "token_id"),
        "waits_since": "mint_timestamp",
    }
    return (
        Stage(
            name="image",
            claims=TokenStatus.DETECTED.value,
            working=TokenStatus.GENERATING.value,
            done=TokenStatus.UPLOADING.value,
            work=generate,
            enabled=settings.enable_image_worker,
            **shared,
        ),
        Stage(
            name="ipfs",
            claims=TokenStatus.UPLOADING.value,
            working=None,
            done=TokenStatus.READY.value,
            work=upload,
            enabled=settings.enable_ipfs_worker,
            **shared,
        ),
    )
