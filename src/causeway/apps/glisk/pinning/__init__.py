"""Putting content on IPFS: Pinata or a Kubo node, and the proof that it is our bytes."""

from causeway.apps.glisk.pinning.kubo import KuboPinner
from causeway.apps.glisk.pinning.pinata import PinataPinner
from causeway.apps.glisk.pinning.protocol import CidMismatch, Pinner, PinResult
from causeway.apps.glisk.settings import GliskSettings

__all__ = ["CidMismatch", "PinResult", "Pinner", "build_pinner"]


def build_pinner(settings: GliskSettings) -> Pinner | None:
    """Return the pinner that the settings choose, None when no credentials are set."""
    pinata = settings.pinata_jwt is not None or (
        settings.pinata_api_key is not None and settings.pinata_api_secret is not None
    )
    if settings.ipfs_provider != "kubo" and pinata:
        return PinataPinner(settings)
    if settings.ipfs_provider != "pinata" and settings.ipfs_api_url is not None:
        return KuboPinner(settings.ipfs_api_url, settings.gateway_url)
    return None
