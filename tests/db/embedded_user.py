"""A process that uses an embedded server until its input ends; started by test_embedded."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from causeway.store.embedded import EmbeddedPostgres

data_dir, bin_dir = sys.argv[1:]
with EmbeddedPostgres(Path(data_dir), bin_dir=Path(bin_dir)) as server:
    said = {"url": server.url, "home": str(server.layout.home)}
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
