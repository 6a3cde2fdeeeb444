"""An RPC endpoint: its address, which is a secret, and how it has behaved so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from causeway.base.errors import ConfigurationError

#: Blocks an endpoint that never refused a range may be asked for at once.
UNLIMITED_RANGE = 1 << 62
_COOLDOWN_FIRST_S = 1.0
_COOLDOWN_MAX_S = 60.0


class SecretUrl:
    """A URL whose path, query and user information are secret: shown as scheme and host only."""

    __slots__ = ("_url",)

    def __init__(self, url: str, schemes: tuple[str, ...] = ("http", "https")) -> None:
        try:
            parts = urlsplit(url)
            usable = parts.scheme in schemes and bool(parts.hostname)
            _ = parts.port
        except ValueError:
            usable = False
        if not usable:
            raise ConfigurationError(f"an RPC endpoint is not a {' or '.join(schemes)} address")
        self._url = url

    def reveal(self) -> str:
        """Return the whole URL, for the one place that connects."""
        return self._url

    def __str__(self) -> str:
        parts = urlsplit(self._url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        port = f":{parts.port}" if parts.port else ""
        rest = "/…" if parts.path not in ("", "/") or parts.query or parts.username else ""
        return f"{parts.scheme}://{host}{port}{rest}"

    def __repr__(self) -> str:
        return f"SecretUrl({self!s})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretUrl) and other._url == self._url

    def __hash__(self) -> int:
        return hash(self._url)


@dataclass
class MethodRecord:
    """How calls of one method went at one endpoint, for choosing and for showing."""

    calls: int = 0
    failures: int = 0
    #: Exponentially weighted seconds of the answered calls; None before the first.
    latency_s: float | None = None

    def answered(self, seconds: float) -> None:
        """Count one answer."""
        self.calls += 1
        known = self.latency_s
        self.latency_s = seconds if known is None else known * 0.8 + seconds * 0.2

    def failed(self) -> None:
        """Count one failure."""
        self.calls += 1
        self.failures += 1


@dataclass
class Endpoint:
    """One RPC endpoint of a pool, in its order of preference, and what was learned about it."""

    url: SecretUrl
    name: str
    #: None: not asked yet; False: serves another chain and is never used.
    right_chain: bool | None = field(default=None, compare=False)
    served_chain_id: int | None = field(default=None, compare=False)
    max_log_range: int = field(default=UNLIMITED_RANGE, compare=False)
    max_batch: int = field(default=100, compare=False)
    failures_in_a_row: int = field(default=0, compare=False)
    #: Monotonic seconds until which others are preferred.
    cooling_until: float = field(default=0.0, compare=False)
    methods: dict[str, MethodRecord] = field(
        default_factory=dict[str, MethodRecord], compare=False, repr=False
    )

    def record(self, method: str) -> MethodRecord:
        """Return the record of `method`, a new one at first."""
        return self.methods.setdefault(method, MethodRecord())

    def succeeded(self) -> None:
        """Note an answer: the endpoint is in its place again."""
        self.failures_in_a_row = 0
        self.cooling_until = 0.0

    def failed(self, now: float, retry_after_s: float | None = None) -> None:
        """Note a failure of the endpoint itself: others are preferred for a while."""
        self.failures_in_a_row += 1
        doubled = _COOLDOWN_FIRST_S * 2 ** min(self.failures_in_a_row - 1, 10)
        self.cooling_until = now + min(retry_after_s or doubled, _COOLDOWN_MAX_S)
