"""Secrets at rest: AES-256-GCM, under keys that can be changed, each bound to its place.

A ciphertext is `v1.<key id>.<base64url of nonce, ciphertext and tag>`. The place it belongs to (its
table, column and row, in the caller's words) is authenticated with it: moved to another row, it
does not decrypt. The first key of the ring encrypts, all of them decrypt; `rotated` says whether a
ciphertext is under the first one already.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretStr

from causeway.base.errors import ConfigurationError, PermanentError
from causeway.base.logging import conceal
from causeway.base.settings import KernelSettings

KEY_BYTES = 32
_NONCE_BYTES = 12
_VERSION = "v1"
_SETTING = "CAUSEWAY_ENCRYPTION_KEYS"
_HINT = "make one with: causeway connections new-key"


class Undecryptable(PermanentError):
    """This secret cannot be read: it was moved, changed, or its key is not in the ring."""


def new_key() -> str:
    """Return a fresh key as it is written in `CAUSEWAY_ENCRYPTION_KEYS`: 43 characters."""
    return _encode(secrets.token_bytes(KEY_BYTES))


class Keyring:
    """The keys in force, the one that encrypts first."""

    def __init__(self, keys: Sequence[str]) -> None:
        """Take keys as `new_key` writes them; `ConfigurationError` says which is none."""
        problems: list[str] = []
        self._ciphers: dict[str, AESGCM] = {}
        for place, written in enumerate(keys, start=1):
            key = _key(written)
            if key is None:
                problems.append(
                    f"{_SETTING}: key {place} of {len(keys)} is not {KEY_BYTES} bytes in base64url"
                )
                continue
            # The id is public and stands in every row; it says nothing about the key.
            digest = hashlib.sha256(b"causeway key id" + key).hexdigest()[:8]
            self._ciphers.setdefault(digest, AESGCM(key))
        if not keys:
            problems.append(f"{_SETTING} is not set")
        if problems:
            raise ConfigurationError(problems, hint=_HINT)
        self.current = next(iter(self._ciphers))

    def __repr__(self) -> str:
        return f"Keyring({', '.join(self._ciphers)})"

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the keys that can be read, the one that encrypts first."""
        return tuple(self._ciphers)

    def encrypt(self, secret: SecretStr, place: Sequence[str]) -> str:
        """Return `secret` as a ciphertext that decrypts at `place` only."""
        nonce = os.urandom(_NONCE_BYTES)
        plain = secret.get_secret_value().encode()
        sealed = self._ciphers[self.current].encrypt(nonce, plain, _bound(self.current, place))
        return f"{_VERSION}.{self.current}.{_encode(nonce + sealed)}"

    def decrypt(self, ciphertext: str, place: Sequence[str]) -> SecretStr:
        """Return the secret.

        Raises `Undecryptable`; its text holds neither the ciphertext nor the secret.
        """
        version, _, rest = ciphertext.partition(".")
        key_id, _, payload = rest.partition(".")
        where = "/".join(place)
        if version != _VERSION:
            raise Undecryptable(f"what is kept at {where} is no ciphertext")
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise Undecryptable(
                f"what is kept at {where} is under a key ({key_id[:8]!r}) that is not in the ring",
                hint=f"put the old key behind the new one in {_SETTING}",
            )
        try:
            sealed = _decode(payload)
            plain = cipher.decrypt(
                sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _bound(key_id, place)
            )
        except (InvalidTag, ValueError):
            raise Undecryptable(f"what is kept at {where} was changed, or moved there") from None
        return SecretStr(plain.decode())

    def rotated(self, ciphertext: str) -> bool:
        """Say whether a ciphertext is under the key that encrypts now."""
        return ciphertext.startswith(f"{_VERSION}.{self.current}.")


def load_keyring(kernel: KernelSettings) -> Keyring:
    """Return the keys of the settings; in development without any, one kept in a file.

    The file is `encryption.key` in `CAUSEWAY_DATA_DIR`, readable by its owner alone. Raises
    `ConfigurationError` in production without keys, and for keys that are none.
    """
    keys = [key.get_secret_value() for key in kernel.encryption_keys]
    if not keys and kernel.environment != "production":
        keys = [_key_in(kernel.data_dir / "encryption.key")]
    conceal(*keys)
    return Keyring(keys)


def _key_in(path: Path) -> str:
    """Return the key in that file, which is made when it is missing, by one process only."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(new_key())
        try:
            # Whole or not at all, and never over somebody else's.
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text().strip()


def _bound(key_id: str, place: Sequence[str]) -> bytes:
    return json.dumps(["causeway", _VERSION, key_id, *place]).encode()


def _key(written: str) -> bytes | None:
    try:
        key = _decode(written.strip())
    except ValueError:
        return None
    return key if len(key) == KEY_BYTES else None


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    """Return the bytes of base64url, padded or not; ValueError for anything else."""
    bare = text.rstrip("=")
    try:
        raw = base64.b64decode(bare + "=" * (-len(bare) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError("not base64url") from error
    if _encode(raw) != bare:  # the last character may carry bits that mean nothing
        raise ValueError("not base64url as it is written")
    return raw
