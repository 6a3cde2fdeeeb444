"""A Kubo node's RPC, for those who keep their content themselves."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from causeway.apps.glisk.pinning.protocol import MAX_CAR_BYTES, PinResult, prove
from causeway.base.errors import ConfigurationError, PermanentError
from causeway.base.http import HttpClient

_ADD = "/api/v0/add?cid-version=1&raw-leaves=true&chunker=size-262144&pin=true"


class KuboPinner:
    """Pins at a Kubo node. Bytes stay bytes: a JSON document is a file like any other."""

    name = "kubo"

    def __init__(self, api_url: str, gateway_url: str) -> None:
        self._client = HttpClient(name="kubo", base_url=api_url, timeout_s=60)
        self._gateway = HttpClient(
            name="ipfs-gateway",
            base_url=gateway_url,
            timeout_s=60,
            max_response_bytes=MAX_CAR_BYTES,
        )

    async def pin_file(
        self, content: bytes, *, name: str, content_type: str, keyvalues: Mapping[str, str]
    ) -> PinResult:
        """Pin bytes as a file; Kubo keeps no key values."""
        answer = await self._client.request(
            "POST", _ADD, files={"file": (name, content, content_type)}
        )
        if answer.status in (401, 403):
            raise ConfigurationError(
                f"the Kubo node refuses us ({answer.status})", hint="check IPFS_API_URL"
            )
        if not answer.ok:
            raise PermanentError(f"kubo refuses the upload ({answer.status} {answer.text(100)})")
        last = answer.body.strip().splitlines()[-1:] or [b"{}"]
        told = orjson.loads(last[0])
        if not told.get("Hash"):
            raise PermanentError(f"kubo answered without a CID: {answer.text()}")
        return PinResult(str(told["Hash"]), int(told.get("Size") or 0))

    async def pin_json(
        self, content: bytes, *, name: str, keyvalues: Mapping[str, str]
    ) -> PinResult:
        """Pin the document's own bytes."""
        return await self.pin_file(
            content, name=name, content_type="application/json", keyvalues=keyvalues
        )

    async def prove(self, result: PinResult, content: bytes) -> str:
        """Prove that a CID is of our bytes; see `causeway.apps.glisk.pinning.protocol.prove`."""
        return await prove(self._gateway, result, content)

    async def check(self) -> None:
        """Raise when the node does not answer."""
        answer = await self._client.request("POST", "/api/v0/version")
        if not answer.ok:
            raise ConfigurationError(
                f"the Kubo node answers {answer.status}", hint="check IPFS_API_URL"
            )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()
        await self._gateway.aclose()
