"""GLISK's view of what the runtime gives it, and the dependencies of its routes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from causeway.app import Context, context_of
from causeway.apps.glisk.generators import Generators
from causeway.apps.glisk.linking_farcaster import FarcasterLinker
from causeway.apps.glisk.linking_x import XClient
from causeway.apps.glisk.pinning import Pinner
from causeway.apps.glisk.repositories import GliskUnitOfWork
from causeway.apps.glisk.settings import GliskSettings
from causeway.auth.bearer import check_admin


@dataclass
class Services:
    """Clients that live as long as the process."""

    generators: Generators
    pinner: Pinner | None
    x: XClient | None
    farcaster: FarcasterLinker


GliskContext = Context[GliskSettings, Services]
Ctx = Annotated[GliskContext, Depends(context_of("glisk"))]


def unit_of_work(ctx: GliskContext) -> GliskUnitOfWork:
    """Return a new unit of work with GLISK's repositories."""
    return GliskUnitOfWork(ctx.database)


def admin_only(request: Request, ctx: Ctx) -> None:
    """Let only operators pass: a bearer token when one is set, else peers on this machine."""
    check_admin(request, ctx.settings.admin_token)
