"""GLISK with its keys in two key services: reveals go out, and no key is anywhere."""

from __future__ import annotations

import logging as std
import pickle
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import pytest
import structlog
from eth_account import Account
from sqlalchemy import text

from causeway.base import logging
from causeway.base.errors import ConfigurationError
from causeway.runtime.relayers import check_accounts
from causeway.sandbox.anvil import AnvilNode
from causeway.sandbox.glisk_chain import GliskContract
from causeway.sandbox.kms_aws import AwsKmsServer
from causeway.sandbox.kms_gcp import GcpKmsServer
from causeway.store.engine import Database
from tests.chain.reveals import KEEPER_ROLE
from tests.glisk_app import running_glisk, until
from tests.unit.test_signer_remote import AWS_ENV

FIRST, SECOND = "1f" * 32, "2e" * 32


async def everything_in(database: Database) -> str:
    """Return every row of every table as text."""
    async with database.transaction() as session:
        tables = await session.execute(
            text(
                "SELECT quote_ident(table_schema) || '.' || quote_ident(table_name) "
                "FROM information_schema.tables WHERE table_type = 'BASE TABLE' "
                "AND table_schema NOT IN ('pg_catalog', 'information_schema')"
            )
        )
        rows: list[str] = []
        for (table,) in tables.all():
            found = await session.execute(text(f"SELECT CAST(t AS text) FROM {table} t"))
            rows += [str(row) for (row,) in found]
    return "\n".join(rows)


async def test_keys_in_two_services_share_the_reveals(
    database: Database,
    database_url: str,
    anvil: AnvilNode,
    glisk_contract: GliskContract,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    addresses = [str(Account.from_key(key).address) for key in (FIRST, SECOND)]
    for address in addresses:
        await anvil.rpc("anvil_setBalance", address, hex(10**18))
        await glisk_contract.transact(anvil.accounts[0], "grantRole", KEEPER_ROLE, address)
    async with AwsKmsServer.start(FIRST) as aws, GcpKmsServer.start(SECOND) as gcp:
        key_file = tmp_path / "account.json"
        key_file.write_bytes(gcp.key_file())
        environment: Any = {
            **AWS_ENV,
            "KEEPER_PRIVATE_KEY": "",
            "CAUSEWAY_SIGNERS": (
                f"glisk/base=aws-kms:eu-west-1/{aws.alias},glisk/base=gcp-kms:{gcp.version}"
            ),
            "AWS_ENDPOINT_URL_KMS": aws.url,
            "CAUSEWAY_GCP_KMS_ENDPOINT": gcp.url,
            "GOOGLE_APPLICATION_CREDENTIALS": str(key_file),
            "BATCH_REVEAL_MAX_TOKENS": "1",
        }
        async with running_glisk(
            database_url, anvil, glisk_contract, monkeypatch, **environment
        ) as glisk:
            relayer = glisk.installation.contexts["glisk"].relayers["base"]
            assert list(relayer.addresses) == addresses
            # Each service is away for a moment while it is needed.
            aws.faults, gcp.faults = ["throttled"], ["internal"]
            seen: set[str] = set()

            async def both_have_signed() -> bool:
                await glisk.mint(anvil.accounts[5].address, 2)
                token = int(await glisk_contract.call("totalSupply"))
                await glisk.until_status(token, "revealed")
                answer = await glisk.http.get("/relayer/transactions", params={"limit": 100})
                seen.update(
                    line["account"]
                    for line in answer.json()["transactions"]
                    if line["state"] == "confirmed"
                )
                return seen == set(addresses)

            await until(both_have_signed, 90)
        secrets = [FIRST, SECOND, AWS_ENV["AWS_SECRET_ACCESS_KEY"], "ya29.", "BEGIN PRIVATE KEY"]
    assert "Sign" in aws.calls
    assert "asymmetricSign" in gcp.calls
    kept, written = await everything_in(database), capsys.readouterr()
    assert addresses[0] in kept
    for secret in secrets:
        assert secret not in kept.replace("\\\\x", "")
        assert secret not in written.out + written.err


async def test_one_account_for_two_apps_on_one_chain_is_refused(
    database_url: str,
    anvil: AnvilNode,
    glisk_contract: GliskContract,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running_glisk(
        database_url, anvil, glisk_contract, monkeypatch, worker=False
    ) as glisk:
        mine = glisk.installation.contexts["glisk"]
        check_accounts([mine])
        with pytest.raises(ConfigurationError, match="glisk and motify both sign with"):
            check_accounts([mine, replace(mine, app="motify")])


@pytest.mark.parametrize("log_format", ["json", "pretty"])
async def test_a_key_in_this_process_is_in_no_row_no_page_and_no_line(
    database: Database,
    database_url: str,
    anvil: AnvilNode,
    glisk_contract: GliskContract,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    log_format: Literal["json", "pretty"],
) -> None:
    handlers, level = std.getLogger().handlers[:], std.getLogger().level
    request.addfinalizer(structlog.reset_defaults)
    request.addfinalizer(lambda: std.getLogger().handlers.__setitem__(slice(None), handlers))
    request.addfinalizer(lambda: std.getLogger().setLevel(level))
    written = StringIO()
    private_key = anvil.accounts[1].private_key
    async with running_glisk(database_url, anvil, glisk_contract, monkeypatch) as glisk:
        logging.configure("DEBUG", log_format, written)
        await glisk.mint(anvil.accounts[5].address, 1)
        await glisk.until_status(1, "revealed")
        lane = glisk.installation.contexts["glisk"].relayers["base"].lane
        # An error on the way, logged with its traceback while the key is in reach of its frames.
        try:
            await lane.signer.sign({"type": 2, "chainId": "not a number", "key": private_key})
        except Exception as error:  # noqa: BLE001 - whatever it is
            structlog.get_logger().exception("signing_failed", error=error, exc_info=error)
        pages = [(await glisk.http.get(path)).text for path in ("/metrics", "/relayer/accounts")]
        for line in (await glisk.http.get("/relayer/transactions")).json()["transactions"]:
            pages.append((await glisk.http.get(f"/relayer/transactions/{line['id']}")).text)
    kept = await everything_in(database)
    said = "\n".join([kept, *pages, repr(lane), repr(lane.signer), written.getvalue()])
    assert "signing_failed" in said
    assert len(pages) > 2
    assert private_key.removeprefix("0x").lower() not in said.lower()
    with pytest.raises(TypeError, match="not written down"):
        pickle.dumps(lane.signer)
