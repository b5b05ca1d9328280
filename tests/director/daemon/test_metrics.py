"""What Prometheus reads from a running director, over a real socket: the numbers, and where they are served."""

from __future__ import annotations

import asyncio
import http.client
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from types import MappingProxyType

import pytest
from prometheus_client.parser import text_string_to_metric_families

from director.api import metrics
from director.core.metrics import Work
from director.core.status import Status
from director.core.table import Counters, RealCounters
from director.kit.errors import DirectorError
from director.kit.net import parse_endpoint
from tests.director.daemon.world import FILE, WEB, A, B, World, said
from tests.director.fakes import until

pytestmark = pytest.mark.unit

Samples = dict[tuple[str, tuple[str, ...]], float]


@pytest.fixture
def port() -> int:
    return _free()


def _free() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        found: int = free.getsockname()[1]
        return found


def _file(port: int, of: str = FILE) -> str:
    return f'metrics: {{bind: "127.0.0.1:{port}"}}\n' + of


def _ask(port: int, method: str, path: str) -> tuple[int, str]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request(method, path)
        answer = connection.getresponse()
        assert answer.headers["Server"] == "director"
        return answer.status, answer.read().decode()


async def _get(port: int, path: str = "/metrics") -> str:
    status, text = await asyncio.to_thread(_ask, port, "GET", path)
    assert status == 200
    return text


async def _once(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Ask again until it is so."""
    async with asyncio.timeout(10):
        while True:
            if await is_so():
                return
            await asyncio.sleep(0.01)


async def _scrape(port: int) -> Samples:
    return _samples(await _get(port))


def _samples(text: str) -> Samples:
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            found[sample.name, tuple(sample.labels.values())] = sample.value
    return found


def _answers(port: int) -> bool:
    with socket.socket() as peer:
        return peer.connect_ex(("127.0.0.1", port)) == 0


def test_the_numbers_are_those_of_kernel_checks_and_operator(
    world: World, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "FRESH_S", 0.0)
    totals = Counters(7, 70, 60, 700, 600)
    with socket.socket() as web:
        web.bind(("127.0.0.1", 0))
        web.listen()
        check = f"check: {{type: tcp, port: {web.getsockname()[1]}, interval: 20ms, rise: 1, fall: 1}}"
        text = _file(port, FILE.replace("10.0.0.1", "127.0.0.1").replace("}\n", ", " + check + "}\n", 1))

        async def story() -> None:
            real = next(each for each in world.kernel.table.entries[WEB].reals if each.address.is_loopback)
            world.kernel.counted = {WEB: totals}
            world.kernel.carried = {(WEB, real): RealCounters(2, 3, 0, replace(totals, connections=5))}
            await until(lambda: world.weights()[real] == 100)
            await world.ask(lambda client: client.drain("web", "b"))
            found = await _scrape(port)
            web_server, a, b = ("web",), ("a", "web"), ("b", "web")

            def virtual(name: str) -> float | None:
                return found.get((f"director_virtual_server_{name}", web_server))

            assert [virtual(name) for name in ("up", "quorum", "panic", "alive_servers")] == [1, 1, 0, 1]
            assert [virtual(name) for name in ("entries", "kernel_entries", "vip_present")] == [1, 1, 1]
            counted = ("connections", "received_packets", "sent_packets", "received_bytes", "sent_bytes")
            assert [virtual(f"{name}_total") for name in counted] == [7, 70, 60, 700, 600]
            assert virtual("drift") == virtual("drift_repaired_total") == 0

            def of(labels: tuple[str, str], *names: str) -> list[float | None]:
                by_name = {name: value for (name, has), value in found.items() if sorted(has) == sorted(labels)}
                return [by_name.get(f"director_real_server_{name}") for name in names]

            weights = ("weight", "configured_weight", "kernel_weight", "entries_wrong", "drained", "maintenance")
            assert of(a, "up", *weights) == [1, 100, 100, 100, 0, 0, 0]
            assert of(b, "up", *weights) == [1, 0, 100, 0, 0, 1, 0]
            assert of(a, "active_connections", "inactive_connections", "connections_total") == [2, 3, 5]
            probes, failures, duration = of(a, "probes_total", "probe_failures_total", "probe_duration_seconds")
            assert (probes or 0) >= 1
            assert failures == 0
            assert 0 < (duration or 0) < 1
            assert of(b, "probes_total", "operator_weight") == [None, None], "it has neither"
            for name in ("director_converged", "director_config_last_reload_successful"):
                assert found[name, ()] == 1
            assert found["director_failures", ()] == found["director_reconcile_failures_total", ()] == 0
            assert found["director_reconciles_total", ()] >= 1
            last = found["director_reconcile_last_success_timestamp_seconds", ()]
            assert 0 <= found["director_kernel_read_timestamp_seconds", ()] - last < 60
            assert found["process_open_fds", ()] > 3
            web.close()
            await until(lambda: world.weights()[real] == 0)
            found = await _scrape(port)
            assert of(a, "up", "weight", "kernel_weight") == [0, 0, 0]
            assert virtual("up") == virtual("quorum") == 0

        world.run(story, text)


def test_what_is_not_as_it_should_be_is_told(world: World, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "FRESH_S", 0.0)

    async def story() -> None:
        before = await _scrape(port)
        world.kernel.broken = True
        with pytest.raises(DirectorError):
            await world.ask(lambda client: client.drain("web", "a"))
        found = await _scrape(port)  # the last that is known, and what has been counted since
        name = "director_kernel_read_timestamp_seconds"
        assert found[name, ()] == before[name, ()]
        assert found["director_reconcile_failures_total", ()] >= 1
        world.kernel.broken = False
        world.file.write_text("virtual_servers: []\n")
        os.kill(os.getpid(), signal.SIGHUP)

        async def is_refused() -> bool:
            return (await _scrape(port))["director_config_last_reload_successful", ()] == 0

        await _once(is_refused)
        table = world.kernel.table
        entry = table.entries[WEB]
        reals = MappingProxyType({**entry.reals, B: replace(entry.reals[B], weight=77)})
        world.kernel.table = replace(table, entries=MappingProxyType({WEB: replace(entry, reals=reals)}))
        await world.ask(lambda client: client.weight("web", "a", 3))
        found = await _scrape(port)
        assert found["director_virtual_server_drift_repaired_total", ("web",)] == 1
        assert found["director_drift_repaired_total", ()] == 1

    world.run(story, _file(port))


def test_a_reload_moves_and_ends_it(world: World, port: int) -> None:
    async def story() -> None:
        other = _free()
        assert await _get(port, "/healthz") == "ok\n"
        await world.ask(lambda client: client.apply(_file(other), "g"))
        await until(lambda: not _answers(port))
        assert await _get(other, "/healthz") == "ok\n"
        # From one address to all, at the same port: nobody is refused in between.
        await world.ask(lambda client: client.apply(_file(other).replace("127.0.0.1", "0.0.0.0"), "g"))
        assert await _get(other, "/healthz") == "ok\n"
        await world.ask(lambda client: client.apply(FILE, "g"))
        await until(lambda: not _answers(other))

    world.run(story, _file(port))


def test_an_address_that_cannot_be_had_refuses_the_whole_change(world: World, port: int) -> None:
    async def story() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            other = taken.getsockname()[1]
            refused = _file(other, FILE.replace("scheduler: rr", "scheduler: lc"))
            table = world.kernel.table
            with pytest.raises(DirectorError) as caught:
                await world.ask(lambda client: client.apply(refused, "g"))
            assert str(caught.value).splitlines() == [
                f"metrics: 127.0.0.1:{other} is in use by another process: stop it, or bind another port "
                f"(`ss -ltnp 'sport = :{other}'` names it)",
                "nothing of g is applied: what was there before is back",
            ]
            assert world.kernel.table == table
            assert await _get(port, "/healthz") == "ok\n"
            world.file.write_text(refused)
            os.kill(os.getpid(), signal.SIGHUP)

            async def is_refused() -> bool:
                return bool((await world.status())["daemon"]["reload_refused"])

            await _once(is_refused)
            refusals = (await world.status())["daemon"]["reload_refused"]
            assert refusals == str(caught.value).replace("of g", f"of {world.file}").splitlines()
            assert world.kernel.table == table

    world.run(story, _file(port))


def test_what_is_undone_serves_where_it_did(world: World, port: int) -> None:
    async def story() -> None:
        other = _free()
        await world.ask(lambda client: client.apply(_file(other), "g", 60.0))
        assert await _get(other, "/healthz") == "ok\n"
        await world.ask(lambda client: client.undo())
        await until(lambda: _answers(port) and not _answers(other))

    world.run(story, _file(port))


def test_a_director_begins_without_it_and_goes_on_trying(
    world: World, port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(metrics, "RETRY_S", 0.02)
    taken = socket.socket()
    taken.bind(("127.0.0.1", port))
    taken.listen()

    async def story() -> None:

        async def is_told() -> bool:
            return bool((await world.status())["daemon"]["notes"])

        await _once(is_told)
        notes = (await world.status())["daemon"]["notes"]
        assert notes[0].startswith(f"metrics are not served: metrics: 127.0.0.1:{port} is in use")
        assert world.weights() == {A: 100, B: 100}
        await asyncio.sleep(0.1)
        taken.close()
        await until(lambda: bool(said(caplog, "metrics are served")))
        assert await _get(port, "/healthz") == "ok\n"
        assert (await world.status())["daemon"]["notes"] == []

    with caplog.at_level(logging.INFO), taken:
        world.run(story, _file(port))
    assert len(said(caplog, "metrics are not served, trying again")) == 1


def test_what_fails_in_itself_ends_no_director(
    world: World, port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(scraped: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(metrics, "_application", fail)

    async def story() -> None:
        await until(lambda: bool(said(caplog, "metrics are not served, trying again")))
        await world.ask(lambda client: client.drain("web", "a"))
        assert world.weights() == {A: 0, B: 100}
        assert (await world.status())["daemon"]["notes"] == [
            "metrics are not served: internal error: RuntimeError('a defect')"
        ]

    world.run(story, _file(port))


def test_many_who_ask_cost_one_look_and_the_slow_ones_are_cut(
    world: World, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "FRESH_S", 30.0)
    monkeypatch.setattr(metrics, "LIFE_S", 0.5)

    async def story() -> None:
        await _get(port)
        reads = world.kernel.reads
        slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        slow[0].send(b"GET /metrics HTTP/1.1\r\nHost")
        texts = await asyncio.gather(*(_get(port) for _ in range(8)))
        assert len(set(texts)) == 1
        assert world.kernel.reads == reads, "the numbers were fresh"
        surplus = [socket.create_connection(("127.0.0.1", port)) for _ in range(metrics.MOST_CONNECTIONS)]
        for each in slow:
            each.settimeout(10)
            assert await asyncio.to_thread(_is_cut, each)
        for each in surplus:
            each.settimeout(10)
            assert await asyncio.to_thread(_is_cut, each)
        assert await _get(port, "/healthz") == "ok\n"

    world.run(story, _file(port))


class _Unmeasured:
    """Of which nobody ever knows the numbers."""

    def __init__(self) -> None:
        self.is_asked = asyncio.Event()

    async def status(self) -> Status:
        self.is_asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    def work(self) -> Work:
        raise AssertionError


def test_a_change_that_comes_while_another_ends_the_last_answers_is_no_stranger(port: int) -> None:
    async def story() -> None:
        endpoint, measured, other = metrics.MetricsEndpoint(), _Unmeasured(), _free()
        here, there, everywhere = (
            parse_endpoint(f"{at}") for at in (f"127.0.0.1:{port}", f"127.0.0.1:{other}", f"0.0.0.0:{other}")
        )
        endpoint.use(here)
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            running = group.create_task(endpoint.run(measured))
            await until(lambda: _answers(port))
            with socket.create_connection(("127.0.0.1", port)) as waits:
                waits.send(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
                await measured.is_asked.wait()
                endpoint.reserve(there)
                endpoint.use(there)
                await until(lambda: not _answers(port))
                endpoint.reserve(everywhere)
                endpoint.reserve(there)
                endpoint.use(there)
                assert await _get(other, "/healthz") == "ok\n"
            running.cancel()

    asyncio.run(story())


def _is_cut(peer: socket.socket) -> bool:
    with peer:
        try:
            return peer.recv(1000) == b""
        except ConnectionResetError:
            return True


def test_other_ways_in_are_closed(world: World, port: int) -> None:
    async def story() -> None:
        for method, path in (("GET", "/"), ("GET", "/v1/status"), ("POST", "/v1/apply")):
            assert (await asyncio.to_thread(_ask, port, method, path))[0] == 404
        assert (await asyncio.to_thread(_ask, port, "POST", "/metrics"))[0] == 405

    world.run(story, _file(port))


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("9109", 'is a port without an address: write "127.0.0.1:9109"'),
        ('"localhost:9109"', "'localhost' is not an IP address"),
        ('"127.0.0.1:0"', "has port 0: use 1 to 65535"),
        ("[1, 2]", 'is not address:port: write one such as "127.0.0.1:9109"'),
    ],
)
def test_an_address_that_is_none_is_a_problem_of_the_file(world: World, written: str, problem: str) -> None:
    async def story() -> None:
        with pytest.raises(DirectorError, match="f:1:") as caught:
            await world.ask(lambda client: client.plan(f"metrics: {{bind: {written}}}\n" + FILE, "f"))
        assert problem in str(caught.value)

    world.run(story)
