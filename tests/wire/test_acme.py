"""What a listener answers before any route: ACME's challenges, the redirect to https://, and what browsers are told."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.wire.harness import Logged, Origin, fields_of, free_port, live, named, running, says, status_of, statuses_of
from tests.wire.sealed import Tls, listens_with, make_certificate, trusting
from tests.wire.test_running import reloaded

pytestmark = pytest.mark.unit

HERE = "/.well-known/acme-challenge/"
HSTS = b"max-age=31536000; includeSubDomains"


def body_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


@live
async def test_a_challenge_is_answered_from_the_folder_and_nothing_else_is(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "challenges"
    folder.mkdir()
    (folder / "tok-EN_1").write_bytes(b"tok-EN_1.thumbprint")
    (tmp_path / "secret").write_text("no")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "sub").mkdir()
    (folder / "large").write_bytes(b"x" * 5000)
    (folder / "a.b").write_text("no")
    os.mkfifo(folder / "fifo")
    origin = Origin(named)
    listener = f", redirect_to_https: true, health: /-/health, acme: {{folder: {folder}}}"
    async with running(tmp_path, origin, listener=listener, access_log="json") as proxy:
        answer = await proxy.get(HERE + "tok-EN_1", host="shop.example.org")
        assert status_of(answer) == 200
        assert body_of(answer) == b"tok-EN_1.thumbprint"
        assert fields_of(answer, b"content-type") == [b"application/octet-stream"]
        head = await proxy.talk(f"HEAD {HERE}tok-EN_1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        assert (status_of(head), fields_of(head, b"content-length"), body_of(head)) == (200, [b"19"], b"")
        for name in ("absent", "link", "sub", "large", "a.b", "fifo", "", "sub/x", "%2e%2e%2fsecret", "x" * 200):
            assert status_of(await proxy.get(HERE + name)) == 404, name
        for climbing in ("../secret", "..%2fsecret", "./../../secret"):
            assert status_of(await proxy.get(HERE + climbing)) in {308, 404}, climbing
        posted = await proxy.talk(
            f"POST {HERE}tok-EN_1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc".encode()
        )
        assert (status_of(posted), fields_of(posted, b"allow")) == (405, [b"GET, HEAD"])
        assert status_of(await proxy.get("/-/health")) == 200
        assert status_of(await proxy.get("/")) == 308
        twice = await proxy.talk(
            f"GET {HERE}tok-EN_1 HTTP/1.1\r\nHost: a\r\n\r\n".encode()
            + f"GET {HERE}no HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
        )
        assert statuses_of(twice) == [200, 404]
    assert origin.heads == []
    assert set(Logged(capfd).statuses()) == {200, 308, 404, 405}


@live
async def test_a_challenge_goes_to_the_upstream_that_is_named_before_the_redirect(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    origin, certbot = Origin(named), await Origin(named, "certbot").start()
    async with running(tmp_path, origin, access_log="json") as proxy:
        text = proxy.path.read_text()
        listener = f"{proxy.port}', redirect_to_https: {{port: 8443}}, acme: {{upstream: certbot}}"
        text = text.replace(f"{proxy.port}'", listener, 1)
        text += f"  certbot: {{backends: {{a: {{address: '127.0.0.1:{certbot.port}'}}}}}}\n"
        proxy.path.write_text(text)
        await reloaded(proxy)
        assert body_of(await proxy.get(HERE + "anything")) == b"certbot"
        assert status_of(await proxy.get("/x")) == 308
        await certbot.stop()
        assert status_of(await proxy.get(HERE + "anything")) in {502, 503}
    assert origin.heads == []
    assert certbot.heads[0].startswith(b"GET " + HERE.encode() + b"anything ")
    assert '"route":"acme http","upstream":"certbot","backend":"a"' in capfd.readouterr().out


@pytest.mark.parametrize(
    ("settings", "request_line", "host", "wanted"),
    [
        ("true", "GET /a?b=c", "shop.example.org", (308, b"https://shop.example.org/a?b=c")),
        ("true", "POST /a", "Shop.Example.org:80", (308, b"https://shop.example.org/a")),
        ("{port: 8443}", "GET /", "shop.example.org:8080", (308, b"https://shop.example.org:8443/")),
        ("{port: 8443, status: 302}", "GET /", "[2001:db8::1]:80", (302, b"https://[2001:db8::1]:8443/")),
        ("true", "GET //evil.example/x", "a.example", (308, b"https://a.example//evil.example/x")),
        ("true", "GET /%0d%0aX:y", "a.example", (308, b"https://a.example/%0d%0aX:y")),
        ("true", "OPTIONS *", "a.example", (308, b"https://a.example/")),
        ("true", "GET http://b.example/x?y", "a.example", (308, b"https://b.example/x?y")),
        ("true", "GET /", "evil.example/x", (400, None)),
        ("true", "GET /", "a@evil.example", (400, None)),
        ("true", "GET /", "", (400, None)),
        ("{}", "GET /", "a.example:99999", (400, None)),
    ],
)
@live
async def test_plain_http_is_sent_to_the_same_place_over_tls(
    tmp_path: Path, settings: str, request_line: str, host: str, wanted: tuple[int, bytes | None]
) -> None:
    async with running(tmp_path, free_port(), listener=f", redirect_to_https: {settings}") as proxy:
        body = "Content-Length: 2\r\n\r\nab" if request_line.startswith("POST") else "\r\n"
        answer = await proxy.talk(f"{request_line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{body}".encode())
        assert status_of(answer) == wanted[0]
        assert fields_of(answer, b"location") == ([wanted[1]] if wanted[1] is not None else [])
        assert b"\r\nX:y" not in answer


@live
async def test_without_a_host_nobody_is_sent_anywhere(tmp_path: Path) -> None:
    async with running(tmp_path, free_port(), listener=", redirect_to_https: true") as proxy:
        answer = await proxy.talk(b"GET / HTTP/1.0\r\n\r\n")
        assert status_of(answer) == 400


@live
async def test_behind_a_trusted_proxy_that_has_taken_tls_off_nobody_is_sent_in_circles(tmp_path: Path) -> None:
    listener = ", redirect_to_https: true, trusted_proxies: 127.0.0.1"
    async with running(tmp_path, Origin(named), listener=listener) as proxy:
        assert status_of(await proxy.get("/", "X-Forwarded-Proto: https")) == 200
        assert status_of(await proxy.get("/", "X-Forwarded-Proto: http")) == 308
        assert status_of(await proxy.get("/")) == 308
    async with running(tmp_path, Origin(named), listener=", redirect_to_https: true") as proxy:
        assert status_of(await proxy.get("/", "X-Forwarded-Proto: https")) == 308


@live
async def test_every_answer_over_tls_has_our_strict_transport_security_and_no_other(tmp_path: Path) -> None:
    pair = make_certificate(tmp_path)
    answers = b"HTTP/1.1 200 OK\r\nSTRICT-Transport-Security: max-age=1\r\nX-A: b\r\nContent-Length: 2\r\n\r\nok"
    listener = listens_with(*pair) + ", health: /-/health, hsts: {include_subdomains: true}"
    routes = "  - {name: shop, match: {host: shop.example}, upstream: up}"
    async with running(tmp_path, Origin(says(answers)), listener=listener, routes=routes) as plain:
        proxy = Tls(plain, trusting(pair[0]))
        for target, host, status in (("/", "shop.example", 200), ("/", "other.example", 404), ("/-/health", "a", 200)):
            answer = await proxy.get(target, host=host)
            assert status_of(answer) == status
            assert fields_of(answer, b"strict-transport-security") == [HSTS]
        refused = await proxy.talk(b"GET / HTTP/1.1\r\n\r\n")
        assert (status_of(refused), fields_of(refused, b"strict-transport-security")) == (400, [HSTS])
        in_plain = await plain.get("/", host="shop.example")
        assert (status_of(in_plain), fields_of(in_plain, b"strict-transport-security")) == (400, [])


@live
async def test_a_backend_says_it_itself_where_nothing_is_said_here(tmp_path: Path) -> None:
    pair = make_certificate(tmp_path)
    answers = b"HTTP/1.1 200 OK\r\nStrict-Transport-Security: max-age=1\r\nContent-Length: 2\r\n\r\nok"
    async with running(tmp_path, Origin(says(answers)), listener=listens_with(*pair)) as plain:
        proxy = Tls(plain, trusting(pair[0]))
        assert fields_of(await proxy.get(), b"strict-transport-security") == [b"max-age=1"]
        plain.path.write_text(plain.path.read_text().replace(", tls:", ", hsts: {max_age: 30d}, tls:", 1))
        await reloaded(plain)
        assert fields_of(await proxy.get(), b"strict-transport-security") == [b"max-age=2592000"]


@live
async def test_who_leaves_before_its_challenge_is_read_harms_nobody(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("t")
    async with running(tmp_path, free_port(), listener=f", acme: {{folder: {tmp_path}}}") as proxy:
        for _ in range(20):
            _, writer = await proxy.connect()
            writer.write(f"GET {HERE}t HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            await asyncio.sleep(0)
            writer.transport.abort()
        assert body_of(await proxy.get(HERE + "t")) == b"t"
