"""The command line itself: help, exit codes, files and outputs that cannot be used; never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.director.cli.shell import FILE, Host, Shell
from tests.director.fakes import Stub

pytestmark = pytest.mark.unit

COMMANDS = [
    "check",
    "plan",
    "apply",
    "confirm",
    "undo",
    "drift",
    "export",
    "run",
    "status",
    "drain",
    "enable",
    "weight",
    "doctor",
]


def test_help_names_the_exit_codes_and_every_command(shell: Shell) -> None:
    ended = shell("--help")
    assert ended.code == 0
    words = " ".join(ended.out.split())
    assert "Exit codes: 0 done, 1 an error that the message explains, 2 `plan` or `drift` found something, " in words
    assert "`export` left something out or `doctor` has only warnings, 64 the command line is wrong." in words
    for command in COMMANDS:
        assert f"\n  {command} " in ended.out
        told = shell(command, "--help")
        assert (told.code, told.err) == (0, "")
        assert "xits" in told.out, command


@pytest.mark.parametrize(
    "words",
    [
        ("nosuch",),
        ("--nosuch",),
        ("check",),
        ("check", "a", "b"),
        ("plan", "--nosuch", "f"),
        ("weight", "web", "a", "70000"),
        ("weight", "web", "a", "-1"),
        ("weight", "web", "a", "ten"),
        ("drain", "web"),
        ("run", "f", "--log-level", "loud"),
        ("realserver", "apply"),
        ("realserver", "apply", "--undo", "--vip", "192.0.2.1"),
        ("realserver", "apply", "--vip", "192.0.2.256"),
        ("realserver", "apply", "--vip", "192.0.2.1", "--tunnel", "gre"),
        ("realserver", "apply", "--vip", "192.0.2.1", "--forward", "tun", "--tunnel-port", "6080"),
        ("realserver", "apply", "--vip", "192.0.2.1", "--forward", "tun", "--director", "224.0.0.1"),
        ("realserver", "apply", "--undo", "--director", "192.0.2.2"),
        ("realserver", "apply", "f", "--forward", "tun"),
        ("realserver", "check"),
        ("realserver", "check", "--director", "192.0.2.2", "--client", "2001:db8::1"),
    ],
)
def test_a_wrong_command_line_exits_64(shell: Shell, words: tuple[str, ...]) -> None:
    ended = shell(*words)
    assert (ended.code, ended.out) == (64, "")
    assert "Error: " in ended.err


def test_check_of_a_good_file(shell: Shell) -> None:
    assert shell("check", shell.file) == (
        0,
        f"{shell.file}: ok: 1 virtual server, 1 real server, 0 of them checked\n",
        "",
    )


@pytest.mark.parametrize("command", ["check", "plan", "apply", "run"])
@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "1:1: no such file: check the path"),
        ("directory", "1:1: this is a directory: give the path of a YAML file"),
        (b"", "1:1: the file is empty"),
        (b"\x7fELF\x02\x01\x01\x00\xff", "1:9: byte 0xff is not UTF-8"),
        (b"a: \x00\n", "1:4: control character"),
        (b"a: [\n", "2:1: "),
        (b"virtual_servers: {web: {}, web: {}}\n", "1:28: virtual_servers.web: duplicate key 'web'"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_and_exits_1(
    shell: Shell, host: Host, command: str, content: bytes | str | None, told: str
) -> None:
    shell.file.unlink()
    if content == "directory":
        shell.file.mkdir()
    elif isinstance(content, bytes):
        shell.file.write_bytes(content)
    ended = shell(command, shell.file)
    assert (ended.code, ended.out) == (1, "")
    assert f"{shell.file}:{told}" in ended.err
    assert all(line.startswith(f"{shell.file}:") for line in ended.err.splitlines())
    assert host.kernel.writes == 0
    assert not shell.state.exists()


def test_a_file_that_may_not_be_read_is_told(shell: Shell) -> None:
    shell.file.chmod(0)
    # Root reads everything: without these two it does not.
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    ended = subprocess.run(
        [*drop, sys.executable, "-m", "director", "check", shell.file], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(f"{shell.file}:1:1: permission denied: run as root")


def test_a_name_that_is_no_text_is_no_traceback(shell: Shell) -> None:
    odd = shell.directory / os.fsdecode(b"\xff\xfe.yaml")
    odd.write_text(FILE)
    ended = subprocess.run([sys.executable, "-m", "director", "check", odd], capture_output=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert b": ok: 1 virtual server" in ended.stdout


@pytest.mark.parametrize(
    "words", [("check", "director.yaml"), ("status",), ("status", "--json"), ("plan", "director.yaml"), ("--help",)]
)
def test_a_reader_that_leaves_is_no_error(shell: Shell, director: Stub, words: tuple[str, ...]) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as nobody:
        ended = subprocess.run(
            [sys.executable, "-m", "director", *words],
            stdout=nobody,
            stderr=subprocess.PIPE,
            cwd=shell.directory,
            text=True,
            check=False,
            timeout=30,
        )
    assert (ended.returncode, [line for line in ended.stderr.splitlines() if not line.startswith("note: ")]) == (0, [])


def test_output_that_cannot_be_written_is_told(shell: Shell) -> None:
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "director", "check", shell.file],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (ended.returncode, ended.stderr) == (1, "director: input or output failed: No space left on device\n")
