"""`causeway chains`: the providers of each chain, as the pool sees them after a few questions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from rich.console import Console
from rich.progress import track
from rich.table import Table

from causeway.app import AnyApp
from causeway.base import logging
from causeway.base.clock import SYSTEM_CLOCK
from causeway.base.errors import CausewayError
from causeway.base.settings import KernelSettings
from causeway.chains.evm.chain import EvmChain
from causeway.chains.report import EndpointReport, report
from causeway.runtime.installation import open_installation

console = Console()
#: Heads are compared no more often.
_BETWEEN_S = 1.05


def show_chains(apps: Sequence[AnyApp], kernel: KernelSettings, rounds: int) -> int:
    """Ask every chain's providers so many times and show how they do; 1 when one is of no use."""
    logging.configure("ERROR", kernel.log_format)
    return asyncio.run(_show(apps, kernel, rounds))


async def _show(apps: Sequence[AnyApp], kernel: KernelSettings, rounds: int) -> int:
    useless = 0
    async with open_installation(apps, kernel) as installation:
        for app in apps:
            for name, chain in installation.contexts[app.name].chains.items():
                await _ask(chain, rounds, f"{app.name}: {name}")
                found = report(chain.pool)
                console.print(_table(f"{app.name}: chain {name} (id {chain.chain_id})", found))
                for one in found:
                    for line in _reasons(one):
                        console.print(f"  {line}", highlight=False)
                if chain.pool.disagreeing_s():
                    console.print("  [red]the providers contradict one another[/red]")
                useless += sum(not one.methods or one.right_chain is not True for one in found)
    return 1 if useless else 0


async def _ask(chain: EvmChain, rounds: int, what: str) -> None:
    for number in track(range(rounds), what, console=Console(stderr=True), transient=True):
        if number:
            await SYSTEM_CLOCK.sleep(_BETWEEN_S)
        try:
            await chain.look("latest", "finalized")
        except CausewayError:
            continue  # the table says why


def _table(title: str, found: Sequence[EndpointReport]) -> Table:
    table = Table(
        *("provider", "address", "chain", "head", "behind", "p50", "p95", "score", "state"),
        title=title,
        title_justify="left",
    )
    for one in found:
        asked = next((m for m in one.methods if m.method.startswith("eth_getBlock")), None)
        state = "another chain" if one.right_chain is False else "well"
        if one.forked:
            state = "another fork"
        elif one.right_chain is None:
            state = "no answer"
        elif asked is not None and asked.breaker != "closed":
            state = asked.breaker.replace("_", " ")
        elif one.resting_s:
            state = f"rests {one.resting_s:.0f} s"
        table.add_row(
            one.name,
            one.url,
            "?" if one.served_chain_id is None else str(one.served_chain_id),
            "?" if one.head is None else f"{one.head:,}",
            str(one.lag_blocks),
            _ms(asked.p50_s if asked else None),
            _ms(asked.p95_s if asked else None),
            f"{asked.score.points:.0f}" if asked else "-",
            state if state == "well" else f"[red]{state}[/red]",
        )
    return table


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.0f} ms"


def _reasons(one: EndpointReport) -> list[str]:
    """Return what speaks against an endpoint, a line each."""
    lines = [
        f"{one.name}: {method.method} −{lost.points:.0f}: {lost.reason}"
        for method in one.methods
        for lost in method.score.deductions
    ]
    for method in one.methods:
        if method.failures:
            kinds = ", ".join(f"{count} {kind}" for kind, count in method.failures.items())
            lines.append(f"{one.name}: {method.method} failed {kinds} of {method.calls}")
    if one.lacks:
        lines.append(f"{one.name}: does not offer {', '.join(one.lacks)}")
    return lines
