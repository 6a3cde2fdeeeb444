"""How the stand-ins behave when nothing is wrong; `POST /control/settings` changes it live."""

from __future__ import annotations

from datetime import date
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field


class SandboxSettings(BaseModel):
    """Knobs of every stand-in. The defaults are the limits the real services publish."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    #: Seconds from the creation of a prediction to its end, whatever it ends in.
    latency_s: float = Field(default=0.3, ge=0)
    #: Seconds after its end during which a prediction keeps its input, output and files.
    output_lifetime_s: float = Field(default=3600, gt=0)
    #: Longer side of generated pictures; 1024 and more gives files of several IPFS blocks.
    picture_px: int = Field(default=256, ge=8, le=4096)
    #: A prompt with this word is refused by the content policy.
    forbidden_word: str = "forbidden"

    replicate_token: str = "r8_sandbox"  # noqa: S105 - opens nothing but this stand-in
    #: base64 part: thirty-two bytes known to everybody.
    webhook_secret: str = "whsec_c2FuZGJveC1zYW5kYm94LXNhbmRib3gtc2FuZGJveCE="  # noqa: S105 - ditto
    #: Waits before each repetition of a webhook that was not answered with 2xx.
    webhook_retry_delays_s: tuple[float, ...] = (0.2, 0.5, 1, 2, 4)
    creations_per_minute: int = Field(default=600, ge=1)
    reads_per_minute: int = Field(default=3000, ge=1)
    #: `low` throttles as accounts below $5 are; `none` answers creations with 402.
    credit: Literal["ok", "low", "none"] = "ok"
    #: Whether every model answers 422 to input it does not know (some real ones do).
    refuse_unknown_input: bool = False
    page_size: int = Field(default=100, ge=1, le=100)

    pinata_jwt: str = "sandbox.pinata.jwt"
    #: Authenticates but may pin nothing: 403 NO_SCOPES_FOUND.
    pinata_jwt_without_scopes: str = "sandbox.pinata.no-scopes"
    pinata_api_key: str = "sandbox-key"
    pinata_api_secret: str = "sandbox-secret"  # noqa: S105 - opens nothing but this stand-in
    pinata_per_minute: int = Field(default=180, ge=1)
    pinata_data_per_minute: int = Field(default=30, ge=1)
    pinata_max_bytes: int = Field(default=100 * 1024 * 1024, ge=1)

    #: What the gateway answers for content nobody has: 404 at once, or 504 as a public one does.
    gateway_unknown_status: Literal[404, 504] = 404

    x_client_id: str = "sandbox-x-client"
    x_client_secret: str = "sandbox-x-secret"  # noqa: S105 - opens nothing but this stand-in
    #: Who the person at X's authorization page is, and what they decide.
    x_username: str = "sandbox_author"
    x_decision: Literal["allow", "deny"] = "allow"
    #: (name, from fid, to fid) in order; fid 0 is nobody, a name with a dot is an ENS name.
    farcaster_transfers: tuple[tuple[str, int, int], ...] = (("sandbox-author", 0, 1001),)

    github_client_id: str = "sandbox-github-client"
    github_client_secret: str = "sandbox-github-secret"  # noqa: S105 - opens only this stand-in
    #: Who the person at GitHub's authorization page is, and what they decide.
    github_login: str = "sandbox-coder"
    github_decision: Literal["allow", "deny"] = "allow"
    #: True: a GitHub App, whose tokens expire and are refreshed; else an OAuth app.
    github_tokens_expire: bool = False
    github_token_lifetime_s: float = Field(default=28800, gt=0)
    #: For each person, of GraphQL and of REST apart.
    github_per_hour: int = Field(default=5000, ge=1)
    #: Logins whose tokens were taken back on GitHub's own pages.
    github_revoked: tuple[str, ...] = ()
    #: login -> date -> (contributions, commits, pull requests).
    github_contributions: dict[str, dict[date, tuple[int, int, int]]] = Field(
        default_factory=dict[str, dict[date, tuple[int, int, int]]]
    )

    wakatime_client_id: str = "sandbox-wakatime-client"
    wakatime_client_secret: str = "waka_sec_sandbox"  # noqa: S105 - opens only this stand-in
    wakatime_username: str = "sandbox-coder"
    wakatime_decision: Literal["allow", "deny"] = "allow"
    wakatime_token_lifetime_s: float = Field(default=365 * 86_400, gt=0)
    #: API key -> username.
    wakatime_keys: dict[str, str] = Field(
        default={"waka_00000000-0000-4000-8000-000000000000": "sandbox-coder"}
    )
    #: username -> date -> seconds.
    wakatime_seconds: dict[str, dict[date, float]] = Field(
        default_factory=dict[str, dict[date, float]]
    )
    #: Days a free account reaches back; None: all.
    wakatime_history_days: int | None = Field(default=None, ge=0)
    wakatime_per_5_minutes: int = Field(default=3000, ge=1)
    #: What is answered beyond that; the real one does either.
    wakatime_limit_status: Literal[429, 302] = 429
    wakatime_revoked: tuple[str, ...] = ()

    neynar_api_key: str = "sandbox-neynar"
    #: Of each endpoint.
    neynar_per_minute: int = Field(default=300, ge=1)
    #: address -> Farcaster ids that verified it.
    neynar_accounts: dict[str, tuple[int, ...]] = Field(default_factory=dict[str, tuple[int, ...]])
    #: Farcaster id -> times of its casts.
    neynar_casts: dict[int, tuple[AwareDatetime, ...]] = Field(
        default_factory=dict[int, tuple[AwareDatetime, ...]]
    )

    strava_client_id: str = "12345"
    strava_client_secret: str = "sandbox-strava-secret"  # noqa: S105 - opens only this stand-in
    #: Who the person at Strava's authorization page is, what they decide, and what they untick.
    strava_athlete: str = "sandbox-runner"
    strava_decision: Literal["allow", "deny"] = "allow"
    strava_unticked: tuple[str, ...] = ()
    strava_token_lifetime_s: float = Field(default=21600, gt=0)
    #: Athletes who took back on Strava's own pages what they allowed.
    strava_revoked: tuple[str, ...] = ()
    #: In a quarter of an hour and in a day: of everything, and of everything but uploads.
    strava_limit: tuple[int, int] = (200, 2000)
    strava_read_limit: tuple[int, int] = (100, 1000)
    #: athlete -> activities as the API shows them, of which anything but `id` may be left out;
    #: `streams` holds their series.
    strava_activities: dict[str, tuple[dict[str, Any], ...]] = Field(
        default_factory=dict[str, tuple[dict[str, Any], ...]]
    )
    #: Seconds from a file's arrival to its activity.
    strava_processing_s: float = Field(default=0.3, ge=0)
    #: How a duplicate names the activity that is there: both have been seen.
    strava_duplicate_words: Literal["link", "number"] = "link"
    #: Waits before the second and the third delivery of an event.
    strava_event_retry_delays_s: tuple[float, ...] = (0.2, 0.5)
    #: How long a callback may take.
    strava_callback_s: float = Field(default=2.0, gt=0)

    #: Requests of one minute, hour and day that Open-Meteo answers.
    open_meteo_limits: tuple[int, int, int] = (600, 5000, 10_000)
    openweather_api_key: str = "sandbox-openweather"
    openweather_per_day: int = Field(default=1000, ge=0)
