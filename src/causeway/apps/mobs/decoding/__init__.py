"""What revert data and call data say, in words: pure functions over bytes."""

from causeway.apps.mobs.decoding.decoder import NO_REASON, Decoded, Decoder
from causeway.apps.mobs.decoding.shown import clean

__all__ = ["NO_REASON", "Decoded", "Decoder", "clean"]
