"""What a request is: its head, read strictly, or the refusal that answers it.

One rule: nothing ambiguous goes on. Whatever two readers of the same bytes could understand differently (framing,
host, target) is refused here, though the parser in front may have refused it already (RFC 9112 11.2).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from l7proxy.core.routing import normal_path

Fields = Sequence[tuple[bytes, bytes]]
"""Header lines as they came: name and value, in order, duplicates kept."""

LONGEST_BODY = 2**63 - 1
_TARGET = re.compile(r"[!-~]+")
_ABSOLUTE = re.compile(r"(?i:https?)://([^/?]*)(.*)")
_AUTHORITY = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|(?:[A-Za-z0-9._~-]|%[0-9A-Fa-f]{2})+)(?::([0-9]{1,5}))?")
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"[\t -~\x80-\xff]*")

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-authentication-info",
    }
)
"""Headers about one connection (RFC 9110 7.6.1). Trailer is one here because trailers are not forwarded."""

_NEVER_NAMED = frozenset(
    {
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"content-type",
        b"content-encoding",
        b"authorization",
        b"cookie",
        b"set-cookie",
        b"forwarded",
        b"via",
    }
)
"""End-to-end headers that Connection must not take away: a client could blind a backend with it."""

_READ = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection", b"expect"})


@dataclass(frozen=True, slots=True)
class Refusal:
    """The status that answers a request that goes no further, and why, for the log."""

    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A request's head, understood.

    `target` goes to the backend byte for byte, `authority` is its Host (empty: HTTP/1.0 without one); `host` and
    `path` are what routes look at. `length` is None where no Content-Length came. `dropped` are the names (lower
    case) that must not be forwarded.
    """

    method: str
    target: bytes
    authority: bytes
    host: str
    path: str
    http10: bool
    fields: Fields
    names: tuple[bytes, ...]
    length: int | None
    chunked: bool
    expects_continue: bool
    dropped: frozenset[bytes]

    @property
    def has_body(self) -> bool:
        """Whether bytes of a body follow."""
        return self.chunked or bool(self.length)


def read_head(
    method: str, target: str, version: tuple[int, int], fields: Fields, largest_bytes: int = 2**20
) -> RequestHead | Refusal:
    """Understand a request's head, or say why it is refused."""
    if version not in {(1, 1), (1, 0)}:
        return Refusal(505, f"HTTP/{version[0]}.{version[1]} is not spoken here")
    if method in {"CONNECT", "TRACE"}:
        return Refusal(405, f"method {method} is not forwarded")
    names = tuple([name.lower() for name, _ in fields])
    found: dict[bytes, list[bytes]] = {}
    size = len(target)
    for name, (_, value) in zip(names, fields, strict=True):
        size += len(name) + len(value) + 4
        if not _VALUE.fullmatch(value) or not _TOKEN.fullmatch(name):
            return Refusal(400, "a header has a character that cannot stand there")
        if name in _READ:
            found.setdefault(name, []).append(value)
    if size > largest_bytes:
        return Refusal(431, f"the head is larger than {largest_bytes} bytes")
    framing = _framing(found, version == (1, 0))
    if isinstance(framing, Refusal):
        return framing
    length, chunked = framing
    place = _place(method, target, found.get(b"host"), version == (1, 0))
    if isinstance(place, Refusal):
        return place
    origin_form, authority = place
    dropped = HOP_BY_HOP
    if b"connection" in found:
        named = frozenset(token for token in _tokens(found[b"connection"]) if token not in {b"close", b"keep-alive"})
        stolen = [token for token in named if token in _NEVER_NAMED or token.startswith(b"x-forwarded-")]
        if stolen:
            return Refusal(400, f"Connection names {stolen[0].decode('ascii', 'replace')}")
        dropped |= named
    host = authority.lower().decode("ascii")
    if not host.endswith("]"):
        host = host.rpartition(":")[0] if ":" in host else host
    return RequestHead(
        method=method,
        target=origin_form,
        authority=authority,
        host=host.removesuffix("."),
        path=normal_path(origin_form.decode("ascii").partition("?")[0]) if origin_form != b"*" else "/",
        http10=version == (1, 0),
        fields=fields,
        names=names,
        length=length,
        chunked=chunked,
        expects_continue=version == (1, 1) and any(v.lower() == b"100-continue" for v in found.get(b"expect", ())),
        dropped=dropped,
    )


def _tokens(values: Sequence[bytes]) -> list[bytes]:
    return [token for value in values for part in value.split(b",") if (token := part.strip(b" \t").lower())]


def _framing(found: dict[bytes, list[bytes]], http10: bool) -> tuple[int | None, bool] | Refusal:
    """Content-Length and whether the body is chunked (RFC 9112 6)."""
    lengths, codings = found.get(b"content-length", []), found.get(b"transfer-encoding", [])
    if codings:
        if lengths:
            return Refusal(400, "Content-Length and Transfer-Encoding together")
        if http10:
            return Refusal(400, "Transfer-Encoding in HTTP/1.0")
        if _tokens(codings) != [b"chunked"]:
            known = set(_tokens(codings)) <= {b"chunked"}
            return Refusal(400 if known else 501, "a Transfer-Encoding that is not chunked")
        return None, True
    if not lengths:
        return None, False
    if len(lengths) > 1:
        return Refusal(400, "more than one Content-Length")
    if not lengths[0].isdigit() or len(lengths[0]) > 19 or int(lengths[0]) > LONGEST_BODY:
        return Refusal(400, "a Content-Length that is no length")
    return int(lengths[0]), False


def _place(method: str, target: str, hosts: list[bytes] | None, http10: bool) -> tuple[bytes, bytes] | Refusal:
    """The target in origin form and the authority (RFC 9112 3.2, 3.3)."""
    if not _TARGET.fullmatch(target) or "#" in target:
        return Refusal(400, "a target with a character that cannot stand there")
    if hosts is None and not http10:
        return Refusal(400, "no Host")
    if hosts is not None and len(hosts) > 1:
        return Refusal(400, "more than one Host")
    authority = hosts[0] if hosts else b""
    if hosts and not _is_authority(authority):
        return Refusal(400, "a Host that is no host")
    if target.startswith("/"):
        return target.encode("ascii"), authority
    if target == "*" and method == "OPTIONS":
        return b"*", authority
    match = _ABSOLUTE.fullmatch(target)
    if match is None or not _is_authority(match[1].encode("ascii")):
        return Refusal(400, "a target that is no path and no http URL")
    rest = match[2] or ("*" if method == "OPTIONS" else "/")
    return (rest if rest[0] in "/*" else "/" + rest).encode("ascii"), match[1].encode("ascii")


def _is_authority(text: bytes) -> bool:
    match = _AUTHORITY.fullmatch(text)
    return match is not None and (match[2] is None or int(match[2]) <= 65535)
