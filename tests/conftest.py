"""Fixtures for every test: PostgreSQL, and a chain where the machine has one."""

from __future__ import annotations

from pathlib import Path

pytest_plugins = ["tests.postgres_fixtures"]
if (Path(__file__).parent / "chain_fixtures.py").exists():
    pytest_plugins.append("tests.chain_fixtures")
