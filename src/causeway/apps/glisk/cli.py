"""`causeway glisk …`: what operators do by hand. Exit 0 all done, 1 error, 2 partly done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

from causeway.apps.glisk import operations
from causeway.apps.glisk.context import GliskContext, unit_of_work
from causeway.apps.glisk.models import Image, Token, TokenStatus
from causeway.apps.glisk.schemas import job_view, mint_view, plain, token_row, upload_view
from causeway.base import logging
from causeway.base.errors import ConfigurationError, NotFound, PermanentError
from causeway.base.settings import KernelSettings, load

commands = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
console = Console()

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
TokenIds = Annotated[list[int], typer.Argument(help="Token ids.", min=1)]


@asynccontextmanager
async def _opened() -> AsyncGenerator[GliskContext]:
    # Imported here: the runtime imports the apps it finds.
    from causeway.runtime.discover import find_apps
    from causeway.runtime.installation import open_installation

    kernel = load(KernelSettings)
    logging.configure("ERROR", kernel.log_format)
    async with open_installation(find_apps(["glisk"]), kernel) as installation:
        yield installation.contexts["glisk"]


def _run(work: Callable[[GliskContext], Awaitable[int]]) -> None:
    async def main() -> int:
        async with _opened() as ctx:
            return await work(ctx)

    raise SystemExit(asyncio.run(main()))


def _print(value: Any) -> None:
    console.print_json(orjson.dumps(value).decode())


@commands.command()
def reveal(
    token_ids: TokenIds,
    wait: Annotated[bool, typer.Option("--wait", help="Until they are revealed.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also while reveals are paused.")] = False,
    as_json: Json = False,
) -> None:
    """Reveal tokens now, without waiting for a batch to fill."""

    async def work(ctx: GliskContext) -> int:
        answer = await operations.request_reveal(ctx, token_ids, force=force)
        if as_json:
            _print(answer)
        else:
            for token_id in answer["accepted"]:
                console.print(f"{token_id}: accepted")
            for item in answer["rejected"]:
                console.print(f"{item['token_id']}: {item['reason']}")
        if not answer["accepted"]:
            return 1
        if wait:
            await _until_revealed(ctx, answer["accepted"])
        return 2 if answer["rejected"] else 0

    _run(work)


@commands.command("manual_reveal", hidden=True)
def manual_reveal(
    token_ids: Annotated[list[int], typer.Option("--token-ids", help="First token id.")],
    more: Annotated[list[int] | None, typer.Argument(help="More token ids.")] = None,
) -> None:
    """The old name: `manual_reveal --token-ids 42 43 44`."""
    reveal([*token_ids, *(more or [])])


async def _until_revealed(ctx: GliskContext, token_ids: list[int]) -> None:
    with console.status("waiting for the chain"):
        while True:
            async with unit_of_work(ctx) as uow:
                tokens = await uow.tokens.get_many(token_ids)
            states = {t.token_id: t.status for t in tokens}
            if all(states.get(i) == TokenStatus.REVEALED for i in token_ids):
                return
            for token_id, status in states.items():
                if status == TokenStatus.FAILED:
                    raise PermanentError(f"token {token_id} failed")
            await ctx.clock.sleep(0.5)


def _recover(
    from_block: Annotated[
        int | None, typer.Option(min=0, help="First block; default: the last one processed.")
    ] = None,
    to_block: Annotated[str, typer.Option(help="Last block, or latest.")] = "latest",
    batch_size: Annotated[
        int | None, typer.Option(min=1, max=2000, help="Blocks asked for at once.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is done.")] = False,
) -> None:
    """Read blocks again and apply the mints that are missing."""
    from causeway.apps.glisk.recovery import recover_events

    async def work(ctx: GliskContext) -> int:
        if verbose:
            logging.configure("INFO", "pretty")
        if not ctx.indexers:
            raise ConfigurationError(ctx.settings.missing())
        indexer = ctx.indexers["glisk"]
        here = await indexer.step()
        while here.behind:
            here = await indexer.step()
        applied = here.applied_to
        first = from_block
        if first is None:
            if applied is None:
                raise PermanentError("nothing was processed yet: say where with --from-block")
            first = applied.number
        if to_block != "latest" and not to_block.isdigit():
            raise PermanentError(f"--to-block: {to_block!r} is neither a number nor latest")
        last = (applied.number if applied else 0) if to_block == "latest" else int(to_block)
        found = await recover_events(ctx, first, last, batch_size=batch_size, dry_run=dry_run)
        verb = "would be applied" if dry_run else "applied"
        console.print(
            f"blocks {first} to {last}: {found.applied} mint(s) {verb}, {found.known} known"
        )
        return 0

    _run(work)


commands.command("recover-events")(_recover)
commands.command("recover", help="The same as recover-events.")(_recover)


@commands.command("recover-tokens")
def recover_tokens(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Tokens at once.")] = 1000,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list.")] = False,
) -> None:
    """Compare the tokens on chain with those known, and make those that are missing."""
    from causeway.apps.glisk.upkeep import audit, missing_tokens

    async def work(ctx: GliskContext) -> int:
        missing, at = await missing_tokens(ctx, limit)
        console.print(f"at block {at}: {len(missing)} token(s) missing {missing[:20] or ''}")
        if missing and not dry_run:
            await audit(ctx)
            left, _ = await missing_tokens(ctx, limit)
            console.print(f"{len(missing) - len(left)} repaired, {len(left)} still missing")
            return 2 if left else 0
        return 0

    _run(work)


@commands.command()
def token(
    token_id: Annotated[int, typer.Argument(min=1, help="Token id.")], as_json: Json = False
) -> None:
    """Show a token and everything that was done for it."""

    async def work(ctx: GliskContext) -> int:
        async with unit_of_work(ctx) as uow:
            await uow.snapshot()
            found = await uow.tokens.get_by_id(token_id)
            if found is None:
                raise NotFound(f"there is no token {token_id}")
            author = await uow.authors.get_by_id(found.author_id)
            view = token_row(found, author)
            history: dict[str, Any] = {
                "mint_event": mint_view(await uow.history.mint_event(found)),
                "generation_jobs": [job_view(j) for j in await uow.history.jobs(token_id)],
                "ipfs_uploads": [upload_view(u) for u in await uow.history.uploads(token_id)],
                "reveal_transactions": [plain(r) for r in await uow.history.reveals(token_id)],
                "transitions": [plain(t) for t in await uow.history.transitions(token_id)],
            }
        if as_json:
            _print(view | {"history": history})
            return 0
        table = Table(title=f"token {token_id}", box=None, show_header=False, title_justify="left")
        for name in (
            *("status", "minter_address", "mint_timestamp", "prompt_text", "image_cid"),
            *("metadata_uri", "reveal_tx_hash", "revealed_uri", "generation_error"),
        ):
            table.add_row(name, str(view[name] if view[name] is not None else "–"))
        console.print(table)
        story = Table("at", "from", "to", "by", "why", title="what happened", title_justify="left")
        for row in history["transitions"]:
            story.add_row(
                str(row["at"])[:23],
                row["from_status"] or "–",
                row["to_status"] or "–",
                row["worker"] or "",
                row["reason"] or "",
            )
        console.print(story)
        return 0

    _run(work)


@commands.command()
def authors(as_json: Json = False) -> None:
    """List the authors most minted from."""

    async def work(ctx: GliskContext) -> int:
        async with unit_of_work(ctx) as uow:
            rows = await uow.authors.leaderboard()
        if as_json:
            _print([{"author_address": wallet, "total_tokens": n} for wallet, n in rows])
            return 0
        table = Table("author", "tokens", box=None)
        for wallet, number in rows:
            table.add_row(wallet, str(number))
        console.print(table)
        return 0

    _run(work)


@commands.command()
def retry(
    token_ids: Annotated[list[int] | None, typer.Argument(help="Token ids.")] = None,
    all_failed: Annotated[bool, typer.Option("--all-failed", help="All failed tokens.")] = False,
) -> None:
    """Put failed tokens back to the furthest point whose result is still good."""

    async def work(ctx: GliskContext) -> int:
        chosen = await operations.failed_tokens(ctx) if all_failed else token_ids or []
        if not chosen and not all_failed:
            raise PermanentError("name token ids, or say --all-failed")
        refused = 0
        for token_id in chosen:
            try:
                console.print(f"{token_id}: {await operations.retry(ctx, token_id)}")
            except PermanentError as error:
                refused += 1
                console.print(f"{token_id}: {error.message}")
        return 0 if not refused else 1 if refused == len(chosen) else 2

    _run(work)


Stage = Annotated[str, typer.Argument(help="image, ipfs or reveal.")]


def _stage(name: str) -> str:
    if name not in operations.STAGES:
        raise PermanentError(f"{name!r} is no stage; there are {', '.join(operations.STAGES)}")
    return name


@commands.command()
def pause(
    stage: Stage, reason: Annotated[str, typer.Option(help="Why.")] = "paused by an operator"
) -> None:
    """Stop a stage from taking up tokens."""

    async def work(ctx: GliskContext) -> int:
        await operations.pause(ctx, _stage(stage), reason)
        console.print(f"{stage} is paused: {reason}")
        return 0

    _run(work)


@commands.command()
def resume(stage: Stage) -> None:
    """Let a stage take up tokens again."""

    async def work(ctx: GliskContext) -> int:
        await operations.resume(ctx, _stage(stage))
        console.print(f"{stage} runs")
        return 0

    _run(work)


@commands.command()
def doctor() -> None:
    """Check the contract, the keeper, IPFS and the generator."""
    from causeway.apps.glisk.checks import checks

    async def work(ctx: GliskContext) -> int:
        results = await checks(ctx)
        for result in results:
            mark = "[green]ok  [/green]" if result.ok else "[red]FAIL[/red]"
            console.print(f"{mark} {result.name}: {result.detail}", highlight=False)
            if not result.ok and result.fix:
                console.print(f"       → {result.fix}", highlight=False)
        return 0 if all(result.ok for result in results) else 1

    _run(work)


@commands.command("verify-cids")
def verify_cids(
    all_tokens: Annotated[bool, typer.Option("--all", help="Not only the last hundred.")] = False,
) -> None:
    """Compute the CIDs of kept pictures and metadata again and compare."""
    from sqlalchemy import select

    from causeway.apps.glisk.cids import matches

    async def work(ctx: GliskContext) -> int:
        wrong = checked = 0
        async with unit_of_work(ctx) as uow:
            query = (
                select(Token.token_id, Token.image_cid, Token.metadata_cid, Token.metadata_json)
                .add_columns(Image.content)
                .join(Image, Image.sha256 == Token.image_sha256)
                .where(Token.image_cid.is_not(None))
                .order_by(Token.token_id.desc())
            )
            rows = await uow.session.stream(query if all_tokens else query.limit(100))
            async for token_id, image_cid, metadata_cid, metadata, content in rows:
                checked += 1
                for kind, cid, data in (
                    ("image", image_cid, content),
                    ("metadata", metadata_cid, metadata),
                ):
                    if cid is not None and data is not None and matches(cid, data) is None:
                        wrong += 1
                        console.print(f"{token_id}: the {kind}'s CID {cid} is not of our bytes")
        console.print(f"{checked} token(s) checked, {wrong} wrong CID(s)")
        return 1 if wrong else 0

    _run(work)


@commands.command()
def export() -> None:
    """Print every token as one JSON line."""

    async def work(ctx: GliskContext) -> int:
        after: int | None = None
        while True:
            async with unit_of_work(ctx) as uow:
                page = await uow.tokens.page(None, 500, after, 0)
            for found, author in page:
                typer.echo(orjson.dumps(token_row(found, author)))
            if len(page) < 500:
                return 0
            after = page[-1][0].token_id

    _run(work)
