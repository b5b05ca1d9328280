"""Under a service manager: the sockets that it hands over, what it is told, and what a restart does to clients."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest

from tests.wire.managed import Clients, Managed, listening
from tests.wire.outside import Back, until, upstreams

pytestmark = pytest.mark.unit


def settings(back: Back, more: str = "") -> str:
    return f"routes: [{{upstream: app}}]\n{upstreams({'app': [back]})}timeouts: {{drain: 5s}}\n{more}"


def port_of(bound: socket.socket) -> int:
    port = bound.getsockname()[1]
    assert isinstance(port, int)
    return port


def test_a_restart_refuses_nobody_and_keeps_who_queues(tmp_path: Path) -> None:
    back = Back()
    with listening() as bound, Clients(port_of(bound)) as clients:
        for turn in ("first", "second"):
            with Managed(tmp_path / turn, settings(back), port=port_of(bound), handed=[bound]) as proxy:
                clients.more()
                proxy.stop()
        with socket.create_connection(("127.0.0.1", port_of(bound))) as queued:
            queued.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            with Managed(tmp_path / "third", settings(back), port=port_of(bound), handed=[bound]):
                assert queued.recv(99).startswith(b"HTTP/1.1 200")
                clients.more()
                clients.end()
    assert not clients.failures


def test_without_the_socket_a_restart_refuses(tmp_path: Path) -> None:
    """What the test above would see, were the socket not handed over."""
    back = Back()
    with Managed(tmp_path / "first", settings(back)) as first, Clients(first.port) as clients:
        clients.more()
        first.stop()
        with Managed(tmp_path / "second", settings(back), port=first.port):
            clients.more()
            clients.end()
    assert clients.failures["ConnectionRefusedError"]


def test_workers_and_the_next_program_have_it_too(tmp_path: Path) -> None:
    """One process becomes another program, which has a worker; then there are two; then comes a restart."""
    back = Back()
    with listening() as bound, Clients(port_of(bound)) as clients:
        with Managed(tmp_path / "first", settings(back), port=port_of(bound), handed=[bound]) as first:
            pid = first.process.pid
            clients.more()
            first.process.send_signal(signal.SIGUSR2)
            until(lambda: "INFO l7proxy took over" in first.said)
            clients.more()
            first.reload(settings(back, "workers: 2\n"))
            assert len(first.workers()) == 2
            clients.more()
            first.stop()
            manager = first.manager
            manager.listen()
            assert {said_by for _, said_by, _ in manager.heard} == {pid}, "nobody else speaks in its name"
            # The first RELOADING ends twice: when a worker serves too, and when the next program looks after that.
            assert manager.told == ["READY", "RELOADING", "READY", "READY", "RELOADING", "READY", "STOPPING"]
        with Managed(tmp_path / "second", settings(back), port=port_of(bound), handed=[bound]):
            clients.more()
            clients.end()
    assert not clients.failures
