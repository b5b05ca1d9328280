"""What a service manager hears, over a real datagram socket."""

import os
import socket
from pathlib import Path

import pytest

from director.kit.service import ServiceManager

pytestmark = pytest.mark.unit


def heard(tmp_path: Path) -> tuple[socket.socket, ServiceManager]:
    path = tmp_path / "notify"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    listener.bind(str(path))
    return listener, ServiceManager({"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "3000000"})


def test_states_are_told_with_one_line_of_status(tmp_path: Path) -> None:
    listener, manager = heard(tmp_path)
    with listener:
        assert manager.is_there
        assert manager.ready("serves\n  2 listeners")
        assert listener.recv(999) == b"READY=1\nSTATUS=serves 2 listeners"
        assert manager.reloading()
        told = listener.recv(999).decode().splitlines()
        assert told[0] == "RELOADING=1"
        assert told[1].startswith("MONOTONIC_USEC=")
        assert manager.alive()
        assert listener.recv(999) == b"WATCHDOG=1"
        assert manager.extend(1.5)
        assert listener.recv(999) == b"EXTEND_TIMEOUT_USEC=1500000"
        assert manager.stopping()
        assert listener.recv(999) == b"STOPPING=1"
    assert manager.watchdog_s == 3.0


def test_status_is_told_whatever_stands_in_it(tmp_path: Path) -> None:
    listener, manager = heard(tmp_path)
    with listener:
        assert manager.ready("/etc/caf\udce9.yaml: \0 is not ü")
        assert listener.recv(999).decode() == "READY=1\nSTATUS=/etc/caf?.yaml: ? is not ü"


def test_abstract_address_is_understood() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        name = f"lvs-test-{os.getpid()}"
        listener.bind(f"\0{name}")
        assert ServiceManager({"NOTIFY_SOCKET": f"@{name}"}).alive()
        assert listener.recv(99) == b"WATCHDOG=1"


def test_a_state_that_found_no_room_goes_with_what_is_told_next(tmp_path: Path) -> None:
    """A manager that starts a hundred services has a full queue, and would wait for READY=1 to the end of its time."""
    listener, manager = heard(tmp_path)
    with listener:
        while manager.alive():
            pass
        assert not manager.reloading()
        assert not manager.ready("serves")
        while manager.is_there:
            try:
                listener.recv(999)
            except BlockingIOError:
                break
        assert manager.alive()
        assert listener.recv(999) == b"READY=1\nSTATUS=serves\nWATCHDOG=1"
        assert manager.alive()
        assert listener.recv(999) == b"WATCHDOG=1"


def test_nobody_there_is_no_error(tmp_path: Path) -> None:
    assert not ServiceManager({}).ready()
    assert not ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()


def test_variables_of_another_process_are_not_ours() -> None:
    environment = {"WATCHDOG_PID": "1", "WATCHDOG_USEC": "1", "LISTEN_PID": "1", "LISTEN_FDS": "1", "HOME": "/"}
    manager = ServiceManager(environment)
    assert manager.watchdog_s is None
    assert manager.handed == ()
    assert environment == {"HOME": "/"}, "children must not speak in our name"
