"""What the access log says of exchanges that went no further: enough to find who asked for what, and why it ended."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.wire.harness import Origin, live, named, running, status_of

pytestmark = pytest.mark.unit

HELLO = bytes.fromhex("160301020001000001fc0303") + b"\x00" * 40


@live
async def test_answers_of_our_own_are_logged_with_their_size_and_what_was_asked_for(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = {
        b"GET /none HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\n\r\n": (404, '"GET /none HTTP/1.1"'),
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n": (414, '"GET /aaaa'),
        b"GET /much HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 200 + b"\r\n": (431, '"GET /much HTTP/1.1"'),
        b"GET /two HTTP/2.0\r\nHost: a\r\n\r\n": (505, '"GET /two HTTP/1.1"'),
        b"\x01\x02\x03 what\r\n\r\n": (400, '"- - HTTP/1.1"'),
    }
    route = "  - {match: {host: a}, upstream: up}\n"
    async with running(tmp_path, Origin(named), routes=route, access_log=True) as proxy:
        for request, (status, line) in asked.items():
            capfd.readouterr()
            answer = await proxy.talk(request)
            assert status_of(answer) == status
            logged = ""
            async with asyncio.timeout(5):
                while "\n" not in logged:
                    await asyncio.sleep(0.02)
                    logged += capfd.readouterr().out
            size = len(answer.partition(b"\r\n\r\n")[2])
            assert line in logged
            assert f'" {status} {size} "' in logged


@live
async def test_tls_on_a_plain_port_is_called_that(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running(tmp_path, Origin(named)) as proxy:
        assert status_of(await proxy.talk(HELLO)) == 400
    assert any("TLS where plain HTTP is spoken" in str(getattr(record, "reason", "")) for record in caplog.records)


@live
async def test_what_a_stop_cuts_off_is_not_said_to_have_left(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async def half(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await reader.read()

    async with running(tmp_path, Origin(half), access_log=True) as proxy:
        reader, writer = await proxy.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readuntil(b"half")
        proxy.server.request_stop()
        proxy.server.request_stop()
        assert await reader.read() == b""
        writer.close()
    logged = capfd.readouterr().out
    assert " 200 4 " in logged
    assert "cause=drained" in logged
