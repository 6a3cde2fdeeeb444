"""What an app declares, and what it is given when it runs.

    app = App(name="glisk", title="GLISK", settings=GliskSettings, ...)

An `App` is data: nothing is found by side effects of an import. The runtime finds apps by the
entry point group `causeway.apps`, so an app in somebody else's package is a first-class one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import typer
from fastapi import APIRouter, Request
from pydantic import SecretStr
from sqlalchemy import MetaData

from causeway.base.clock import SYSTEM_CLOCK, Clock
from causeway.base.settings import KernelSettings, Settings
from causeway.chains.evm.chain import EvmChain
from causeway.chains.pool import ProviderPool
from causeway.chains.settling import Signer
from causeway.indexing.indexer import Indexer
from causeway.indexing.source import AnySource
from causeway.pipelines.loops import LeasedLoop
from causeway.pipelines.schedules import Schedule
from causeway.pipelines.stage import Stage
from causeway.relayer.kind import UnitKind
from causeway.relayer.lane import RelayerSettings
from causeway.relayer.notices import OnNotice
from causeway.relayer.relayer import Relayer
from causeway.store.engine import Database

S = TypeVar("S", bound=Settings)
V = TypeVar("V")


@dataclass(frozen=True)
class ChainConfig:
    """A chain an app reads: its name, the id it must have, where its providers are."""

    name: str
    chain_id: int
    #: Endpoints to ask (http, https), and feeds that tell of new heads (ws, wss).
    rpc_urls: tuple[SecretStr, ...]
    #: Between two looks at the head, seconds.
    poll_s: float = 2.0
    #: Blocks asked for at once, at most.
    log_range: int = 2000
    #: For one request, seconds.
    timeout_s: float = 10.0
    #: Makes the chain of its name, id and endpoints; other families than Ethereum's have their own
    #: (`causeway.chains.starknet.chain.named`).
    opens: Callable[[str, int, ProviderPool], Any] = EvmChain


@dataclass(frozen=True)
class SignerConfig:
    """Who signs an app's transactions on a chain, and what kinds of units they carry."""

    chain: str
    #: One, or several that share the work.
    signer: Signer | Sequence[Signer]
    kinds: tuple[UnitKind, ...]
    #: The app's own limits; the installation's (CAUSEWAY_RELAYER_…) come on top.
    settings: RelayerSettings = field(default_factory=RelayerSettings)
    #: Hears what a person should know (a balance that is low, a stop), in the commit it belongs to.
    on_notice: OnNotice | None = None


@dataclass(frozen=True)
class CheckResult:
    """What one check of `causeway doctor` found, and how to mend it."""

    name: str
    ok: bool
    detail: str
    fix: str | None = None


@dataclass
class Context(Generic[S, V]):
    """What an app's code is given: its settings, the database, chains, relayers, services."""

    app: str
    settings: S
    kernel: KernelSettings
    database: Database
    services: V
    clock: Clock = SYSTEM_CLOCK
    #: Each of the class that its configuration opens.
    chains: Mapping[str, Any] = field(default_factory=dict[str, Any])
    indexers: dict[str, Indexer] = field(default_factory=dict[str, Indexer])
    relayers: dict[str, Relayer] = field(default_factory=dict[str, Relayer])
    #: By chain: who signs by the installation's settings (CAUSEWAY_SIGNERS), in place of keys of
    #: the app's own.
    signers: Mapping[str, tuple[Signer, ...]] = field(default_factory=dict[str, tuple[Signer, ...]])
    #: Rings the bell of a stage of this app, after the commit that gave it work.
    ring: Callable[[str], Awaitable[None]] | None = None


@dataclass(frozen=True, kw_only=True)
class App(Generic[S, V]):
    """A backend, declared."""

    name: str
    title: str
    settings: type[S]
    metadata: MetaData
    #: Where its Alembic versions are: `package:folder`.
    migrations: str
    #: Makes what lives as long as the process: clients of third-party services.
    services: Callable[[S], AbstractAsyncContextManager[V]]
    routers: tuple[APIRouter, ...] = ()
    chains: Callable[[S], Sequence[ChainConfig]] = lambda _settings: ()
    sources: Callable[[Context[S, V]], Awaitable[Sequence[AnySource]]] | None = None
    signers: Callable[[Context[S, V]], Sequence[SignerConfig]] | None = None
    stages: Callable[[S], Sequence[Stage[Any]]] = lambda _settings: ()
    loops: Callable[[S], Sequence[LeasedLoop]] = lambda _settings: ()
    schedules: Callable[[S], Sequence[Schedule]] = lambda _settings: ()
    #: Problems that make the app degraded though it runs, for its health pages.
    checks: Callable[[Context[S, V]], Awaitable[Sequence[CheckResult]]] | None = None
    commands: typer.Typer | None = None
    #: Statuses of its state machines that no stage leaves.
    terminal: frozenset[str] = frozenset()


AnyApp = App[Any, Any]
AnyContext = Context[Any, Any]


def context_of(name: str) -> Callable[[Request], AnyContext]:
    """Return a FastAPI dependency that gives the context of the app with that name."""

    def dependency(request: Request) -> AnyContext:
        contexts: Mapping[str, AnyContext] = request.app.state.contexts
        return contexts[name]

    return dependency
