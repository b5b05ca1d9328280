"""`director probe`: what a check sees, in words, JSON and an exit code; and `director check` on how long it takes."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.director.cli.shell import Shell

pytestmark = pytest.mark.unit


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


@pytest.fixture
def file(shell: Shell, port: int) -> Path:
    shell.file.write_text(f"""
virtual_servers:
  web:
    address: 192.0.2.10
    port: 80
    forward: nat
    real_servers:
      good: {{address: 127.0.0.1, port: 1, check: {{type: tcp, port: {port}}}}}
      bad: {{address: 127.0.0.2, port: 2, check: {{type: tcp, port: {port}}}}}
      all: {{address: 127.0.0.2, port: 3, check: {{type: all, of: [{{type: tcp, port: {port}}}, {{type: icmp}}]}}}}
      any: {{address: 127.0.0.2, port: 4, check: {{type: any, of: [{{type: tcp, port: {port}}}, {{type: icmp}}]}}}}
      loaded:
        address: 127.0.0.1
        port: 5
        check: {{type: tcp, port: {port}}}
        load: {{type: file, path: {shell.directory}/nothing}}
      load: {{address: 127.0.0.1, port: 6, load: {{type: file, path: {shell.directory}/nothing}}}}
      none: {{address: 127.0.0.1, port: 7}}
""")
    return shell.file


@pytest.mark.parametrize(
    ("name", "code"), [("good", 0), ("bad", 2), ("all", 2), ("any", 0), ("loaded", 0), ("load", 2), ("none", 1)]
)
def test_the_exit_code_is_the_verdict(shell: Shell, file: Path, name: str, code: int) -> None:
    assert shell("probe", "web", name, "-f", file).code == code


def test_what_was_seen_is_told(shell: Shell, file: Path, port: int) -> None:
    found = shell("probe", "web", "bad", "-f", file)
    lines = found.out.splitlines()
    assert lines[:3] == [f"tcp 127.0.0.2:{port}", "  result    failed", "  reason    connection refused"]
    assert lines[3].startswith("  took      ")
    (line,) = json.loads(shell("probe", "web", "bad", "-f", file, "--json").out)
    assert (line["check"], line["ok"], line["reason"]) == (f"tcp 127.0.0.2:{port}", False, "connection refused")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("web", "goood"), "director: 'web' has no real server 'goood': did you mean 'good'?\n"),
        (("wbe", "good"), "director: no virtual server 'wbe' in the file: did you mean 'web'?\n"),
        (("web", "none"), "director: web/none has no check in {file}: give it one\n"),
    ],
)
def test_who_cannot_be_probed_is_told(shell: Shell, file: Path, names: tuple[str, str], said: str) -> None:
    assert shell("probe", *names, "-f", file).err == said.format(file=file)


def test_check_says_how_long_a_failure_takes_to_be_seen(shell: Shell, file: Path, port: int) -> None:
    found = shell("check", file)
    assert found.code == 0
    assert (
        "  web: tcp (5 real servers): a failure takes at most 6.3s to be seen, a recovery 4.8s"
        in found.out.splitlines()
    )
