"""The servers that checks are made for, on loopback, each with a configuration and data of its own.

They come from Debian's packages; a test whose server is not installed is skipped and says which one.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

_POSTGRESQL = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
_PATH = ":".join((os.environ["PATH"], "/usr/sbin", "/sbin", "/usr/lib/dovecot", *_POSTGRESQL))


def needed(program: str, package: str) -> str:
    """The path of `program`; skips where there is none."""
    found = shutil.which(program, path=_PATH)
    if found is None:
        pytest.skip(f"{program} is not installed (Debian package {package})")
    return found


def needs_root(why: str) -> None:
    """Skips where the tests do not run as root."""
    if os.getuid():
        pytest.skip(f"only root can {why}")


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(server.getsockname()[1]) for server in servers]


def opened_to(user: str, folder: Path) -> None:
    """Give `folder` to `user`, and let it be reached."""
    for parent in [folder, *folder.parents][:3]:
        parent.chmod(0o755)
    shutil.chown(folder, user)


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate of www.example.org and 127.0.0.1 for two days, and its key."""
    certificate, key = folder / "server.crt", folder / "server.key"
    made = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-keyout",
        str(key),
        "-out",
        str(certificate),
    ]
    names = ["-subj", "/CN=server", "-addext", "subjectAltName=DNS:www.example.org,IP:127.0.0.1"]
    subprocess.run(["openssl", "req", "-x509", "-days", "2", *made, *names], check=True, capture_output=True)
    return certificate, key


@contextlib.contextmanager
def running(
    command: Sequence[str],
    folder: Path,
    ports: Sequence[int],
    user: str | None = None,
    more: Mapping[str, str] | None = None,
) -> Iterator[Path]:
    """`command` until the block ends, once it accepts connections on all `ports`; gives the file of its output."""
    log = folder / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, "PATH": _PATH, **(more or {})},
            start_new_session=True,
            user=user,
            group=pwd.getpwnam(user).pw_gid if user else None,
            extra_groups=[] if user else None,
        )
    try:
        for port in ports:
            _await_port(server, port, log)
        yield log
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _await_port(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    ends_at = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except ConnectionRefusedError:
            if server.poll() is not None or time.monotonic() > ends_at:
                raise AssertionError(f"{server.args!r}: {log.read_text(errors='replace')[-2000:]}") from None
            time.sleep(0.02)  # nothing tells when another program listens
        else:
            return
