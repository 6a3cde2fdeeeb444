"""`causeway connections` as an operator types it."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass

from pydantic import SecretStr

from causeway.connections.credential import Account, Tokens
from causeway.connections.vault import Vault
from causeway.store.encryption import Keyring, new_key
from causeway.store.engine import Database

OLD, NEW = new_key(), new_key()
TOKEN = "gho_SecretOfAlice0123456789"


@dataclass
class Ran:
    """What a command left."""

    code: int
    out: str
    err: str


async def causeway(*arguments: str, **environment: str) -> Ran:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from causeway.cli import main; main()"),
        *(arguments if arguments[0] == "doctor" else ("connections", *arguments)),
        env={**os.environ, "COLUMNS": "220", "NO_COLOR": "1", **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return Ran(process.returncode or 0, out.decode(), err.decode())


async def test_listing_revoking_and_changing_keys(database: Database, database_url: str) -> None:
    vault = Vault(database, Keyring([OLD]), "motify")
    tokens = Tokens(SecretStr(TOKEN), scopes=("user:email",))
    alice = await vault.save("github", "0xa11ce", tokens, Account("17", "alice"))
    await vault.rejected(alice, "github refuses the credentials")
    key = Tokens(SecretStr("waka_SecretOfBob0123456789"), kind="api_key")
    await vault.save("wakatime", "0xb0b", key, Account("18", "bob"))
    ring = {"DATABASE_URL": database_url, "CAUSEWAY_ENCRYPTION_KEYS": f"{NEW},{OLD}"}

    listed = await causeway("list", **ring)
    assert listed.code == 0, listed.err
    assert "alice (17)" in listed.out
    assert "refused since" in listed.out
    assert "user:email" in listed.out
    assert "waka" in listed.out

    rotated = await causeway("rotate-key", **ring)
    assert rotated.code == 0, rotated.err
    assert f"2 rows now under key {Keyring([NEW]).current}, 0 were before" in rotated.out
    assert f"nothing is left under {Keyring([OLD]).current}" in rotated.out
    # The old key is needed no more; without the new one nothing is touched.
    now = Vault(database, Keyring([NEW]), "motify")
    opened = await now.open("github", "0xa11ce")
    assert opened is not None
    assert opened.access_token.get_secret_value() == TOKEN
    blind = await causeway("rotate-key", **ring | {"CAUSEWAY_ENCRYPTION_KEYS": new_key()})
    assert blind.code == 2
    assert "2 rows are under a key that is not here" in blind.out

    revoked = await causeway("revoke", "motify", "github", "0xa11ce", **ring)
    assert revoked.code == 0, revoked.err
    assert await vault.find("github", "0xa11ce") is None
    nobody = await causeway("revoke", "motify", "github", "0xa11ce", **ring)
    assert nobody.code == 1
    assert "motify has no github connection of 0xa11ce" in nobody.err
    for ran in (listed, rotated, blind, revoked, nobody):
        for secret in (TOKEN, "waka_SecretOfBob", OLD, NEW):
            assert secret not in ran.out + ran.err


async def test_the_doctor_finds_tokens_that_cannot_be_read(
    database: Database, database_url: str
) -> None:
    both = f"{NEW},{OLD}"
    for key in (OLD, NEW):
        vault = Vault(database, Keyring([key]), "motify")
        await vault.save("github", key[:8], Tokens(SecretStr(TOKEN)), None)
    found = [
        await causeway("doctor", "mobs", DATABASE_URL=database_url, CAUSEWAY_ENCRYPTION_KEYS=keys)
        for keys in (both, NEW)
    ]
    assert "ok   encryption keys: tokens: 1 under" in found[0].out
    assert f"cannot be read: 1 under {Keyring([OLD]).current}" in found[1].out
    assert found[1].code == 1


async def test_a_new_key_is_one_and_another_each_time() -> None:
    ran = await asyncio.gather(causeway("new-key"), causeway("new-key"))
    assert len(Keyring([one.out.strip() for one in ran]).ids) == 2


async def test_a_bad_key_is_named_and_not_shown(database_url: str) -> None:
    ran = await causeway(
        "rotate-key",
        DATABASE_URL=database_url,
        CAUSEWAY_ENCRYPTION_KEYS=f"{NEW},not-a-key-at-all",
    )
    assert ran.code == 1
    assert "CAUSEWAY_ENCRYPTION_KEYS: key 2 of 2 is not 32 bytes in base64url" in ran.err
    assert "causeway connections new-key" in ran.err
    assert "not-a-key-at-all" not in ran.err
