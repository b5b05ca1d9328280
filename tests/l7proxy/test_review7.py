"""What names, files and limits do to a configuration where they meet a reload, another user, or each other.

One rule: each test is of one defect that was there once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from pathlib import Path

import pytest

from director.kit.net import Answer
from director.kit.problem import InvalidConfigError
from l7proxy.core.explaintext import told
from l7proxy.core.question import Question, ask
from l7proxy.files import names
from l7proxy.files.loading import load_file, load_text, renewed
from l7proxy.renewal import Watch
from tests.wire.harness import config_text
from tests.wire.sealed import make_certificate

pytestmark = pytest.mark.unit


def says(monkeypatch: pytest.MonkeyPatch, answer: Answer) -> None:
    """Let all names be `answer`."""

    def look_up(hosts: Iterable[str], held: Mapping[str, str] | None = None) -> dict[str, Answer]:
        return dict.fromkeys(hosts, answer)

    monkeypatch.setattr(names, "look_up", look_up)


def test_a_reload_while_no_name_can_be_looked_up_takes_no_backend_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(config_text(8080, 8000).replace("127.0.0.1:8000", "app.internal:8000"))
    first, second = ip_address("10.0.0.1"), ip_address("10.0.0.2")
    says(monkeypatch, (first, second))
    before = load_file(str(path))
    says(monkeypatch, "no answer in time")
    after = load_file(str(path), before)
    (backend,) = after.config.upstreams["up"].backends
    assert (backend.endpoint.address, backend.unresolved) == (first, "")
    assert [line.partition("address: ")[2] for line in after.warnings] == [
        "app.internal cannot be looked up: no answer in time; the backend keeps 10.0.0.1"
    ]
    says(monkeypatch, (second, first))
    again = load_file(str(path), after)
    assert again.config.upstreams["up"].backends[0].endpoint.address == first, "the one in use is still among them"
    says(monkeypatch, (second,))
    assert load_file(str(path), again).config.upstreams["up"].backends[0].endpoint.address == second


def test_a_folder_of_challenges_that_cannot_be_looked_at_is_a_warning() -> None:
    text = config_text(8080, 8000, listener=f", acme: {{folder: /{'a' * 300}}}")
    (warning,) = load_text(text, "x").warnings
    assert "is no folder yet" in warning


def test_more_limits_than_there_is_room_for_are_found_by_check() -> None:
    many = "".join(
        f"      a{place}: {{address: '10.{place // 250}.1.{place % 250 + 1}:80'}}\n" for place in range(5600)
    )
    text = config_text(8080, 8000, upstream="    max_connections: 5\n    outlier: {}") + many
    with pytest.raises(InvalidConfigError) as caught:
        load_text(text, "x")
    (line,) = caught.value.lines()
    assert line.startswith("x:8:3: upstreams: ")
    assert "16803" in line
    assert "16384" in line


def test_limits_of_requests_at_an_upstream_of_connections_are_warnings() -> None:
    own = "    max_connections: 5\n    queue: {}\n    sorry: {body: no}\n    sticky: {cookie: S}"
    text = config_text(8080, 8000, upstream=own, listener=", tcp: {upstream: up}", routes=" []")
    warnings = load_text(text, "x").warnings
    assert [line.split(": ")[1] for line in warnings] == [
        "upstreams.up.max_connections",
        "upstreams.up.queue",
        "upstreams.up.sorry",
        "upstreams.up.sticky",
    ]
    asked = config_text(8080, 8000, upstream=own).replace(
        "routes:", "  db: {bind: '127.0.0.1:81', tcp: {upstream: up}}\nroutes:"
    )
    assert not load_text(asked.replace("access_log: false\n", ""), "x").warnings


def test_listeners_with_one_folder_serve_after_a_renewal_what_workers_read(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    make_certificate(folder, "a")
    make_certificate(folder, "b")
    text = config_text(8080, 8000, listener=f", tls: {{folder: {folder}, default: a}}").replace(
        "access_log", f"  other: {{bind: '127.0.0.1:8081', tls: {{folder: {folder}}}}}\naccess_log"
    )
    loaded = load_text(text, "x")
    (folder / "a.crt").unlink()
    (folder / "a.key").unlink()
    after = renewed(loaded).loaded
    assert after.config.listeners == load_text(text, "x", after.files).config.listeners
    assert after.config.listeners[0].tls == loaded.config.listeners[0].tls, "the default stays"


def test_explain_says_which_backend_has_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    says(monkeypatch, "no such name")
    text = config_text(8080, "app.internal:8000", "127.0.0.1:8001")
    found = ask(load_text(text, "x").config, Question("GET http://a/"))
    lines = list(told(found, "x", {0: 1}))
    assert "  backend  b0 app.internal:8000, down: it has no address (no such name)" in lines
    assert "  backend  b1 127.0.0.1:8001, weight 1, 100 %" in lines


def test_a_look_at_names_that_fails_in_itself_is_told_once_and_made_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    says(monkeypatch, (ip_address("10.0.0.1"),))
    loaded = load_text(config_text(8080, "app.internal:8000"), "x")
    turns = iter([True, True, False])

    def news(files: Mapping[str, str]) -> dict[str, str]:
        if next(turns):
            raise RuntimeError("can't start new thread")
        return {"name:app.internal": "10.0.0.2"}

    monkeypatch.setattr(names, "news", news)
    monkeypatch.setattr("l7proxy.renewal.LOOK_EVERY_S", 0.001)
    monkeypatch.setattr("l7proxy.renewal.NAMES_EVERY_S", 0.0)

    async def until_it_changes() -> None:
        changed = asyncio.Event()
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            looking = group.create_task(Watch(lambda: loaded, changed.set).run())
            await changed.wait()
            looking.cancel()

    asyncio.run(until_it_changes())
    assert [record.message for record in caplog.records].count(
        "files and names cannot be looked at, what is known stays"
    ) == 1
