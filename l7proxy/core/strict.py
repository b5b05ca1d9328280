"""The second tier for heads: everything HTTP/1 allows and we take, read strictly, or the refusal that answers it.

One rule: nothing ambiguous goes on. Whatever two readers of the same bytes could understand differently (framing, host,
target) is refused here (RFC 9112 11.2), though the parser in front (`http/parser.py`) may have refused it already.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from ipaddress import IPv6Address

from l7proxy.core.head import HOP_BY_HOP, LONGEST_BODY, NEVER_NAMED, Refusal, RequestHead, ResponseHead
from l7proxy.core.linekinds import LONGEST_HOST, names_shared_login
from l7proxy.core.paths import normal_path
from l7proxy.core.proxystatus import Cause

_START = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) HTTP/([0-9])\.([0-9])")
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([\t -~\x80-\xff]*))?")
_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\t -~\x80-\xff]*)")
"""Without a pattern for the blanks around the value: two that can match the same are tried in every combination."""
_ABSOLUTE = re.compile(r"(?i:https?)://([^/?]*)(.*)")
_AUTHORITY = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|(?:[A-Za-z0-9._~-]|%[0-9A-Fa-f]{2})+)(?::([0-9]{0,5}))?")
_TOKENS = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
LONGEST_METHOD = 32


class _RefusedError(Exception):
    def __init__(self, cause: Cause, reason: str) -> None:
        super().__init__(reason)
        self.refusal = Refusal(cause, reason)


def is_claim(name: bytes) -> bool:
    """Whether a header (lower case) says where a request came from. `_` counts as `-`: CGI makes them one.

    >>> is_claim(b"x_forwarded_for"), is_claim(b"x-forward")
    (True, False)
    """
    plain = name.replace(b"_", b"-")
    return plain.startswith(b"x-forwarded-") or plain in {b"forwarded", b"x-real-ip"}


def read_request(data: bytes, *, most_headers: int = 100, drop_underscores: bool = True) -> RequestHead | Refusal:
    """The head in `data` (without its empty line), or why it is refused.

    >>> head = read_request(b"GET http://a.example/x HTTP/1.1\\r\\nHost: b.example")
    >>> head.start, head.host, head.fields
    (b'GET /x HTTP/1.1', 'a.example', b'Host: a.example\\r\\n')
    >>> read_request(b"GET / HTTP/1.1").reason
    'no Host'
    """
    try:
        return _read_request(data, most_headers, drop_underscores)
    except _RefusedError as error:
        return error.refusal


def _read_request(data: bytes, most_headers: int, drop_underscores: bool) -> RequestHead:
    lines = data.split(b"\r\n")
    match = _START.fullmatch(lines[0])
    if match is None:
        raise _RefusedError(Cause.MALFORMED_REQUEST, "a request line that is none")
    method, target, version = match[1], match[2], match[3] + b"." + match[4]
    if version not in {b"1.1", b"1.0"}:
        raise _RefusedError(Cause.UNKNOWN_VERSION, f"HTTP/{version.decode()} is not spoken here")
    if len(lines) - 1 > most_headers:
        raise _RefusedError(Cause.HEAD_TOO_LARGE, f"more than {most_headers} header lines")
    fields = _fields(lines[1:])
    if method in {b"CONNECT", b"TRACE"}:
        raise _RefusedError(Cause.METHOD_NOT_ALLOWED, f"method {method.decode()} is not forwarded")
    if len(method) > LONGEST_METHOD:
        raise _RefusedError(Cause.MALFORMED_REQUEST, "a method that is too long")
    head = RequestHead()
    head.method = method
    head.http10 = version == b"1.0"
    head.target = target
    found: dict[bytes, list[bytes]] = {}
    for name, value, _ in fields:
        found.setdefault(name, []).append(value)
    head.length, head.chunked = _framing(found, head.http10)
    origin_form, came_otherwise = _place(head, found.get(b"host"))
    head.start = b"%b %b HTTP/1.1" % (method, origin_form)
    dropped = HOP_BY_HOP | {b"proxy"} | _connection(head, found.get(b"connection", []))
    _expect(head, found.get(b"expect", []))
    _more(head, found)
    if b"via" not in dropped:
        head.via = b",".join(found.get(b"via", ()))
    kept = []
    claims = []
    for name, _, line in fields:
        if b"_" in name and (
            drop_underscores or (plain := name.replace(b"_", b"-")) in dropped or plain in NEVER_NAMED
        ):
            continue
        if is_claim(name):
            if b"_" not in name and name not in dropped:
                claims.append(line)
        elif name == b"host":
            kept.append(b"Host: " + head.authority if came_otherwise else line)
        elif name in dropped or (name == b"expect" and not head.expects_continue):
            continue
        else:
            kept.append(line)
    if came_otherwise and b"host" not in found:
        kept.insert(0, b"Host: " + head.authority)
    head.fields = b"".join([line + b"\r\n" for line in kept])
    head.claims = tuple(claims)
    return head


def _fields(lines: Sequence[bytes]) -> list[tuple[bytes, bytes, bytes]]:
    """Name in lower case, value without the white space around it, and the line, of each."""
    fields = []
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None:
            raise _RefusedError(Cause.MALFORMED_REQUEST, _what_is_wrong(line))
        fields.append((match[1].lower(), match[2].strip(b" \t"), line))
    return fields


def _what_is_wrong(line: bytes) -> str:
    if line[:1] in {b" ", b"\t"}:
        return "a folded header line"
    if b":" not in line:
        return "a header line without a colon"
    if b"\n" in line or b"\r" in line:
        return "a line end that is not CRLF"
    return "a header has a character that cannot stand there"


def _tokens(values: Sequence[bytes]) -> list[bytes]:
    return [token for value in values for part in value.split(b",") if (token := part.strip(b" \t").lower())]


def _framing(found: dict[bytes, list[bytes]], http10: bool) -> tuple[int | None, bool]:
    """Content-Length and whether the body is chunked (RFC 9112 6)."""
    lengths, codings = found.get(b"content-length", []), found.get(b"transfer-encoding")
    if codings is not None:
        if lengths:
            raise _RefusedError(Cause.MALFORMED_REQUEST, "Content-Length and Transfer-Encoding together")
        if http10:
            raise _RefusedError(Cause.MALFORMED_REQUEST, "Transfer-Encoding in HTTP/1.0")
        if _tokens(codings) != [b"chunked"]:
            tokens = _tokens(codings)
            ends = tokens[-1:] == [b"chunked"] and tokens.count(b"chunked") == 1
            unknown = bool(tokens) and (ends or b"chunked" not in tokens)
            cause = Cause.UNKNOWN_CODING if unknown else Cause.MALFORMED_REQUEST
            raise _RefusedError(cause, "a Transfer-Encoding that is not chunked")
        if codings[0].lower() != b"chunked":
            raise _RefusedError(Cause.MALFORMED_REQUEST, "a Transfer-Encoding with empty members")
        return None, True
    if not lengths:
        return None, False
    if len(lengths) > 1:
        raise _RefusedError(Cause.MALFORMED_REQUEST, "more than one Content-Length")
    if not lengths[0].isdigit() or len(lengths[0]) > 19 or int(lengths[0]) > LONGEST_BODY:
        raise _RefusedError(Cause.MALFORMED_REQUEST, "a Content-Length that is no length")
    return int(lengths[0]), False


def _place(head: RequestHead, hosts: list[bytes] | None) -> tuple[bytes, bool]:
    """The target in origin form, and whether the authority is not what Host says (RFC 9112 3.2, 3.3). Sets `authority`,
    `host` and `path`."""
    target = head.target
    if b"#" in target:
        raise _RefusedError(Cause.MALFORMED_REQUEST, "a target with a character that cannot stand there")
    if hosts is None and not head.http10:
        raise _RefusedError(Cause.MALFORMED_REQUEST, "no Host")
    if hosts is not None and len(hosts) > 1:
        raise _RefusedError(Cause.MALFORMED_REQUEST, "more than one Host")
    authority = hosts[0] if hosts else b""
    if hosts is not None and not _is_authority(authority):
        raise _RefusedError(Cause.MALFORMED_REQUEST, "a Host that is no host")
    came_otherwise = False
    if target.startswith(b"/"):
        origin_form = target
    elif target == b"*" and head.method == b"OPTIONS":
        origin_form = b"*"
    else:
        match = _ABSOLUTE.fullmatch(target.decode("ascii"))
        if match is None or not _is_authority(match[1].encode("ascii")):
            raise _RefusedError(Cause.MALFORMED_REQUEST, "a target that is no path and no http URL")
        rest = match[2] or ("*" if head.method == b"OPTIONS" else "/")
        origin_form = (rest if rest[0] in "/*" else "/" + rest).encode("ascii")
        came_otherwise = match[1].encode("ascii") != authority
        authority = match[1].encode("ascii")
    head.authority = authority
    host = authority.lower().decode("ascii")
    if not host.endswith("]") and ":" in host:
        host = host.rpartition(":")[0]
    head.host = host.removesuffix(".")
    if origin_form != b"*":
        path = origin_form.partition(b"?")[0].decode("ascii")
        head.odd = "%" in path or "/." in path or ".." in path or "\\" in path
        head.path = normal_path(path)
    return origin_form, came_otherwise


def _is_authority(text: bytes) -> bool:
    match = _AUTHORITY.fullmatch(text) if len(text) <= LONGEST_HOST else None
    if match is None or (match[2] and int(match[2]) > 65535):
        return False
    return not text.startswith(b"[") or _is_ipv6(match[1][1:-1])


def _is_ipv6(text: bytes) -> bool:
    try:
        IPv6Address(text.decode("ascii"))
    except ValueError:
        return False
    return True


def _connection(head: RequestHead, values: list[bytes]) -> frozenset[bytes]:
    """What Connection names besides; sets `keep_alive` (RFC 9112 9.3)."""
    tokens = set(_tokens(values))
    for token in tokens:
        if not _TOKENS.fullmatch(token):
            raise _RefusedError(Cause.MALFORMED_REQUEST, "a Connection header that is no list of names")
        if token in NEVER_NAMED:
            raise _RefusedError(Cause.MALFORMED_REQUEST, f"Connection names {token.decode('ascii')}")
    head.keep_alive = b"keep-alive" in tokens if head.http10 else True
    if b"close" in tokens:
        head.keep_alive = False
    return frozenset(tokens) - {b"close", b"keep-alive"}


def _expect(head: RequestHead, values: list[bytes]) -> None:
    if not values or head.http10:
        return
    if _tokens(values) != [b"100-continue"]:
        raise _RefusedError(Cause.EXPECTATION_FAILED, "an expectation that is not 100-continue")
    head.expects_continue = head.has_body


def _more(head: RequestHead, found: dict[bytes, list[bytes]]) -> None:
    head.bound = any(names_shared_login(value) for value in found.get(b"authorization", ()))
    head.referer = found.get(b"referer", [b""])[-1]
    head.agent = found.get(b"user-agent", [b""])[-1]
    upgrades = _tokens(found.get(b"upgrade", ()))
    asked = b"upgrade" in _tokens(found.get(b"connection", ()))
    if asked and b"websocket" in upgrades and head.method == b"GET" and not head.http10 and not head.has_body:
        head.upgrade = b"websocket"
    if head.method == b"OPTIONS" and b"max-forwards" in found:
        values = found[b"max-forwards"]
        if len(values) > 1 or not values[0].isdigit() or len(values[0]) > 9:
            raise _RefusedError(Cause.MALFORMED_REQUEST, "a Max-Forwards that is no number")
        head.max_forwards = int(values[0])


def read_response(data: bytes) -> ResponseHead | str:
    """The answer's head in `data` (without its empty line), or what is wrong with it."""
    lines = data.split(b"\r\n")
    match = _STATUS.fullmatch(lines[0])
    if match is None:
        return "what came is no HTTP answer"
    head = ResponseHead()
    head.status = int(match[2])
    head.phrase = match[3] or b""
    if head.status > 599:
        return "a status above 599"
    http10 = match[1] == b"0"
    try:
        fields = _fields(lines[1:])
    except _RefusedError as error:
        return error.refusal.reason
    tokens = set(_tokens([value for name, value, _ in fields if name == b"connection"]))
    head.keep_alive = b"close" not in tokens and (not http10 or b"keep-alive" in tokens)
    dropped = HOP_BY_HOP | (tokens - NEVER_NAMED)
    codings = [value for name, value, _ in fields if name == b"transfer-encoding"]
    if codings:
        if http10:
            return "a Transfer-Encoding in HTTP/1.0"
        if [coding.lower() for coding in codings] != [b"chunked"]:
            return "a Transfer-Encoding that is not chunked"
        head.chunked = True
    head.fields = b"".join([line + b"\r\n" for line in _kept(head, fields, dropped)])
    lengths = [value for name, value, _ in fields if name == b"content-length"]
    if len(lengths) > 1:
        return "two Content-Lengths"
    for length in lengths:
        if not length.isdigit() or len(length) > 19 or int(length) > LONGEST_BODY:
            return "a Content-Length that is no length"
        if head.chunked:
            return "Content-Length and Transfer-Encoding together"
        head.length = int(length)
    return head


def _kept(
    head: ResponseHead, fields: Sequence[tuple[bytes, bytes, bytes]], dropped: frozenset[bytes] | set[bytes]
) -> Iterator[bytes]:
    bodiless = head.status < 200 or head.status == 204  # RFC 9110 8.6
    for name, value, line in fields:
        if name == b"content-length" and bodiless:
            continue
        if name == b"upgrade" and head.status == 101:
            head.upgrade = value.lower()
        elif name == b"date" and name not in dropped:
            head.dated = True
        elif name == b"www-authenticate" and names_shared_login(value):
            head.bound = True
        if name not in dropped:
            yield line
