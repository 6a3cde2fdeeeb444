"""For every test: PostgreSQL, a chain where the machine has one, and no secret in any log."""

from __future__ import annotations

from pathlib import Path

pytest_plugins = ["tests.postgres_fixtures", "tests.secrets_in_logs"]
if (Path(__file__).parent / "chain_fixtures.py").exists():
    pytest_plugins.append("tests.chain_fixtures")
