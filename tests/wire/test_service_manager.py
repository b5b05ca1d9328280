"""Under a service manager: the sockets that it hands over, what it is told, and what a restart does to clients."""

from __future__ import annotations

import signal
import socket
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from l7proxy.cli.main import cli
from tests.wire.managed import Clients, Managed, answering, listening, stopped
from tests.wire.outside import Back, Gate, Line, ask, until, upstreams

pytestmark = pytest.mark.unit


def settings(back: Back, more: str = "") -> str:
    return f"routes: [{{upstream: app}}]\n{upstreams({'app': [back]})}timeouts: {{drain: 5s}}\n{more}"


def port_of(bound: socket.socket) -> int:
    port = bound.getsockname()[1]
    assert isinstance(port, int)
    return port


def test_a_restart_refuses_nobody_and_answers_who_queues(tmp_path: Path) -> None:
    back = Back()
    with listening() as bound, listening() as forwarded, Clients(port_of(bound)) as clients:
        tcp = f"  tcp: {{bind: '127.0.0.1:{port_of(forwarded)}', tcp: {{upstream: app}}}}\n"

        def program(name: str) -> Managed:
            folder, handed = tmp_path / name, [forwarded, bound]
            return Managed(folder, settings(back), listeners=tcp, port=port_of(bound), handed=handed)

        with program("first") as proxy:
            clients.more()
            proxy.stop()
        with Line(port_of(bound)) as queued, Line(port_of(forwarded)) as queued_there:
            queued.say()
            queued_there.say()
            with program("second"):
                assert queued.hear().status == 200
                assert queued_there.hear().status == 200
                clients.more()
                clients.end()
    assert not clients.failures


def test_without_the_socket_a_stop_refuses(tmp_path: Path) -> None:
    """What the test above would see, were the socket not handed over."""
    with Managed(tmp_path / "first", settings(Back())) as first, Clients(first.port) as clients:
        clients.more()
        first.stop()
        until(lambda: bool(clients.failures["ConnectionRefusedError"]))


def test_workers_and_the_next_program_leave_it_to_who_follows(tmp_path: Path) -> None:
    """One process becomes another program, which has a worker, then two, and stops."""
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
        with answering(bound):
            clients.more()
            clients.end()
    assert not clients.failures


def test_status_is_told_when_it_changes_and_a_stop_says_what_is_left(tmp_path: Path) -> None:
    gate = Gate()
    slow, gone = Back("slow", gate.says), Back("gone")
    text = "routes: [{upstream: app}]\ntimeouts: {drain: 20s}\n" + upstreams(
        {"app": [slow, gone]}, {"app": "check: {type: tcp, interval: 50ms}"}
    )
    with Managed(tmp_path / "a", text) as proxy, Line(proxy.port) as line:
        manager = proxy.manager
        assert manager.until("READY")["STATUS"] == "1 listener, 2 of 2 backends up"
        gone.stop()
        manager.until("STATUS", "1 listener, 1 of 2 backends up")
        count = len(manager.heard)
        manager.listen(1.3)
        assert len(manager.heard) == count, "what stays is not told again"
        assert not manager.fed(), "there is no watchdog"
        line.say()
        until(lambda: bool(gate.order))
        proxy.process.send_signal(signal.SIGTERM)
        assert manager.until("STOPPING")["STATUS"] == "draining: 1 exchange on 1 connection left"
        assert int(manager.until("EXTEND_TIMEOUT_USEC", "")["EXTEND_TIMEOUT_USEC"]) > 5_000_000
        gate.let()
        assert line.hear().status == 200
        assert proxy.process.wait(10) == 0


def test_a_stop_while_workers_take_over_has_the_time_of_a_drain(tmp_path: Path) -> None:
    gate = Gate()
    with Managed(tmp_path / "a", settings(Back("slow", gate.says))) as proxy, Line(proxy.port) as line:
        manager = proxy.manager
        line.say()
        until(lambda: bool(gate.order))
        proxy.process.send_signal(signal.SIGUSR2)
        until(lambda: "this process becomes their supervisor" in proxy.said)
        proxy.process.send_signal(signal.SIGTERM)
        manager.until("STOPPING")
        assert int(manager.until("EXTEND_TIMEOUT_USEC", "")["EXTEND_TIMEOUT_USEC"]) > 5_000_000
        gate.let()
        assert line.hear().status == 200
        assert proxy.process.wait(20) == 0
        manager.listen()
        assert manager.told == ["READY", "RELOADING", "READY", "STOPPING", "STOPPING"], "one for each program"


def test_a_reload_is_told_and_a_listener_comes_back_to_its_socket(tmp_path: Path) -> None:
    back = Back()
    with listening() as bound:
        port = port_of(bound)
        other = f"  other: {{bind: '127.0.0.1:{port}'}}\n"
        proxy = Managed(tmp_path / "a", settings(back), listeners=other, handed=[bound])
        with proxy:
            manager = proxy.manager
            manager.until("READY")
            proxy.listeners = ""
            proxy.reload()
            manager.until("RELOADING")
            assert manager.until("READY", since=2)["STATUS"].startswith("1 listener,")
            assert f'socket=127.0.0.1:{port} reason="no listener has this address' in proxy.said
            with Line(port) as waits:
                waits.say()
                proxy.listeners = other
                proxy.reload()
                assert waits.hear().status == 200, "who queues at a listener that comes back is answered"
            proxy.text = "nonsense: 1\n"
            proxy.write()
            proxy.process.send_signal(signal.SIGHUP)
            until(lambda: "reload refused" in proxy.said)
            manager.listen(0.1)
            assert manager.told == ["READY", *["RELOADING", "READY"] * 3]
            assert ask(port).status == 200


def test_watchdog_is_fed_while_a_worker_answers_and_who_hangs_is_replaced(tmp_path: Path) -> None:
    back = Back()
    with Managed(tmp_path / "a", settings(back, "workers: 2\n"), watchdog_s=1.5) as proxy:
        manager = proxy.manager
        manager.until("WATCHDOG")
        first, second = proxy.workers()
        with stopped(first), stopped(second):
            stopped_at = time.monotonic()
            until(lambda: proxy.said.count("worker hangs") == 2)
            until(lambda: "INFO l7proxy worker serves" in proxy.said)
            manager.listen()
            quiet = [at for at in manager.fed() if 0.9 < at - stopped_at < 1.5]
            assert not quiet, "nobody answers, and it is fed"
        assert not {first, second} & set(proxy.workers())
        assert proxy.ask().status == 200
        manager.until_fed()
        blamed = proxy.said.count("worker hangs")
        with stopped(proxy.process.pid):
            manager.listen()
            count = len(manager.fed())
            manager.listen(1.2)
            assert len(manager.fed()) == count
        # Who was stopped itself has not heard its workers, and blames none.
        manager.until_fed()
        assert proxy.said.count("worker hangs") == blamed
        proxy.end()


def test_a_unit_can_have_the_file_read_again_whatever_it_says_of_an_admin_socket(tmp_path: Path) -> None:
    with Managed(tmp_path / "a", settings(Back())) as proxy:

        def reload() -> tuple[int, str]:
            words = ["reload", "--file", str(proxy.path), "--pid", str(proxy.process.pid)]
            result = CliRunner().invoke(cli, words, standalone_mode=False)
            return int(result.exception is not None), result.output + str(result.exception)

        good = proxy.path.read_text()
        proxy.path.write_text(good.replace("upstream: app", "upstream: ap"))
        code, said = reload()
        assert code
        assert "did you mean 'app'" in said
        with_socket = good.replace("admin: {", f"admin: {{socket: '{tmp_path}/s', ")
        for count, text, why in ((1, good, "it has no `admin"), (2, with_socket, "nobody answers")):
            proxy.path.write_text(text)
            code, said = reload()
            assert (code, f"got SIGHUP: its log says whether it took it ({why}" in said) == (0, True)
            until(lambda count=count: proxy.said.count("INFO l7proxy reloaded") == count)  # type: ignore[misc]
        assert "refused" not in proxy.said, "what is bad was not even sent"
        assert reload() == (0, "None")
        assert proxy.said.count("INFO l7proxy reloaded") == 3, "who is asked by the socket has done it"
        with listening() as taken:
            port = port_of(taken)
            proxy.path.write_text(with_socket.replace("admin:", f"  more: {{bind: '127.0.0.1:{port}'}}\nadmin:"))
            code, said = reload()
        assert code
        assert f"127.0.0.1:{port} is in use by another process" in said
