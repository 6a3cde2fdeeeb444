"""detected → generating → uploading: a picture is made from the prompt, checked and kept.

A prediction costs money, so the job row comes first and the prediction's id is stored before it is
waited for: whoever takes the token over asks about that prediction instead of buying another.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.glisk.context import GliskContext, unit_of_work
from causeway.apps.glisk.generators import (
    ContentRefused,
    Finished,
    GenerationLost,
    GenerationRequest,
    Generator,
    Started,
)
from causeway.apps.glisk.metadata import generation_seed, prompt_sha256
from causeway.apps.glisk.models import GenerationJob, Image, Token, TokenStatus
from causeway.base.errors import (
    CausewayError,
    LeaseLost,
    PermanentError,
    ProviderUnavailable,
    RateLimited,
)
from causeway.base.faults import fault_point
from causeway.pipelines.stage import Advance, Back, Claim, Outcome, Retry

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Job:
    """A job row in hand."""

    id: UUID
    attempt_number: int
    prompt: str
    seed: int
    service: str
    external_id: str | None
    created_at: datetime
    #: The row was there before us: whoever made it may have bought a prediction.
    resumed: bool


async def generate(ctx: GliskContext, claim: Claim) -> Outcome:
    """Have the token's picture made, or take up one that is being made already."""
    row = claim.row
    if row["image_sha256"] is not None:
        # An equal mint was undone before: its picture is still good.
        return Advance()
    generators = ctx.services.generators
    generator = generators.choose()
    job = await _open_job(ctx, claim, generator)
    if job.service != generator.name:
        generator = generators.named(job.service)
    with structlog.contextvars.bound_contextvars(token_id=claim.key, job_id=str(job.id)):
        try:
            finished = await _finish(ctx, generator, job, int(claim.key))
            generators.report(generator, well=True)
        except ContentRefused as refusal:
            return await _refused(ctx, claim, job, refusal)
        except GenerationLost as lost:
            # That prediction will never have an answer: the next attempt buys another.
            await _close_job(ctx, job, "abandoned", lost)
            await _note(ctx, claim, "transient", lost)
            raise
        except PermanentError as error:
            await _close_job(ctx, job, "failed", error)
            await _note(ctx, claim, "permanent", error)
            raise
        except (ProviderUnavailable, RateLimited) as error:
            generators.report(generator, well=False)
            await _note(ctx, claim, "transient", error)
            if generators.has_fallback:
                # The stage need not pause: before long the other generator is asked.
                return Retry(error.retry_after_s or 1.0, error.message, counts=False)
            raise
        except CausewayError as error:
            await _note(ctx, claim, type(error).__name__, error)
            raise
    fault_point("glisk.image_made")
    await _keep_image(ctx, finished)
    fault_point("glisk.image_kept")
    return _advance(job, finished)


async def _open_job(ctx: GliskContext, claim: Claim, generator: Generator) -> Job:
    """Return the job that is under way for the token, or write down a new one."""
    row = claim.row
    token_id = int(claim.key)
    async with ctx.database.transaction() as session:
        token = await session.get(Token, token_id, with_for_update=True)
        if token is None or token.fence != claim.fence:
            raise LeaseLost(f"token {token_id} is not ours any more")
        last = await session.scalar(
            select(GenerationJob)
            .where(GenerationJob.token_id == token_id)
            .order_by(GenerationJob.attempt_number.desc())
            .limit(1)
        )
        if last is not None and last.status == "started":
            if last.service == generator.name or last.external_job_id is not None:
                return _job(last, resumed=True)
            # Never begun where it was asked for, as far as we know, and now another is asked.
            last.status = "abandoned"
            last.completed_at = ctx.clock.now()
        settings = ctx.settings
        prompt = row["prompt_text"] or settings.default_prompt
        if row["censored"]:
            prompt = settings.fallback_censored_prompt
        job = GenerationJob(
            token_id=token_id,
            prompt_text=prompt,
            seed=generation_seed(
                settings.chain_id or 0, settings.contract or "", token_id, row["mint_block_hash"]
            ),
            service=generator.name,
            model=generator.model,
            attempt_number=1 if last is None else last.attempt_number + 1,
        )
        session.add(job)
        token.generation_attempts += 1
        await session.flush()
        await session.refresh(job)
        return _job(job, resumed=False)


def _job(row: GenerationJob, *, resumed: bool) -> Job:
    return Job(
        id=row.id,
        attempt_number=row.attempt_number,
        prompt=row.prompt_text,
        seed=row.seed or 0,
        service=row.service,
        external_id=row.external_job_id,
        created_at=row.created_at,
        resumed=resumed,
    )


async def _finish(ctx: GliskContext, generator: Generator, job: Job, token_id: int) -> Finished:
    request = GenerationRequest(prompt=job.prompt, seed=job.seed, token_id=token_id)
    external_id = job.external_id
    if external_id is None and job.resumed:
        external_id = await generator.find_orphan(request, since=job.created_at)
        if external_id is not None:
            log.info("prediction_found_again", external_id=external_id)
            await _store_external_id(ctx, job, external_id)
    if external_id is None:
        fault_point("glisk.job_written")
        started = await generator.start(request)
        fault_point("glisk.prediction_created")
        if not isinstance(started, Started):
            return started
        external_id = started.external_id
        await _store_external_id(ctx, job, external_id)
        fault_point("glisk.prediction_stored")
    return await generator.wait(external_id)


async def _store_external_id(ctx: GliskContext, job: Job, external_id: str) -> None:
    async with ctx.database.transaction() as session:
        await session.execute(
            update(GenerationJob)
            .where(GenerationJob.id == job.id)
            .values(external_job_id=external_id)
        )


async def _close_job(ctx: GliskContext, job: Job, status: str, error: CausewayError) -> None:
    async with ctx.database.transaction() as session:
        await session.execute(
            update(GenerationJob)
            .where(GenerationJob.id == job.id)
            .values(status=status, completed_at=func.now(), error_data={"message": error.message})
        )


async def _note(ctx: GliskContext, claim: Claim, kind: str, error: CausewayError) -> None:
    async with unit_of_work(ctx) as uow:
        await uow.tokens.add_error(int(claim.key), "image", kind, error.message)
        await uow.commit()


async def _refused(ctx: GliskContext, claim: Claim, job: Job, refusal: ContentRefused) -> Outcome:
    """Once more with the harmless prompt; if that is refused too, the token fails."""
    await _close_job(ctx, job, "censored", refusal)
    await _note(ctx, claim, "content", refusal)
    if claim.row["censored"]:
        raise PermanentError(
            "the prompt was refused, and so was the harmless one instead of it: " + refusal.message
        )
    return Back(
        to=TokenStatus.DETECTED.value,
        values={"censored": True},
        reason="the prompt was refused; generated once more with the harmless one",
    )


async def _keep_image(ctx: GliskContext, finished: Finished) -> None:
    """Store the bytes under their hash: no later step needs the generator any more."""
    facts = finished.facts
    async with ctx.database.transaction() as session:
        await session.execute(
            insert(Image)
            .values(
                sha256=facts.sha256,
                mime=facts.mime,
                width=facts.width,
                height=facts.height,
                content=finished.content,
            )
            .on_conflict_do_nothing()
        )


def _advance(job: Job, finished: Finished) -> Advance:
    facts = finished.facts

    async def record(session: AsyncSession) -> None:
        await session.execute(
            update(GenerationJob)
            .where(GenerationJob.id == job.id)
            .values(
                status="succeeded",
                completed_at=func.now(),
                output_url=finished.url,
                model=finished.model,
                cost_seconds=finished.predict_time_s,
                error_data={"suspected": "black image"} if facts.suspected_black else None,
            )
        )

    values: dict[str, Any] = {
        "image_url": finished.url,
        "image_sha256": facts.sha256,
        "image_mime": facts.mime,
        "image_bytes_size": facts.size,
        "prompt_sha256": prompt_sha256(job.prompt),
        "generation_seed": job.seed,
        "generation_model": finished.model,
    }
    return Advance(values=values, record=record)
