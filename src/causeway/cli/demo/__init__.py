"""`causeway demo`: a whole world on this machine, and a story played in it.

Everything is real but the money: PostgreSQL, an Ethereum node with the contracts, Causeway as
processes of its own, and servers that speak the wire formats of the services it depends on.
"""

from __future__ import annotations

import asyncio

from rich.console import Console

from causeway.base import logging
from causeway.base.settings import KernelSettings, load
from causeway.cli.demo import mobs, motify
from causeway.cli.demo.story import play


def run_demo(*, keep: bool, tokens: int, faults: bool) -> int:
    """Play the demo and return its exit code: 0 when every check passed."""
    logging.configure("ERROR")
    console = Console()
    kernel = load(KernelSettings)
    return asyncio.run(
        play(console, kernel.data_dir.resolve(), keep=keep, tokens=tokens, faults=faults)
    )


def run_mobs_demo(*, keep: bool) -> int:
    """Play M-OBS's demo and return its exit code: 0 when every check passed."""
    logging.configure("ERROR")
    kernel = load(KernelSettings)
    return asyncio.run(mobs.play(Console(), kernel.data_dir.resolve(), keep=keep))


def run_motify_demo(*, keep: bool, faults: bool) -> int:
    """Play Motify's demo and return its exit code: 0 when every check passed."""
    logging.configure("ERROR")
    kernel = load(KernelSettings)
    story = motify.play(Console(), kernel.data_dir.resolve(), keep=keep, faults=faults)
    return asyncio.run(story)
