"""Who may pass: networks, user and password, client certificates."""

from __future__ import annotations

import asyncio
import base64
import threading
from pathlib import Path

import bcrypt
import pytest
from passlib.hash import sha512_crypt

from l7proxy.http import logins
from tests.wire.harness import Origin, fields_of, live, named, running, status_of, takes
from tests.wire.sealed import Sealed, credulous, listens_with, make_certificate

pytestmark = pytest.mark.unit


def bcrypt_of(password: bytes) -> str:
    return bcrypt.hashpw(password, bcrypt.gensalt(4)).decode()


def basic(login: str) -> str:
    return "Authorization: Basic " + base64.b64encode(login.encode()).decode()


def route(access: str) -> str:
    return f"  - {{name: all, upstream: up, access: {access}}}"


@live
async def test_networks_decide_by_the_longest_prefix(tmp_path: Path) -> None:
    origin = Origin(named)
    access = "{allow: [10.0.0.0/8, 10.1.2.0/24, '2001:db8::/32'], deny: [10.1.0.0/16]}"
    async with running(tmp_path, origin, routes=route(access), listener=", trusted_proxies: 127.0.0.1") as proxy:

        async def status_for(client: str) -> int:
            return status_of(await proxy.get("/", f"X-Forwarded-For: {client}"))

        found = [await status_for(client) for client in ("10.2.0.1", "10.1.0.1", "10.1.2.9", "2001:db8::1")]
        assert found == [200, 403, 200, 200]
        assert [await status_for(client) for client in ("192.0.2.1", "2001:db9::1")] == [403, 403]
        denied = await proxy.get("/")
        assert status_of(denied) == 403
        assert b'details="access_denied"' in fields_of(denied, b"proxy-status")[0]
    assert len(origin.heads) == 3


@live
async def test_a_user_is_asked_for_and_the_backend_is_not_told(tmp_path: Path) -> None:
    origin = Origin(takes)
    users = tmp_path / "users"
    users.write_text(f"# staff\nbob:{sha512_crypt.using(rounds=1000).hash('s:3 é')}\n")
    access = f"{{basic: {{realm: shop, users: {{ann: '{bcrypt_of(b'one')}'}}, file: {users}}}}}"
    async with running(tmp_path, origin, routes=route(access)) as proxy:
        asked = await proxy.get()
        assert status_of(asked) == 401
        assert fields_of(asked, b"www-authenticate") == [b'Basic realm="shop", charset="UTF-8"']
        for line, status in [
            (basic("ann:one"), 200),
            (basic("ann:one"), 200),
            (basic("bob:s:3 é"), 200),
            (basic("ann:two"), 401),
            (basic("eve:one"), 401),
            (basic("ann:one\0"), 401),
            ("Authorization: Basic !", 401),
            ("Authorization: Bearer x", 401),
            (basic("ann:one") + "\r\n" + basic("bob:x"), 401),
        ]:
            assert status_of(await proxy.get("/", line)) == status, line
    assert len(origin.heads) == 3
    assert not any(fields_of(head, b"authorization") for head in origin.heads)


@live
async def test_a_body_that_comes_meanwhile_is_not_lost(tmp_path: Path) -> None:
    origin = Origin(takes)
    access = f"{{basic: {{users: {{ann: '{bcrypt_of(b'one')}'}}, pass: true}}}}"
    async with running(tmp_path, origin, routes=route(access)) as proxy:
        start = f"POST /x HTTP/1.1\r\nHost: a\r\n{basic('ann:one')}\r\nContent-Length: 6\r\nConnection: close\r\n\r\n"
        assert status_of(await proxy.send(start.encode() + b"abc", b"def")) == 200
    assert origin.messages[0].body == b"abcdef"
    assert fields_of(origin.heads[0], b"authorization")


@live
async def test_a_login_is_tried_once_however_many_bring_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[bytes] = []
    gate = threading.Event()

    def slow(password: bytes, text: str) -> bool:
        tried.append(password)
        gate.wait(5)
        return bcrypt.checkpw(password, text.encode())

    monkeypatch.setattr(logins, "is_right", slow)
    monkeypatch.setattr(logins, "MOST_WAITING", 2)
    origin = Origin(named)
    access = f"{{basic: {{users: {{ann: '{bcrypt_of(b'one')}'}}}}}}"
    async with running(tmp_path, origin, routes=route(access)) as proxy:
        same = [asyncio.ensure_future(proxy.get("/", basic("ann:one"))) for _ in range(5)]  # noqa: TID251
        other = asyncio.ensure_future(proxy.get("/", basic("eve:one")))  # noqa: TID251
        await proxy.until(lambda: proxy.server.proxy.counters.requests == 6)
        full = await proxy.get("/", basic("ann:two"))
        assert status_of(full) == 503
        assert b'details="too_many_logins"' in fields_of(full, b"proxy-status")[0]
        gate.set()
        assert [status_of(await each) for each in same] == [200] * 5
        assert status_of(await other) == 401
        assert status_of(await proxy.get("/", basic("ann:one"))) == 200
        assert status_of(await proxy.get("/", basic("eve:one"))) == 401
    assert sorted(tried) == [b"one", b"one"]  # ann's, and for eve somebody's


@live
async def test_a_changed_hash_is_another_login(tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text(f"ann:{bcrypt_of(b'one')}\n")
    async with running(tmp_path, Origin(named), routes=route(f"{{basic: {{file: {users}}}}}")) as proxy:
        assert status_of(await proxy.get("/", basic("ann:one"))) == 200
        before = proxy.server.proxy.snapshot
        users.write_text(f"ann:{bcrypt_of(b'two')}\n")
        proxy.server.request_reload()
        await proxy.until(lambda: proxy.server.proxy.snapshot is not before)
        assert status_of(await proxy.get("/", basic("ann:one"))) == 401
        assert status_of(await proxy.get("/", basic("ann:two"))) == 200


@live
async def test_certificates_are_told_by_us_alone(tmp_path: Path) -> None:
    make_certificate(tmp_path, "server")
    make_certificate(tmp_path, "ca")
    make_certificate(tmp_path, "ann", issuer="ca")
    listener = listens_with(tmp_path / "server.crt", tmp_path / "server.key")
    listener = listener.replace("}", f", clients: {{ca: {tmp_path}/ca.crt, mode: optional}}}}")
    table = (
        "  - {match: {path: /must}, upstream: up, access: {client_certificate: {subject_header: X-Subject}}}\n"
        "  - {match: {path: /may}, upstream: up, access: {client_certificate: {required: false, subject_header: "
        "X-Subject, fingerprint_header: X-Print}}}"
    )
    lying = "X-Subject: CN=root\r\nX_Subject: CN=root\r\nx-print: 00"
    origin = Origin(named)
    async with running(tmp_path, origin, routes=table, listener=listener, more="underscores: forward") as proxy:

        def asked(path: str, name: str | None) -> bytes:
            context = credulous()
            if name is not None:
                context.load_cert_chain(tmp_path / f"{name}.crt", tmp_path / f"{name}.key")
            with Sealed(proxy.port, context) as sealed:
                sealed.open()
                sealed.say(f"GET {path} HTTP/1.1\r\nHost: a\r\n{lying}\r\nConnection: close\r\n\r\n".encode())
                return sealed.read()[0]

        refused = await asyncio.to_thread(asked, "/must", None)
        assert status_of(refused) == 403
        assert b'details="certificate_wanted"' in fields_of(refused, b"proxy-status")[0]
        assert status_of(await asyncio.to_thread(asked, "/may", None)) == 200
        assert b"root" not in origin.heads[-1]
        assert b"rint: 00" not in origin.heads[-1]
        for path in ("/must", "/may"):
            assert status_of(await asyncio.to_thread(asked, path, "ann")) == 200
            assert fields_of(origin.heads[-1], b"x-subject") == [b"CN=ann"]
            assert b"root" not in origin.heads[-1]
        assert len(fields_of(origin.heads[-1], b"x-print")[0]) == 64


@live
async def test_who_has_proven_it_is_in_the_access_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    access = f"{{basic: {{users: {{ann: '{bcrypt_of(b'one')}'}}}}}}"
    async with running(tmp_path, Origin(named), routes=route(access), access_log="combined") as proxy:
        assert status_of(await proxy.get("/", basic("ann:one"))) == 200
        assert status_of(await proxy.get("/", basic("ann:two"))) == 401
    first, second = capfd.readouterr().out.splitlines()
    assert first.startswith("127.0.0.1 - ann [")
    assert second.startswith("127.0.0.1 - - [")
