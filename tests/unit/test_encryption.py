"""Secrets at rest: what goes in comes out at its own place, under any key of the ring."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from causeway.base.errors import ConfigurationError
from causeway.base.settings import KernelSettings, load
from causeway.store.encryption import Keyring, Undecryptable, load_keyring, new_key

OLD, NEW = new_key(), new_key()
RING = Keyring([OLD])
PLACE = ("connections", "motify", "github", "0xabc", "access_token")

places = st.lists(st.text(max_size=12), min_size=1, max_size=5)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


@given(texts, places)
def test_a_secret_comes_back_from_its_place(secret: str, place: list[str]) -> None:
    assert RING.decrypt(RING.encrypt(SecretStr(secret), place), place).get_secret_value() == secret


@given(texts, places, places)
def test_a_ciphertext_moved_to_another_place_is_refused(
    secret: str, here: list[str], there: list[str]
) -> None:
    sealed = RING.encrypt(SecretStr(secret), here)
    if here != there:
        with pytest.raises(Undecryptable):
            RING.decrypt(sealed, there)


def test_places_are_not_merely_strung_together() -> None:
    sealed = RING.encrypt(SecretStr("s"), ("ab", "c"))
    for other in (("a", "bc"), ("abc",), ("ab", "c", ""), ("ab/c",)):
        with pytest.raises(Undecryptable):
            RING.decrypt(sealed, other)


@given(st.data(), texts)
def test_a_changed_ciphertext_is_refused(data: st.DataObject, secret: str) -> None:
    sealed = RING.encrypt(SecretStr(secret), PLACE)
    at = data.draw(st.integers(0, len(sealed) - 1))
    changed = sealed[:at] + data.draw(st.sampled_from("AZaz09-_.+/= é")) + sealed[at + 1 :]
    if changed.rstrip("=") != sealed:
        with pytest.raises(Undecryptable) as refused:
            RING.decrypt(changed, PLACE)
        assert sealed not in str(refused.value)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_ciphertext_is_written_in_one_way_only(length: int) -> None:
    """The last character of base64 can carry bits that mean nothing."""
    sealed = RING.encrypt(SecretStr("x" * length), PLACE)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    opened: list[str] = []
    for last in alphabet:
        with suppress(Undecryptable):
            RING.decrypt(sealed[:-1] + last, PLACE)
            opened.append(last)
    assert opened == [sealed[-1]]


@given(texts)
def test_the_same_secret_never_looks_the_same(secret: str) -> None:
    assert RING.encrypt(SecretStr(secret), PLACE) != RING.encrypt(SecretStr(secret), PLACE)


@pytest.mark.parametrize("ciphertext", ["", "v1", "v1..", "v2.aa.bb", "ghp_plain", "v1.\0.\ud800"])
def test_what_is_no_ciphertext_is_refused(ciphertext: str) -> None:
    with pytest.raises(Undecryptable):
        RING.decrypt(ciphertext, PLACE)


def test_an_old_key_reads_and_the_new_one_writes() -> None:
    sealed = RING.encrypt(SecretStr("from before"), PLACE)
    ring = Keyring([NEW, OLD])
    assert ring.decrypt(sealed, PLACE).get_secret_value() == "from before"
    assert not ring.rotated(sealed)

    again = ring.encrypt(SecretStr("from before"), PLACE)
    assert ring.rotated(again)
    assert Keyring([NEW]).decrypt(again, PLACE).get_secret_value() == "from before"
    with pytest.raises(Undecryptable, match="not in the ring") as lost:
        Keyring([NEW]).decrypt(sealed, PLACE)
    assert lost.value.hint is not None
    with pytest.raises(Undecryptable):
        RING.decrypt(again, PLACE)


def test_another_key_with_the_id_of_the_first_opens_nothing() -> None:
    sealed = RING.encrypt(SecretStr("s"), PLACE)
    ring = Keyring([NEW, OLD])
    forged = sealed.replace(RING.current, ring.current)
    with pytest.raises(Undecryptable):
        ring.decrypt(forged, PLACE)


@pytest.mark.parametrize("key", ["", "short", "x" * 43 + "!", "A" * 42, "A" * 44, "é" * 43])
def test_a_bad_key_is_named_by_its_place_and_never_shown(key: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        Keyring([OLD, key])
    assert "key 2 of 2" in error.value.message
    assert OLD not in error.value.message
    assert not key or key not in error.value.message


def test_keys_may_be_padded_and_twice() -> None:
    assert Keyring([f" {OLD}= ", OLD]).ids == RING.ids


def test_nothing_of_a_key_is_in_the_ring_s_repr() -> None:
    assert OLD not in repr(RING)


def settings(home: Path, **more: object) -> KernelSettings:
    return KernelSettings.model_validate({"data_dir": home, **more})


def test_development_keeps_a_key_of_its_own(tmp_path: Path) -> None:
    home = tmp_path / "data"
    with ThreadPoolExecutor(8) as pool:
        rings = list(pool.map(load_keyring, [settings(home)] * 32))
    assert len({ring.current for ring in rings}) == 1
    (file,) = home.iterdir()
    assert file.name == "encryption.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_production_wants_its_keys_set(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="CAUSEWAY_ENCRYPTION_KEYS is not set"):
        load_keyring(settings(tmp_path, environment="production"))
    assert not list(tmp_path.iterdir())
    given_keys = (SecretStr(NEW), SecretStr(OLD))
    ring = load_keyring(settings(tmp_path, environment="production", encryption_keys=given_keys))
    assert ring.ids == Keyring([NEW, OLD]).ids


def test_keys_are_read_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAUSEWAY_ENCRYPTION_KEYS", f"{NEW}, {OLD}")
    monkeypatch.setenv("CAUSEWAY_DATA_DIR", str(tmp_path))
    assert load_keyring(load(KernelSettings)).ids == Keyring([NEW, OLD]).ids
