"""No log of any test holds a secret: all that a test wrote is searched when it has run.

What is looked for: the secrets in the environment that the test made, the keys of the local
chain's accounts, and tokens by their form. A test that wrote one fails, whatever it was about.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterator
from functools import cache

import pytest
from eth_account import Account

from causeway.sandbox.anvil import MNEMONIC

_NAMES = re.compile(r"KEY|SECRET|TOKEN|JWT|PASSWORD", re.IGNORECASE)
_TOKENS = re.compile(r"gh[our]_[0-9A-Za-z]{36,}|waka_(?:tok|ref)_[\w-]{20,}")
#: Shorter values are found everywhere without being secrets.
_SHORTEST = 16


@cache
def _keys() -> tuple[str, ...]:
    Account.enable_unaudited_hdwallet_features()
    return tuple(
        bytes(Account.from_mnemonic(MNEMONIC, account_path=f"m/44'/60'/0'/0/{n}").key).hex()
        for n in range(10)
    )


def secrets_in(written: str) -> Iterator[str]:
    """Yield what in a text must not be there, by its kind and beginning."""
    lower = written.lower()
    for number, key in enumerate(_keys()):
        if key in lower:
            yield f"the private key of account {number}"
    for name, value in os.environ.items():
        if _NAMES.search(name) is None or name.startswith("PYTEST"):
            continue
        for part in value.split(","):
            if len(part) >= _SHORTEST and "://" not in part and part in written:
                yield f"the value of {name}"
    for found in _TOKENS.finditer(written):
        yield f"a token that begins with {found.group()[:8]}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test whose output holds a secret."""
    report = yield
    if call.when == "setup" or report.failed:
        return report
    written = "\n".join((report.capstdout, report.capstderr, report.caplog))
    found = sorted(set(secrets_in(written)))
    if found:
        report.outcome = "failed"
        report.longrepr = f"what this test wrote holds {', '.join(found)}"
    return report
