"""Backends by name: found at start, missing at start, and moved while they serve."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from pathlib import Path

import pytest

from director.kit.net import Answer
from director.kit.problem import InvalidConfigError
from l7proxy.admin.shown import status_of
from l7proxy.files import names
from l7proxy.files.loading import Loaded, load_file, load_text, renewed
from tests.wire.harness import Origin, config_text, live, named, running
from tests.wire.harness import status_of as status

pytestmark = pytest.mark.unit


def with_name(port: int, host: str) -> str:
    return config_text(8080, port).replace("127.0.0.1:" + str(port), f"{host}:{port}")


@live
async def test_backend_by_name_serves(tmp_path: Path) -> None:
    origin = await Origin(named).start()
    async with running(tmp_path, f"localhost:{origin.port}") as proxy:
        assert (await proxy.get()).endswith(b"origin")
        shown = status_of(proxy.server.proxy)["upstreams"]["up"]["backends"]["b0"]
        assert shown["address"] == f"localhost:{origin.port} (127.0.0.1)"
    await origin.stop()


def test_name_that_is_unknown_at_start_leaves_a_warning_and_its_backend_down(tmp_path: Path) -> None:
    path = tmp_path / "l7proxy.yaml"
    path.write_text(with_name(8000, "nowhere.invalid"))
    loaded = load_file(str(path))
    assert len(loaded.warnings) == 1
    assert loaded.warnings[0].startswith(f"{path}:")
    assert "upstreams.up.backends.b0.address: nowhere.invalid has no address: " in loaded.warnings[0]
    backend = loaded.config.upstreams["up"].backends[0]
    assert backend.unresolved
    assert backend.check is None


@live
async def test_start_is_degraded_and_says_so(tmp_path: Path) -> None:
    good = Origin(named)
    async with running(tmp_path, "nowhere.invalid:8000", good) as proxy:
        assert [status(await proxy.get()) for _ in range(4)] == [200] * 4
        shown = status_of(proxy.server.proxy)["upstreams"]["up"]["backends"]["b0"]
        assert shown["up"] is False
        assert "nowhere.invalid has no address" in shown["reason"]


class Told:
    """What names are, by the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **answers: str) -> None:
        self.answers = answers
        monkeypatch.setattr(names, "look_up", self._look_up)

    def _look_up(self, hosts: Iterable[str], held: Mapping[str, str] | None = None) -> dict[str, Answer]:
        return {host: self._of(host, held or {}) for host in hosts}

    def _of(self, host: str, held: Mapping[str, str]) -> Answer:
        said = held.get(f"name:{host}") or self.answers.get(host) or "!unknown"
        return said[1:] if said.startswith("!") else tuple(map(ip_address, said.split(",")))


def addresses(loaded: Loaded) -> list[str]:
    return [str(backend.endpoint.address) for backend in loaded.config.upstreams["up"].backends]


def test_name_that_moves_takes_its_backend_along(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(monkeypatch, app="10.0.0.1,10.0.0.2")
    loaded = load_text(with_name(8000, "app"), "x")
    assert addresses(loaded) == ["10.0.0.1"]
    told.answers["app"] = "10.0.0.2,10.0.0.1"
    assert not renewed(loaded).moved, "the one in use is still among them"
    told.answers["app"] = "10.0.0.3"
    renewal = renewed(loaded)
    assert renewal.moved == {"app": "10.0.0.3"}
    assert addresses(renewal.loaded) == ["10.0.0.3"]
    assert addresses(load_text(loaded.text, "x", renewal.loaded.files)) == ["10.0.0.3"], "as workers read it"
    told.answers["app"] = "!no answer in time"
    assert not renewed(renewal.loaded).moved, "a name server that is away takes nothing away"


def test_name_that_comes_to_be_known_brings_its_backend_up(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(monkeypatch)
    loaded = load_text(with_name(8000, "app"), "x")
    assert loaded.config.upstreams["up"].backends[0].unresolved == "unknown"
    told.answers["app"] = "10.0.0.7"
    after = renewed(loaded).loaded
    assert addresses(after) == ["10.0.0.7"]
    assert not after.config.upstreams["up"].backends[0].unresolved


@live
async def test_running_proxy_follows_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(monkeypatch)
    origin = await Origin(named).start()
    async with running(tmp_path, f"app:{origin.port}") as proxy:
        assert status(await proxy.get()) == 503
        told.answers["app"] = "127.0.0.1"
        proxy.server.request_renewal()
        async with asyncio.timeout(5):
            while status(await proxy.get()) != 200:  # noqa: ASYNC110 -- what is waited for has no event
                await asyncio.sleep(0.01)
    await origin.stop()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("app", "'app' has no port"),
        ("app:0", "'0' is not a port"),
        ("app:70000", "'70000' is not a port"),
        ("http://app:80", "is a URL"),
        ("10.0.0.300:80", "'10.0.0.300' is not an IP address"),
        ("-app:80", "'-app' is not an IP address"),
    ],
)
def test_what_is_no_address_is_told(address: str, said: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        load_text(config_text(8080, 8000).replace("127.0.0.1:8000", address), "x")
    assert said in caught.value.lines()[0]
