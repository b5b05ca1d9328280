"""The first tier for heads: one strict pass over the ordinary.

One rule: what is not plainly ordinary is None, never guessed at: `strict.py` reads it, or refuses it. What is read here
must come out as `strict.py` would have it (a differential test holds both, and h11, to that).

Ordinary is: a method of `_METHODS`, a path as target, HTTP/1.1, one Host, printable ASCII, names without `_`, values
that are not empty, no Transfer-Encoding, Expect or Upgrade, a Connection that says `close` or `keep-alive`.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

from l7proxy.core.head import RequestHead, ResponseHead
from l7proxy.core.linekinds import (
    AGENT,
    CLAIM,
    CLAIMS,
    CODING,
    CONNECTION,
    CUT,
    DATE,
    FULL,
    HOST,
    LENGTH,
    LOGIN,
    LONGEST_HOST,
    MOST_ANSWER_LINES,
    PASS,
    REFERER,
    REQUEST,
    RESPONSE,
    VIA,
    names_shared_login,
)
from l7proxy.core.paths import normal_path

PRINTABLE = bytes(range(0x20, 0x7F))
_METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH"})
_TOKEN = re.compile(rb"[!#$%&'*+.^`|~0-9A-Za-z-]+")
_HOST = re.compile(rb"[ \t]*((?:[A-Za-z0-9-]+\.)*[A-Za-z0-9-]+)(:[0-9]{1,4})?[ \t]*")
_LENGTH = re.compile(rb" *([0-9]{1,15}) *")
MOST_KNOWN = 2048
"""Names, spellings and hosts that are remembered; whoever sends more of them only makes this process think again."""
LONGEST_KNOWN = 64
"""Of a name."""

_request_lines: dict[bytes, int] = {}
_response_lines: dict[bytes, int] = {}
_hosts: dict[bytes, tuple[bytes, str]] = {}
_KEEP = frozenset({b" keep-alive", b" Keep-Alive", b"keep-alive"})
_CLOSE = frozenset({b" close", b" Close", b"close"})


def _learn(name: bytes, kinds: dict[bytes, int], known: dict[bytes, int]) -> int:
    """What a line of this spelling is; remembered."""
    if not _TOKEN.fullmatch(name):
        return FULL
    lower = name.lower()
    kind = kinds.get(lower, PASS)
    if kinds is REQUEST and lower.startswith(CLAIMS):
        kind = CLAIM
    if len(name) <= LONGEST_KNOWN:
        if len(known) >= MOST_KNOWN:
            known.clear()
        known[name] = kind
    return kind


def _read_host(value: bytes) -> tuple[bytes, str] | None:
    match = _HOST.fullmatch(value) if len(value) <= LONGEST_HOST else None
    if match is None:
        return None
    found = (value.strip(b" \t"), match[1].lower().decode("ascii"))
    if len(_hosts) >= MOST_KNOWN:
        _hosts.clear()
    _hosts[value] = found
    return found


def scan_request(data: bytes, most_headers: int = 100) -> RequestHead | None:  # noqa: PLR0915 -- one pass, no calls
    """The head in `data` (without its empty line), or None."""
    lines = data.split(b"\r\n")
    count = len(lines) - 1
    if len(data.translate(None, PRINTABLE)) != 2 * count or count > most_headers:
        return None
    start = lines[0]
    method, _, rest = start.partition(b" ")
    target, _, version = rest.partition(b" ")
    if version != b"HTTP/1.1" or method not in _METHODS or target[:1] != b"/" or b"#" in target:
        return None
    head = RequestHead()
    known = _request_lines
    cuts: list[bytes] = []
    claims: list[bytes] | None = None
    host: tuple[bytes, str] | None = None
    del lines[0]
    for line in lines:
        name, _, value = line.partition(b":")
        kind = known.get(name)
        if kind is None:
            kind = _learn(name, REQUEST, known)
        if not value:
            return None
        if not kind:
            continue
        if kind == HOST:
            if host is not None:
                return None
            host = _hosts.get(value) or _read_host(value)
            if host is None:
                return None
        elif kind == AGENT:
            head.agent = value.strip(b" ")
        elif kind == REFERER:
            head.referer = value.strip(b" ")
        elif kind == CONNECTION:
            if value in _CLOSE:
                head.keep_alive = False
            elif value not in _KEEP:
                return None
            cuts.append(line)
        elif kind == CUT:
            cuts.append(line)
        elif kind == LENGTH:
            match = _LENGTH.fullmatch(value)
            if match is None or head.length is not None:
                return None
            head.length = int(match[1])
        elif kind == CLAIM:
            claims = claims or []
            claims.append(line)
            cuts.append(line)
        elif kind == LOGIN:
            head.bound = head.bound or names_shared_login(value)
        elif kind == VIA:
            head.via = head.via + b"," + value if head.via else value
        else:
            return None
    if host is None:
        return None
    for cut in cuts:
        lines.remove(cut)
    lines.append(b"")
    head.fields = b"\r\n".join(lines)
    head.start = start
    if method != b"GET":
        head.method = method
    head.target = target
    head.authority, head.host = host
    path = target.partition(b"?")[0].decode("ascii")
    if "%" in path or "." in path or "\\" in path:
        head.odd = "%" in path or "/." in path or ".." in path or "\\" in path
        path = normal_path(path)
    head.path = path
    if claims is not None:
        head.claims = tuple(claims)
    return head


def scan_response(data: bytes) -> ResponseHead | None:
    """The head in `data` (without its empty line), or None."""
    lines = data.split(b"\r\n")
    count = len(lines) - 1
    if len(data.translate(None, PRINTABLE)) != 2 * count or count > MOST_ANSWER_LINES:
        return None
    start = lines[0]
    if start[:9] != b"HTTP/1.1 " or not start[9:12].isdigit() or start[12:13] != b" ":
        return None
    status = int(start[9:12])
    if status < 200 or status > 599 or status == 204:
        return None
    head = ResponseHead()
    known = _response_lines
    cuts: list[bytes] = []
    del lines[0]
    for line in lines:
        name, _, value = line.partition(b":")
        kind = known.get(name)
        if kind is None:
            kind = _learn(name, RESPONSE, known)
        if not value:
            return None
        if not kind:
            continue
        if kind == LENGTH:
            match = _LENGTH.fullmatch(value)
            if match is None or head.length is not None:
                return None
            head.length = int(match[1])
        elif kind == LOGIN:
            head.bound = head.bound or names_shared_login(value)
        elif kind == DATE:
            head.dated = True
        elif kind == CUT:
            cuts.append(line)
        elif kind == CONNECTION:
            if value in _CLOSE:
                head.keep_alive = False
            elif value not in _KEEP:
                return None
            cuts.append(line)
        elif kind == CODING:
            if value.strip(b" ").lower() != b"chunked" or head.chunked:
                return None
            head.chunked = True
            cuts.append(line)
        else:
            return None
    if head.chunked and head.length is not None:
        return None
    for cut in cuts:
        lines.remove(cut)
    lines.append(b"")
    head.fields = b"\r\n".join(lines)
    if status != 200:
        head.status = status
    head.phrase = start[13:]
    return head


plain_scan_request, plain_scan_response = scan_request, scan_response
if not TYPE_CHECKING:
    with suppress(ImportError):
        from l7proxy.core._scan import scan_request, scan_response
