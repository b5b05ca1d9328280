"""l7proxy, its clients and its origins as people run them: programs, each in a process of its own, over loopback.

One rule: a program that is not installed is a skip that names its package; one that ends by itself is a failure.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.director.kit.probes.servers import needed, running
from tests.wire.harness import PATIENCE_S, free_port

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Proxy:
    """An l7proxy that runs; `log` has its access log and, between its lines, what else it says."""

    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def records(self) -> list[dict[str, Any]]:
        """Its access log so far."""
        whole = self.log.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    def count(self, prefix: str) -> int:
        """How many records there are of targets that begin with `prefix`."""
        return self.log.read_text().count(f'"target":"{prefix}')

    def until(self, count: int, prefix: str) -> list[dict[str, Any]]:
        """The records of targets that begin with `prefix`, once there are `count`."""
        ends_at = time.monotonic() + PATIENCE_S
        while self.count(prefix) < count:
            assert time.monotonic() < ends_at, f"{self.count(prefix)} records of {prefix}, not {count}"
            time.sleep(0.05)  # a file has no event
        return [record for record in self.records() if str(record["target"]).startswith(prefix)]


@contextlib.contextmanager
def proxy_before(folder: Path, upstreams: Mapping[str, int], timeouts: str = "{}") -> Iterator[Proxy]:
    """l7proxy; what is asked of `/NAME` goes to the port of that name."""
    port = free_port()
    path = folder / "l7proxy.yaml"
    lines = [
        f"listeners: {{http: {{bind: '127.0.0.1:{port}'}}}}",
        "access_log: json",
        "timeouts: {drain: 1s}",
        "routes:",
        *(f"  - {{match: {{path: /{name}}}, upstream: {name}}}" for name in upstreams),
        "upstreams:",
    ]
    for name, to in upstreams.items():
        lines.append(f"  {name}: {{timeouts: {timeouts}, backends: {{b: {{address: '127.0.0.1:{to}'}}}}}}")
    path.write_text("\n".join(lines) + "\n")
    with running([sys.executable, "-m", "l7proxy", "run", str(path)], folder, [port]) as log:
        yield Proxy(port, log)
        said = log.read_text()
    assert "Traceback" not in said, said[said.index("Traceback") :][:4000]


@contextlib.contextmanager
def nginx(folder: Path, lines: str = "", processes: str = "master_process off;") -> Iterator[int]:
    """nginx before the files in `folder`; gives its port. Its access log says how often a connection was used."""
    port = free_port()
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi"))
    path = folder / "nginx.conf"
    path.write_text(
        f"daemon off; {processes} pid {folder}/nginx.pid; error_log {folder}/error.log;\n"
        "events { worker_connections 1024; }\n"
        f"http {{ {temporary} uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;\n"
        "log_format uses '$connection $connection_requests $status';\n"
        f"access_log {folder}/uses.log uses; default_type text/plain; etag on;\n"
        f"{lines}\n"
        f"server {{ listen 127.0.0.1:{port}; root {folder}; }} }}\n"
    )
    place = folder / "run"
    place.mkdir()
    words = [needed("nginx", "nginx-light"), "-e", f"{folder}/error.log", "-p", str(folder), "-c", str(path)]
    with running(words, place, [port]):
        yield port


@contextlib.contextmanager
def aiohttp_app(folder: Path, keepalive_s: float = 75.0) -> Iterator[int]:
    """The application of `aiohttp_app.py`; gives its port."""
    port = free_port()
    with running([sys.executable, str(HERE / "aiohttp_app.py"), str(port), str(keepalive_s)], folder, [port]):
        yield port


@contextlib.contextmanager
def node_server(folder: Path, idle_ms: int) -> Iterator[int]:
    """The server of `node_server.js`, which closes connections that are idle for `idle_ms`; gives its port."""
    port = free_port()
    words = [needed("node", "nodejs"), str(HERE / "node_server.js"), str(port), str(idle_ms)]
    with running(words, folder, [port]):
        yield port


def curl(*words: str, stdin: bytes | None = None, code: int = 0) -> subprocess.CompletedProcess[bytes]:
    """curl, which must end with `code`."""
    command = [needed("curl", "curl"), "-sS", "--noproxy", "*", "--max-time", "15", *words]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=20, check=False)
    assert done.returncode == code, (words, done.returncode, done.stderr[-2000:], done.stdout[-500:])
    return done


def told(words: Sequence[str], *names: str) -> list[int]:
    """What curl says of a transfer whose body nobody wants: numbers, as `--write-out` calls them."""
    wanted = " ".join(f"%{{{name}}}" for name in names)
    return [int(word) for word in curl("-o", "/dev/null", "-w", wanted, *words).stdout.split()]


@dataclass(frozen=True, slots=True)
class Wrk:
    """What wrk says it has seen; `errors` are its lines about what went wrong."""

    requests: int
    errors: list[str]


def wrk(url: str, duration_s: int = 3, connections: int = 64) -> Wrk:
    """Load, as much as there can be."""
    command = [needed("wrk", "wrk"), "-t1", f"-c{connections}", f"-d{duration_s}s", "--timeout", "5s", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    found = re.search(r"(\d+) requests in", done.stdout)
    assert found is not None, done.stdout
    lines = [line.strip() for line in done.stdout.splitlines()]
    return Wrk(int(found[1]), [line for line in lines if line.startswith(("Socket errors", "Non-2xx"))])
