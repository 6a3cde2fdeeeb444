"""`python -m causeway.sandbox.starknet`: make the engine's environment, where there is none yet."""

from __future__ import annotations

import asyncio
import sys

from causeway.base.errors import ConfigurationError
from causeway.sandbox.starknet.engine import install, installed

if __name__ == "__main__":
    try:
        if installed() is None:
            sys.stderr.write("causeway: installing the Starknet engine (once; a minute or two)\n")
            asyncio.run(install())
    except ConfigurationError as error:
        sys.exit("\n".join(f"causeway: {problem}" for problem in error.problems))
