"""Where AWS credentials come from: the environment, the container's agent, the instance itself.

The order and the variables are those of AWS's own programs. Credentials that run out are fetched
anew a while before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from causeway.base.clock import SYSTEM_CLOCK, Clock
from causeway.base.errors import ConfigurationError, ProviderUnavailable
from causeway.base.http import HttpClient, Response
from causeway.base.logging import conceal

#: Where agents of containers, and instances, answer.
_CONTAINER = "http://169.254.170.2"
_INSTANCE = "http://169.254.169.254"
#: Addresses besides loopback to which the container's token may be sent without TLS.
_AGENTS = ("169.254.170.2", "169.254.170.23", "fd00:ec2::23", "127.0.0.1", "localhost", "::1")
#: Fetched anew this long before they run out.
_EARLY = timedelta(minutes=5)


@dataclass(frozen=True)
class AwsCredentials:
    """An access key; with a session token when it is a temporary one."""

    access_key_id: str
    secret_access_key: SecretStr
    session_token: SecretStr | None = None
    #: When it runs out; None: never.
    expires_at: datetime | None = None


class CredentialSource:
    """Gives credentials that are good now. Makes requests only when the environment has none."""

    def __init__(self, environment: Mapping[str, str], *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._env = environment
        self._clock = clock
        self._kept: AwsCredentials | None = None
        self._http = HttpClient(name="aws-credentials", base_url=_INSTANCE, timeout_s=5.0)

    def __repr__(self) -> str:
        return "CredentialSource()"

    async def get(self) -> AwsCredentials:
        """Return credentials; `ConfigurationError` when there are none to be had."""
        kept = self._kept
        if kept is not None:
            if kept.expires_at is None or kept.expires_at - _EARLY > self._clock.now():
                return kept
        self._kept = self._from_environment() or await self._fetched()
        for secret in (self._kept.secret_access_key, self._kept.session_token):
            if secret is not None:
                conceal(secret.get_secret_value())
        return self._kept

    def forget(self) -> bool:
        """Forget credentials that were refused; False when the next ones would be the same."""
        kept, self._kept = self._kept, None
        return kept is not None and kept.expires_at is not None

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def _from_environment(self) -> AwsCredentials | None:
        key_id, secret = self._env.get("AWS_ACCESS_KEY_ID"), self._env.get("AWS_SECRET_ACCESS_KEY")
        if not key_id and not secret:
            return None
        if not key_id or not secret:
            raise ConfigurationError(
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY must be set together, or neither"
            )
        token = self._env.get("AWS_SESSION_TOKEN")
        return AwsCredentials(key_id, SecretStr(secret), SecretStr(token) if token else None)

    async def _fetched(self) -> AwsCredentials:
        full = self._env.get("AWS_CONTAINER_CREDENTIALS_FULL_URI")
        relative = self._env.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
        if full or relative:
            url = f"{_CONTAINER}{relative}" if relative else str(full)
            return self._read(await self._http.request("GET", url, headers=self._agent(url)))
        if self._env.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
            raise ConfigurationError("there are no AWS credentials", hint=_HINT)
        return await self._of_instance()

    def _agent(self, url: str) -> dict[str, str]:
        parts = urlsplit(url)
        if parts.scheme != "https" and parts.hostname not in _AGENTS:
            raise ConfigurationError(
                f"AWS_CONTAINER_CREDENTIALS_FULL_URI: {parts.hostname} is not asked without TLS"
            )
        token = self._env.get("AWS_CONTAINER_AUTHORIZATION_TOKEN")
        file = self._env.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
        if file:
            try:
                token = Path(file).read_text().strip()
            except OSError as error:
                raise ConfigurationError(
                    f"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE {file}: {error.strerror}"
                ) from None
        return {"Authorization": token} if token else {}

    async def _of_instance(self) -> AwsCredentials:
        """Ask the instance's metadata service, version 2: a session first, then the role."""
        base = self._env.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", _INSTANCE).rstrip("/")
        lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": "300"}
        try:
            session = await self._http.request("PUT", f"{base}/latest/api/token", headers=lifetime)
        except ProviderUnavailable:
            raise ConfigurationError("there are no AWS credentials", hint=_HINT) from None
        headers = {"X-aws-ec2-metadata-token": session.body.decode()}
        roles = f"{base}/latest/meta-data/iam/security-credentials/"
        role = (await self._http.request("GET", roles, headers=headers)).text().split("\n")[0]
        return self._read(await self._http.request("GET", roles + role, headers=headers))

    def _read(self, answer: Response) -> AwsCredentials:
        if not answer.ok:
            raise ConfigurationError(
                f"AWS gives no credentials: status {answer.status}", hint=_HINT
            )
        found: dict[str, Any] = answer.json()
        try:
            return AwsCredentials(
                str(found["AccessKeyId"]),
                SecretStr(found["SecretAccessKey"]),
                SecretStr(found["Token"]),
                datetime.fromisoformat(found["Expiration"]),
            )
        except (KeyError, ValueError, TypeError):
            raise ProviderUnavailable("AWS answered with incomplete credentials") from None


_HINT = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the task or instance a role"
