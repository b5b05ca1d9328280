"""Shells complete both programs' lines, with the names that a running one has."""

from __future__ import annotations

import asyncio
import os
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest

from director.api.server import serve
from director.core.status import Status, VirtualServerStatus
from director.kit.adminsocket import listening
from director.kit.completion import SHELLS
from tests.director.fakes import Stub
from tests.director.kit.probes.servers import running
from tests.wire.harness import free_port

pytestmark = pytest.mark.unit

BIN = Path(sys.executable).parent
PROGRAMS = ("director", "l7proxy")


def _printed(*words: str) -> str:
    return subprocess.run([BIN / words[0], *words[1:]], check=True, capture_output=True, text=True).stdout


def _offered(line: str, **environment: str) -> list[str]:
    """What bash offers for the last word of `line`, by the function that the program has printed."""
    words = shlex.split(line) + ([""] if line.endswith(" ") else [])
    script = "\n".join(
        [
            f"source <({words[0]} completion bash)",
            f"COMP_WORDS=({shlex.join(words)}) COMP_CWORD={len(words) - 1}",
            f'compopt() {{ printf "%s\\n" compopt "$@"; }}; _{words[0]}_completion {words[0]}',
            'printf "%s\\n" "${COMPREPLY[@]}"',
        ]
    )
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", **environment}
    command = ["bash", "--norc", "-c", script]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert done.stderr == ""
    return done.stdout.split("\n")[:-1]


class _WithServers(Stub):
    async def status(self) -> Status:
        servers = {"web": ["a", "b"], "api": ["c"]}
        found = [{"name": name, "real_servers": [{"name": each} for each in each]} for name, each in servers.items()]
        return {**await super().status(), "virtual_servers": cast("list[VirtualServerStatus]", found)}


@contextmanager
def _director(path: Path) -> Iterator[None]:
    """The admin API of a director that has two virtual servers."""
    loop, ends = asyncio.new_event_loop(), asyncio.Event()

    async def main() -> None:
        with listening(path) as listener:
            async with serve(_WithServers(), listener):
                await ends.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    try:
        deadline = time.monotonic() + 10
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        yield
    finally:
        loop.call_soon_threadsafe(ends.set)
        thread.join()
        loop.close()


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_has_a_script_that_asks_the_program(program: str, shell: str) -> None:
    script = _printed(program, "completion", shell)
    assert f"_{program.upper()}_COMPLETE={shell}_complete" in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_another_shell_is_a_wrong_line() -> None:
    done = subprocess.run([BIN / "director", "completion", "tcsh"], capture_output=True, text=True, check=False)
    assert done.returncode == 64
    assert "'bash', 'zsh', 'fish'" in done.stderr


def test_commands_options_and_choices_are_completed() -> None:
    assert _offered("director dr") == ["drift", "drain"]
    assert set(_offered("l7proxy dra")) == {"drain"}
    assert "--socket" in _offered("director status --s")
    assert _offered("director run --log-level w") == ["warning"]
    assert "worker" not in " ".join(_offered("l7proxy "))  # it is the program's own


@pytest.mark.parametrize(
    "line", ["director run ", "director check /e", "l7proxy run ", "l7proxy check ", "l7proxy explain "]
)
def test_files_are_left_to_the_shell(line: str) -> None:
    assert _offered(line) == ["compopt", "-o", "default", ""]  # the name is the shell's to find


def test_a_running_director_names_its_servers(tmp_path: Path) -> None:
    path = tmp_path / "d.sock"
    with _director(path):
        for line, offered in {
            "director drain ": ["web", "api"],
            "director drain w": ["web"],
            "director drain web/": ["web/a", "web/b"],
            "director drain web ": ["a", "b"],
            "director drain web a ": [""],
            "director enable api ": ["c"],
            "director weight web ": ["a", "b"],
            "director maintenance web ": ["a", "b"],
            "director explain web b": ["b"],
            "director events --vs a": ["api"],
            "director events --vs web --rs ": ["a", "b"],
        }.items():
            assert _offered(line, DIRECTOR_SOCKET=str(path)) == offered, line
        assert _offered(f"director drain --socket {path} web ") == ["a", "b"]


def test_a_running_l7proxy_names_its_backends(tmp_path: Path) -> None:
    path, port = tmp_path / "l7proxy.yaml", free_port()
    path.write_text(
        f"listeners: {{http: {{bind: '127.0.0.1:{port}'}}}}\n"
        "upstreams: {shop: {backends: {a: {address: '127.0.0.1:1'}, b: {address: '127.0.0.1:2'}}}}\n"
        f"routes: [{{upstream: shop}}]\nadmin: {{socket: {tmp_path}/admin.sock}}\n"
    )
    with running([sys.executable, "-m", "l7proxy", "run", str(path)], tmp_path, [port]):
        environment = {"L7PROXY_SOCKET": str(tmp_path / "admin.sock")}
        assert _offered("l7proxy drain ", **environment) == ["shop/a", "shop/b"]
        assert _offered("l7proxy weight shop/b", **environment) == ["shop/b"]


@pytest.mark.parametrize("line", ["director drain ", "director probe web ", "l7proxy enable "])
def test_where_none_runs_nothing_is_offered_and_nothing_is_said(line: str, tmp_path: Path) -> None:
    gone = str(tmp_path / "none.sock")
    assert _offered(line, DIRECTOR_SOCKET=gone, L7PROXY_SOCKET=gone) == [""]


@pytest.mark.parametrize("line", ["director drain ", "l7proxy enable "])
def test_one_that_does_not_answer_is_not_waited_for(line: str, tmp_path: Path) -> None:
    path = tmp_path / "deaf.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as deaf:
        deaf.bind(str(path))
        deaf.listen()
        begun = time.monotonic()
        assert _offered(line, DIRECTOR_SOCKET=str(path), L7PROXY_SOCKET=str(path)) == [""]
        assert time.monotonic() - begun < 5  # of what others have to wait: a minute
