"""An RPC endpoint: its address, which is a secret, and how it has behaved so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from causeway.base.errors import ConfigurationError
from causeway.chains.budget import Budget
from causeway.chains.protocol import Block
from causeway.chains.record import Record

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
class Endpoint:
    """One RPC endpoint of a pool, in its order of preference, and what was learned about it.

    Times are monotonic seconds.
    """

    url: SecretUrl
    name: str
    budget: Budget = field(default_factory=Budget, compare=False, repr=False)
    #: None: not asked yet; False: serves another chain and is never used.
    right_chain: bool | None = field(default=None, compare=False)
    served_chain_id: int | None = field(default=None, compare=False)
    #: Hash of its first block; None where it was not asked for or is not served.
    genesis: str | None = field(default=None, compare=False)
    max_log_range: int = field(default=UNLIMITED_RANGE, compare=False)
    max_batch: int = field(default=100, compare=False)
    #: Below this block it has no state any more, as far as it was heard to say.
    state_from: int = field(default=0, compare=False)
    #: Methods it does not offer, and until when that is believed.
    lacks: dict[str, float] = field(default_factory=dict[str, float], compare=False)
    #: Blocks it was below the agreed head when heads were last compared.
    lag: int = field(default=0, compare=False)
    #: Whether it was on another fork than the others then.
    forked: bool = field(default=False, compare=False)
    #: The newest block it named, and when.
    head: Block | None = field(default=None, compare=False)
    head_at: float = field(default=0.0, compare=False)
    failures_in_a_row: int = field(default=0, compare=False)
    #: Until when others are preferred.
    cooling_until: float = field(default=0.0, compare=False)
    methods: dict[str, Record] = field(default_factory=dict[str, Record], compare=False, repr=False)

    def record(self, method: str) -> Record:
        """Return the record of `method`, a new one at first."""
        found = self.methods.get(method)
        if found is None:
            found = self.methods[method] = Record()
        return found

    def succeeded(self) -> None:
        """Note an answer: the endpoint is in its place again."""
        self.failures_in_a_row = 0
        self.cooling_until = 0.0

    def failed(self, now: float, retry_after_s: float | None = None) -> None:
        """Note a failure of the endpoint itself: others are preferred for a while."""
        self.failures_in_a_row += 1
        doubled = _COOLDOWN_FIRST_S * 2 ** min(self.failures_in_a_row - 1, 10)
        self.cooling_until = now + min(retry_after_s or doubled, _COOLDOWN_MAX_S)
