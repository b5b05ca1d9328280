"""How backends are spoken to: TLS, the PROXY protocol, DSCP."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest

from director.kit.problem import InvalidConfigError
from l7proxy.core.config import load_config
from l7proxy.core.model import Config
from l7proxy.core.settings.backside import dscp_of
from l7proxy.files.loading import load_file
from tests.wire.harness import (
    Answer,
    Logged,
    Origin,
    body_back,
    config_text,
    live,
    named,
    one_answer,
    running,
    says,
    status_of,
)
from tests.wire.sealed import make_certificate

pytestmark = pytest.mark.unit

TRUSTED = ", trusted_proxies: 127.0.0.0/8"


class Seals:
    """A backend's certificate, and one of somebody else."""

    def __init__(self, directory: Path) -> None:
        self.certificate, self.key = make_certificate(directory, "backend")
        self.other, self.other_key = make_certificate(directory, "other")

    def origin(self, answer: Answer = named, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> Origin:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        context.minimum_version = context.maximum_version = version
        return Origin(answer, tls=context)

    @property
    def known(self) -> str:
        return f"    tls: {{ca: {self.certificate}}}"


@pytest.fixture(name="seals", scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Seals:
    return Seals(tmp_path_factory.mktemp("seals"))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@live
async def test_backend_over_tls_is_verified_and_its_link_is_used_again(
    tmp_path: Path, seals: Seals, version: ssl.TLSVersion
) -> None:
    origin = seals.origin(version=version)
    async with running(tmp_path, origin, upstream=seals.known) as proxy:
        for _ in range(3):
            assert (await proxy.get()).endswith(b"\r\n\r\norigin")
    assert origin.connections == 1


@pytest.mark.parametrize(
    ("tls", "cause"),
    [
        ("{ca: OTHER}", "tls_certificate_error"),
        ("true", "tls_certificate_error"),
        ("{ca: KNOWN, name: elsewhere.example}", "tls_certificate_error"),
    ],
)
@live
async def test_backend_that_is_somebody_else_is_never_asked(
    tmp_path: Path, seals: Seals, tls: str, cause: str, capfd: pytest.CaptureFixture[str]
) -> None:
    origin = seals.origin()
    said = tls.replace("OTHER", str(seals.other)).replace("KNOWN", str(seals.certificate))
    async with running(tmp_path, origin, upstream=f"    tls: {said}") as proxy:
        answer = await proxy.get()
    assert status_of(answer) == 502
    assert b"error=" + cause.encode() in answer
    assert not origin.heads


@live
async def test_backend_is_believed_unseen_where_somebody_wrote_so(tmp_path: Path, seals: Seals) -> None:
    async with running(tmp_path, seals.origin(), upstream="    tls: {verify: false}") as proxy:
        assert status_of(await proxy.get()) == 200


@live
async def test_backend_without_tls_is_a_bad_gateway(tmp_path: Path, seals: Seals) -> None:
    origin = Origin(says(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"))
    async with running(tmp_path, origin, upstream=seals.known + "\n    timeouts: {connect: 1s}") as proxy:
        answer = await proxy.get()
    assert status_of(answer) in {502, 504}


@live
async def test_large_bodies_pass_both_ways_over_tls(tmp_path: Path, seals: Seals) -> None:
    body = bytes(range(256)) * 16 * 1024
    async with running(tmp_path, seals.origin(body_back), upstream=seals.known) as proxy:
        answer = await proxy.talk(
            b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
    assert answer.endswith(body)


def ends(announced: bool) -> Answer:
    """An answer that ends with its connection, which says so or is cut."""

    async def answer(_: Origin, __: bytes, ___: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it")
        await writer.drain()
        if announced:
            writer.close()
        else:
            wire = writer.transport.get_extra_info("socket")
            await asyncio.sleep(0.05)
            with socket.socket(fileno=socket.dup(wire.fileno())) as cut:
                cut.shutdown(socket.SHUT_RDWR)

    return answer


@pytest.mark.parametrize("announced", [True, False])
@live
async def test_answer_until_close_is_whole_only_where_the_backend_says_its_end(
    tmp_path: Path, seals: Seals, announced: bool
) -> None:
    async with running(tmp_path, seals.origin(ends(announced)), upstream=seals.known) as proxy:
        answer = await proxy.get()
    assert b"all of it" in answer
    assert answer.endswith(b"0\r\n\r\n") is announced


@live
async def test_sessions_with_a_backend_are_resumed(tmp_path: Path, seals: Seals) -> None:
    resumed: list[bool] = []

    async def answer(_: Origin, __: bytes, ___: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        resumed.append(bool(writer.get_extra_info("ssl_object").session_reused))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    async with running(tmp_path, seals.origin(answer), upstream=seals.known) as proxy:
        for _ in range(3):
            assert status_of(await proxy.get()) == 200
    assert resumed == [False, True, True]


@live
async def test_backend_is_shown_our_certificate(tmp_path: Path, seals: Seals) -> None:
    shown: list[object] = []

    async def answer(_: Origin, __: bytes, ___: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        shown.append(writer.get_extra_info("peercert")["subject"])
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    origin = seals.origin(answer)
    assert origin.tls is not None
    origin.tls.verify_mode = ssl.CERT_REQUIRED
    origin.tls.load_verify_locations(seals.other)
    mine = f"    tls: {{ca: {seals.certificate}, certificate: {seals.other}, key: {seals.other_key}}}"
    async with running(tmp_path, origin, upstream=mine) as proxy:
        assert status_of(await proxy.get()) == 200
    assert shown == [((("commonName", "other"),),)]


@live
async def test_tunnel_over_tls(tmp_path: Path, seals: Seals) -> None:
    async def answer(_: Origin, __: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly")
        while piece := await reader.read(100):
            writer.write(piece[::-1])
            await writer.drain()

    async with running(tmp_path, seals.origin(answer), upstream=seals.known) as proxy:
        reader, writer = await proxy.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(5) == b"early"
        for word in (b"one", b"three"):
            writer.write(word)
            assert await reader.readexactly(len(word)) == word[::-1]
        writer.close()


# PROXY


async def told(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An answer with what the connection began with."""
    first = bytes(origin.received).split(b"GET ", 1)[0]
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(first), first))


@live
async def test_proxy_header_names_the_client_and_serves_it_alone(tmp_path: Path) -> None:
    origin = Origin(named)
    async with running(tmp_path, origin, upstream="    proxy_protocol: v1") as proxy:
        streams = [await proxy.connect() for _ in range(2)]
        ports = [writer.get_extra_info("sockname")[1] for _, writer in streams]
        for _ in range(3):
            for reader, writer in streams:
                writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                head, body = await one_answer(reader)
                assert (status_of(head), body) == (200, b"origin")
        for _, writer in streams:
            writer.close()
        assert origin.connections == 2
        said = [b"PROXY TCP4 127.0.0.1 127.0.0.1 %d %d\r\n" % (port, proxy.port) for port in ports]
        assert [bytes(origin.received).count(line) for line in said] == [1, 1]


@live
async def test_proxy_header_is_that_of_each_client_behind_a_trusted_proxy(tmp_path: Path) -> None:
    origin = Origin(named)
    async with running(tmp_path, origin, upstream="    proxy_protocol: v1", listener=TRUSTED) as proxy:
        reader, writer = await proxy.connect()
        for client in ("192.0.2.1", "192.0.2.2", "192.0.2.2"):
            writer.write(f"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {client}\r\n\r\n".encode())
            await one_answer(reader)
        writer.close()
    lines = [line for line in bytes(origin.received).split(b"\r\n") if line.startswith(b"PROXY")]
    assert [line.split()[2] for line in lines] == [b"192.0.2.1", b"192.0.2.2"]


@live
async def test_proxy_header_of_version_2(tmp_path: Path) -> None:
    async def answer(origin: Origin, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if head == b"\r\n\r\n":  # the signature begins with an empty line
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    origin = Origin(answer)
    async with running(tmp_path, origin, upstream="    proxy_protocol: v2") as proxy:
        assert status_of(await proxy.get()) == 200
        signature, loopback = b"\r\n\r\n\x00\r\nQUIT\n", b"\x7f\x00\x00\x01"
        assert bytes(origin.received).startswith(signature + b"\x21\x11\x00\x0c" + 2 * loopback)


@live
async def test_proxy_header_stands_before_the_handshake(tmp_path: Path, seals: Seals) -> None:
    """A backend that takes it off, and then speaks TLS."""
    origin = seals.origin()
    await origin.start()
    seen = bytearray()

    async def before(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.extend(await reader.readuntil(b"\r\n"))
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", origin.port)

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while piece := await source.read(65536):
                target.write(piece)
            target.close()

        async with asyncio.TaskGroup() as group:
            group.create_task(copy(reader, far_writer))
            group.create_task(copy(far_reader, writer))

    server = await asyncio.start_server(before, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with running(tmp_path, port, upstream=seals.known + "\n    proxy_protocol: v1") as proxy:
        assert (await proxy.get()).endswith(b"origin")
    server.close()
    await origin.stop()
    assert seen.startswith(b"PROXY TCP4 127.0.0.1 127.0.0.1 ")


# DSCP


@live
async def test_packets_to_backends_have_their_mark(tmp_path: Path) -> None:
    async with running(tmp_path, Origin(named), upstream="    dscp: AF41") as proxy:
        reader, writer = await proxy.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await one_answer(reader)
        link = proxy.server.proxy.snapshot.upstreams["up"].backends["b0"].pool.take()
        assert link is not None
        assert link.transport is not None
        wire = link.transport.get_extra_info("socket")
        assert wire.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) >> 2 == 34
        link.abort()
        writer.close()


@pytest.mark.parametrize(("text", "code"), [("EF", 46), ("cs3", 24), (0, 0), (63, 63), ("AF11", 10), ("LE", 1)])
def test_code_points(text: object, code: int) -> None:
    assert dscp_of(text) == code


# what is wrong


def problems(path: Path, upstream: str) -> list[str]:
    path.write_text(config_text(8080, 8000, upstream=f"    {upstream}"))
    with pytest.raises(InvalidConfigError) as caught:
        load_file(str(path))
    return caught.value.lines()


@pytest.mark.parametrize(
    ("upstream", "said"),
    [
        ("tls: {ca: /nowhere.pem}", "upstreams.up.tls.ca: /nowhere.pem is not there"),
        ("tls: {certificate: /x.pem}", "upstreams.up.tls.certificate: certificate without key"),
        ("tls: {verify: false, ca: /etc/x.pem}", "upstreams.up.tls.ca: nothing is verified"),
        ("tls: {name: 'a b'}", "upstreams.up.tls.name: 'a b' is no name of a server"),
        ("dscp: AF99", "upstreams.up.dscp: 'AF99' is no code point"),
        ("dscp: 64", "upstreams.up.dscp: 64 is no code point"),
        ("proxy_protocol: v3", "upstreams.up.proxy_protocol"),
    ],
)
def test_what_is_wrong_is_told_of_its_key(tmp_path: Path, upstream: str, said: str) -> None:
    lines = problems(tmp_path / "l7proxy.yaml", upstream)
    assert any(said in line for line in lines), lines
    assert "l7proxy.yaml:9:" in lines[0]


def test_authorities_that_are_none_are_told(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    lines = problems(tmp_path / "l7proxy.yaml", f"tls: {{ca: {tmp_path}/ca.pem}}")
    assert "holds no certificate in PEM" in lines[0]


def test_tls_is_said_in_a_word(tmp_path: Path) -> None:
    config: Config = load_config(config_text(8080, 8000, upstream="    tls: true"), "x")
    assert config.upstreams["up"].tls is not None


@live
async def test_failure_says_why_in_the_log(tmp_path: Path, seals: Seals, capfd: pytest.CaptureFixture[str]) -> None:
    logged = Logged(capfd)
    tls = f"    tls: {{ca: {seals.certificate}, name: elsewhere.example}}"
    async with running(tmp_path, seals.origin(), upstream=tls, access_log="json") as proxy:
        assert status_of(await proxy.get()) == 502
    assert logged.statuses() == [502]
    assert '"cause": "tls_certificate"' in logged.text or '"cause":"tls_certificate"' in logged.text
