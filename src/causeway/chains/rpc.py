"""JSON-RPC 2.0 over HTTP to one endpoint: one POST, typed replies, failures sorted."""

from __future__ import annotations

import email.utils
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import cast

import aiohttp
import msgspec

from causeway.base.clock import SYSTEM_CLOCK
from causeway.base.errors import CausewayError, ProviderUnavailable, RateLimited, TransientError
from causeway.chains.classify import ErrorReply, classify
from causeway.chains.endpoint import Endpoint
from causeway.chains.errors import RangeTooLarge

#: One call: the method and its parameters.
Call = tuple[str, Sequence[object]]

_MAX_RETRY_AFTER_S = 600.0


class _Failure(msgspec.Struct):
    code: int | float | str = 0
    message: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"null")


class _Reply(msgspec.Struct):
    id: int | str | float | None = None
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: _Failure | str | None = None


_one = msgspec.json.Decoder(_Reply)
_many = msgspec.json.Decoder(list[_Reply])
_anything = msgspec.json.Decoder()


class BatchRefused(Exception):
    """The endpoint does not take a batch of that size."""


def retry_after_s(header: str | None, now: datetime | None = None) -> float | None:
    """Return the seconds a Retry-After header asks for (a number or a date), bounded; else None."""
    if not header:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            date = email.utils.parsedate_to_datetime(header)
        except ValueError:
            return None
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        seconds = (date - (now or SYSTEM_CLOCK.now())).total_seconds()
    return min(max(seconds, 0.0), _MAX_RETRY_AFTER_S) if seconds == seconds else None


def _encode(calls: Sequence[Call]) -> list[dict[str, object]]:
    return [
        {"jsonrpc": "2.0", "id": number, "method": method, "params": list(params)}
        for number, (method, params) in enumerate(calls, start=1)
    ]


def _outcome(method: str, reply: _Reply, endpoint: Endpoint) -> msgspec.Raw | CausewayError:
    error = reply.error
    if isinstance(error, str):
        error = _Failure(message=error)
    if error is None:
        if reply.result is msgspec.UNSET:
            return ProviderUnavailable(f"{endpoint.name}: a reply without result or error")
        return reply.result
    try:
        code = int(error.code)
    except ValueError:
        code = 0
    try:
        data: object = _anything.decode(error.data)
    except msgspec.DecodeError:
        data = None
    return classify(method, ErrorReply(code, error.message or "no message", data))


async def post(
    session: aiohttp.ClientSession,
    endpoint: Endpoint,
    calls: Sequence[Call],
    *,
    timeout_s: float,
    repeat: bool = True,
) -> list[msgspec.Raw | CausewayError]:
    """Send `calls` in one request and return an outcome for each, in order.

    More than one call goes as a JSON-RPC batch; `BatchRefused` says that this size is not taken.
    With `repeat`, a request that died on a kept-alive connection before any answer is made once
    more; never set it for a call that changes something. Raises `ProviderUnavailable` and
    `RateLimited` when there was no usable answer at all. No error text contains the URL.
    """
    body = msgspec.json.encode(_encode(calls) if len(calls) > 1 else _encode(calls)[0])
    method = calls[0][0]
    try:
        try:
            status, answer, wait_s = await _exchange(session, endpoint, body, timeout_s)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            if not repeat or isinstance(error, aiohttp.ClientConnectorError):
                raise
            status, answer, wait_s = await _exchange(session, endpoint, body, timeout_s)
    except TimeoutError:
        raise ProviderUnavailable(
            f"{endpoint.name} ({endpoint.url}) did not answer {method} in {timeout_s:g} s",
            kind="timeout",
        ) from None
    except aiohttp.ClientConnectorError as error:
        if endpoint.right_chain:
            endpoint.right_chain = None  # what comes back at this address may be another chain
        tls = isinstance(error, aiohttp.ClientSSLError)
        reason = "its certificate is refused" if tls else error.os_error.strerror
        raise ProviderUnavailable(
            f"{endpoint.name} ({endpoint.url}) cannot be reached: {reason or type(error).__name__}",
            kind="tls" if tls else "connect",
        ) from None
    except (aiohttp.ClientError, ValueError) as error:
        # Only the kind of error is told: its text may hold the URL.
        raise ProviderUnavailable(
            f"{endpoint.name} ({endpoint.url}) gave no usable answer to {method}: "
            f"{type(error).__name__}",
            kind="transport",
        ) from None
    if status == 429:
        raise RateLimited(f"{endpoint.name} ({endpoint.url}): HTTP 429", retry_after_s=wait_s)
    if len(calls) > 1:
        return _batch(endpoint, calls, answer, status)
    return [_single(endpoint, method, answer, status, wait_s)]


async def _exchange(
    session: aiohttp.ClientSession, endpoint: Endpoint, body: bytes, timeout_s: float
) -> tuple[int, bytes, float | None]:
    async with session.post(
        endpoint.url.reveal(),
        data=body,
        headers={"content-type": "application/json"},
        timeout=aiohttp.ClientTimeout(total=timeout_s),
        allow_redirects=False,
    ) as response:
        wait_s = retry_after_s(response.headers.get("retry-after"))
        return response.status, await response.read(), wait_s


def _single(
    endpoint: Endpoint, method: str, answer: bytes, status: int, wait_s: float | None
) -> msgspec.Raw | CausewayError:
    try:
        reply = _one.decode(answer)
    except msgspec.DecodeError:
        reply = None
    # A JSON-RPC error in the body says more than the HTTP status it came with.
    if reply is not None and (status < 300 or reply.error is not None):
        outcome = _outcome(method, reply, endpoint)
        if isinstance(outcome, TransientError):
            outcome.retry_after_s = wait_s
        return outcome
    if status == 413 and method == "eth_getLogs":
        return RangeTooLarge("HTTP 413", code=status)
    if status in (401, 403):
        return ProviderUnavailable(
            f"{endpoint.name} ({endpoint.url}) refuses us: HTTP {status}",
            hint="check the key in the endpoint's URL",
            kind=f"http_{status}",
        )
    return ProviderUnavailable(
        f"{endpoint.name} ({endpoint.url}): HTTP {status} without a JSON-RPC reply",
        retry_after_s=wait_s,
        kind="no_json" if status < 300 else f"http_{status}",
    )


def _batch(
    endpoint: Endpoint, calls: Sequence[Call], answer: bytes, status: int
) -> list[msgspec.Raw | CausewayError]:
    try:
        replies = _many.decode(answer)
    except msgspec.DecodeError:
        if 500 <= status < 600 and status != 501:
            raise ProviderUnavailable(
                f"{endpoint.name} ({endpoint.url}): HTTP {status} without a JSON-RPC reply",
                kind=f"http_{status}",
            ) from None
        raise BatchRefused from None
    by_id = {cast("int", reply.id): reply for reply in replies}
    if not any(number in by_id for number in range(1, len(calls) + 1)):
        raise BatchRefused
    outcomes: list[msgspec.Raw | CausewayError] = []
    for number, (method, _) in enumerate(calls, start=1):
        reply = by_id.get(number)
        outcomes.append(
            ProviderUnavailable(f"{endpoint.name}: no reply to {method} in a batch")
            if reply is None
            else _outcome(method, reply, endpoint)
        )
    return outcomes
