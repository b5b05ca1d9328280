"""The tcp probe, and what is the servers' fault and what is this host's."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import socket
import ssl
import subprocess
import sys
import time
from ipaddress import ip_address

import pytest

from director.kit.checks.base import Route
from director.kit.checks.check import Check
from director.kit.checks.tcp import TcpProbe
from director.kit.errors import ProbeError
from director.kit.net import Endpoint
from director.kit.probes.attempt import Outcome
from director.kit.probes.failures import describe_os_error
from director.kit.probes.run import run_check
from director.kit.probes.tcp import TCP
from director.kit.probes.wire import Engine
from tests.director.kit.engine.peers import a_check, descriptors, free_port, full_backlog

pytestmark = pytest.mark.unit


def test_connection_that_is_accepted_is_good(runner: asyncio.Runner) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        result = runner.run(run_check(a_check(server.getsockname()[1])))
    assert (result.ok, result.reason, result.errno) == (True, "connected", 0)
    assert 0 < result.duration_s < 5


def test_port_without_a_listener_fails(runner: asyncio.Runner) -> None:
    result = runner.run(run_check(a_check(free_port())))
    assert (result.ok, result.reason, result.errno) == (False, "connection refused", errno.ECONNREFUSED)


def test_ipv6() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        target = Endpoint(ip_address("::1"), server.getsockname()[1])
        assert asyncio.run(run_check(Check(target, TcpProbe()))).ok


def test_black_hole_ends_with_the_timeout(runner: asyncio.Runner) -> None:
    with full_backlog() as port:
        before = descriptors()
        result = runner.run(run_check(a_check(port, 0.1)))
        assert (result.ok, result.reason, result.errno) == (False, "no answer within 100ms", errno.ETIMEDOUT)
        assert 0.09 <= result.duration_s < 2
        assert descriptors() <= before


def test_connection_ends_with_a_reset() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert asyncio.run(run_check(a_check(server.getsockname()[1]))).ok
        connection, _ = server.accept()
        with connection, pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_want_of_descriptors_is_not_the_servers_fault() -> None:
    outcomes: list[Outcome] = []

    async def story(port: int) -> None:
        engine = Engine()
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))), limits[1]))  # noqa: PTH208
        held = []
        try:
            with contextlib.suppress(OSError):
                while True:
                    held.append(socket.socket())
            engine.begin(a_check(port), TCP, None, lambda outcome, _: outcomes.append(outcome))
            await asyncio.sleep(0.01)
            with pytest.raises(ProbeError, match="too many open files on this host: raise its limit of open files"):
                await run_check(a_check(port))
        finally:
            for each in held:
                each.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            engine.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        asyncio.run(story(server.getsockname()[1]))
    [outcome] = outcomes
    assert isinstance(outcome, ProbeError)
    assert str(outcome).startswith("too many open files on this host: raise its limit of open files")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can have a network namespace of its own")
@pytest.mark.parametrize("lacking", ["ports", "addresses", "a listener"])
def test_kernel_is_asked_what_it_lacks(lacking: str) -> None:
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
held, port = [], 80
if sys.argv[1] == "ports":
    Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("40000 40001")
    held = [socket.create_server(("127.0.0.1", 80))]
    try:
        while True:
            held.append(socket.create_connection(("127.0.0.1", 80)))
    except OSError:
        target = "127.0.0.1"
elif sys.argv[1] == "a listener":  # the one port that is left is the one that is asked for
    Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("40000 40000")
    target, port = "127.0.0.1", 40000
else:
    for command in ("-6 addr flush dev lo", "tuntap add t0 mode tun", "link set t0 up", "-6 addr flush dev t0",
                    "-6 route add 2001:db8::/32 dev t0"):
        subprocess.run(["ip", *command.split()], check=True)
    target = "2001:db8::1"
try:
    print(asyncio.run(run_check(Check(Endpoint(ip_address(target), port), TcpProbe()))).reason)
except ProbeError as error:
    print("ours:", error)
if port == 40000:  # another program's connection meets itself
    with socket.create_connection((target, port)) as meets:
        print(meets.getsockname() == meets.getpeername())
"""
    made = subprocess.run([sys.executable, "-c", script, lacking], check=False, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"this host gives no such namespace: {made.stderr.strip()[-200:]}")
    if lacking == "ports":
        assert made.stdout.startswith("ours: cannot assign requested address on this host: no local port is left")
    elif lacking == "a listener":
        assert made.stdout == "connection refused\nTrue\n"
    else:
        assert made.stdout.startswith("cannot assign requested address: this host has no address")


def test_probes_leave_from_their_source_address(runner: asyncio.Runner) -> None:
    """Also where their sockets are used again, one source after the other."""
    seen: list[str] = []

    async def story(server: socket.socket) -> None:
        engine = Engine()
        for n in (2, 3, 0, 2, 3, 0):
            over = asyncio.Event()
            route = Route(ip_address(f"127.0.0.{n}") if n else None)
            check = a_check(server.getsockname()[1], route=route)
            engine.begin(check, TCP, None, lambda *_, over=over: over.set())
            await asyncio.wait_for(over.wait(), 5)
            peer, (address, _) = server.accept()
            peer.close()
            seen.append(address)
        engine.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        runner.run(story(server))
    assert seen == ["127.0.0.2", "127.0.0.3", "127.0.0.1"] * 2


def test_source_address_that_is_not_here_is_not_the_servers_fault() -> None:
    with pytest.raises(ProbeError, match=r"source address 192\.0\.2\.77 of probes is not on this host: add it"):
        asyncio.run(run_check(a_check(80, route=Route(ip_address("192.0.2.77")))))


_MARKED = """
import asyncio, os, socket, sys
from ipaddress import ip_address
from director.kit.checks.base import Route
from director.kit.checks.check import Check
from director.kit.checks.tcp import TcpProbe
from director.kit.errors import ProbeError
from director.kit.net import Endpoint
from director.kit.probes.tcp import TCP
from director.kit.probes.wire import Engine
from director.kit.rights import with_capability
if sys.argv[1] == "nobody":
    os.setgid(65534)
    os.setuid(65534)
async def story(port):
    over, engine = asyncio.Event(), Engine()
    def done(outcome, now):
        print(outcome if isinstance(outcome, ProbeError) else outcome.reason)
        over.set()
    check = Check(Endpoint(ip_address("127.0.0.1"), port), TcpProbe(), route=Route(mark=77))
    attempt = engine.begin(check, TCP, None, done)
    if sys.argv[1] == "root":
        print(attempt.peer.getsockopt(socket.SOL_SOCKET, socket.SO_MARK))
    await over.wait()
    engine.close()
with socket.create_server(("127.0.0.1", 0)) as server:
    asyncio.run(story(server.getsockname()[1]))
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mark packets")
@pytest.mark.parametrize(
    ("who", "said"),
    [
        ("root", "77\nconnected"),
        (
            "nobody",
            "firewall mark 77 cannot be set on probes: run as root, or with CAP_NET_ADMIN (in a systemd unit "
            "AmbientCapabilities= and CapabilityBoundingSet=)",
        ),
    ],
)
def test_mark_is_set_or_its_want_is_told(who: str, said: str) -> None:
    made = subprocess.run([sys.executable, "-c", _MARKED, who], check=False, capture_output=True, text=True)
    if "nobody" in who and "Permission" in made.stderr:
        pytest.skip("this checkout can be read by its owner only")
    assert made.stdout.strip() == said, made.stderr


def test_probes_are_cheap() -> None:
    """5,000 servers each second leave most of a core idle; a loose bound against a regression."""
    cpu_s = 0.0

    async def story(port: int) -> None:
        nonlocal cpu_s
        engine = Engine()
        check = a_check(port)
        for turn in range(11):
            over = asyncio.Event()
            left = 20

            def done(*_: object, over: asyncio.Event = over) -> None:
                nonlocal left
                left -= 1
                if not left:
                    over.set()

            if turn == 1:
                cpu_s = time.process_time()
            for _ in range(left):
                engine.begin(check, TCP, None, done)
            await over.wait()
        cpu_s = time.process_time() - cpu_s
        engine.close()

    with socket.create_server(("127.0.0.1", 0), backlog=1000) as server:
        asyncio.run(story(server.getsockname()[1]))
    assert cpu_s / 200 < 0.0003


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
