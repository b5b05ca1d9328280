"""What `make bench-l7` sends, and the origin that answers: no URL comes twice, no head of an answer is like another.

One rule: what load and origin take of their core is small beside what a proxy takes of its own, or the result says so.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from tests.bench.l7_figures import Answered
from tests.bench.l7_peers import RULES

KINDS = {"k1": 1024, "k100": 100 * 1024, "m10": 10 * 1024 * 1024}
"""What the origin answers below `/appN/KIND/`, in bytes."""
SEEN = f"{RULES[0][1]}/seen"
"""Where the origin tells, in X-Seen, which X-Forwarded-For has come."""
BROWSER = (
    (
        "User-Agent",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36",
    ),
    ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"),
    ("Accept-Language", "en-GB,en;q=0.9,de;q=0.8"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Upgrade-Insecure-Requests", "1"),
    ("Sec-Fetch-Dest", "document"),
    ("Sec-Fetch-Mode", "navigate"),
    ("Sec-Fetch-Site", "same-origin"),
)
"""What a browser sends beside Host, Referer and Cookie; the latter two differ from request to request."""


@dataclass(frozen=True, slots=True)
class Head:
    """The pieces of a request's head: the first before its number, then each after it."""

    before: str
    referer: str
    cookie: str
    after: str

    def of(self, number: int) -> str:
        return f"{self.before}{number}{self.referer}{number - 1}{self.cookie}{number * 7919}{self.after}"


def heads(kind: str, sessions: Sequence[str] = ("",)) -> list[Head]:
    """One for each rule, with each of `sessions` (cookies, with their names) in its turn.

    >>> print(heads("k1")[7].of(12).split("\\r\\n")[0])
    GET /app2/k1/item?id=12 HTTP/1.1
    """
    fixed = "".join(f"{name}: {value}\r\n" for name, value in BROWSER)
    return [
        Head(
            f"GET {app}/{kind}/item?id=",
            f" HTTP/1.1\r\nHost: {host}\r\n{fixed}Referer: https://{host}{app}/item?id=",
            f"\r\nCookie: consent=yes; {session}{'; ' if session else ''}session=8f14e45fceea167a5a36dedd4bea2543",
            "\r\n\r\n",
        )
        for (host, app), session in zip(RULES, cycle(sessions), strict=False)
    ]


def script(kind: str, first: int, sessions: Sequence[str] = ("",)) -> str:
    """wrk's script: requests numbered from `first` on."""
    return script_of(heads(kind, sessions), first)


def script_of(heads: Sequence[Head], first: int) -> str:
    """The same of any heads, in turn."""
    rows = ",\n".join(
        "{" + ",".join(f"[==[{part}]==]" for part in (head.before, head.referer, head.cookie)) + "}" for head in heads
    )
    # In a long bracket a line break of any kind is one \n, so they are written as \r\n by hand.
    rows = rows.replace("\r\n", "]==] .. '\\r\\n' .. [==[")
    return f"""\
local heads = {{{rows}}}
local number, count = {first}, #heads
function init() end
function request()
  number = number + 1
  local head = heads[number % count + 1]
  return head[1] .. number .. head[2] .. number - 1 .. head[3] .. number * 7919 .. "\\r\\n\\r\\n"
end
"""


_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60000.0}


def read_wrk(said: str) -> Answered:
    """What wrk prints with --latency.

    Raises: ValueError.
    """
    rate, count = re.search(r"Requests/sec:\s*([\d.]+)", said), re.search(r"(\d+) requests in", said)
    times = {
        share: float(value) * _UNITS[unit] for share, value, unit in re.findall(r"(50|99)%\s+([\d.]+)(us|ms|s|m)", said)
    }
    if rate is None or count is None or len(times) != 2:
        raise ValueError(f"wrk said something else: {said!r}")
    errors = sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", said)))
    for line in re.findall(r"Socket errors: (.*)", said):
        errors += sum(map(int, re.findall(r"\d+", line)))
    return Answered(int(count[1]), float(rate[1]), times["50"], times["99"], errors)


def wrk(pin: Sequence[str], url: str, lua: Path, seconds: float, connections: int, openssl: Path | None) -> Answered:
    """A closed loop. `openssl`: a configuration that leaves it one version of TLS and one cipher."""
    words = [*pin, "wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--latency", "-s", str(lua), url]
    environment = {"PATH": "/usr/bin:/bin", **({"OPENSSL_CONF": str(openssl)} if openssl else {})}
    done = subprocess.run(words, capture_output=True, text=True, timeout=seconds + 30, check=False, env=environment)
    try:
        return read_wrk(done.stdout)
    except ValueError as error:
        raise SystemExit(f"wrk failed at {url}: {done.stderr.strip() or error}") from None


def origin(folder: Path, ports: tuple[int, int]) -> list[str]:
    """Write the origin's files; the command that runs it: nginx, one process, a unique head for each answer."""
    for kind, size in KINDS.items():
        if kind != "k1":
            (folder / kind).write_bytes(b"x" * size)
    fields = ("X-Request-Id $request_id", "ETag '\"$request_id\"'", "Cache-Control 'private, max-age=0'")
    unique = " ".join(f"add_header {field};" for field in fields)
    places = " ".join(
        f"location ^~ {app}/{kind}/ {{ {unique} try_files /{kind} =404; }}"
        for app in sorted({app for _, app in RULES})
        for kind in KINDS
        if kind != "k1"
    )
    temporary = " ".join(
        f"{kind}_temp_path {folder}/{kind}_tmp;" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = f"""\
daemon off;
master_process off;
pid {folder}/origin.pid;
error_log {folder}/origin.log;
events {{ worker_connections 8192; multi_accept on; accept_mutex off; }}
http {{
 {temporary}
 access_log off;
 keepalive_timeout 1h;
 keepalive_requests 1000000000;
 server_tokens off;
 sendfile on;
 sendfile_max_chunk 1m;
 tcp_nopush on;
 open_file_cache max=10 inactive=1h;
 default_type application/json;
 server {{
  {" ".join(f"listen 127.0.0.1:{port};" for port in ports)}
  root {folder};
  {places}
  location = {SEEN} {{ add_header X-Seen "$http_x_forwarded_for"; return 200 "seen"; }}
  location / {{ {unique} return 200 "{"x" * KINDS["k1"]}"; }}
 }}
}}
"""
    path = folder / "origin.conf"
    path.write_text(text)
    return ["nginx", "-e", f"{folder}/origin.log", "-p", str(folder), "-c", str(path)]
