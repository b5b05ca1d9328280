"""Certificates that change: a reload takes the new files or keeps what it has, and workers all serve the same."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from l7proxy.admin.shown import status_of
from l7proxy.core import x509
from l7proxy.metrics import facts_of
from tests.wire.harness import Origin, live, named, running, statuses_of
from tests.wire.load import Load
from tests.wire.sealed import SAID, Sealed, credulous, listens_with, make_certificate, shown, trusting
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


# files that change by themselves


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("l7proxy.renewal.LOOK_EVERY_S", 0.02)


def told(caplog: pytest.LogCaptureFixture, message: str) -> list[dict[str, object]]:
    return [record.__dict__ for record in caplog.records if record.message == message]


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@live
async def test_a_renewed_certificate_is_served_without_a_signal_and_sessions_go_on(
    tmp_path: Path, version: ssl.TLSVersion, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "l7proxy")
    files = Files(tmp_path)
    async with running(tmp_path, Origin(named), listener=listens_with(*files.served)) as proxy:
        context = credulous(version)
        client = await asyncio.to_thread(Sealed(proxy.port, context).open)

        def asked() -> ssl.SSLSession | None:
            client.say(GET)
            assert statuses_of(client.read(b"origin")[0]) == [200]
            client.received = b""
            return client.tls.session

        session = await asyncio.to_thread(asked)
        proxy.path.write_text("it: is another file now, and nobody reads it")
        files.put("two")
        await proxy.until(lambda: told(caplog, "certificates taken anew") != [])
        assert await asyncio.to_thread(files.name_of, proxy.port) == "two"
        await asyncio.to_thread(asked)
        client.socket.close()

        def resumed() -> bool:
            with Sealed(proxy.port, context, session) as again:
                again.open()
                return bool(again.tls.session_reused)

        assert await asyncio.to_thread(resumed)
        seal = proxy.server.proxy.seals["http"]
        assert (seal.handshakes, seal.resumed) == (3, 1)
        (served,) = (value for key, value in facts_of(proxy.server.proxy).items() if "certificate_expiry" in key)
        assert datetime.fromtimestamp(served, UTC) == expiry(files.made["two"][0])
    (said,) = told(caplog, "certificates taken anew")
    assert said["listener"] == "http"
    assert str(said["certificates"]).startswith(f"{files.served[0]} (127.0.0.1) until 2")


def expiry(certificate: Path) -> datetime:
    facts = x509.facts_of(ssl.PEM_cert_to_DER_cert(certificate.read_text()))
    assert facts is not None
    return facts.ends


@pytest.mark.usefixtures("hasty")
@live
async def test_of_a_folder_good_ones_are_taken_and_bad_ones_left_as_they_were(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "l7proxy")
    folder, made = tmp_path / "folder", tmp_path / "made"
    folder.mkdir()
    made.mkdir()

    def put(name: str, other: str = "") -> None:
        make_certificate(made, name, names=f"DNS:{name}.example")
        shutil.copy(made / f"{name}.crt", folder)
        shutil.copy(made / f"{other or name}.key", folder / f"{name}.key")

    put("a")
    put("b")
    anew, kept = "certificates taken anew", "certificate not taken anew, the old one stays"
    async with running(tmp_path, Origin(named), listener=f", tls: {{folder: {folder}}}") as proxy:
        old = await asyncio.to_thread(ssl_shown, proxy.port, "b.example")
        put("c")
        put("b", "c")  # a pair that does not fit
        await proxy.until(lambda: bool(told(caplog, anew) and told(caplog, kept)))
        assert await asyncio.to_thread(shown, proxy.port, "c.example") == "CN=c"
        assert await asyncio.to_thread(ssl_shown, proxy.port, "b.example") == old
        (said,) = told(caplog, kept)
        assert f"{folder}/b.key is not the key of the first certificate in {folder}/b.crt" in str(said["problem"])
        shutil.copy(made / "b.key", folder)
        await proxy.until(lambda: len(told(caplog, anew)) == 2)
        assert await asyncio.to_thread(ssl_shown, proxy.port, "b.example") != old
        for kind in ("crt", "key"):
            (folder / f"c.{kind}").unlink()
        await proxy.until(lambda: len(told(caplog, anew)) == 3)
        assert told(caplog, anew)[2]["certificates"] == "c is gone"
        with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
            await asyncio.to_thread(shown, proxy.port, "c.example")
        shutil.rmtree(folder)
        await proxy.until(lambda: len(told(caplog, kept)) == 2)
        assert await asyncio.to_thread(shown, proxy.port, "a.example") == "CN=a"
    assert len(told(caplog, kept)) == 2


def ssl_shown(port: int, name: str) -> str:
    """The certificate itself."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5.0) as raw,
        credulous().wrap_socket(raw, server_hostname=name) as tls,
    ):
        return (tls.getpeercert(binary_form=True) or b"").hex()


@patiently
async def test_workers_take_a_renewed_certificate_all_together_and_a_later_one_too(tmp_path: Path) -> None:
    files, origin = Files(tmp_path), await Origin(named).start()
    path, port, admin = several(tmp_path, origin, 2, listener=listens_with(*files.served))

    async def seen() -> set[str]:
        return {await asyncio.to_thread(files.name_of, port) for _ in range(12)}

    async with Workers(path, port, admin) as proxy:
        assert await seen() == {"one"}
        files.put("two")
        await proxy.times("certificates taken anew", 1)
        assert await seen() == {"two"}
        before = await proxy.pids()
        os.kill(next(iter(before - {proxy.pid})), signal.SIGKILL)
        await proxy.logged("worker serves")
        assert await seen() == {"two"}
        assert "Traceback" not in proxy.log.read_text()
        assert "PRIVATE KEY" not in proxy.log.read_text()
    await origin.stop()


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
