"""Why there is no reading of a participant."""

from __future__ import annotations

from enum import StrEnum


class Trouble(StrEnum):
    """What stands between a participant and a reading."""

    NO_CONNECTION = "no_connection"
    #: Credentials that were revoked, or are wrong.
    REJECTED = "rejected"
    #: The provider answered, and does not have what was asked for.
    NO_DATA = "no_data"
    #: The provider is away, or asks to slow down.
    UNAVAILABLE = "unavailable"
    #: An error of ours: a key that is missing or refused.
    MISCONFIGURED = "misconfigured"
    #: A goal that nobody defined.
    UNSCORABLE = "unscorable"

    @property
    def is_theirs(self) -> bool:
        """Whether it is for the person to mend."""
        return self in (Trouble.NO_CONNECTION, Trouble.REJECTED)
