r"""A record of the access log, and its two forms: Apache's combined with fields behind it, or JSON.

One rule: a line is ASCII, and nothing of a request can break it, or forge a field in it. What could is escaped in
combined as Apache does it (`\"`, `\\`, `\n`, `\xhh`), in JSON as JSON has it; a value that is no UTF-8 stands there
as in combined. A request's line and the two headers of combined are logged as they came, with the query; no other
header ever is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, TypeAlias

from l7proxy.core.proxystatus import Cause

Record: TypeAlias = tuple[
    float,  # started_at: the first byte of the request
    float,  # chosen_at: the last attempt with a backend began; 0.0 where none did
    float,  # connected_at: it had a connection; 0.0 where it got none
    float,  # first_at: the first byte of the answer; 0.0 where none came
    float,  # ended_at
    str,  # client: its address
    bytes | None,  # method
    bytes | None,  # host
    bytes | None,  # target, as it came
    bytes,  # version: b"1.1"
    str,  # scheme
    int,  # status: as sent, or 499 where the client left before
    int,  # bytes_in
    int,  # bytes_out
    str | None,  # route
    str | None,  # upstream
    str | None,  # backend
    int,  # retries
    Cause | None,
    bytes | None,  # Referer
    bytes | None,  # User-Agent
    bytes | None,  # request id: visible ASCII, without quotes and backslashes
    str,  # user: who has proven who it is; empty where nobody has
]
"""One exchange. A bare tuple, for that is the cheapest to make (0.1 us; a NamedTuple takes four times as long).

Times are on the loop's monotonic clock. None is what never was known, or what the request did not have.
"""

Formatter: TypeAlias = Callable[[Sequence[Record], float], bytes]
"""Records, and the wall clock's distance from the monotonic one in seconds, to lines."""

_PLAIN = bytes(octet for octet in range(0x20, 0x7F) if octet not in b'"\\')
_BARE = re.compile(r"[!#-<>-\[\]-~]+")
_MOST_NAMES = 4096
_COMBINED = (
    b'%b - %b [%b] "%b %b HTTP/%b" %d %d "%b" "%b" host="%b" scheme=%b in=%d queue=%.1f connect=%.1f first_byte=%.1f'
    b" total=%.1f route=%b upstream=%b backend=%b retries=%d cause=%b%b\n"
)
_JSON = (
    b'{"time":"%b.%03dZ","client":%b,"method":%b,"scheme":%b,"host":%b,"target":%b,"version":"%b","status":%d,'
    b'"bytes_in":%d,"bytes_out":%d,"queue_ms":%.1f,"connect_ms":%.1f,"first_byte_ms":%.1f,"total_ms":%.1f,'
    b'"route":%b,"upstream":%b,"backend":%b,"retries":%d,"cause":%b,"referer":%b,"user_agent":%b%b%b}\n'
)


class _Names(dict[str | None, bytes]):
    """Names from the configuration, as they are written; made once each."""

    def __init__(self, written: Callable[[str | None], bytes]) -> None:
        super().__init__()
        self._written = written

    def __missing__(self, name: str | None) -> bytes:
        if len(self) >= _MOST_NAMES:
            self.clear()
        self[name] = made = self._written(name)
        return made


def combined(records: Sequence[Record], wall_s: float) -> bytes:
    """Apache's combined format, and fields behind it; times in ms: of a phase that did not end, until the end."""
    lines = []
    names = _bare_names
    last_second, stamp = -1, b""
    for (
        started_at,
        chosen_at,
        connected_at,
        first_at,
        ended_at,
        client,
        method,
        host,
        target,
        version,
        scheme,
        status,
        bytes_in,
        bytes_out,
        route,
        upstream,
        backend,
        retries,
        cause,
        referer,
        agent,
        request_id,
        user,
    ) in records:
        second = int(started_at + wall_s)
        if second != last_second:
            last_second = second
            stamp = _moment(second).strftime("%d/%b/%Y:%H:%M:%S +0000").encode("ascii")
        chosen_at = chosen_at or ended_at  # noqa: PLW2901 -- as are all of them
        connected_at = connected_at or ended_at  # noqa: PLW2901
        method = method or b"-"  # noqa: PLW2901
        host = host or b"-"  # noqa: PLW2901
        target = target or b"-"  # noqa: PLW2901
        referer = b"-" if referer is None else referer  # noqa: PLW2901
        agent = b"-" if agent is None else agent  # noqa: PLW2901
        if (method + target + host + referer + agent).translate(None, _PLAIN):
            method, target, host, referer, agent = map(_escaped, (method, target, host, referer, agent))  # noqa: PLW2901
        lines.append(
            _COMBINED
            % (
                client.encode("ascii", "replace") or b"-",
                _word(user) if user else b"-",
                stamp,
                method,
                target,
                version,
                status,
                bytes_out,
                referer,
                agent,
                host,
                names[scheme],
                bytes_in,
                (chosen_at - started_at) * 1000,
                (connected_at - chosen_at) * 1000,
                ((first_at or ended_at) - connected_at) * 1000,
                (ended_at - started_at) * 1000,
                names[route],
                names[upstream],
                names[backend],
                retries,
                b"-" if cause is None else names[cause.label],
                b"" if request_id is None else b" request_id=" + request_id,
            )
        )
    return b"".join(lines)


def json_lines(records: Sequence[Record], wall_s: float) -> bytes:
    """One object a line; null is what was not known."""
    lines = []
    names = _json_names
    last_second, stamp = -1, b""
    for (
        started_at,
        chosen_at,
        connected_at,
        first_at,
        ended_at,
        client,
        method,
        host,
        target,
        version,
        scheme,
        status,
        bytes_in,
        bytes_out,
        route,
        upstream,
        backend,
        retries,
        cause,
        referer,
        agent,
        request_id,
        user,
    ) in records:
        now = started_at + wall_s
        second = int(now)
        if second != last_second:
            last_second = second
            stamp = _moment(second).strftime("%Y-%m-%dT%H:%M:%S").encode("ascii")
        chosen_at = chosen_at or ended_at  # noqa: PLW2901 -- as above
        connected_at = connected_at or ended_at  # noqa: PLW2901
        raw = (host or b"") + (target or b"")
        if referer is not None:
            raw += referer
        if agent is not None:
            raw += agent
        text = _json_text if raw.translate(None, _PLAIN) else _json_plain
        lines.append(
            _JSON
            % (
                stamp,
                (now - second) * 1000,
                _json_plain(client.encode("ascii", "replace")),
                _json_text(method),
                names[scheme],
                text(host),
                text(target),
                version,
                status,
                bytes_in,
                bytes_out,
                (chosen_at - started_at) * 1000,
                (connected_at - chosen_at) * 1000,
                ((first_at or ended_at) - connected_at) * 1000,
                (ended_at - started_at) * 1000,
                names[route],
                names[upstream],
                names[backend],
                retries,
                b"null" if cause is None else names[cause.label],
                text(referer),
                text(agent),
                b"" if request_id is None else b',"request_id":"%b"' % request_id,
                b',"user":%b' % _json_text(user.encode("utf-8", "backslashreplace")) if user else b"",
            )
        )
    return b"".join(lines)


def _moment(second: int) -> datetime:
    return datetime.fromtimestamp(second, UTC)


def _escaped(octets: bytes) -> bytes:
    return octets.decode("latin-1").encode("unicode_escape").replace(b'"', b'\\"')


def _word(text: str) -> bytes:
    """A user's name as one word, which no other one is: a blank is an escape too, and so is the first of one that
    begins with the dash of nobody."""
    octets = _escaped(text.encode("utf-8", "backslashreplace")).replace(b" ", b"\\x20")
    return b"\\x2d" + octets[1:] if octets[:1] == b"-" else octets


def _json_plain(octets: bytes | None) -> bytes:
    return b"null" if octets is None else b'"%b"' % octets


def _json_text(octets: bytes | None) -> bytes:
    if octets is None:
        return b"null"
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        text = octets.decode("latin-1").encode("unicode_escape").decode("ascii")
    return encode_basestring_ascii(text).encode("ascii").replace(b"\x7f", b"\\u007f")


def _bare_name(name: str | None) -> bytes:
    if not name:
        return b"-"
    return name.encode("ascii") if _BARE.fullmatch(name) else _json_name(name)


def _json_name(name: str | None) -> bytes:
    return b"null" if name is None else _json_text(name.encode("utf-8", "backslashreplace"))


_bare_names = _Names(_bare_name)
_json_names = _Names(_json_name)

plain_combined = combined
if not TYPE_CHECKING:
    with suppress(ImportError):
        from l7proxy.core._logline import Combined

        combined = Combined(_bare_names, _escaped, _moment, _word)
