"""uploading → ready: the picture and its metadata are pinned, and both CIDs are proved.

Content has one name whatever happens, so uploading again is safe; what is finished is kept on the
token at once, and a CID that is not of our bytes never gets further than the record of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
from sqlalchemy import func, select, update

from causeway.apps.glisk.cids import KUBO_V1, cid_of
from causeway.apps.glisk.context import GliskContext, unit_of_work
from causeway.apps.glisk.metadata import TokenMetadata, metadata_bytes
from causeway.apps.glisk.models import Author, Image, Token, TokenStatus, UploadRecord
from causeway.apps.glisk.pinning import CidMismatch, Pinner, PinResult
from causeway.base.errors import CausewayError, ConfigurationError, LeaseLost
from causeway.base.faults import fault_point
from causeway.pipelines.stage import Advance, Back, Claim, Outcome

log = structlog.get_logger(__name__)

EXTENSIONS = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/webp": "webp",
    "image/gif": "gif",
}


async def upload(ctx: GliskContext, claim: Claim) -> Outcome:
    """Pin the token's picture, then its metadata; both proved to be of our bytes."""
    pinner = ctx.services.pinner
    if pinner is None:
        raise ConfigurationError(
            "no IPFS provider is configured",
            hint="set PINATA_JWT, or PINATA_API_KEY and PINATA_API_SECRET, or IPFS_API_URL",
        )
    token_id = int(claim.key)
    async with unit_of_work(ctx) as uow:
        image = await uow.session.get(Image, claim.row["image_sha256"])
        author = await uow.session.get_one(Author, claim.row["author_id"])
    if image is None:
        return Back(
            to=TokenStatus.DETECTED.value,
            values={"image_url": None, "image_sha256": None, "image_cid": None},
            reason="the picture is gone; it is made again",
        )
    uploads = Uploads(ctx, pinner, claim)
    with structlog.contextvars.bound_contextvars(token_id=token_id):
        try:
            image_cid = await uploads.image(image)
            fault_point("glisk.image_pinned")
            content = metadata_bytes(
                TokenMetadata(
                    token_id=token_id,
                    image_cid=image_cid,
                    twitter_handle=author.twitter_handle,
                    farcaster_handle=author.farcaster_handle,
                ),
                name_template=ctx.settings.metadata_name_template,
                description=ctx.settings.metadata_description,
                external_url=ctx.settings.metadata_external_url,
            )
            metadata_cid = await uploads.metadata(content)
        except CausewayError as error:
            await uploads.note(error)
            raise
    fault_point("glisk.metadata_pinned")
    return Advance(
        values={
            "metadata_json": content,
            "metadata_cid": metadata_cid,
            "ready_at": func.clock_timestamp(),
        }
    )


class Uploads:
    """The uploads of one token under one claim."""

    def __init__(self, ctx: GliskContext, pinner: Pinner, claim: Claim) -> None:
        self._ctx = ctx
        self._pinner = pinner
        self._claim = claim
        self._token_id = int(claim.key)

    async def image(self, image: Image) -> str:
        """Pin the picture and return its CID; what was pinned before is not pinned again."""
        if self._claim.row["image_cid"] is not None:
            return str(self._claim.row["image_cid"])
        known = await self._pinned_before(image.sha256)
        if known is None:
            known = await self._pinned(
                "image",
                image.content,
                lambda: self._pinner.pin_file(
                    image.content,
                    name=f"s0-token-{self._token_id}.{EXTENSIONS[image.mime]}",
                    content_type=image.mime,
                    keyvalues=self._keyvalues,
                ),
            )
        cid, profile = known
        async with self._ctx.database.transaction() as session:
            kept = await session.scalar(
                update(Token)
                .where(Token.token_id == self._token_id, Token.fence == self._claim.fence)
                .values(image_cid=cid, image_cid_profile=profile)
                .returning(Token.token_id)
            )
            if kept is None:
                raise LeaseLost(f"token {self._token_id} is not ours any more")
        return cid

    async def _pinned_before(self, sha256: str) -> tuple[str, str] | None:
        """Return the CID of a picture that another token shows already."""
        async with self._ctx.database.transaction() as session:
            found = (
                await session.execute(
                    select(Token.image_cid, Token.image_cid_profile)
                    .where(Token.image_sha256 == sha256, Token.image_cid.is_not(None))
                    .limit(1)
                )
            ).first()
        return None if found is None else (str(found[0]), str(found[1]))

    async def metadata(self, content: bytes) -> str:
        """Pin the metadata: as JSON, and when that changes our bytes, as a file."""
        name = f"s0-token-{self._token_id}-metadata.json"
        try:
            cid, _ = await self._pinned(
                "metadata",
                content,
                lambda: self._pinner.pin_json(content, name=name, keyvalues=self._keyvalues),
            )
        except CidMismatch:
            cid, _ = await self._pinned(
                "metadata",
                content,
                lambda: self._pinner.pin_file(
                    content, name=name, content_type="application/json", keyvalues=self._keyvalues
                ),
            )
        return cid

    @property
    def _keyvalues(self) -> dict[str, str]:
        return {"season": "0", "token_id": str(self._token_id)}

    async def _pinned(
        self, upload_type: str, content: bytes, pin: Callable[[], Awaitable[PinResult]]
    ) -> tuple[str, str]:
        """Upload once, prove the CID, and keep a record of both; return CID and profile."""
        expected = cid_of(content, KUBO_V1)
        async with self._ctx.database.transaction() as session:
            number = await session.scalar(
                select(func.count())
                .select_from(UploadRecord)
                .where(
                    UploadRecord.token_id == self._token_id,
                    UploadRecord.upload_type == upload_type,
                )
            )
            record = UploadRecord(
                token_id=self._token_id,
                upload_type=upload_type,
                provider=self._pinner.name,
                expected_cid=expected,
                size=len(content),
                attempt_number=int(number or 0) + 1,
            )
            session.add(record)
            await session.flush()
        told: str | None = None
        try:
            result = await pin()
            told = result.cid
            profile = await self._pinner.prove(result, content)
        except CausewayError as error:
            status = "mismatch" if isinstance(error, CidMismatch) else "failed"
            await self._close(record, status, told, {"message": error.message})
            raise
        await self._close(record, "completed", told, None)
        return told, profile

    async def _close(
        self,
        record: UploadRecord,
        status: str,
        cid: str | None,
        error_data: dict[str, str] | None,
    ) -> None:
        async with self._ctx.database.transaction() as session:
            await session.execute(
                update(UploadRecord)
                .where(UploadRecord.id == record.id)
                .values(
                    status=status,
                    ipfs_cid=cid,
                    completed_at=func.now(),
                    error_data=error_data,
                )
            )

    async def note(self, error: CausewayError) -> None:
        """Put an error on the token's own list."""
        async with unit_of_work(self._ctx) as uow:
            await uow.tokens.add_error(self._token_id, "ipfs", type(error).__name__, error.message)
            await uow.commit()
