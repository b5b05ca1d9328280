"""What reading a configuration file promises: its text, or one plain reason why there is none."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from director.kit import readtext
from director.kit.configfile import InvalidConfigError, read_text

pytestmark = pytest.mark.unit


def _refusal(path: Path | str) -> str:
    with pytest.raises(InvalidConfigError) as caught:
        read_text(path)
    assert len(caught.value.problems) == 1
    return str(caught.value).removeprefix(f"{path}:")


def test_text_is_what_the_file_has(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: \xc3\xa4\r\n")
    assert read_text(path) == read_text(str(path)) == "a: ä\r\n"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"a: 1\nb: \xc3\xa4 \xff\n", "2:6: byte 0xff is not UTF-8: this is not a text file; save it as UTF-8 YAML"),
        (b"\xef\xbb\xbfa: \xe4", "1:4: byte 0xe4 is not UTF-8"),
        ("a: 1".encode("utf-16"), "1:1: byte 0xff is not UTF-8"),
        (b"\x1f\x8b\x08", "1:2: byte 0x8b is not UTF-8"),
        (b"a: \xed\xa0\x80", "1:4: byte 0xed is not UTF-8"),
        (b"# " + b"x" * (9 << 20), "1:1: larger than 8 MiB: this is no configuration"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, content: bytes, found: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    assert _refusal(path).startswith(found)


def test_path_that_leads_to_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    assert _refusal(tmp_path / "none.yaml") == "1:1: no such file: check the path"
    assert _refusal(tmp_path / "file" / "x") == "1:1: no such file, a part of its path is no directory: check the path"
    assert _refusal(tmp_path) == "1:1: this is a directory: give the path of a YAML file"
    assert _refusal(tmp_path / "loop") == "1:1: cannot be read: Too many levels of symbolic links"
    assert _refusal(tmp_path / ("x" * 300)) == "1:1: cannot be read: File name too long"
    with pytest.raises(InvalidConfigError, match="1:1: this is not a path: it has a NUL in it"):
        read_text("a\0b")


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/dev/full", "/dev/tty"])
def test_device_is_refused_without_opening_it(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*_: object) -> int:
        raise AssertionError("opened")

    monkeypatch.setattr("os.open", opened)
    assert _refusal(path) == "1:1: this is not a file: give the path of a YAML file"


def test_socket_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        assert _refusal(tmp_path / "socket") == "1:1: this is not a file: give the path of a YAML file"


def test_pipe_without_writer_is_empty_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert read_text(tmp_path / "pipe") == ""


def test_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    text = "# " + "x" * 300_000
    read, write = os.pipe()

    def send() -> None:
        with os.fdopen(write, "wb") as file:
            file.write(text.encode())

    writer = threading.Thread(target=send)
    writer.start()
    try:
        assert read_text(f"/dev/fd/{read}") == text
    finally:
        writer.join()
        os.close(read)


def test_a_dash_is_standard_input(tmp_path: Path) -> None:
    script = "from director.kit.readtext import read_text; print(read_text('-'), end='')"
    piped = subprocess.run([sys.executable, "-c", script], input="a: 1\n", capture_output=True, text=True, check=True)
    assert piped.stdout == "a: 1\n"
    (tmp_path / "file").write_text("b: 2\n")
    with (tmp_path / "file").open() as file:
        redirected = subprocess.run([sys.executable, "-c", script], stdin=file, capture_output=True, check=True)
    assert redirected.stdout == b"b: 2\n"
    refused = subprocess.run([sys.executable, "-c", script], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert b"-:1:1: this is not a file" in refused.stderr


def test_pipe_is_read_by_who_has_a_thousand_descriptors() -> None:
    """select() takes none above 1023."""
    script = textwrap.dedent("""
        import os, resource
        from director.kit.readtext import read_text
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
        kept = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]
        print("ready", flush=True)
        print(read_text("-"), end="")
    """)
    words = [sys.executable, "-c", script]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
        reader.stdin.write("a: 1\n")
        reader.stdin.close()
        assert reader.stdout.read() == "a: 1\n"


def test_pipe_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readtext, "_PATIENCE_S", 0.05)
    read, write = os.pipe()
    try:
        assert "this pipe did not end within 0.05s" in _refusal(f"/dev/fd/{read}")
    finally:
        os.close(read)
        os.close(write)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret.yaml"
    path.write_text("a: 1")
    path.chmod(stat.S_IRUSR)
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover -- another process
        try:
            os.fchdir(descriptor)  # the folders above may be root's alone
            tmp_path.chmod(0o755)
            os.setuid(65534)
            try:
                answer = read_text(path.name)
            except InvalidConfigError as error:
                answer = str(error)
            os.write(write, answer.encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer_file:
        answer = answer_file.read()
    os.waitpid(child, 0)
    os.close(descriptor)
    assert answer == ("secret.yaml:1:1: permission denied: run as root, or make the file readable for this user")
