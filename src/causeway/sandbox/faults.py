"""What can go wrong on purpose, and for how long.

Faults of the wire are done by `causeway.sandbox.gate` and work for every service:

    status       answer `status` (default 503) in the service's own words, before doing anything
    rate_limit   429 in the service's own words, to be over in `seconds` (default 1)
    slow         wait `seconds` (default 1), then answer as usual
    hang         take the request and say nothing for `seconds` (default: until the client leaves)
    reset        cut the connection before doing anything
    lose_answer  do all the work, then cut the connection without a word
    html         a proxy's error page instead of an answer (`status`, default 200)
    huge         a body of up to 5 GB without a Content-Length
    truncate     the right headers, half of the body, then the connection is cut
    short        half of the body, with headers that say this is all: damaged, yet good HTTP
    drip         the right answer, one byte each `seconds` (default 0.05)
    redirect     302 to `location`

Faults of the work are decided by the service while it does it:

    nsfw         the prediction is refused by the content policy          replicate, selfhosted
    fail         the prediction fails for another reason (`error`)        replicate, selfhosted
    black        the prediction succeeds with a wholly black picture      replicate, selfhosted
    drop_output  succeeds, but output (replicate) or file (delivery) is gone already
    canceled     the platform itself cancels the prediction               replicate
    stuck        the prediction never leaves `processing`                 replicate
    bomb         a tiny file that claims 50,000 x 50,000 pixels           delivery
    wrong_cid    answers with the CID of other bytes, which it then serves      pinata, kubo
    other_cid    imports with settings of its own: right bytes, unknown CID     pinata, kubo
    missing      the content cannot be found                              gateway
    graphql_error  200 with `errors` of type `error` (default: something went wrong)  github
    lost_days    half of the days are left out                            github, wakatime
    same_page    every page's cursor leads back to the first              neynar
    lost_hours   half of the hours are null                               open_meteo
"""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

Service = Literal[
    "replicate",
    "delivery",
    "pinata",
    "gateway",
    "kubo",
    "selfhosted",
    "x",
    "farcaster",
    "github",
    "wakatime",
    "neynar",
    "strava",
    "open_meteo",
    "openweather",
]
WireKind = Literal[
    "status",
    "rate_limit",
    "slow",
    "hang",
    "reset",
    "lose_answer",
    "html",
    "huge",
    "truncate",
    "short",
    "drip",
    "redirect",
]
WorkKind = Literal[
    "nsfw",
    "fail",
    "black",
    "drop_output",
    "canceled",
    "stuck",
    "bomb",
    "wrong_cid",
    "other_cid",
    "missing",
    "graphql_error",
    "lost_days",
    "same_page",
    "lost_hours",
]
WIRE_KINDS: frozenset[str] = frozenset(get_args(WireKind))
_DOES: dict[Service, frozenset[str]] = {
    "replicate": frozenset({"nsfw", "fail", "black", "drop_output", "canceled", "stuck"}),
    "selfhosted": frozenset({"nsfw", "fail", "black"}),
    "delivery": frozenset({"drop_output", "bomb"}),
    "pinata": frozenset({"wrong_cid", "other_cid"}),
    "kubo": frozenset({"wrong_cid", "other_cid"}),
    "gateway": frozenset({"missing"}),
    "x": frozenset(),
    "farcaster": frozenset(),
    "github": frozenset({"graphql_error", "lost_days"}),
    "wakatime": frozenset({"lost_days"}),
    "neynar": frozenset({"same_page"}),
    "strava": frozenset(),
    "open_meteo": frozenset({"lost_hours"}),
    "openweather": frozenset(),
}


class Fault(BaseModel):
    """One thing to go wrong: which, where, how often."""

    model_config = ConfigDict(extra="forbid")

    service: Service
    kind: WireKind | WorkKind
    #: How many times; None until it is removed.
    count: int | None = Field(default=None, ge=1)
    #: How many requests that fit are let through before the first.
    skip: int = Field(default=0, ge=0)
    #: Only requests whose path contains this.
    match: str = ""
    #: Only requests of this method.
    method: str | None = None
    status: int | None = Field(default=None, ge=200, le=599)
    seconds: float | None = Field(default=None, ge=0)
    #: Replaces the body of `status` and `html`.
    body: str | None = None
    #: Added to the answer of `status`, `rate_limit` and `html`.
    headers: dict[str, str] = Field(default_factory=dict[str, str])
    #: Text of the failed prediction of `nsfw` and `fail`.
    error: str | None = None
    #: Where `redirect` leads.
    location: str = "http://169.254.169.254/latest/meta-data/"

    #: Set by the book, never by the sender.
    id: int = 0
    #: How often it has happened.
    hits: int = 0

    @model_validator(mode="after")
    def _service_can_do_it(self) -> Fault:
        if self.kind not in WIRE_KINDS and self.kind not in _DOES[self.service]:
            raise ValueError(f"{self.service} has no fault of kind {self.kind}")
        return self


class FaultBook:
    """The faults in force, oldest first; the first that fits is the one that happens."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._last_id = 0

    def add(self, fault: Fault) -> Fault:
        """Put a fault in force and return it with its id."""
        self._last_id += 1
        stored = fault.model_copy(update={"id": self._last_id, "hits": 0})
        self._faults.append(stored)
        return stored

    def all(self) -> list[Fault]:
        """Return the faults in force."""
        return [fault.model_copy() for fault in self._faults]

    def clear(self) -> None:
        """Nothing goes wrong any more."""
        self._faults.clear()

    def take(self, service: str, method: str, path: str, *, wire: bool) -> Fault | None:
        """Return the fault that happens to this request, and count it; None when all is well.

        `wire` asks for faults of the wire, otherwise for those of the work.
        """
        for fault in self._faults:
            if (
                fault.service != service
                or (fault.kind in WIRE_KINDS) != wire
                or fault.match not in path
                or (fault.method is not None and fault.method.upper() != method)
            ):
                continue
            if fault.skip > 0:
                fault.skip -= 1
                continue
            fault.hits += 1
            if fault.count is not None and fault.hits >= fault.count:
                self._faults.remove(fault)
            return fault
        return None
