"""Which of the service manager's sockets is whose, with real ones."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path

import pytest

from director.kit.errors import HostError
from director.kit.net import Endpoint
from director.kit.service import Handed, ServiceManager
from l7proxy.handed import HandedSockets
from l7proxy.http.listening import listen
from l7proxy.listeners import open_at

pytestmark = pytest.mark.unit

Make = Callable[..., tuple[Handed, Endpoint]]


@pytest.fixture
def bound() -> Iterator[Make]:
    """A listening socket at a free port (`port` 0), and its endpoint."""
    with ExitStack() as stack:

        def make(address: str, port: int = 0, *, is_for_both: bool = False) -> tuple[Handed, Endpoint]:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            made = stack.enter_context(socket.create_server((address, port), family=family, dualstack_ipv6=is_for_both))
            return Handed(made.fileno(), "l7proxy"), Endpoint(ip_address(address), made.getsockname()[1])

        yield make


def test_what_is_lent_is_a_copy_and_the_socket_stays(bound: Make) -> None:
    for address in ("127.0.0.1", "0.0.0.0", "::1", "::"):
        handed, at = bound(address)
        sockets = HandedSockets([handed])
        assert at in sockets
        for _ in range(2):
            copy = sockets.lend(at)
            assert copy is not None
            assert not copy.getblocking()
            assert copy.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            copy.close()
        with socket.create_connection(("::1" if at.address.version == 6 else "127.0.0.1", at.port)):
            pass


def test_an_address_that_was_not_handed_is_bound_here(bound: Make) -> None:
    handed, at = bound("127.0.0.1")
    other = Endpoint(ip_address("127.0.0.2"), at.port)
    opened = open_at([at, other], {}, HandedSockets([handed]))
    assert [opened[each].getsockname() for each in (at, other)] == [("127.0.0.1", at.port), ("127.0.0.2", at.port)]
    for each in opened.values():
        each.close()


def test_a_socket_for_both_families_is_nobodys_and_says_what_to_write(
    bound: Make, caplog: pytest.LogCaptureFixture
) -> None:
    handed, at = bound("::", is_for_both=True)
    sockets = HandedSockets([handed])
    assert at not in sockets
    for address in ("::", "0.0.0.0", "127.0.0.1"):
        wanted = Endpoint(ip_address(address), at.port)
        with pytest.raises(HostError, match="BindIPv6Only=ipv6-only") as told:
            sockets.lend(wanted)
        assert f"`ListenStream={wanted}`" in str(told.value)
    with caplog.at_level(logging.WARNING):
        sockets.tell([at])
    assert "it takes IPv4 too" in caplog.records[0].__dict__["reason"]


def test_an_address_within_one_that_was_handed_is_refused(bound: Make) -> None:
    handed, at = bound("0.0.0.0")
    with pytest.raises(HostError, match="which covers it; write the same address"):
        HandedSockets([handed]).lend(Endpoint(ip_address("127.0.0.1"), at.port))


def test_what_nobody_wants_is_told_once_while_that_is_so(
    bound: Make, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    handed, at = bound("127.0.0.1")
    file = os.open(tmp_path, os.O_RDONLY)
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(tmp_path / "s"))
    sockets = HandedSockets([handed, handed, Handed(file, "folder"), Handed(unix.fileno(), "unix")])
    with caplog.at_level(logging.WARNING):
        sockets.tell([at])
        assert len(caplog.records) == 3
        sockets.tell([])
        sockets.tell([])
        assert len(caplog.records) == 4
        sockets.tell([at])
        sockets.tell([])
    told = {record.__dict__["socket"]: record.__dict__["reason"] for record in caplog.records}
    assert len(caplog.records) == 5
    assert f"remove `ListenStream={at}` from l7proxy.socket" in told[str(at)]
    assert "there is another one" in told[f"l7proxy (descriptor {handed.descriptor})"]
    assert "it is no socket" in told[f"folder (descriptor {file})"]
    assert "an address of IP" in told[f"unix (descriptor {unix.fileno()})"]
    os.close(file)
    unix.close()


def test_who_may_not_bind_is_told_the_line_of_the_unit() -> None:
    first_free = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if first_free < 3:
        pytest.skip("every port is free to everybody here (ip_unprivileged_port_start)")
    reads, writes = os.pipe()
    if not (child := os.fork()):
        said = "nothing"
        try:
            if os.getuid() == 0:
                os.setuid(65534)
            listen(Endpoint(ip_address("127.0.0.1"), 2))
        except HostError as error:
            said = str(error)
        finally:
            os.write(writes, said.encode())
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writes)
    with os.fdopen(reads) as stream:
        said = stream.read()
    assert said.startswith("127.0.0.1:2 may not be bound by this user")
    assert "`ListenStream=127.0.0.1:2` in l7proxy.socket" in said


def test_variables_of_a_program_that_follows_are_those_of_this_one(tmp_path: Path) -> None:
    given = {"NOTIFY_SOCKET": str(tmp_path / "n"), "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": str(os.getpid())}
    assert ServiceManager(dict(given)).variables == given
    # Sockets of another process are not ours to hand on.
    assert ServiceManager({**given, "LISTEN_PID": "1", "LISTEN_FDS": "1"}).variables == given
