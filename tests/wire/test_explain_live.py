"""What a running l7proxy says would become of a request now, and that asking it changes nothing."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from l7proxy.admin.app import LARGEST_BODY_BYTES
from tests.wire.harness import Origin, Running, fields_of, free_port, live, named, running, status_of
from tests.wire.held import Gate, begun
from tests.wire.test_admin import admin, ask, cli
from tests.wire.test_guard import Moody
from tests.wire.test_workers import Workers, several

pytestmark = pytest.mark.unit

ASKED = "GET http://any.example/"


async def explained(tmp_path: Path, *headers: str, request: str = ASKED) -> dict[str, Any]:
    body = {"request": request, "headers": headers, "client": "127.0.0.1"}
    status, said = await ask(tmp_path / "a.sock", "/v1/explain", body)
    assert status == 200, said
    found = said["explanation"]
    assert isinstance(found, dict)
    found["told"] = said["told"]
    return found


def backends(found: dict[str, Any], target: int = 0) -> dict[str, dict[str, Any]]:
    return {each["backend"]: {**each, **each["now"]} for each in found["targets"][target]["candidates"]}


async def drain(tmp_path: Path, backend: str) -> None:
    assert (await ask(tmp_path / "a.sock", f"/v1/backends/up/{backend}", {"action": "drain"}))[0] == 200


@live
async def test_backends_are_as_operator_checks_and_requests_have_them(tmp_path: Path) -> None:
    bad = Moody("bad", 503)
    origins = Origin(named, "a"), Origin(named, "b"), bad.origin, free_port(), free_port()
    upstream = (
        "    outlier: {failures: 2, ejection: 1h}\n    sticky: {cookie: SRV, drain_sessions: 1h}\n"
        "    check: {type: tcp, interval: 100ms, fall: 1}"
    )
    async with running(tmp_path, *origins, upstream=upstream, more=admin(tmp_path)) as proxy:
        served = proxy.server.proxy.snapshot.upstreams["up"]
        await proxy.until(lambda: {each.health.status.value for each in served.backends.values()} == {"up", "down"})
        while b"\r\n\r\na" not in (answer := await proxy.get()):
            pass
        cookie = fields_of(answer, b"set-cookie")[0].partition(b";")[0].decode()
        await drain(tmp_path, "b0")
        await ask(tmp_path / "a.sock", "/v1/backends/up/b1", {"weight": 3})
        await ask(tmp_path / "a.sock", "/v1/backends/up/b3", {"action": "disable"})
        assert served.guard is not None
        while not served.guard.out:
            await proxy.get()
        found = await explained(tmp_path, f"Cookie: {cookie}")
        shown = backends(found)
        assert {name: (each["state"], each["weight"], each["percent"]) for name, each in shown.items()} == {
            "b0": ("drained", 0, 0),
            "b1": ("up", 3, 100),
            "b2": ("up", 0, 0),
            "b3": ("disabled", 0, 0),
            "b4": ("down", 0, 0),
        }
        assert shown["b0"]["why"][0].startswith("drained by the operator since 20")
        assert shown["b0"]["why"][1] in {"keeps its sessions for 3600 s more", "keeps its sessions for 3599 s more"}
        assert shown["b1"]["why"][0].startswith("weight 3 by the operator since")
        assert "connection refused" in shown["b4"]["why"][0]
        assert shown["b2"]["why"][0].startswith("left out for 3")
        assert found["targets"][0]["now"]["leads"] == [{"by": "cookie SRV", "backend": "b0", "why": ""}]
        assert "  session  cookie SRV leads to b0" in found["told"]
        assert any(line.startswith(f"route      all ({proxy.path}:") for line in found["told"])
        [lead] = (await explained(tmp_path, "Cookie: SRV=forged"))["targets"][0]["now"]["leads"]
        assert (lead["backend"], lead["why"]) == ("", "it is not ours, or its backend is gone")
        [lead] = (await explained(tmp_path))["targets"][0]["now"]["leads"]
        assert lead["why"] == "it is not there"
        for name in ("b0", "b1", "b2"):
            await ask(tmp_path / "a.sock", f"/v1/backends/up/{name}", {"action": "disable"})
        now = (await explained(tmp_path, f"Cookie: {cookie}"))["targets"][0]["now"]
        assert now["refused"].startswith("503 no backend is available: no backend is up: b3 is down: ")
        assert now["leads"][0]["why"] == "b0 takes its requests no more, another backend gets the session"


@live
async def test_full_backends_queue_and_limits(tmp_path: Path) -> None:
    gate = Gate()
    routes = "  - {name: all, upstream: up, limits: {rate: {limit: 1/h, burst: 5}, concurrency: 4}}"
    upstream = "    max_connections: 2\n    queue: {length: 2, timeout: 30s}"
    async with running(tmp_path, Origin(gate.answer), upstream=upstream, routes=routes, more=admin(tmp_path)) as proxy:
        found = await explained(tmp_path)
        assert [each["said"] for each in found["limits"]] == ["5 of 5 are left", "0 of 4 are there"]
        assert not any(each["refused"] for each in found["limits"])
        asked = [begun(proxy.get()) for _ in range(4)]
        await gate.has(2)
        line = proxy.server.proxy.snapshot.upstreams["up"].line
        await proxy.until(lambda: line is not None and line.waiting == 2)
        found = await explained(tmp_path)
        now, backend = found["targets"][0]["now"], backends(found)["b0"]
        assert (now["waiting"], now["queue"]) == (2, 2)
        assert (backend["placed"], backend["max_connections"]) == (2, 2)
        assert now["refused"].startswith("503 no backend is available: backends have max_connections requests, and 2")
        rate, concurrency = found["limits"]
        assert (rate["said"], rate["refused"]) == ("1 of 5 are left", "")
        assert concurrency["refused"].startswith("503 too many requests at one time: above limits.concurrency of this")
        gate.open()
        assert [status_of(answer) for answer in await asyncio.gather(*asked)] == [200] * 4
        assert status_of(await proxy.get()) == 200
        [rate, _] = (await explained(tmp_path))["limits"]
        assert rate["refused"].startswith("429 too many requests: slow down: above limits.rate of this client; again")


@live
async def test_asking_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No turn, token, place, trial or count is taken, and nothing is logged."""
    moody = Moody("a")
    routes = (
        "  - {name: shares, match: {path: /s}, upstream: {up: 50, other: 50}}\n"
        "  - {name: all, upstream: up, limits: {rate: {limit: 1/h, burst: 3}, concurrency: 1}}"
    )
    upstream = (
        "    breaker: {errors: 50%, of: 2, open: 1ms, statuses: [500]}\n    outlier: {failures: 9}\n"
        "    retry_budget: {}\n    max_connections: 1\n    queue: {length: 1}"
    )
    origins = moody.origin, Origin(named, "b")
    own = ", ".join(f"{each.name}: {{address: '127.0.0.1:{each.port}'}}" for each in origins)
    upstream += f"\n    backends: {{{own}}}\n  other:"
    async with running(tmp_path, *origins, upstream=upstream, routes=routes, more=admin(tmp_path)) as proxy:
        moody.said = 500
        gate = proxy.server.proxy.snapshot.upstreams["up"].guard.gate  # type: ignore[union-attr] # it has one
        assert gate is not None
        while not gate.is_open():
            await proxy.get("/s")
        await proxy.until(lambda: not gate.opens_in_s(time.monotonic()))  # so long its share goes elsewhere
        caplog.clear()
        before, trial = await state(proxy, tmp_path), gate._state.value
        for _ in range(5):
            found = await explained(tmp_path)
            await explained(tmp_path, request="GET http://any.example/s")
            await cli(tmp_path, "explain", ASKED)
        assert found["targets"][0]["now"]["breaker"] == "is open, one request at a time tries"
        assert await state(proxy, tmp_path) == before
        assert gate._state.value == trial
        assert not caplog.records
        # what they would have taken is there still
        moody.said = 200
        assert [status_of(await proxy.get()) for _ in range(4)] == [200, 200, 200, 429]


async def state(proxy: Running, tmp_path: Path) -> object:
    """All that is shown, and what is not: whose turn it is."""
    served = proxy.server.proxy
    upstreams = served.snapshot.upstreams.values()
    status = (await ask(tmp_path / "a.sock", "/v1/status"))[1]
    del status["left_percent"]  # how late the loop is, which is nobody's doing here
    for each in status["upstreams"].values():
        each.get("breaker", {}).pop("tried_in_s", None)
    return (
        status,
        [(each._turn, dict(each.turns._credit)) for each in upstreams],
        [each.split._turn for each in served.snapshot.routes if each.split is not None],
        [each.guard.seen if each.guard else None for each in upstreams],
        len(served.board.tallies),
        (await ask(tmp_path / "a.sock", "/v1/failures"))[1],
    )


@live
async def test_a_key_leads_where_requests_go(tmp_path: Path) -> None:
    upstream = "    balance: {hash: header X-User}"
    origins = [Origin(named, name) for name in ("b0", "b1", "b2")]
    async with running(tmp_path, *origins, upstream=upstream, more=admin(tmp_path)) as proxy:
        for user in ("ann", "bob", "eve", "joe"):
            [lead] = (await explained(tmp_path, f"X-User: {user}"))["targets"][0]["now"]["leads"]
            answer = await proxy.get("/", f"X-User: {user}")
            assert (lead["by"], lead["backend"]) == ("header x-user", answer.partition(b"\r\n\r\n")[2].decode())


@live
async def test_it_is_told_of_all_workers(tmp_path: Path) -> None:
    bad, good = Moody("bad", 503), Origin(named, "good")
    await bad.origin.start()
    routes = "  - {name: all, upstream: up, limits: {rate: {limit: 1/h, burst: 20, by: route}}}"
    more = {"routes": routes, "upstream": "    outlier: {failures: 1, ejection: 1h}"}
    path, port, admin_port = several(tmp_path, good, 2, **more)
    await good.start()
    text = path.read_text().replace("admin: {", f"admin: {{socket: {tmp_path}/a.sock, ")
    path.write_text(text + f"      b1: {{address: '127.0.0.1:{bad.origin.port}'}}\n")
    async with Workers(path, port, admin_port) as proxy:
        asked = 0
        while not bad.asked:
            await proxy.get()
            asked += 1
        found = await explained(tmp_path)
        assert [each["said"] for each in found["limits"]] == [f"{20 - asked} of 20 are left"]
        async with asyncio.timeout(5):
            while not (shown := backends(await explained(tmp_path))["b1"])["why"] or shown["weight"]:
                pass  # its supervisor looks every half a second
        assert shown["why"][0].startswith("left out for 3")
    await bad.origin.stop()
    await good.stop()


MISTAKES = [
    (b"{}", "say what is asked"),
    (b'{"request": 1}', "say what is asked"),
    (b'{"request": "GET http://a/", "headers": "Cookie: a"}', "say what is asked"),
    (b'{"request": "GET http://a/", "client": 1}', "`client` is an address"),
    (b'{"request": "GET http://a/", "client": "a"}', "is no address"),
    (b'{"request": "GET http://a/", "listener": "htp"}', "there is no listener 'htp': did you mean 'http'?"),
    (b'{"request": "GET http://a/", "cookie": ""}', "there is no 'cookie' here: request, headers"),
    (b'{"request": "GET"}', "neither a URL"),
]


@live
async def test_the_command_asks_who_serves_or_reads_a_file(tmp_path: Path) -> None:
    routes = "  - {name: one, match: {host: any.example}, upstream: up}"
    port = free_port()
    more = f"admin: {{socket: {tmp_path}/a.sock, bind: '127.0.0.1:{port}'}}"
    async with running(tmp_path, Origin(named), routes=routes, more=more) as proxy:
        for body, sentence in MISTAKES:
            status, said = await ask(tmp_path / "a.sock", "/v1/explain", raw=body)
            assert (status, sentence in said["error"]) == (400, True), (body, said)
        large = json.dumps({"request": ASKED, "headers": ["A: " + "b" * LARGEST_BODY_BYTES]}).encode()
        assert (await ask(tmp_path / "a.sock", "/v1/explain", raw=large))[0] == 413
        assert (await ask(port, "/v1/explain", {"request": ASKED}))[0] == 404
        told = (await cli(tmp_path, "explain", ASKED, "-H", "Cookie: a=1")).stdout
        assert "\n  backend  b0 127.0.0.1:" in told
        assert ", unchecked, weight 1, 100 %, 0 requests\n" in told
        found = json.loads((await cli(tmp_path, "explain", ASKED, "--json")).stdout)
        assert (found["route"], found["targets"][0]["candidates"][0]["now"]["weight"]) == ("one", 1)
        assert "404 no route" in (await cli(tmp_path, "explain", "GET http://b.example/", code=1)).stdout
        wrong = await cli(tmp_path, "explain", "GET ftp://b.example/", code=1)
        assert wrong.stderr.startswith("l7proxy: 'ftp://b.example/' is neither a URL")
        assert "either FILE or --socket" in (await cli(tmp_path, "explain", "x.yaml", ASKED, code=64)).stderr
        assert "is a file: say what is asked" in (await cli(tmp_path, "explain", str(proxy.path), code=64)).stderr
    gone = await cli(tmp_path, "explain", ASKED, code=1)
    assert gone.stderr.startswith("l7proxy: no l7proxy is running (nothing answers on")
