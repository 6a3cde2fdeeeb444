"""Signing transactions. A signer is an address and a way to sign; the key stays inside."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils.address import to_checksum_address
from pydantic import SecretStr

from causeway.base.errors import ConfigurationError
from causeway.chains.settling import SignedTransaction, Signer

__all__ = ["LocalSigner", "SignedTransaction", "Signer"]


class LocalSigner:
    """A signer with the key in this process's memory. Signatures are repeatable (RFC 6979)."""

    __slots__ = ("_account",)

    def __init__(self, account: LocalAccount) -> None:
        self._account = account

    @classmethod
    def from_private_key(cls, secret: SecretStr | str) -> LocalSigner:
        """Return the signer of a private key: 64 hex digits, with or without 0x.

        Raises `ConfigurationError` that does not contain the key.
        """
        text = secret.get_secret_value() if isinstance(secret, SecretStr) else secret
        digits = text.strip().removeprefix("0x").removeprefix("0X")
        if not re.fullmatch(r"[0-9a-fA-F]{64}", digits):
            raise ConfigurationError("the private key is not 64 hex digits")
        try:
            account = Account.from_key(bytes.fromhex(digits))
        except Exception:  # noqa: BLE001 - whatever it says, its text may hold the key
            account = None
        if account is None:
            raise ConfigurationError("the private key is not a number of the curve")
        return cls(account)

    @classmethod
    def from_keystore(cls, path: Path | str, password: SecretStr | str) -> LocalSigner:
        """Return the signer of an encrypted keystore file (Web3 Secret Storage, version 3).

        Takes seconds, as the format means it to: call it at the start. Raises
        `ConfigurationError` when the file cannot be read or the password is wrong.
        """
        secret = password.get_secret_value() if isinstance(password, SecretStr) else password
        try:
            key = Account.decrypt(Path(path).read_text(), secret)
        except OSError as error:
            raise ConfigurationError(f"keystore {path}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, NotImplementedError):
            raise ConfigurationError(
                f"keystore {path} cannot be opened: wrong password or no keystore"
            ) from None
        return cls(Account.from_key(bytes(key)))

    @property
    def address(self) -> str:
        """The account's address, checksummed (EIP-55)."""
        return str(self._account.address)

    async def sign(self, tx: Mapping[str, object]) -> SignedTransaction:
        """Sign the fields of a transaction; some milliseconds of arithmetic, in a thread."""
        fields = cast("dict[str, int | bytes | str]", dict(tx))
        if isinstance(to := fields.get("to"), str):
            fields["to"] = to_checksum_address(to)  # eth-account takes no other spelling
        signed = await asyncio.to_thread(self._account.sign_transaction, fields)  # pyright: ignore[reportArgumentType] - a closed set of types behind an invariant dict
        return SignedTransaction(bytes(signed.raw_transaction), "0x" + bytes(signed.hash).hex())

    def __repr__(self) -> str:
        return f"LocalSigner({self.address})"

    def __reduce__(self) -> str:
        raise TypeError("a signer is not written down")
