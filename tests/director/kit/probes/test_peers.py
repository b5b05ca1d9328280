"""Peers that are no servers: each type of check against each of them, over real connections."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from director.kit.checks.agent import AgentProbe
from director.kit.checks.base import Tls
from director.kit.checks.check import Probe
from director.kit.checks.http import HttpProbe
from director.kit.checks.mail import MailProbe, MailProtocol
from director.kit.checks.mysql import MysqlProbe
from director.kit.checks.postgresql import PostgresqlProbe
from director.kit.checks.redis import RedisProbe
from director.kit.checks.tcp import TcpProbe
from tests.director.kit.probes.asking import ask
from tests.director.kit.probes.servers import free_ports

pytestmark = pytest.mark.unit

SMTP, IMAP, POP3 = MailProtocol
TLS = Tls(verify=False)
PROBES: dict[str, Probe] = {
    "tcp": TcpProbe(send=b"PING\r\n", pattern="PONG"),
    "tls": TcpProbe(TLS),
    "http": HttpProbe(),
    "https": HttpProbe(TLS),
    "smtp": MailProbe(SMTP),
    "imap": MailProbe(IMAP, TLS, True),
    "pop3": MailProbe(POP3),
    "redis": RedisProbe(),
    "postgresql": PostgresqlProbe(),
    "postgresql tls": PostgresqlProbe(TLS),
    "mysql": MysqlProbe(),
    "agent": AgentProbe(),
}
Answer = Callable[[socket.socket], object]


@contextlib.contextmanager
def _peer(answer: Answer) -> Iterator[int]:
    """A port where each connection is given to `answer`, and closed after it."""
    stack = contextlib.ExitStack()
    with socket.create_server(("127.0.0.1", 0)) as server, stack:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    connection.settimeout(5)
                    with connection, contextlib.suppress(OSError):
                        answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield int(server.getsockname()[1])
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(10)
            assert not thread.is_alive()


def _hangs(connection: socket.socket) -> None:
    while connection.recv(4096):
        pass


def _talks_nonsense(connection: socket.socket) -> None:
    connection.sendall(b"\x00\x01\x1b[31m nonsense \xff\r\n" * 10)
    _hangs(connection)


def _floods(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"x" * 65536)


def _drips(connection: socket.socket) -> None:
    connection.settimeout(0.01)
    while True:
        connection.send(b"2")
        with contextlib.suppress(TimeoutError):
            if not connection.recv(4096):
                return


@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize(
    ("answer", "reasons"),
    [
        (_talks_nonsense, ()),
        (_floods, ()),
        (_hangs, ("no answer within 200ms",)),
        (_drips, ("no answer within 200ms", "TLS: ", "it begins with '2", "the answer is not PostgreSQL")),
        (
            lambda _: None,
            ("connection closed before ", "connection closed during ", "connection reset by peer", "TLS: "),
        ),
    ],
    ids=["nonsense", "flood", "hang", "drip", "close"],
)
def test_peer_that_is_no_server_fails_in_time(name: str, answer: Answer, reasons: tuple[str, ...]) -> None:
    with _peer(answer) as port:
        result = ask(port, PROBES[name], timeout_s=0.2)
    assert not result.ok
    assert result.duration_s < 1
    assert result.reason.isprintable()
    assert len(result.reason) < 300
    assert len(result.output) <= 256
    assert not reasons or any(reason in result.reason for reason in reasons)


@pytest.mark.parametrize("name", PROBES)
def test_port_that_nobody_listens_on_refuses(name: str) -> None:
    result = ask(free_ports(1)[0], PROBES[name])
    assert (result.ok, result.reason) == (False, "connection refused")


@pytest.mark.parametrize("name", PROBES)
def test_black_hole_ends_with_the_timeout(name: str) -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(3):  # a full backlog: the kernel drops what comes
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        result = ask(server.getsockname()[1], PROBES[name], timeout_s=0.1)
    assert (result.ok, result.reason) == (False, "no answer within 100ms")
