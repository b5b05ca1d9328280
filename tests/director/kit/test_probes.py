"""Probes against real servers on the loopback address, good and hostile."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import gzip
import os
import resource
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
import uvloop

from director.kit.checks.base import Timing, Tls
from director.kit.checks.check import Check, Probe
from director.kit.checks.http import HttpProbe
from director.kit.checks.tcp import TcpProbe
from director.kit.errors import ProbeError
from director.kit.health import ProbeResult
from director.kit.net import Endpoint
from director.kit.probes.failures import describe_os_error
from director.kit.probes.run import run_check
from director.kit.probes.tls import forget_contexts

pytestmark = pytest.mark.unit

LOOPBACK = ip_address("127.0.0.1")
Answer = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner


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


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextlib.contextmanager
def _full_backlog() -> Iterator[int]:
    """A listener that accepts nothing more: the kernel drops what comes."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(3):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        yield server.getsockname()[1]


def _descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- a count


# tcp


def test_tcp_accepts(runner: asyncio.Runner) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        result = runner.run(run_check(_check(server.getsockname()[1], TcpProbe())))
    assert (result.ok, result.reason) == (True, "connected")
    assert 0 < result.duration_s < 5


def test_tcp_refused(runner: asyncio.Runner) -> None:
    result = runner.run(run_check(_check(_free_port(), TcpProbe())))
    assert (result.ok, result.reason) == (False, "connection refused")


def test_tcp_ipv6() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        target = Endpoint(ip_address("::1"), server.getsockname()[1])
        assert _run(run_check(Check(target, TcpProbe()))).ok


@pytest.mark.parametrize("probe", [TcpProbe(), HttpProbe(), HttpProbe(Tls())])
def test_black_hole_ends_with_the_timeout(runner: asyncio.Runner, probe: Probe) -> None:
    with _full_backlog() as port:
        before = _descriptors()
        result = runner.run(run_check(_check(port, probe, 0.1)))
        assert (result.ok, result.reason) == (False, "no answer within 100ms")
        assert 0.09 <= result.duration_s < 2
        assert _descriptors() <= before + (1 if isinstance(probe, HttpProbe) else 0)  # the loop's own wake-up


def test_tcp_closes_with_a_reset() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert _run(run_check(_check(server.getsockname()[1], TcpProbe()))).ok
        connection, _ = server.accept()
        with connection, pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_tcp_is_not_fooled_by_a_connection_with_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that is given the port it asks for meets itself; here it is bound to it on purpose."""
    port = _free_port()

    class Bound(socket.socket):
        def setsockopt(self, *arguments: object) -> None:
            super().setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.bind(("127.0.0.1", port))

    with monkeypatch.context() as patch:
        patch.setattr("director.kit.probes.tcp.socket.socket", Bound)
        result = _run(run_check(_check(port, TcpProbe())))
    assert (result.ok, result.reason) == (False, "connection refused")


@pytest.mark.parametrize("probe", [TcpProbe(), HttpProbe()])
def test_want_of_descriptors_is_not_the_servers_fault(probe: Probe) -> None:
    async def story(port: int) -> None:
        check = _check(port, probe)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))), limits[1]))  # noqa: PTH208
        held = []
        try:
            with contextlib.suppress(OSError):
                while True:
                    held.append(socket.socket())
            with pytest.raises(ProbeError, match="too many open files on this host: raise its limit of open files"):
                await run_check(check)
        finally:
            for each in held:
                each.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    with socket.create_server(("127.0.0.1", 0)) as server:
        asyncio.run(story(server.getsockname()[1]))


def _no_local_address(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object) -> None:
        raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")

    monkeypatch.setattr("director.kit.probes.run.probe_tcp", refuse)
    monkeypatch.setattr("director.kit.probes.run.probe_http", refuse)


@pytest.mark.parametrize("probe", [TcpProbe(), HttpProbe()])
def test_want_of_local_ports_is_not_the_servers_fault(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    _no_local_address(monkeypatch)
    with pytest.raises(ProbeError, match=r"on this host: .*: widen net.ipv4.ip_local_port_range"):
        asyncio.run(run_check(_check(80, probe)))


@pytest.mark.parametrize("probe", [TcpProbe(), HttpProbe()])
def test_server_that_no_address_of_this_host_leads_to_fails(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with an IPv6 server where this host has a route to it, but no address of its own."""
    _no_local_address(monkeypatch)

    class Unaddressed(socket.socket):
        def connect(self, _: object) -> None:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")

    with monkeypatch.context() as patch:
        patch.setattr("director.kit.probes.run.socket.socket", Unaddressed)
        result = asyncio.run(run_check(_check(80, probe)))
    reason = "cannot assign requested address: this host has no address to reach it from, give it one"
    assert (result.ok, result.reason) == (False, reason)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can have a network namespace of its own")
@pytest.mark.parametrize("lacking", ["ports", "addresses"])
def test_kernel_is_asked_which_of_both_it_lacks(lacking: str) -> None:
    script = """
import asyncio, ctypes, socket, subprocess, sys
from ipaddress import ip_address
from pathlib import Path
from director.kit.errors import ProbeError
from director.kit.net import Endpoint
from director.kit.probes.run import run_check
from director.kit.probes.tls import forget_contexts
from director.kit.checks.check import Check
from director.kit.checks.tcp import TcpProbe
if ctypes.CDLL(None, use_errno=True).unshare(0x40000000):
    sys.exit(f"no namespace: {ctypes.get_errno()}")
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
held = []
if sys.argv[1] == "ports":
    Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("40000 40001")
    held = [socket.create_server(("127.0.0.1", 80))]
    try:
        while True:
            held.append(socket.create_connection(("127.0.0.1", 80)))
    except OSError:
        target = "127.0.0.1"
else:
    for command in ("-6 addr flush dev lo", "tuntap add t0 mode tun", "link set t0 up", "-6 addr flush dev t0",
                    "-6 route add 2001:db8::/32 dev t0"):
        subprocess.run(["ip", *command.split()], check=True)
    target = "2001:db8::1"
try:
    print(asyncio.run(run_check(Check(Endpoint(ip_address(target), 80), TcpProbe()))).reason)
except ProbeError as error:
    print("ours:", error)
"""
    made = subprocess.run([sys.executable, "-c", script, lacking], check=False, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"this host gives no such namespace: {made.stderr.strip()[-200:]}")
    if lacking == "ports":
        assert made.stdout.startswith("ours: cannot assign requested address on this host: no local port is left")
    else:
        assert made.stdout.startswith("cannot assign requested address: this host has no address")


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
            check = _check(_free_port() if kind == "refused" else port, probe)
            await run_check(check)
            await _until_quiet()
            before = _descriptors()
            for _ in range(10):
                results = await asyncio.gather(*(run_check(check) for _ in range(20)))
                assert {result.ok for result in results} == {kind not in {"refused", "untrusted"}}
            await _until_quiet()
            assert _descriptors() <= before
            assert len(asyncio.all_tasks()) == 1

    async def _until_quiet() -> None:
        """Until the server has seen that its clients are gone."""
        async with asyncio.timeout(5):
            while len(asyncio.all_tasks()) > 1 or _descriptors() > quiet:  # noqa: ASYNC110 -- no event tells of it
                await asyncio.sleep(0.005)

    async def _count() -> int:
        async with _serving(_says(), tls):
            return _descriptors()

    quiet = runner.run(_count())
    runner.run(story())


def test_cancelled_probe_leaves_nothing_open(runner: asyncio.Runner) -> None:
    async def story() -> None:
        with _full_backlog() as port:
            await run_check(_check(port, TcpProbe(), 0.01))
            before = _descriptors()
            for probe in (TcpProbe(), HttpProbe()):
                async with asyncio.TaskGroup() as group:
                    task = group.create_task(run_check(_check(port, probe)))
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                    task.cancel()
                assert task.cancelled()
            assert _descriptors() <= before

    runner.run(story())


def test_probes_are_cheap() -> None:
    """A thousand checks at two-second intervals must leave a core mostly idle; a loose bound against a regression."""

    async def story() -> float:
        with socket.create_server(("127.0.0.1", 0), backlog=200) as server:
            check = _check(server.getsockname()[1], TcpProbe())
            await run_check(check)
            started = time.process_time()
            for _ in range(100):
                await run_check(check)
            return (time.process_time() - started) / 100

    assert asyncio.run(story()) < 0.002


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed"), "connection refused"),
        (OSError(errno.EHOSTUNREACH, "x"), "no route to host"),
        (OSError(errno.ENETUNREACH, "x"), "network is unreachable"),
        (PermissionError(errno.EACCES, "x"), "permission denied"),
        (ConnectionResetError(), "connection reset by peer"),
        (ConnectionResetError("Cannot write to closing transport"), "cannot write to closing transport"),
        (OSError(), "oSError"),
        (socket.gaierror(-2, "Name or service not known"), "[Errno -2] Name or service not known"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)"), "TLS: [ssl: wrong"),
    ],
)
def test_error_is_told_in_the_systems_words(error: OSError, words: str) -> None:
    assert describe_os_error(error).startswith(words)
