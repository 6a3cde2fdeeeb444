"""`causeway demo`: a whole world on this machine, and a story played in it.

Everything is real but the money: PostgreSQL, an Ethereum node with the contract, Causeway as three
processes (one API, two workers), and servers that speak Replicate's and Pinata's wire formats.
"""

from __future__ import annotations

import asyncio

from rich.console import Console

from causeway.base import logging
from causeway.base.settings import KernelSettings, load
from causeway.cli.demo import mobs
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
