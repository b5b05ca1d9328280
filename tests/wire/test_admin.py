"""The admin socket: what is told, what is done, by whom, and that it holds for all workers and over restarts."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from director.kit.errors import HostError
from l7proxy.admin.app import LARGEST_BODY_BYTES
from l7proxy.control import Pace
from l7proxy.files.loading import load_file
from l7proxy.server import Server
from tests.wire.harness import (
    PATIENCE_S,
    Origin,
    Running,
    config_text,
    free_port,
    live,
    named,
    running,
    says,
    status_of,
)
from tests.wire.test_process import L7PROXY
from tests.wire.test_workers import Workers, patiently, several

pytestmark = pytest.mark.unit


def admin(tmp_path: Path, more: str = "") -> str:
    return f"admin: {{socket: {tmp_path}/a.sock}}\n{more}"


async def ask(
    path: Path | int, target: str, body: object = None, method: str = "", raw: bytes = b""
) -> tuple[int, dict[str, Any]]:
    """Status and JSON of one request over the socket, or at a port."""
    reader, writer = await (
        asyncio.open_connection("127.0.0.1", path) if isinstance(path, int) else asyncio.open_unix_connection(path)
    )
    data = raw or (json.dumps(body).encode() if body is not None else b"")
    method = method or ("POST" if body is not None or raw else "GET")
    head = f"{method} {target} HTTP/1.1\r\nHost: l7proxy\r\nConnection: close\r\nContent-Length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)
    async with asyncio.timeout(PATIENCE_S):
        answer = await reader.read()
    writer.close()
    said = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert isinstance(said, dict), said
    return status_of(answer), said


async def cli(tmp_path: Path, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """A command, which must end with `code`."""

    def run() -> subprocess.CompletedProcess[str]:
        command = [*L7PROXY, *words, "--socket", str(tmp_path / "a.sock")]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)

    done = await asyncio.to_thread(run)
    assert done.returncode == code, (words, done)
    assert "Traceback" not in done.stderr
    return done


async def names(proxy: Running, count: int = 6) -> set[bytes]:
    return {(await proxy.get()).partition(b"\r\n\r\n")[2] for _ in range(count)}


@live
async def test_a_backend_is_drained_weighed_disabled_and_enabled(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    async with running(tmp_path, Origin(named, "a"), Origin(named, "b"), more=admin(tmp_path)) as proxy:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert path.stat().st_uid == os.getuid()
        assert await names(proxy) == {b"a", b"b"}
        status, said = await ask(path, "/v1/backends/up/b0", {"action": "drain"})
        assert status == 200
        assert said["notes"][0].startswith("this lasts until l7proxy stops: name a file with `state`")
        assert await names(proxy) == {b"b"}
        (drained, other) = (await ask(path, "/v1/backends"))[1]["backends"]
        assert (drained["weight"], drained["configured_weight"], drained["wish"]["want"]) == (0, 1, "drained")
        assert drained["why"].startswith("drained by the operator since 20")
        assert (other["weight"], other["why"]) == (1, None)
        status, said = await ask(path, "/v1/backends/up/b1", {"action": "disable"})
        assert said["notes"][-1].startswith("up serves nothing now (503, where the route has no other upstream): ")
        assert "b0 is drained by the operator since 20" in said["notes"][-1]
        assert status_of(await proxy.get()) == 503
        assert await ask(path, "/v1/backends/up/b0", {"action": "enable"}) == (200, {"notes": []})
        assert await names(proxy) == {b"a"}
        assert (await ask(path, "/v1/backends/up/b1", {"action": "enable"}))[0] == 200
        assert (await ask(path, "/v1/backends/up/b1", {"weight": 3}))[0] == 200
        got = [(await proxy.get()).partition(b"\r\n\r\n")[2] for _ in range(8)]
        assert (got.count(b"a"), got.count(b"b")) == (2, 6)


REFUSED = [
    ("/v1/backends/u/b0", b'{"action": "drain"}', 404, "there is no upstream 'u': did you mean 'up'?"),
    ("/v1/backends/up/b9", b'{"action": "drain"}', 404, "upstream up has no backend 'b9': use one of b0"),
    ("/v1/backends/up/b0", b'{"action": "sink"}', 400, "say what to do"),
    ("/v1/backends/up/b0", b"{}", 400, "say what to do"),
    ("/v1/backends/up/b0", b'{"weight": 1001}', 400, "a `weight` is a number from 0 to 1000"),
    ("/v1/backends/up/b0", b'{"weight": true}', 400, "a `weight` is a number from 0 to 1000"),
    ("/v1/backends/up/b0", b'{"action": "drain", "weight": 1}', 400, "goes with the action `weight` alone"),
    ("/v1/backends/up/b0", b'{"action": "drain", "for": 1}', 400, "there is no 'for' here: action, weight"),
    ("/v1/backends/up/b0", b"drain", 400, "the body is not JSON"),
    ("/v1/backends/up/b0", b"[]", 400, "the body is not a JSON object"),
    ("/v1/backends/up/b0", b'{"a":' * 5000, 413, "a body has"),
    ("/v1/drain", b'{"within_s": "1"}', 400, "`within_s` is a number of seconds"),
    ("/v1/drain", b'{"stop": 1}', 400, "`stop` is true or false"),
    ("/v1/undrain", b'{"x": 1}', 400, "there is no 'x' here"),
    ("/v1/status", b"{}", 405, "POST is not what this is for: use GET, HEAD"),
    ("/v1/nothing", b"{}", 404, "there is no /v1/nothing"),
    ("/v1/failures?n=x", b"", 400, "`n` is a number from 1 to 1000"),
]


@live
async def test_a_mistake_is_a_sentence_and_changes_nothing(tmp_path: Path) -> None:
    path, port = tmp_path / "a.sock", free_port()
    more = f"admin: {{socket: {path}, bind: '127.0.0.1:{port}'}}"
    async with running(tmp_path, Origin(named), more=more) as proxy:
        for target, body, status, sentence in REFUSED:
            got, said = await ask(path, target, raw=body)
            assert (got, sentence in said["error"]) == (status, True), (target, body, said)
        assert (await ask(path, "/v1/status", raw=b"x" * (LARGEST_BODY_BYTES + 1)))[0] in {405, 413}
        assert proxy.server.proxy.wishes == {}
        assert not proxy.server.proxy.draining
        # at the address nothing can be changed, and no request of a client is shown
        for target in ("/v1/drain", "/v1/backends/up/b0", "/v1/reload"):
            got, said = await ask(port, target, {"action": "drain"})
            assert (got, "at the socket of `admin`" in said["error"]) == (404, True)
        for target in ("/v1/failures", "/v1/config"):
            assert (await ask(port, target))[0] == 404
        for target in ("/v1/status", "/v1/backends", "/v1/upstreams", "/v1/certificates"):
            assert (await ask(port, target))[0] == 200


@live
async def test_all_of_it_is_drained_and_clients_are_served_on(tmp_path: Path) -> None:
    path, agent = tmp_path / "a.sock", free_port()
    more = admin(tmp_path, f"agent: {{bind: '127.0.0.1:{agent}'}}")
    async with running(tmp_path, Origin(named), more=more, listener=", health: /-/health") as proxy:

        async def agent_says() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", agent)
            said = await reader.read()
            writer.close()
            return said

        assert await ask(path, "/v1/drain", {}) == (200, {"notes": []})
        drain = (await ask(path, "/v1/drain"))[1]["drain"]
        assert (drain["director_told"], drain["stops"], drain["may_end"]) == (False, False, False)
        assert await agent_says() == b"drain\n"
        assert (await ask(path, "/v1/drain"))[1]["drain"]["director_told"] is True
        assert status_of(await proxy.get("/-/health")) == 503
        assert status_of(await proxy.get()) == 200
        assert (await ask(path, "/v1/drain", {}))[1]["notes"][0].startswith("it is drained already, since 20")
        assert await ask(path, "/v1/reload", {}) == (200, {"notes": []})
        assert await agent_says() == b"drain\n"
        assert await ask(path, "/v1/undrain", {}) == (200, {"notes": []})
        assert (await agent_says()).startswith(b"up ")
        assert status_of(await proxy.get("/-/health")) == 200
        assert (await ask(path, "/v1/undrain", {}))[1]["notes"] == ["it is not drained"]
        assert (await ask(path, "/v1/drain"))[1] == {"connections": 0, "drain": None}


@live
async def test_a_failure_is_remembered_with_all_that_explains_it(tmp_path: Path) -> None:
    path, gone = tmp_path / "a.sock", free_port()
    breaks = Origin(says(b"HTTP/1.1 2"), "breaks")

    async with running(tmp_path, gone, breaks, more=admin(tmp_path)) as proxy:
        breaks.answer = hang_up
        await proxy.get("/x?token=s3cret&page=2", "Authorization: Basic czNjcmV0", "X-Tier: gold")
        await proxy.talk(b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n")
        bad, refused = sorted((await ask(path, "/v1/failures"))[1]["failures"], key=lambda each: -each["status"])
        assert bad["target"] == "/x?token=(hidden)&page=2"
        assert "Authorization: Basic (hidden)" in bad["head"]
        assert "X-Tier: gold" in bad["head"]
        assert (bad["upstream"], bad["route"], bad["client"]) == ("up", "all", "127.0.0.1")
        assert {each["backend"] for each in bad["tries"]} == {"b0", "b1"}
        assert "connection_refused" in {each["cause"] for each in bad["tries"]}
        assert bad["status"] == 502
        assert bad["total_ms"] > 0
        assert (refused["status"], refused["tries"], refused["upstream"]) == (400, [], None)
        done = await cli(tmp_path, "failures", "-n", "5", "--whole")
        assert "/x?token=(hidden)&page=2 502 " in done.stdout
        assert "    > X-Tier: gold" in done.stdout
        assert "tried b0 until " in done.stdout
        assert [json.loads(line)["status"] for line in (await cli(tmp_path, "failures", "--json")).stdout.splitlines()]


async def hang_up(_: Origin, __: bytes, ___: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


@live
async def test_a_reload_says_what_is_wrong_and_the_configuration_has_no_secrets(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    check = "    check: {type: http, path: /, headers: {Authorization: Basic s3cret, X-Tier: gold}}"
    async with running(tmp_path, Origin(named), more=admin(tmp_path), upstream=check) as proxy:
        good = proxy.path.read_text()
        assert "s3cret" in good
        proxy.path.write_text(good + "bogus: 1\nmore: 2\n")
        status, said = await ask(path, "/v1/reload", {})
        assert status == 409
        assert said["error"] == "reload refused, the old configuration stays"
        assert [line.split(": ")[1][:5] for line in said["problems"]] == ["bogus", "more"]
        done = await cli(tmp_path, "reload", code=1)
        assert done.stderr.splitlines()[0].startswith(f"l7proxy: {proxy.path}:")
        assert "\nthe last reload was refused, " in (await cli(tmp_path, "status")).stdout
        config = (await ask(path, "/v1/config"))[1]
        assert "s3cret" not in json.dumps(config)
        assert "bogus" not in config["config"]
        headers = config["config"]["upstreams"]["up"]["check"]["headers"]
        assert headers == {"Authorization": "Basic (hidden)", "X-Tier": "gold"}
        # the socket moves with the configuration, and whoever asked for that is answered
        proxy.path.write_text(good.replace("a.sock", "b.sock"))
        assert await ask(path, "/v1/reload", {}) == (200, {"notes": []})
        assert not path.exists()
        status, said = await ask(tmp_path / "b.sock", "/v1/status")
        assert (status, said["reload_refused"]) == (200, False)
        proxy.path.write_text(good.replace(str(path), str(tmp_path / "l7proxy.yaml")))
        status, said = await ask(tmp_path / "b.sock", "/v1/reload", {})
        assert (status, "is in the way of the admin socket: it is no socket" in said["problems"][0]) == (409, True)
        assert (await ask(tmp_path / "b.sock", "/v1/status"))[0] == 200
    assert not (tmp_path / "b.sock").exists()


@live
async def test_a_wish_outlives_a_restart_and_the_backend_itself(tmp_path: Path) -> None:
    more = admin(tmp_path, f"state: {tmp_path}/state.json")
    first, second = Origin(named, "a"), Origin(named, "b")
    async with running(tmp_path, first, second, more=more):
        assert await ask(tmp_path / "a.sock", "/v1/backends/up/b1", {"action": "drain"}) == (200, {"notes": []})
    (tmp_path / "a.sock").touch()  # what a dead one leaves behind is no obstacle, if it is a socket
    (tmp_path / "a.sock").unlink()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "a.sock"))
    async with running(tmp_path, first, more=more) as proxy:
        gone = (await ask(tmp_path / "a.sock", "/v1/backends"))[1]["backends"][-1]
        assert (gone["backend"], gone["gone"], gone["wish"]["want"]) == ("b1", True, "drained")
        done = await cli(tmp_path, "backends")
        assert "up/b1" in done.stdout
        assert "not in the file: drained by the operator since 20" in done.stdout
        second_port = f"      b1: {{address: '127.0.0.1:{second.port}'}}\n"
        proxy.path.write_text(proxy.path.read_text() + second_port)
        assert (await ask(tmp_path / "a.sock", "/v1/reload", {}))[0] == 200
        assert await names(proxy) == {b"a"}
        proxy.path.write_text(proxy.path.read_text().removesuffix(second_port))
        assert (await ask(tmp_path / "a.sock", "/v1/reload", {}))[0] == 200
        assert await ask(tmp_path / "a.sock", "/v1/backends/up/b1", {"action": "forget"}) == (200, {"notes": []})
        assert len((await ask(tmp_path / "a.sock", "/v1/backends"))[1]["backends"]) == 1


@live
async def test_drained_it_stops_when_the_last_client_has_gone(tmp_path: Path) -> None:
    agent = free_port()
    more = admin(tmp_path, f"agent: {{bind: '127.0.0.1:{agent}'}}")
    async with running(tmp_path, Origin(named), more=more) as proxy:
        reader, writer = await proxy.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readuntil(b"\r\n\r\norigin")
        assert await ask(tmp_path / "a.sock", "/v1/drain", {"stop": True, "within_s": 60}) == (200, {"notes": []})
        _, asking = await asyncio.open_connection("127.0.0.1", agent)
        asking.close()
        assert status_of(await proxy.get()) == 200
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"Connection: close" in await reader.read()
        writer.close()
        await proxy.until(lambda: proxy.server._stops == 1)
        assert proxy.server._engine.pace is Pace.BRISK


@pytest.mark.parametrize("workers", [1, 2])
@patiently
async def test_wishes_and_failures_are_of_all_workers_and_of_the_next_program(tmp_path: Path, workers: int) -> None:
    one, two = await Origin(named, "one").start(), await Origin(named, "two").start()
    path, port, admin_port = several(tmp_path, one, workers)
    sock = tmp_path / "a.sock"
    text = path.read_text().replace("admin: {", f"admin: {{socket: {sock}, ")
    path.write_text(
        f"{text}      b1: {{address: '127.0.0.1:{two.port}'}}\n      b2: {{address: '127.0.0.1:{free_port()}'}}\n"
    )
    async with Workers(path, port, admin_port) as proxy:
        assert (await ask(sock, "/v1/backends/up/b0", {"action": "drain"}))[0] == 200
        assert (await ask(sock, "/v1/backends/up/b2", {"weight": 0}))[0] == 200
        assert set(await proxy.ask_all(12)) == {b"two"}
        assert (await ask(sock, "/v1/drain", {}))[0] == 200
        proxy.process.send_signal(signal.SIGUSR2)
        await proxy.logged("took over")
        if workers > 1:
            await proxy.logged("restarted")
        assert set(await proxy.ask_all(12)) == {b"two"}
        drain = (await ask(sock, "/v1/drain"))[1]["drain"]
        assert drain is not None
        assert drain["for_s"] > 0.5
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"Connection: close" in await reader.read()
        writer.close()
        assert (await ask(sock, "/v1/undrain", {}))[0] == 200
        assert (await ask(sock, "/v1/backends/up/b1", {"action": "disable"}))[0] == 200
        assert {status_of(await proxy.get(f"/{number}")) for number in range(20)} == {503}
        seen = (await ask(sock, "/v1/failures?n=100"))[1]["failures"]
        assert {each["target"] for each in seen} == {f"/{number}" for number in range(20)}
        assert {each["pid"] for each in seen} <= set(proxy.children())
        found = (await ask(sock, "/v1/status"))[1]
        assert found["upstreams"]["up"]["why"].startswith("no backend is up: b0 is drained by the operator")
        if workers > 1:
            assert "up/b1" in (await cli(tmp_path, "top", "--once", "--interval", "100ms")).stdout
            assert json.loads((await cli(tmp_path, "status", "--json")).stdout)["drain"] is None
        done = await cli(tmp_path, "drain", "--stop", "--wait", "--within", "5s")
        assert done.stderr.splitlines()[-1] == "stopped"
        assert proxy.process.wait(5) == 0
    assert not sock.exists()
    await one.stop()
    await two.stop()


@live
async def test_nobody_there_is_a_sentence(tmp_path: Path) -> None:
    done = await cli(tmp_path, "status", code=1)
    assert done.stderr.startswith(f"l7proxy: no l7proxy is running (nothing answers on {tmp_path}/a.sock): start one")
    assert len(done.stderr.splitlines()) == 1
    assert "UPSTREAM/BACKEND" in (await cli(tmp_path, "drain", "up", code=64)).stderr
    assert "leave UPSTREAM/BACKEND out" in (await cli(tmp_path, "drain", "up/a", "--stop", code=64)).stderr


@live
async def test_a_second_one_does_not_take_the_socket(tmp_path: Path) -> None:
    async with running(tmp_path, Origin(named), more=admin(tmp_path)):
        path, port = tmp_path / "b.yaml", free_port()
        path.write_text(config_text(port, free_port(), more=admin(tmp_path)))
        loaded = load_file(str(path))
        with pytest.raises(HostError) as caught:
            await Server(str(path), loaded).run({})
        assert str(caught.value) == (
            f"another l7proxy answers on {tmp_path}/a.sock: stop it first, or name another `socket` in `admin`"
        )
        assert (await ask(tmp_path / "a.sock", "/v1/status"))[0] == 200
