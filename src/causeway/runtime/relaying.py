"""The relayer's pages for operators: every transaction, every account, and the kill switch.

Mounted once when any app here has a relayer. The installation's token (CAUSEWAY_ADMIN_TOKEN) opens
everything, an app's own admin token what belongs to that app; where no token is set, only peers on
this machine pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from pydantic import SecretStr

from causeway.app import AnyContext
from causeway.auth.bearer import check_bearer, check_local
from causeway.base.clock import SYSTEM_CLOCK
from causeway.base.errors import Field, InvalidInput, NotAllowed, NotFound
from causeway.relayer import pauses, schemas, views
from causeway.relayer.pauses import Scope, account_of
from causeway.relayer.states import TransactionState
from causeway.store.engine import Database

router = APIRouter(prefix="/relayer", tags=["relayer"])


@dataclass(frozen=True)
class Operator:
    """Who asks: of the whole installation, or of one app."""

    app: str | None

    def narrowed(self, app: str | None) -> str | None:
        """Return the app that is asked for; `NotAllowed` when it is another's."""
        if self.app is not None and app not in (None, self.app):
            raise NotAllowed(f"this token is for {self.app} only")
        return self.app or app


def operator(request: Request) -> Operator:
    """Let operators pass, and say what they may see."""
    contexts: Mapping[str, AnyContext] = request.app.state.contexts
    tokens: list[tuple[str | None, SecretStr]] = []
    for app, ctx in contexts.items():
        token: SecretStr | None = getattr(ctx.settings, "admin_token", None)
        tokens.append((app, token or SecretStr("")))
    kernel = next(iter(contexts.values())).kernel
    tokens.insert(0, (None, kernel.admin_token or SecretStr("")))
    given = [(app, token) for app, token in tokens if token.get_secret_value()]
    if not given:
        check_local(request)
        return Operator(None)
    for app, token in given:
        try:
            check_bearer(request, token)
        except NotAllowed:
            continue
        return Operator(app)
    raise NotAllowed("that is not the token")


Who = Annotated[Operator, Depends(operator)]


def _database(request: Request) -> Database:
    found: Database = request.app.state.database
    return found


Data = Annotated[Database, Depends(_database)]


@router.get("/transactions")
async def transactions(
    who: Who,
    database: Data,
    app: str | None = None,
    state: Annotated[list[TransactionState] | None, Query()] = None,
    chain_id: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
    account: str | None = None,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
) -> schemas.TransactionList:
    """List transactions, newest first; `next_cursor` continues where this page ends."""
    async with database.transaction() as session:
        found = await views.transactions_of(
            session,
            who.narrowed(app),
            states=tuple(state or ()),
            chain_id=chain_id,
            sender=None if account is None else account_of(account, "query.account"),
            before=_before(cursor),
            limit=limit + 1,
        )
    page, more = found[:limit], len(found) > limit
    return schemas.TransactionList(
        transactions=[schemas.line(view) for view in page],
        next_cursor=str(page[-1].id) if more else None,
    )


@router.get("/transactions/{transaction_id}")
async def transaction(transaction_id: UUID, who: Who, database: Data) -> schemas.TransactionPage:
    """Return a transaction: intent, who asked, attempts, hashes, receipt, cost, reason in words."""
    async with database.transaction() as session:
        view = await views.transaction_view(session, transaction_id)
    if view is None or who.app not in (None, view.app):
        raise NotFound(f"there is no transaction {transaction_id}")
    return schemas.page(view)


@router.get("/accounts")
async def accounts(who: Who, database: Data) -> schemas.AccountList:
    """Return the accounts that sign, with what they wait for, and the pauses in force."""
    _whole(who)
    async with database.transaction() as session:
        return schemas.account_list(await views.accounts(session), await pauses.in_force(session))


@router.post("/pause")
async def pause(body: schemas.PauseBody, who: Who, database: Data) -> schemas.PauseOut:
    """Stop everything, or an app, a chain, an account. Once this answers nothing new is signed."""
    scope = Scope.of(who.narrowed(body.app), body.chain_id, body.account)
    async with database.transaction() as session:
        made = await pauses.pause(
            session, scope, body.mode, reason=body.reason, by=body.by, now=SYSTEM_CLOCK.now()
        )
    return schemas.pause_out(made)


@router.post("/resume")
async def resume(body: schemas.ScopeBody, who: Who, database: Data) -> dict[str, Any]:
    """End the pause of exactly this scope; wider ones stay in force."""
    scope = Scope.of(who.narrowed(body.app), body.chain_id, body.account)
    async with database.transaction() as session:
        if not await pauses.resume(session, scope):
            raise NotFound(f"nothing is paused for {scope}")
        left = await pauses.in_force(session)
    return {"resumed": str(scope), "pauses": [schemas.pause_out(one) for one in left]}


def _whole(who: Operator) -> None:
    if who.app is not None:
        raise NotAllowed("accounts are shared by apps: the installation's token is needed")


def _before(cursor: str | None) -> UUID | None:
    if cursor is None:
        return None
    try:
        return UUID(cursor)
    except ValueError:
        allowed = "a next_cursor of this list"
        raise InvalidInput(fields=[Field("query.cursor", cursor[:80], allowed)]) from None
