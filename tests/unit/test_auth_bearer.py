from __future__ import annotations

import pytest
from fastapi import Request
from pydantic import SecretStr

from causeway.auth.bearer import admin_access, check_admin, is_loopback
from causeway.base.errors import NotAllowed, NotAuthenticated

TOKEN = SecretStr("correct-horse")


def request(
    peer: str | None = "127.0.0.1", host: str = "127.0.0.1:8000", **headers: str
) -> Request:
    """A request as the server makes it of a socket and of headers."""
    pairs = {"host": host} | {name.replace("_", "-"): value for name, value in headers.items()}
    return Request(
        {
            "type": "http",
            "method": "GET",
            "path": "/admin",
            "query_string": b"",
            "scheme": "http",
            "server": ("127.0.0.1", 8000),
            "client": None if peer is None else (peer, 1234),
            "headers": [(k.encode(), v.encode("latin-1")) for k, v in pairs.items()],
        }
    )


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_this_machine_passes_without_a_token(peer: str) -> None:
    check_admin(request(peer), None)
    check_admin(request(peer), SecretStr(""))


@pytest.mark.parametrize(
    "peer", [None, "10.0.0.1", "192.168.1.5", "8.8.8.8", "::2", "::ffff:8.8.8.8", "testclient", ""]
)
def test_others_do_not_pass_without_a_token_whatever_they_say(peer: str | None) -> None:
    for headers in (
        {},
        {"x_forwarded_for": "127.0.0.1"},
        {"forwarded": "for=127.0.0.1"},
        {"x_real_ip": "127.0.0.1"},
        {"authorization": "Bearer "},
        {"authorization": "Bearer None"},
    ):
        with pytest.raises(NotAllowed, match="only from this machine"):
            check_admin(request(peer, **headers), None)


@pytest.mark.parametrize("name", ["x_forwarded_for", "forwarded", "x_real_ip", "via"])
def test_what_a_local_proxy_passes_on_is_not_from_this_machine(name: str) -> None:
    with pytest.raises(NotAllowed, match="proxy"):
        check_admin(request(**{name: "127.0.0.1"}), None)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example"])
def test_a_page_that_had_its_name_point_here_does_not_pass(host: str) -> None:
    with pytest.raises(NotAllowed, match="another site"):
        check_admin(request(host=host), None)


@pytest.mark.parametrize("host", ["localhost:8000", "[::1]:8000", "api", "a.localhost"])
def test_names_of_this_machine_pass(host: str) -> None:
    check_admin(request(host=host), None)


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_page_of_another_origin_does_not_pass(site: str) -> None:
    with pytest.raises(NotAllowed, match="another site"):
        check_admin(request(sec_fetch_site=site), None)
    check_admin(request(sec_fetch_site="same-origin"), None)


@pytest.mark.parametrize("peer", ["127.0.0.1", "8.8.8.8", None])
@pytest.mark.parametrize(
    "header", ["Bearer correct-horse", "bearer correct-horse", "Bearer   correct-horse "]
)
def test_the_token_passes_from_anywhere(peer: str | None, header: str) -> None:
    check_admin(request(peer, host="api.glisk.xyz", authorization=header), TOKEN)


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic correct-horse", "x"])
def test_without_a_token_presented_even_this_machine_is_asked_for_it(header: str | None) -> None:
    headers = {} if header is None else {"authorization": header}
    with pytest.raises(NotAuthenticated):
        check_admin(request(**headers), TOKEN)


@pytest.mark.parametrize(
    "token", ["wrong", "correct-hors", "correct-horse2", "Correct-horse", "é", "correct-horse x"]
)
def test_a_wrong_token_is_refused(token: str) -> None:
    with pytest.raises(NotAllowed) as refused:
        check_admin(request(authorization=f"Bearer {token}"), TOKEN)
    assert "correct-horse" not in str(refused.value)


def test_the_dependency_reads_the_token_in_force() -> None:
    dependency = admin_access(lambda _request: TOKEN)
    dependency(request("8.8.8.8", authorization="Bearer correct-horse"))
    with pytest.raises(NotAuthenticated):
        dependency(request())


def test_names_are_no_addresses() -> None:
    assert not is_loopback("localhost")
