"""Stage `remind`: deliver one reminder, signed (Standard Webhooks); at least once, by its id."""

from __future__ import annotations

import base64
import hashlib
import hmac

import orjson

from causeway.apps.motify.context import MotifyContext
from causeway.base.errors import ConfigurationError
from causeway.pipelines.stage import Advance, Claim, Fail, Outcome, Retry


async def remind(ctx: MotifyContext, claim: Claim) -> Outcome:
    """Post one reminder. The receiver tells repetitions apart by `webhook-id`."""
    http = ctx.services.reminders
    if http is None:
        raise ConfigurationError(["REMINDER_WEBHOOK_URL is not set"])
    row = claim.row
    message = {
        "type": f"motify.{row['kind']}",
        "timestamp": row["created_at"].isoformat(),
        "data": {"wallet": row["wallet"], "challenge": row["settlement_key"], **row["body"]},
    }
    moment = int(ctx.clock.now().timestamp())
    headers = {
        "webhook-id": str(claim.key),
        "webhook-timestamp": str(moment),
    }
    secret = ctx.settings.reminder_webhook_secret
    if secret is not None:
        signed = b".".join((str(claim.key).encode(), str(moment).encode(), orjson.dumps(message)))
        key = secret.get_secret_value().removeprefix("whsec_").encode()
        digest = hmac.digest(_key(key), signed, hashlib.sha256)
        headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    answer = await http.request("POST", "", json=message, headers=headers)
    if answer.ok:
        return Advance()
    if answer.status in (400, 404, 410, 422):
        return Fail(f"the webhook answered {answer.status}")
    return Retry(30, f"the webhook answered {answer.status}")


def _key(written: bytes) -> bytes:
    """Return the bytes of a secret in base64; of any other text, the text itself."""
    try:
        return base64.b64decode(written, validate=True)
    except ValueError:
        return written
