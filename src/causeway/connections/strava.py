"""Strava: whose account it is, what they ran, uploads, and where events are sent.

No PKCE is documented there, and the person may untick what we ask for: what was granted comes with
the redirect. An access token lasts six hours. Every request counts for the whole application (see
`application_budget`), those to the OAuth addresses excepted; each says what it is for. Nothing of
what Strava answers is kept here: its terms allow little.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Literal, TypeVar, get_args
from urllib.parse import urlsplit

from pydantic import SecretStr, TypeAdapter, ValidationError

from causeway.base.clock import SYSTEM_CLOCK, Clock
from causeway.base.errors import (
    CausewayError,
    Conflict,
    InvalidInput,
    NotAllowed,
    PermanentError,
    ProviderUnavailable,
    RateLimited,
)
from causeway.base.http import Response
from causeway.connections.application_budget import (
    DAY_S,
    QUARTER_S,
    ApplicationBudget,
    Limit,
    Purpose,
    read_headers,
    wait_s,
    window_start,
)
from causeway.connections.client import Manner, Metered, ProviderClient
from causeway.connections.credential import Account, Credential
from causeway.connections.limits import Reading
from causeway.connections.oauth import OAuthApp, OAuthClient
from causeway.connections.strava_models import (
    STREAMS,
    Activity,
    Athlete,
    Fault,
    Stream,
    Streams,
    Subscription,
    Upload,
)
from causeway.store.engine import Database

API_URL = "https://www.strava.com/api/v3"
OAUTH_URL = "https://www.strava.com"
SCOPES = ("read", "activity:read", "activity:write")
#: What every application begins with; the headers say what it really is.
LIMITS: Mapping[str, Limit] = {"overall": Limit(200, 2000), "read": Limit(100, 1000)}

MOST_PER_PAGE = 200
DataType = Literal["fit", "fit.gz", "tcx", "tcx.gz", "gpx", "gpx.gz"]

#: Pauses between looks at an upload, seconds: from one, doubling.
FIRST_LOOK_S = 1.0
LONGEST_LOOK_S = 30.0

T = TypeVar("T")
_ACTIVITIES = TypeAdapter(list[Activity])
_SUBSCRIPTIONS = TypeAdapter(list[Subscription])
_STREAMS = TypeAdapter(dict[str, Stream])


class UploadRefused(PermanentError):
    """Strava could not make an activity of the file."""


def oauth_app(
    client_id: str,
    client_secret: SecretStr,
    redirect_uri: str,
    *,
    scopes: tuple[str, ...] = SCOPES,
    oauth_url: str = OAUTH_URL,
    mobile: bool = False,
) -> OAuthApp:
    """Return our application there, as it is registered."""
    return OAuthApp(
        client_id=client_id,
        client_secret=client_secret,
        redirect_uri=redirect_uri,
        authorize_url=f"{oauth_url}/oauth/{'mobile/' if mobile else ''}authorize",
        token_url=f"{oauth_url}/oauth/token",
        scopes=scopes,
        separator=",",
        pkce=False,
        refresh_early_s=300.0,
        parameters={"approval_prompt": "auto"},
    )


def application_budget(
    database: Database, client_id: str, *, clock: Clock | None = None
) -> ApplicationBudget:
    """Return the one budget that all processes of this application share."""
    return ApplicationBudget(database, f"strava {client_id}", LIMITS, clock=clock)


class Strava:
    """Strava's API for one application; `oauth` is None where it is not set up."""

    name = "strava"

    def __init__(
        self,
        budget: ApplicationBudget,
        *,
        api_url: str = API_URL,
        oauth_url: str = OAUTH_URL,
        app: OAuthApp | None = None,
        manner: Manner | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        # Nothing is cached: seven days are the most that Strava allows, and memory does not count.
        manner = manner or Manner(cache_bytes=0, most_bytes=32 * 1024 * 1024)
        self._budget = budget
        self._clock = clock
        self._client = ProviderClient(self.name, api_url, manner=manner, judge=_judge, clock=clock)
        self._app = app
        self._revoke_url = f"{oauth_url}/oauth/revoke"
        self.oauth = OAuthClient(app, self._client, clock=clock) if app else None

    async def account(self, credential: Credential) -> Account:
        """Return whose token that is; `CredentialRefused` when it is none."""
        answer = await self._get("athlete", "/athlete", credential, "interactive")
        athlete = _read(Athlete.model_validate_json, answer, "the athlete")
        return Account(str(athlete.id), athlete.name)

    async def activities(
        self,
        credential: Credential,
        *,
        before: datetime | None = None,
        after: datetime | None = None,
        page: int = 1,
        per_page: int = 30,
        purpose: Purpose = "interactive",
    ) -> list[Activity]:
        """Return one page: newest first, or, with `after`, oldest first. An empty one is the end.

        A page may hold fewer than `per_page` though more follow.
        """
        _needs(credential, "activity:read", "activity:read_all")
        if not 1 <= per_page <= MOST_PER_PAGE or page < 1:
            raise InvalidInput(
                f"page {page} and per_page {per_page}: from 1, and 1 to {MOST_PER_PAGE}"
            )
        params = {"page": str(page), "per_page": str(per_page)}
        for name, at in (("before", before), ("after", after)):
            if at is not None:
                params[name] = str(int(at.timestamp()))
        answer = await self._get("activities", "/athlete/activities", credential, purpose, params)
        return _read(_ACTIVITIES.validate_json, answer, "the activities")

    async def activity(
        self, credential: Credential, activity_id: int, *, purpose: Purpose = "event"
    ) -> Activity:
        """Return one activity; `NoData` when it was deleted or is hidden from us."""
        _needs(credential, "activity:read", "activity:read_all")
        answer = await self._get("activity", f"/activities/{activity_id}", credential, purpose)
        return _read(Activity.model_validate_json, answer, "the activity")

    async def streams(
        self,
        credential: Credential,
        activity_id: int,
        keys: tuple[str, ...] = STREAMS,
        *,
        purpose: Purpose = "event",
    ) -> Streams:
        """Return an activity's measurements; those it has not are left out.

        `NoData` when it was deleted, is hidden, or was entered by hand.
        """
        _needs(credential, "activity:read", "activity:read_all")
        unknown = [key for key in keys if key not in STREAMS]
        if unknown or not keys:
            raise InvalidInput(f"streams {unknown} are none of {', '.join(STREAMS)}")
        answer = await self._get(
            "streams",
            f"/activities/{activity_id}/streams",
            credential,
            purpose,
            {"keys": ",".join(keys), "key_by_type": "true"},
        )
        by_key = _read(_STREAMS.validate_json, answer, "the streams")
        # `distance` is added to whatever is asked for.
        found = Streams({key: stream for key, stream in by_key.items() if key in keys})
        if any(len(stream.data) != found.points for stream in found.by_key.values()):
            raise _strange("streams of different lengths")
        return found

    async def upload(
        self,
        credential: Credential,
        file: bytes,
        data_type: DataType,
        *,
        external_id: str,
        name: str | None = None,
        description: str | None = None,
        trainer: bool = False,
        commute: bool = False,
    ) -> Upload:
        """Send a file; what becomes of it, `upload_state` says.

        Not repeated here when the answer is lost. Doing it again is safe: Strava finds that the
        file is there already, and `Upload.result` is then that activity.
        """
        _needs(credential, "activity:write")
        if data_type not in get_args(DataType):
            allowed = ", ".join(get_args(DataType))
            raise InvalidInput(f"data_type {data_type!r} is none of {allowed}")
        form = {"data_type": data_type, "external_id": external_id}
        form |= {"name": name} if name else {}
        form |= {"description": description} if description else {}
        form |= {"trainer": "1"} if trainer else {}
        form |= {"commute": "1"} if commute else {}
        answer = await self._client.request(
            "upload",
            "POST",
            "/uploads",
            credential=credential,
            headers=_bearer(credential),
            data=form,
            files={"file": (f"{external_id}.{data_type}", file, "application/octet-stream")},
            metered=self._metered("event", credential, is_read=False),
            accept=frozenset({400}),
        )
        if answer.status == 400:
            raise UploadRefused(f"strava does not take the file: {_words(answer)}")
        return _read(Upload.model_validate_json, answer, "the upload")

    async def upload_state(self, credential: Credential, upload_id: int) -> Upload:
        """Return how far an upload is."""
        _needs(credential, "activity:write")
        answer = await self._get("upload_state", f"/uploads/{upload_id}", credential, "event")
        return _read(Upload.model_validate_json, answer, "the upload")

    async def uploaded(
        self, credential: Credential, upload: Upload, *, most_s: float = 120.0
    ) -> int:
        """Return the activity an upload became, or was already; wait for it, at most `most_s`.

        Raises `UploadRefused` with Strava's reason, `ProviderUnavailable` when it takes longer:
        ask again with the same upload.
        """
        pause_s, waited_s = FIRST_LOOK_S, 0.0
        while upload.state == "processing":
            if waited_s + pause_s > most_s:
                raise ProviderUnavailable(
                    f"strava still works on upload {upload.id} after {waited_s:.0f} s",
                    retry_after_s=LONGEST_LOOK_S,
                    service=self.name,
                )
            await self._clock.sleep(pause_s)
            waited_s += pause_s
            pause_s = min(2 * pause_s, LONGEST_LOOK_S)
            upload = await self.upload_state(credential, upload.id)
        if upload.result is None:
            why = "it was deleted again" if upload.state == "deleted" else upload.error
            raise UploadRefused(f"strava made no activity of the file: {_plain(why or '')}")
        return upload.result

    async def update(
        self,
        credential: Credential,
        activity_id: int,
        *,
        name: str | None = None,
        description: str | None = None,
        sport_type: str | None = None,
    ) -> Activity:
        """Change what is given, and return the activity as it is then."""
        _needs(credential, "activity:write")
        changes = {"name": name, "description": description, "sport_type": sport_type}
        answer = await self._client.request(
            "update",
            "PUT",
            f"/activities/{activity_id}",
            credential=credential,
            headers=_bearer(credential),
            json={field: value for field, value in changes.items() if value is not None},
            repeatable=True,
            metered=self._metered("event", credential),
        )
        return _read(Activity.model_validate_json, answer, "the activity")

    async def subscribe(self, callback_url: str, verify_token: SecretStr) -> int:
        """Have events sent to an address of ours, and return the subscription's number.

        Strava asks there at once, and is answered within two seconds (`answer_challenge`). Raises
        `Conflict` when there is a subscription already: an application has one.
        """
        if len(callback_url) > 255 or urlsplit(callback_url).scheme not in ("http", "https"):
            raise InvalidInput(
                "the callback's address is http or https, with at most 255 characters"
            )
        answer = await self._client.request(
            "subscribe",
            "POST",
            "/push_subscriptions",
            data={
                **self._secrets(),
                "callback_url": callback_url,
                "verify_token": verify_token.get_secret_value(),
            },
            metered=self._metered("event", None),
            accept=frozenset({400}),
        )
        if answer.status == 400:
            if _fault(answer).has("already exists"):
                raise Conflict(
                    "strava sends this application's events somewhere already",
                    hint="look at it with `subscriptions`, and end it with `unsubscribe`",
                )
            raise PermanentError(
                f"strava does not take the callback's address: {_words(answer)}",
                hint="it must be reachable from the internet and answer within two seconds",
            )
        return _read(Subscription.model_validate_json, answer, "the subscription").id

    async def subscriptions(self) -> list[Subscription]:
        """Return where events are sent: nowhere, or to one address."""
        answer = await self._client.request(
            "subscriptions",
            "GET",
            "/push_subscriptions",
            # There is no other way to say who asks; addresses are in no log of ours.
            params=self._secrets(),
            metered=self._metered("event", None),
        )
        return _read(_SUBSCRIPTIONS.validate_json, answer, "the subscriptions")

    async def unsubscribe(self, subscription_id: int) -> None:
        """Have no more events sent; `NoData` when there is no such subscription."""
        await self._client.request(
            "unsubscribe",
            "DELETE",
            f"/push_subscriptions/{subscription_id}",
            data=self._secrets(),
            repeatable=True,
            metered=self._metered("event", None),
        )

    async def revoke(self, token: SecretStr) -> None:
        """End what the person allowed us, by a refresh token of theirs."""
        if self._app is None:
            return
        pair = f"{self._app.client_id}:{self._app.client_secret.get_secret_value()}"
        await self._client.request(
            "revoke",
            "POST",
            self._revoke_url,
            headers={"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"},
            data={"token": token.get_secret_value(), "token_type_hint": "refresh_token"},
            repeatable=True,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _get(
        self,
        operation: str,
        path: str,
        credential: Credential,
        purpose: Purpose,
        params: Mapping[str, str] | None = None,
    ) -> Response:
        return await self._client.request(
            operation,
            "GET",
            path,
            credential=credential,
            headers=_bearer(credential),
            params=params,
            metered=self._metered(purpose, credential),
        )

    def _metered(
        self, purpose: Purpose, credential: Credential | None, *, is_read: bool = True
    ) -> Metered:
        # The account, where it is known: the same person is one, also in another connection.
        known = credential.account if credential else None
        subject = known.id if known else str(credential.id) if credential else ""

        async def send(ask: Callable[[], Awaitable[Response]]) -> Response:
            taken = await self._budget.take(purpose, subject, is_read=is_read)
            try:
                response = await ask()
            except BaseException:
                await self._budget.settle(taken)
                raise
            await self._budget.settle(taken, response.headers, refused=response.status == 429)
            return response

        return send

    def _secrets(self) -> dict[str, str]:
        if self._app is None:
            raise NotAllowed("strava is not set up here", hint="set the client id and the secret")
        return {
            "client_id": self._app.client_id,
            "client_secret": self._app.client_secret.get_secret_value(),
        }


def _bearer(credential: Credential) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential.token.get_secret_value()}"}


def _needs(credential: Credential, *scopes: str) -> None:
    """Refuse what the person did not allow, where it is known what they did."""
    if credential.scopes and not set(scopes) & set(credential.scopes):
        raise NotAllowed(
            f"strava: this needs the permission {' or '.join(scopes)}, which was not given",
            hint="connect Strava again and leave it ticked",
            permission=scopes[0],
        )


def _judge(response: Response, reading: Reading | None, now: float) -> CausewayError | None:
    """Return what Strava says in a way of its own."""
    if response.status == 429:
        at = datetime.fromtimestamp(now, UTC)
        full_day = any(
            said.usage is not None and said.limit is not None and said.usage[1] >= said.limit[1]
            for said in read_headers(response.headers).values()
        )
        period_s = DAY_S if full_day else QUARTER_S
        end = datetime.fromtimestamp(window_start(at, period_s).timestamp() + period_s, UTC)
        return RateLimited(
            "strava: the application's limit is used up",
            retry_after_s=wait_s(at, end, random.uniform),
            service="strava",
        )
    if response.status in (401, 403) and "json" in response.headers.get("content-type", ""):
        # The token is good, and not for this: connecting again with more is what helps.
        if _fault(response).has("missing") or response.status == 403:
            return NotAllowed("strava: the person did not allow this", service="strava")
    return None


def _fault(answer: Response) -> Fault:
    try:
        return Fault.model_validate_json(answer.body)
    except ValidationError:
        return Fault()


def _words(answer: Response) -> str:
    """Return Strava's reason, made harmless."""
    fault = _fault(answer)
    said = [f"{e.field} {e.code}".strip() for e in fault.errors] or [fault.message]
    return _plain("; ".join(said))


def _plain(words: str) -> str:
    return "".join(c for c in words if c.isprintable() and c not in "<>")[:200] or "no reason given"


def _read(read: Callable[[bytes], T], answer: Response, what: str) -> T:
    try:
        return read(answer.body)
    except ValidationError:
        raise _strange(what) from None


def _strange(what: str) -> ProviderUnavailable:
    return ProviderUnavailable(f"strava gave {what} in another shape", service="strava")
