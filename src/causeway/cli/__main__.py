"""`python -m causeway.cli`: the `causeway` command, where its script is not on the path."""

from __future__ import annotations

from causeway.cli import main

if __name__ == "__main__":
    main()
