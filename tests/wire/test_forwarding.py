"""What goes through: targets, headers and bodies, byte for byte, in both directions."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path

import pytest

from tests.wire.harness import Origin, body_back, fields_of, live, named, running, says, status_of

pytestmark = pytest.mark.unit

TARGETS = [
    "/",
    "/a%2Fb",
    "/a%2fb",
    "//double//slash",
    "/?",
    "/a?b?c&d=%41%zz",
    "/%61/./b/...c",
    "/UPPER%c3%A4",
    "/a;b=1,2:3@x|y",
    "/a+b%20c",
    "/~user/'q'",
]


@live
async def test_targets_arrive_byte_for_byte(tmp_path: Path) -> None:
    origin = Origin(named)
    async with running(tmp_path, origin) as proxy:
        for target in TARGETS:
            assert status_of(await proxy.get(target)) == 200
        assert [head.split(b" ")[1].decode() for head in origin.heads] == TARGETS


@live
async def test_absolute_form_becomes_origin_form(tmp_path: Path) -> None:
    origin = Origin(named)
    async with running(tmp_path, origin) as proxy:
        await proxy.get("http://other.example:81/p?q", host="ignored.example")
        await proxy.talk(b"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert origin.heads[0].startswith(b"GET /p?q HTTP/1.1\r\nHost: other.example:81\r\n")
    assert origin.heads[1].startswith(b"OPTIONS * HTTP/1.1\r\n")


@live
async def test_nothing_is_added_to_a_request_but_what_is_said(tmp_path: Path) -> None:
    origin = Origin(named)
    async with running(tmp_path, origin, more="name: edge-1") as proxy:
        await proxy.talk(b"GET /x HTTP/1.1\r\nhOST: Shop.Example:80\r\nX-B: 2\r\nx-b: 1\r\nConnection: close\r\n\r\n")
    assert origin.heads == [
        b"GET /x HTTP/1.1\r\nhOST: Shop.Example:80\r\nX-B: 2\r\nx-b: 1\r\nX-Forwarded-For: 127.0.0.1\r\n"
        b"X-Forwarded-Proto: http\r\nX-Forwarded-Host: Shop.Example:80\r\nVia: 1.1 edge-1\r\n\r\n"
    ]


@live
async def test_hop_by_hop_headers_stop_here_in_both_directions(tmp_path: Path) -> None:
    origin = Origin(
        says(
            b"HTTP/1.1 200 Fine\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n",
            b"Proxy-Authenticate: Basic\r\nUpgrade: h2c\r\nTrailer: X-Sum\r\nServer: mine\r\nContent-Length: 0\r\n\r\n",
        )
    )
    async with running(tmp_path, origin) as proxy:
        answer = await proxy.talk(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Secret, Upgrade\r\nX-Secret: 1\r\nTE: trailers\r\n"
            b"Upgrade: h2c\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\n"
            b"Proxy-Authorization: Basic x\r\nX-Y: 1\r\n\r\n"
        )
    head = origin.heads[0].lower()
    for name in [b"connection", b"x-secret", b"te", b"upgrade", b"keep-alive", b"proxy-"]:
        assert b"\r\n" + name not in head
    assert b"\r\nx-y: 1\r\n" in head
    date = fields_of(answer, b"date")[0]
    assert answer == (
        b"HTTP/1.1 200 Fine\r\nServer: mine\r\nContent-Length: 0\r\nDate: %b\r\nConnection: close\r\n\r\n" % date
    )


@live
async def test_spoofed_addresses_are_replaced(tmp_path: Path) -> None:
    origin = Origin(named)
    async with running(tmp_path, origin) as proxy:
        await proxy.get("/", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https", "Forwarded: for=1.2.3.4")
    assert fields_of(origin.heads[0], b"x-forwarded-for") == [b"127.0.0.1"]
    assert fields_of(origin.heads[0], b"x-forwarded-proto") == [b"http"]
    assert fields_of(origin.heads[0], b"forwarded") == []


@live
async def test_trusted_proxies_addresses_are_extended(tmp_path: Path) -> None:
    origin = Origin(named)
    async with running(tmp_path, origin, listener=", trusted_proxies: [127.0.0.0/8]") as proxy:
        await proxy.get("/", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https")
    assert fields_of(origin.heads[0], b"x-forwarded-for") == [b"1.2.3.4, 127.0.0.1"]
    assert fields_of(origin.heads[0], b"x-forwarded-proto") == [b"https"]


@live
async def test_cookies_and_odd_bytes_of_an_answer_are_kept(tmp_path: Path) -> None:
    cookies = [b"Set-Cookie: c%d=%b" % (index, b"v" * 200) for index in range(60)]
    cookies[7] = b"set-cookie: name=\xe4\xff; Path=/"
    origin = Origin(says(b"HTTP/1.1 200 \xe4\r\n", b"\r\n".join(cookies), b"\r\nContent-Length: 0\r\n\r\n"))
    async with running(tmp_path, origin) as proxy:
        answer = await proxy.get()
    assert answer.split(b"\r\n")[:61] == [b"HTTP/1.1 200 \xe4", *cookies]


@live
async def test_large_headers_of_an_answer_pass(tmp_path: Path) -> None:
    origin = Origin(says(b"HTTP/1.1 200 OK\r\nX-Big: ", b"b" * 40_000, b"\r\nContent-Length: 0\r\n\r\n"))
    async with running(tmp_path, origin) as proxy:
        assert status_of(await proxy.get()) == 200


@live
async def test_odd_bytes_of_a_request_are_kept(tmp_path: Path) -> None:
    origin = Origin(named)
    async with running(tmp_path, origin) as proxy:
        await proxy.talk(b"GET / HTTP/1.1\r\nHost: a\r\nX: \xe4\xff\r\nConnection: close\r\n\r\n")
    assert fields_of(origin.heads[0], b"x") == [b"\xe4\xff"]


@live
async def test_compressed_bodies_pass_unaltered(tmp_path: Path) -> None:
    body = gzip.compress(b"a" * 100_000)
    origin = Origin(body_back)
    async with running(tmp_path, origin) as proxy:
        answer = await proxy.talk(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
            % (len(body), body)
        )
    assert answer.endswith(b"\r\n\r\n" + body)
    assert fields_of(origin.heads[0], b"content-length") == [b"%d" % len(body)]
    assert fields_of(origin.heads[0], b"content-encoding") == [b"gzip"]


@live
async def test_compressed_answers_pass_unaltered(tmp_path: Path) -> None:
    body = gzip.compress(b"a" * 100_000)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with running(tmp_path, Origin(says(head, body))) as proxy:
        answer = await proxy.get()
    assert answer.endswith(b"\r\n\r\n" + body)
    assert fields_of(answer, b"content-length") == [b"%d" % len(body)]


@live
async def test_chunked_bodies_pass_in_both_directions(tmp_path: Path) -> None:
    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert fields_of(head, b"transfer-encoding") == [b"chunked"]
        assert fields_of(head, b"content-length") == []
        received = await reader.readuntil(b"0\r\n\r\n")
        assert b"first" in received
        writer.write(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\nX-T: 1\r\n\r\n"
        )

    async with running(tmp_path, Origin(answer)) as proxy:
        got = await proxy.talk(
            b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
            b"5;ext=1\r\nfirst\r\n0\r\n\r\n"
        )
    assert fields_of(got, b"transfer-encoding") == [b"chunked"]
    assert got.endswith(b"\r\n0\r\n\r\n")
    assert b"one" in got
    assert b"two" in got


@pytest.mark.parametrize(
    ("method", "answer", "expected"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n", b"Content-Length: 1234\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b""),
        (
            "GET",
            b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\nETag: x\r\n\r\n",
            b"Content-Length: 1234\r\nETag: x\r\n",
        ),
        ("GET", b"HTTP/1.1 204 No Content\r\nX: 1\r\n\r\n", b"X: 1\r\n"),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"Content-Length: 0\r\n"),
    ],
)
@live
async def test_answers_without_a_body_keep_their_framing(
    tmp_path: Path, method: str, answer: bytes, expected: bytes
) -> None:
    """Twice on one connection: what is misread as a body shows in the second answer."""
    origin = Origin(says(answer))
    async with running(tmp_path, origin) as proxy:
        got = await proxy.talk(
            f"{method} /1 HTTP/1.1\r\nHost: a\r\n\r\n"
            f"{method} /2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
        )
    date = b"Date: " + fields_of(got, b"date")[0]
    line = answer.partition(b"\r\n")[0]
    one = line + b"\r\n" + expected + date
    assert got.startswith(one + b"\r\n\r\n" + line)
    assert got.count(line) == 2
    assert origin.connections == 1


@live
async def test_http10_clients_get_a_close_delimited_answer(tmp_path: Path) -> None:
    origin = Origin(says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n"))
    async with running(tmp_path, origin) as proxy:
        got = await proxy.talk(b"GET / HTTP/1.0\r\n\r\n")
    assert got.endswith(b"\r\n\r\none")
    assert b"chunked" not in got
    assert fields_of(origin.heads[0], b"host") == [b"127.0.0.1:%d" % origin.port]


@live
async def test_http10_keep_alive(tmp_path: Path) -> None:
    async with running(tmp_path, Origin(named)) as proxy:
        got = await proxy.talk(b"GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /2 HTTP/1.0\r\n\r\n")
    assert got.count(b"HTTP/1.1 200 OK") == 2


@live
async def test_close_delimited_answers_become_chunked(tmp_path: Path) -> None:
    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nall of it")
        await writer.drain()
        writer.close()

    async with running(tmp_path, Origin(answer)) as proxy:
        got = await proxy.get()
    assert got.endswith(b"\r\n\r\n9\r\nall of it\r\n0\r\n\r\n")


@live
async def test_interim_answers_are_passed_on(tmp_path: Path) -> None:
    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </s.css>\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.02)
        await named(origin, head, reader, writer)

    async with running(tmp_path, Origin(answer)) as proxy:
        got = await proxy.get()
        old = await proxy.talk(b"GET / HTTP/1.0\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </s.css>\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert old.startswith(b"HTTP/1.1 200 OK")


@live
async def test_expectations_are_left_to_the_backend(tmp_path: Path) -> None:
    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"/no" in head:
            writer.write(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
            writer.close()
            return
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await body_back(origin, head, reader, writer)

    head = "POST {} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    async with running(tmp_path, Origin(answer)) as proxy:
        reader, writer = await proxy.connect()
        writer.write(head.format("/yes").encode())
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hello")
        assert status_of(await reader.readuntil(b"\r\n\r\n")) == 200
        assert await reader.readexactly(5) == b"hello"
        writer.close()
        reader, writer = await proxy.connect()
        writer.write(head.format("/no").encode())
        assert status_of(await reader.readuntil(b"\r\n\r\n")) == 417
        writer.close()
