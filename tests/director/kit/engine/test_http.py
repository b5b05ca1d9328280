"""HTTP probes against real servers on the loopback address, good and hostile."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import resource
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from pathlib import Path

import pytest

from director.kit.checks.base import Timing, Tls
from director.kit.checks.check import Check, Probe
from director.kit.checks.http import HttpProbe
from director.kit.checks.tcp import TcpProbe
from director.kit.health import ProbeResult
from director.kit.net import Endpoint
from director.kit.probes.run import run_check
from director.kit.probes.tls import forget_contexts
from tests.director.kit.engine.peers import LOOPBACK, descriptors, free_port

pytestmark = pytest.mark.unit

Answer = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\n"


def _run(story: Coroutine[None, None, ProbeResult]) -> ProbeResult:
    return asyncio.run(story)


@contextlib.asynccontextmanager
async def _serving(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server on a free port; `answer` gets each request's head and writes what it likes."""

    exchanges: set[asyncio.Task[object]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        exchanges.add(task)
        # Cancelled is how an endless answer ends.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await answer(await reader.readuntil(b"\r\n\r\n"), writer)
            await writer.drain()
        writer.close()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await writer.wait_closed()
        writer.transport.abort()
        exchanges.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.sleep(0)
        while exchanges:
            for task in exchanges:
                task.cancel()
            await asyncio.wait(exchanges)
        await asyncio.sleep(0)  # aborted transports close in the loop's next turn


def _check(port: int, probe: Probe, timeout_s: float = 5.0) -> Check:
    return Check(Endpoint(LOOPBACK, port), probe, Timing(timeout_s=timeout_s))


def _says(*parts: bytes) -> Answer:
    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)

    return answer


def _repeats(first: bytes, again: bytes) -> Answer:
    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        while True:
            writer.write(again)
            await writer.drain()

    return answer


def _probe_http(answer: Answer, probe: HttpProbe | None = None, timeout_s: float = 5.0) -> ProbeResult:
    async def story() -> ProbeResult:
        async with _serving(answer) as port:
            return await run_check(_check(port, probe or HttpProbe(), timeout_s))

    return _run(story())


# http


@pytest.mark.parametrize(
    ("statuses", "status", "ok"),
    [
        (((200, 399),), b"200", True),
        (((200, 399),), b"302", True),
        (((200, 399),), b"404", False),
        (((200, 200), (404, 404)), b"404", True),
        (((200, 200), (404, 404)), b"201", False),
        (((500, 599),), b"503", True),
        (((200, 399),), b"999", False),
    ],
)
def test_status_is_what_is_expected(statuses: tuple[tuple[int, int], ...], status: bytes, ok: bool) -> None:
    head = b"HTTP/1.1 " + status + b" X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    result = _probe_http(_says(head), HttpProbe(statuses=statuses))
    assert result.ok is ok
    expected = ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in statuses)
    assert result.reason == f"status {status.decode()}" + ("" if ok else f", expected {expected}")


def test_request_is_a_plain_get() -> None:
    seen: list[bytes] = []

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        seen.append(head)
        writer.write(OK + b"Set-Cookie: a=b\r\nContent-Length: 0\r\n\r\n")

    async def story() -> ProbeResult:
        async with _serving(answer) as port:
            await run_check(_check(port, HttpProbe(path="/a%20b?c=%2F&d")))
            return await run_check(_check(port, HttpProbe(host="www.example.org:81")))

    assert _run(story()).ok
    first, second = (head.decode().split("\r\n") for head in seen)
    assert first[0] == "GET /a%20b?c=%2F&d HTTP/1.1"
    assert first[1].startswith("Host: 127.0.0.1:")
    assert "Host: www.example.org:81" in second
    names = {line.partition(":")[0] for line in second[1:] if line}
    assert names == {"Host", "User-Agent", "Accept", "Connection"}  # no cookies, no Accept-Encoding


@pytest.mark.parametrize(
    ("answer", "pattern", "ok"),
    [
        (_says(OK + b"Content-Length: 6\r\n\r\nall ok"), "ok$", True),
        (_says(OK + b"Content-Length: 6\r\n\r\nall ok"), "^ok", False),
        (_says(OK + "Content-Length: 2\r\n\r\nä".encode()), "ä", True),
        (_says(OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n"), "ok", True),
        (_says(b"HTTP/1.0 200 OK\r\n\r\nuntil the end: ok"), "ok", True),
        (_says(OK + b"\r\n" + b"x" * 65_534 + b"ok"), "ok", True),
        (_says(OK + b"\r\n" + b"x" * 65_535 + b"ok"), "ok", False),
        (_says(OK + b"Content-Length: 0\r\n\r\n"), "ok", False),
        (_says(OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"ok")), "ok", False),
        (_says(OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"ok")), r"^\x1f", True),
        (_says(OK + b"Content-Encoding: gzip\r\n\r\nok"), "ok", True),
        (_repeats(OK + b"\r\nok", b"x" * 65_536), "^ok", True),
        (_repeats(OK + b"\r\n", b"x" * 65_536), "ok", False),
    ],
)
def test_first_64_kib_of_the_body_decide(answer: Answer, pattern: str, ok: bool) -> None:
    result = _probe_http(answer, HttpProbe(body=pattern))
    assert result.ok is ok
    assert result.reason == (
        "status 200, body matches" if ok else f"status 200, but the body does not match {pattern!r}"
    )


@pytest.mark.parametrize("pattern", ["<.*status.*>ok", "(<+)+ok", "(.*)*(.*)*>ok"])
def test_no_body_holds_the_loop(pattern: str) -> None:
    started = time.process_time()
    body = b"<" * 65_536
    result = _probe_http(_says(OK + b"Content-Length: %d\r\n\r\n" % len(body), body), HttpProbe(body=pattern))
    assert result.reason == f"status 200, but the body does not match {pattern!r}"
    assert time.process_time() - started < 0.5


def test_large_headers_are_headers() -> None:
    """As large as the proxy lets pass."""
    large = b"Content-Security-Policy: " + b"x" * 60_000 + b"\r\n"
    assert _probe_http(_says(OK + large + b"Content-Length: 0\r\n\r\n")).reason == "status 200"
    assert _probe_http(_says(b"HTTP/1.1 200 " + b"x" * 60_000 + b"\r\nContent-Length: 0\r\n\r\n")).ok


def test_body_without_a_pattern_is_not_waited_for() -> None:
    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"Content-Length: 10\r\n\r\n")
        await writer.drain()
        await asyncio.Event().wait()

    assert _probe_http(answer).ok


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (_says(), "connection closed before an answer"),
        (_says(b"SSH-2.0-OpenSSH_9.2\r\n"), "not an HTTP answer: "),
        (_says(b"\x00\xff\x1b[31m\r\n\r\n"), "not an HTTP answer: "),
        (_says(b"ok\n"), "not an HTTP answer: "),
        (_says(b"HTTP/2 200\r\n\r\n"), "not an HTTP answer: "),
        (_says(OK + b"Content-Length: x\r\n\r\n"), "not an HTTP answer: "),
        (_says(OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n"), "not an HTTP answer: "),
        (_says(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), "status 101, expected 200-399"),
        (_repeats(OK + b"X: ", b"x" * 65_536), "not an HTTP answer: "),
        (_repeats(b"HTTP/1.1 200 ", b"x" * 65_536), "not an HTTP answer: "),
    ],
)
def test_what_is_no_answer_fails_with_a_reason(answer: Answer, reason: str) -> None:
    result = _probe_http(answer)
    assert not result.ok
    assert result.reason.startswith(reason)
    assert len(result.reason) < 200
    assert result.reason.isprintable()


def test_body_that_breaks_off_fails() -> None:
    result = _probe_http(_says(OK + b"Content-Length: 9\r\n\r\nok"), HttpProbe(body="ok"))
    assert not result.ok
    assert result.reason.startswith("the answer broke off: not enough data")


def test_connection_that_is_reset_fails() -> None:
    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    result = _probe_http(answer)
    assert (result.ok, result.reason) == (False, "connection reset by peer")


def test_informational_answers_are_skipped() -> None:
    informational = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    assert _probe_http(_says(informational, OK + b"Content-Length: 0\r\n\r\n")).reason == "status 200"


def test_slow_drip_ends_with_the_timeout() -> None:
    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        for byte in OK * 1000:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.02)

    result = _probe_http(answer, timeout_s=0.2)
    assert (result.ok, result.reason) == (False, "no answer within 200ms")
    assert result.duration_s < 2


HEADERS = b"".join(b"X-%d: %s\r\n" % (n, b"x" * 1000) for n in range(100))


@pytest.mark.parametrize(
    "answer",
    [
        _repeats(OK, HEADERS),
        _repeats(OK, b"X: " + b"x" * 65_000 + b"\r\n"),
        _repeats(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
        _repeats(b"", b"HTTP/1.1 103 Early Hints\r\n" + HEADERS[:20_000] + b"\r\n"),
        _repeats(OK + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x" * 65_536),
        _repeats(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 10_000),
        _repeats(OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n", b"X: xxxxxxxxxxxxxxxxxxxxxxx\r\n" * 1000),
    ],
    ids=["headers", "large headers", "100", "103", "chunk extension", "tiny chunks", "trailers"],
)
def test_endless_answer_costs_bounded_time_and_memory(answer: Answer) -> None:
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = _probe_http(answer, HttpProbe(body="never"), timeout_s=0.3)
    assert not result.ok
    assert result.duration_s < 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 64 * 1024


def test_environment_plays_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("all_proxy", "http://127.0.0.1:1")
    assert _probe_http(_says(OK + b"Content-Length: 0\r\n\r\n")).ok


# https


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate of www.example.org and 127.0.0.1, with its key."""
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    key = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-keyout",
        str(path),
        "-out",
        f"{path}.crt",
    ]
    names = ["-subj", "/CN=server", "-addext", "subjectAltName=DNS:www.example.org,IP:127.0.0.1"]
    subprocess.run(["openssl", "req", "-x509", "-days", "2", *key, *names], check=True, capture_output=True)
    with path.open("a") as file:
        file.write(Path(f"{path}.crt").read_text())
    return path


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
    forget_contexts()
    yield
    forget_contexts()


def _probe_https(certificate: Path, probe: HttpProbe, names: list[str | None] | None = None) -> ProbeResult:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def remember(_socket: object, name: str | None, _context: object) -> None:
        if names is not None:
            names.append(name)

    context.sni_callback = remember

    async def story() -> ProbeResult:
        async with _serving(_says(OK + b"Content-Length: 2\r\n\r\nok"), context) as port:
            return await run_check(_check(port, probe))

    return _run(story())


def test_certificate_that_nobody_vouches_for_fails(certificate: Path) -> None:
    result = _probe_https(certificate, HttpProbe(Tls()))
    assert (result.ok, result.reason) == (False, "certificate: self-signed certificate")


def test_certificate_does_not_matter_without_verification(certificate: Path) -> None:
    result = _probe_https(
        certificate, HttpProbe(Tls(verify=False, server_name="other.example"), host="other.example", body="ok")
    )
    assert (result.ok, result.reason) == (True, "status 200, body matches")


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize(
    ("probe", "asked"),
    [
        (HttpProbe(Tls()), None),
        (HttpProbe(Tls(server_name="www.example.org")), "www.example.org"),
    ],
)
def test_name_is_asked_for_and_verified(certificate: Path, probe: HttpProbe, asked: str | None) -> None:
    names: list[str | None] = []
    result = _probe_https(certificate, probe, names)
    assert (result.ok, result.reason) == (True, "status 200")
    assert names == [asked]


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize(
    ("probe", "name"),
    [
        (HttpProbe(Tls(server_name="other.example")), "'other.example'"),
        (HttpProbe(Tls(server_name="::1")), "'::1'"),
    ],
)
def test_certificate_of_another_name_fails(certificate: Path, probe: HttpProbe, name: str) -> None:
    result = _probe_https(certificate, probe)
    assert not result.ok
    assert result.reason.startswith("certificate: ")
    assert "mismatch" in result.reason
    assert name in result.reason


def test_server_without_tls_fails_with_a_reason() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def story() -> ProbeResult:
        async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
            return await run_check(_check(server.sockets[0].getsockname()[1], HttpProbe(Tls(verify=False))))

    result = _run(story())
    assert (result.ok, result.reason) == (False, "TLS: wrong version number")


def test_client_that_lacks_a_certificate_is_told_so(certificate: Path) -> None:
    """With TLS 1.3 the server's refusal comes when the answer is read."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(f"{certificate}.crt")

    async def story() -> ProbeResult:
        async with _serving(_says(OK + b"\r\n"), context) as port:
            return await run_check(_check(port, HttpProbe(Tls(verify=False))))

    result = _run(story())
    assert not result.ok
    assert result.reason in {"TLS: tlsv13 alert certificate required", "connection closed before an answer"}


# All of them


@pytest.mark.parametrize("kind", ["tcp", "refused", "http", "https", "untrusted"])
def test_two_hundred_probes_leave_nothing_open(runner: asyncio.Runner, kind: str, certificate: Path) -> None:
    tls = None
    if kind in {"https", "untrusted"}:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
    probe = TcpProbe() if kind in {"tcp", "refused"} else HttpProbe(Tls(verify=kind == "untrusted") if tls else None)

    async def story() -> None:
        runner.get_loop().set_exception_handler(lambda *_: None)  # a handshake that the client ends is no news here
        async with _serving(_says(OK + b"Content-Length: 0\r\n\r\n"), tls) as port:
            check = _check(free_port() if kind == "refused" else port, probe)
            await run_check(check)
            await _until_quiet()
            before = descriptors()
            for _ in range(10):
                results = await asyncio.gather(*(run_check(check) for _ in range(20)))
                assert {result.ok for result in results} == {kind not in {"refused", "untrusted"}}
            await _until_quiet()
            assert descriptors() <= before
            assert len(asyncio.all_tasks()) == 1

    async def _until_quiet() -> None:
        """Until the server has seen that its clients are gone."""
        async with asyncio.timeout(5):
            while len(asyncio.all_tasks()) > 1 or descriptors() > quiet:  # noqa: ASYNC110 -- no event tells of it
                await asyncio.sleep(0.005)

    async def _count() -> int:
        async with _serving(_says(), tls):
            return descriptors()

    quiet = runner.run(_count())
    runner.run(story())
