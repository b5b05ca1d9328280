"""What a backend would see of a request, by the rules that exchanges take, without an exchange."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from l7proxy.core.captures import captures_of
from l7proxy.core.head import RequestHead
from l7proxy.core.lookup import Fields
from l7proxy.core.marking import request_rules, tail_in, without_tracestate
from l7proxy.core.model import DangerousPath, Route
from l7proxy.core.paths import Danger, danger_of, normalised
from l7proxy.core.rewrite import Rewriter, host_of, with_host


@dataclass
class Asking:
    """A request that nobody has sent: what templates ask about it."""

    head: RequestHead
    route: Route
    asker: str = "192.0.2.1"
    scheme: str = "http"
    listener_name: str = ""
    peer: str = ""
    user: str = ""
    subject: str = ""
    request_id: bytes = b"made-anew"
    upstream_name: str = ""
    backend_name: str = ""
    seen: Fields = field(init=False)

    def __post_init__(self) -> None:
        self.seen = Fields(self.head.fields)
        self.peer = self.peer or self.asker
        self.upstream_name = self.upstream_name or self.route.upstream

    @cached_property
    def captures(self) -> Mapping[str, bytes | None]:
        return captures_of(self.route.path, self.head.path)

    @property
    def route_name(self) -> str:
        return self.route.name


@dataclass(frozen=True, slots=True)
class Transformed:
    """What goes on: the target, the Host (empty: the backend's address), and the header lines, each with its line end.

    `refusal` is why nothing does; `notes` are what has changed, a line each.
    """

    target: bytes
    host: bytes
    fields: bytes = b""
    notes: tuple[str, ...] = ()
    refusal: str = ""


def rewritten(route: Route, asking: Asking) -> Transformed:
    """What a backend of `route` would see."""
    head = asking.head
    target = head.start.split(b" ")[1] if head.start else head.target
    host = head.authority
    fields = head.fields
    notes: list[str] = []
    path, mark, query = target.partition(b"?")
    if head.odd and route.dangerous_path is not DangerousPath.FORWARD:
        text = path.decode("ascii")
        normal = normalised(text) if route.dangerous_path is DangerousPath.NORMALISE else danger_of(text) or text
        if isinstance(normal, Danger):
            return Transformed(target, host, fields, refusal=f"400: {normal.value}")
        if normal != text:
            notes.append(f"path: {normal}, its normal form")
            target = normal.encode("ascii") + mark + query
    if route.rewrite is not None:
        rewriter = Rewriter(route.rewrite, checked=route.dangerous_path is not DangerousPath.FORWARD)
        made = rewriter.target(target, asking)
        if isinstance(made, Danger):
            return Transformed(target, host, fields, tuple(notes), f"400: rewritten, {made.value}")
        if made != target:
            notes.append(f"target: {_text(target)} becomes {_text(made)}")
            target = made
        if route.rewrite.host is not None:
            given = host_of(route.rewrite.host, asking)
            if given is None:
                return Transformed(target, host, fields, tuple(notes), "400: rewrite.host gives no host for it")
            notes.append(f"Host: {_text(host) or '(none)'} becomes {_text(given)}")
            host = given
            fields = with_host(fields, given)
    if route.marking is not None:
        rules = request_rules(route.marking, lambda digits: b"f" * digits)
        before = fields
        if route.marking.traceparent is not None:
            fields = without_tracestate(fields, asking)
        fields = rules.apply(fields, asking)
        notes += _difference(before, fields)
        told = tail_in(route.marking.forwarded, b"", b"", head, asking.peer, asking.scheme, from_proxy=False)
        notes += [f"header added: {_text(line)}" for line in told.split(b"\r\n") if line]
    return Transformed(target, host, fields, tuple(notes))


def _difference(before: bytes, after: bytes) -> list[str]:
    old, new = before.split(b"\r\n"), after.split(b"\r\n")
    gone = [f"header removed: {_text(line)}" for line in old if line not in new]
    return gone + [f"header added: {_text(line)}" for line in new if line not in old]


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "backslashreplace")
