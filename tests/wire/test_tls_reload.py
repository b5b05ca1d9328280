"""Certificates that change: a reload takes the new files or keeps what it has, and workers all serve the same."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from l7proxy.admin import status_of
from tests.wire.harness import Origin, live, named, running, statuses_of
from tests.wire.load import Load
from tests.wire.sealed import SAID, Sealed, listens_with, make_certificate, trusting
from tests.wire.test_running import problems, reloaded
from tests.wire.test_workers import Workers, all_gone, patiently, several

pytestmark = pytest.mark.unit

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Files:
    """The pair that is served, and others to put in its place."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.served = place / "served.crt", place / "served.key"
        self.made = {name: make_certificate(place, name) for name in ("one", "two")}
        self.put("one")

    def put(self, certificate: str, key: str | None = None) -> None:
        for to, source in zip(self.served, (self.made[certificate][0], self.made[key or certificate][1]), strict=True):
            shutil.copy(source, to)

    def name_of(self, port: int) -> str:
        """Which one is shown at `port` now."""
        shown = ssl.get_server_certificate(("127.0.0.1", port), timeout=5)
        return next(name for name, (path, _) in self.made.items() if path.read_text().strip() == shown.strip())


@live
async def test_a_reload_takes_the_new_certificate_and_connections_stay(tmp_path: Path) -> None:
    files = Files(tmp_path)
    async with running(tmp_path, Origin(named), listener=listens_with(*files.served)) as proxy:
        client = await asyncio.to_thread(Sealed(proxy.port, trusting(files.made["one"][0])).open)
        files.put("two")
        assert await asyncio.to_thread(files.name_of, proxy.port) == "one"
        await reloaded(proxy)
        assert await asyncio.to_thread(files.name_of, proxy.port) == "two"
        (shown,) = status_of(proxy.server.proxy)["listeners"].values()
        assert shown["tls"] is True
        assert timedelta(days=25) < datetime.fromisoformat(shown["not_after"]) - datetime.now(UTC) < timedelta(days=35)

        def goes_on() -> None:
            with client:
                client.say(GET)
                assert statuses_of(client.read(b"origin")[0]) == [200]
                client.put(client.notify())
                assert client.read()[1] == SAID

        await asyncio.to_thread(goes_on)


@live
async def test_a_bad_pair_refuses_the_reload_and_the_old_one_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = Files(tmp_path)
    async with running(tmp_path, Origin(named), listener=listens_with(*files.served)) as proxy:
        before = proxy.server.proxy.snapshot
        files.put("two", "one")
        proxy.server.request_reload()
        await proxy.until(lambda: problems(caplog) != [])
        assert proxy.server.proxy.snapshot is before
        assert await asyncio.to_thread(files.name_of, proxy.port) == "one"
    (said,) = problems(caplog)
    assert "is not the key of the first certificate" in said
    assert said.startswith(f"{proxy.path}:2:")


@live
async def test_a_listener_goes_over_to_tls_and_back(tmp_path: Path) -> None:
    files = Files(tmp_path)
    async with running(tmp_path, Origin(named)) as proxy:
        plain = proxy.path.read_text()
        assert statuses_of(await proxy.get()) == [200]
        proxy.path.write_text(plain.replace(f"{proxy.port}'", f"{proxy.port}'" + listens_with(*files.served), 1))
        await reloaded(proxy)
        assert await asyncio.to_thread(files.name_of, proxy.port) == "one"
        assert statuses_of(await proxy.get()) == [400]
        proxy.path.write_text(plain)
        await reloaded(proxy)
        assert statuses_of(await proxy.get()) == [200]


@patiently
async def test_workers_all_serve_what_was_read_once_also_those_that_come_later(tmp_path: Path) -> None:
    files, origin = Files(tmp_path), await Origin(named).start()
    path, port, admin = several(tmp_path, origin, 2, listener=listens_with(*files.served))

    async def shown() -> set[str]:
        return {await asyncio.to_thread(files.name_of, port) for _ in range(12)}

    async with Workers(path, port, admin) as proxy:
        assert await shown() == {"one"}
        files.put("two", "one")  # of no use: a worker that dies now must not need it
        before = await proxy.pids()
        os.kill(next(iter(before)), signal.SIGKILL)
        await proxy.logged("worker serves")
        assert await proxy.pids() != before
        assert await shown() == {"one"}
        os.kill(proxy.pid, signal.SIGHUP)
        await proxy.times("is not the key of", 1)
        assert await shown() == {"one"}
        files.put("two")
        os.kill(proxy.pid, signal.SIGHUP)
        await proxy.times("INFO l7proxy reloaded", 1)
        assert await shown() == {"two"}
        os.kill(proxy.pid, signal.SIGUSR2)
        await proxy.times("INFO l7proxy serving", 2)
        assert await shown() == {"two"}
        assert "Traceback" not in proxy.log.read_text()
        assert "PRIVATE KEY" not in proxy.log.read_text()
    await origin.stop()


@pytest.mark.parametrize("workers", [1, 2])
@patiently
async def test_not_one_request_over_tls_fails_in_a_restart_or_a_reload(tmp_path: Path, workers: int) -> None:
    files, origin = Files(tmp_path), await Origin(named).start()
    path, port, admin = several(tmp_path, origin, workers, listener=listens_with(*files.served))
    either = trusting(files.made["one"][0])
    either.load_verify_locations(files.made["two"][0])
    load = Load(port, kept=8, fresh=3, tls=either)
    async with Workers(path, port, admin) as proxy:
        before = await proxy.pids()
        async with load.running():
            await load.more(100)
            files.put("two")
            os.kill(proxy.pid, signal.SIGHUP)
            await proxy.times("INFO l7proxy reloaded", 1)
            await load.more(100)
            os.kill(proxy.pid, signal.SIGUSR2)
            await proxy.times("INFO l7proxy serving", 2)
            await all_gone(before - {proxy.pid})
            await load.more(100)
        assert not load.failures
        assert load.closed_by_answer, "kept connections went over to the new workers"
        assert "Traceback" not in proxy.log.read_text()
    await origin.stop()
