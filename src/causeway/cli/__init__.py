"""The `causeway` command.

Errors are one line on standard error and an exit code: 0 done, 1 error, 2 partly done or wrong
usage, 130 interrupted.
"""

from __future__ import annotations

import gc
import sys


def main() -> None:
    """Run the command line."""
    # What is imported stays: looking for garbage meanwhile costs a quarter of the start.
    gc.disable()
    # Imported here so that `causeway --help` does not wait for what it does not need.
    from causeway.base.errors import CausewayError, ConfigurationError
    from causeway.cli.commands import build

    try:
        command = build()
        gc.freeze()
        gc.enable()
        command()
    except ConfigurationError as error:
        for problem in error.problems:
            sys.stderr.write(f"causeway: {problem}\n")
        if error.hint:
            sys.stderr.write(f"  {error.hint}\n")
        raise SystemExit(1) from None
    except CausewayError as error:
        sys.stderr.write(f"causeway: {error.message}\n")
        if error.hint:
            sys.stderr.write(f"  {error.hint}\n")
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
