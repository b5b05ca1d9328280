"""Connections go to upstreams by the server name that a TLS client asks for, and nothing is decrypted."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.wire.harness import PATIENCE_S, Running, free_port, live, running
from tests.wire.sealed import Sealed, make_certificate

pytestmark = pytest.mark.unit

LISTENER = ', tcp: {{{default}sni: {{"a.example": one, "*.B.example": two}}{hello}}}'


@asynccontextmanager
async def sealed_backend(name: str, certificate: tuple[Path, Path]) -> AsyncIterator[int]:
    """Speaks TLS, and says its name, and which server name it was asked for."""
    asked: list[str] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    context.sni_callback = lambda _, server_name, __: asked.append(server_name or "-")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"{name} {asked[-1]} ".encode() + await reader.readline())
        writer.close()

    port = free_port()
    server = await asyncio.start_server(serve, "127.0.0.1", port, ssl=context)
    try:
        yield port
    finally:
        server.close()


@asynccontextmanager
async def forwarding(tmp_path: Path, default: str = "", hello: str = "") -> AsyncIterator[Running]:
    """A proxy before the backends `one`, `two` and `rest`, the last of them the default if there is to be one."""
    certificate = make_certificate(tmp_path)
    async with (
        sealed_backend("one", certificate) as one,
        sealed_backend("two", certificate) as two,
        sealed_backend("rest", certificate) as rest,
        running(
            tmp_path,
            two,
            listener=LISTENER.format(default=default, hello=hello),
            routes="  []",
            upstream=f"    backends: {{a: {{address: '127.0.0.1:{rest}'}}}}\n"
            f"  one: {{backends: {{a: {{address: '127.0.0.1:{one}'}}}}}}\n"
            "  two:",
        ) as proxy,
    ):
        yield proxy


async def asked(proxy: Running, name: str | None) -> bytes:
    """What a backend answers to a client that asks for `name`; empty: it was closed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", proxy.port, ssl=context, server_hostname=name or ""
            )
            writer.write(b"hello\n")
            answer = await reader.read()
            writer.close()
            return answer
    except (ConnectionError, ssl.SSLError):
        return b""


@live
async def test_the_name_leads_to_its_upstream(tmp_path: Path) -> None:
    async with forwarding(tmp_path, "upstream: up, ") as proxy:
        assert await asked(proxy, "a.example") == b"one a.example hello\n"
        assert await asked(proxy, "A.EXAMPLE") == b"one A.EXAMPLE hello\n"
        assert await asked(proxy, "x.y.b.example") == b"two x.y.b.example hello\n"
        assert await asked(proxy, "b.example") == b"rest b.example hello\n"
        assert await asked(proxy, None) == b"rest - hello\n"


@live
async def test_who_asks_for_nothing_that_is_there_is_closed_with_a_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with forwarding(tmp_path) as proxy:
        assert await asked(proxy, "c.example") == b""
        assert await asked(proxy, None) == b""
        assert await proxy.send(b"GET / HTTP/1.1\r\n\r\n") in {b"", b"<RST>"}
        assert await proxy.send(b"\x16\x03\x01\xff\xff") in {b"", b"<RST>"}
        await proxy.until(lambda: not proxy.server.proxy.connections)
        counts = proxy.server.proxy.tcp_meters.counts()
        assert counts["http\n\nno_route/l7proxy_tcp_errors"] == 4
    reasons = [record.__dict__["reason"] for record in caplog.records if record.message == "connection refused"]
    assert reasons == [
        "no upstream for this server name (c.example)",
        "no server name",
        "no TLS: it begins with 0x47",
        "a record of 65535 bytes",
    ]


@live
async def test_what_is_no_tls_goes_to_the_default_as_it_came(tmp_path: Path) -> None:
    heard: list[bytes] = []

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read())
        writer.close()

    port = free_port()
    server = await asyncio.start_server(hear, "127.0.0.1", port)
    listener = ", tcp: {upstream: up, sni: {a.example: up}}"
    async with running(tmp_path, port, listener=listener, routes="  []") as proxy:
        _, writer = await proxy.connect()
        writer.write(b"SSH-2.0-x\r\n" + bytes(100_000))
        writer.write_eof()
        await proxy.until(lambda: bool(heard))
        assert heard == [b"SSH-2.0-x\r\n" + bytes(100_000)]
        writer.close()
    server.close()


@live
async def test_a_hello_that_comes_byte_by_byte_is_understood_and_goes_on_whole(tmp_path: Path) -> None:
    async with forwarding(tmp_path) as proxy:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

        def shake() -> bytes:
            with Sealed(proxy.port, context) as client:
                client.tls = context.wrap_bio(client.incoming, client.outgoing, server_hostname="a.example")
                last = client.shake(cut=1)
                client.tls.write(b"hello\n")
                client.socket.sendall(last + client.outgoing.read())
                answer = b""
                while not answer.endswith(b"\n"):
                    client.incoming.write(client.socket.recv(65536))
                    with suppress(ssl.SSLWantReadError):
                        answer += client.tls.read(100)
                return answer

        assert await asyncio.to_thread(shake) == b"one a.example hello\n"


@live
async def test_a_hello_that_does_not_come_is_not_waited_for(tmp_path: Path) -> None:
    async with forwarding(tmp_path, "upstream: up, ", ", hello: 100ms") as proxy:
        assert await proxy.send(b"\x16\x03\x01\x02\x00\x01") == b""
        assert await proxy.send() == b""
        counts = proxy.server.proxy.tcp_meters.counts()
        assert counts["http\n\nhead_timeout/l7proxy_tcp_errors"] == 2
