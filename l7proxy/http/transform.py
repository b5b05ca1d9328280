"""The steps that change requests and answers: rewriting, and marking by header lines.

One rule: what they do is said in core/rewrite.py and core/marking.py; here is only when.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from l7proxy.core.access import without
from l7proxy.core.head import ResponseHead
from l7proxy.core.headers import via_tail
from l7proxy.core.marking import request_rules, response_rules, tail_in, without_tracestate
from l7proxy.core.model import DangerousPath, Route
from l7proxy.core.paths import Danger
from l7proxy.core.proxystatus import Cause
from l7proxy.core.rewrite import LEADS_BACK, Rewriter, WayBack, host_of, with_host
from l7proxy.core.settings.marking import Forwarding, Marking
from l7proxy.http.randomhex import random_hex
from l7proxy.http.steps import GO_ON, OVER

if TYPE_CHECKING:
    from l7proxy.http.exchange import Exchange
    from l7proxy.http.told import Told


class Rewriting:
    """Path, query and host on the way to a backend, and what leads back in its answers."""

    __slots__ = ("_host", "_rewriter")

    def __init__(self, route: Route) -> None:
        assert route.rewrite is not None  # noqa: S101 -- who makes this has looked
        self._rewriter = Rewriter(route.rewrite, checked=route.dangerous_path is not DangerousPath.FORWARD)
        self._host = route.rewrite.host

    def before(self, exchange: Exchange) -> int:
        """GO_ON, or OVER where it leads nowhere safe."""
        head = exchange.head
        start = self._rewriter.plain_start(head.start, head)
        if start is not None:
            head.start = start
        elif self._rewriter.changes_target:
            method, target, version = head.start.split(b" ")
            made = self._rewriter.target(target, exchange)
            if isinstance(made, Danger):
                exchange.refuse(Cause.DANGEROUS_PATH, f"rewritten, {made.value}")
                return OVER
            if made != target:
                head.start = b"%b %b %b" % (method, made, version)
        if self._host is not None:
            return self._change_host(exchange)
        return GO_ON

    def _change_host(self, exchange: Exchange) -> int:
        assert self._host is not None  # noqa: S101 -- who calls has looked
        host = host_of(self._host, exchange)
        if host is None:
            exchange.refuse(Cause.MALFORMED_REQUEST, "rewrite.host gives no host for it")
            return OVER
        head = exchange.head
        head.fields = with_host(head.fields, host)
        if not head.authority:  # HTTP/1.0 without one: now there is, though clients did not ask for it
            exchange.tail = exchange.tail or exchange.client.tail(b"")
            head.authority = host
        return GO_ON

    def after(self, exchange: Told, head: ResponseHead) -> None:
        """Lead back what the backend says about places."""
        backend, upstream = exchange.backend, exchange.upstream
        if not LEADS_BACK.in_lines(head.fields) or backend is None or upstream is None:
            return
        asked = host_of(self._host, exchange) if self._host is not None else exchange.head.authority
        spoken = b"https" if upstream.upstream.tls is not None else b"http"
        way = WayBack(self._rewriter, exchange.head, exchange.scheme, asked or b"", backend.authority, spoken)
        head.fields = way.fields(head.fields)


class RequestMarking:
    """Header lines on the way to a backend."""

    __slots__ = ("_form", "_rules", "_traces")

    def __init__(self, marking: Marking) -> None:
        self._rules = request_rules(marking, random_hex)
        self._form = marking.forwarded
        self._traces = marking.traceparent is not None

    def __bool__(self) -> bool:
        return bool(self._rules) or self._form is not Forwarding.X_FORWARDED

    def before(self, exchange: Exchange) -> int:
        """GO_ON."""
        head = exchange.head
        fields = head.fields
        rules = self._rules
        if self._traces:
            fields = without_tracestate(fields, exchange)
        if not exchange.snapshot.config.drop_underscores and rules.dashed and b"_" in fields:
            fields = without(fields, rules.dashed)
        head.fields = rules.apply(fields, exchange)
        if self._form is not Forwarding.X_FORWARDED:
            self._tell(exchange)
        if rules.claims is not None:
            tail = exchange.tail or exchange.client.tail(head.authority)
            exchange.tail = rules.claims.without(tail)
        return GO_ON

    def _tell(self, exchange: Exchange) -> None:
        """Who asks, in another form than the usual one."""
        head = exchange.head
        client = exchange.client
        needed = self._form is Forwarding.BOTH or exchange.from_proxy
        tail = exchange.tail or (client.tail(head.authority) if needed else b"")
        own = via_tail(exchange.snapshot.via, head.http10)
        exchange.tail = tail_in(self._form, tail, own, head, client.peer, client.scheme, from_proxy=exchange.from_proxy)


class AnswerMarking:
    """Header lines on the way back, also of answers of the proxy's own."""

    __slots__ = ("_rules",)

    def __init__(self, marking: Marking) -> None:
        self._rules = response_rules(marking)

    def __bool__(self) -> bool:
        return bool(self._rules)

    def after(self, exchange: Told, head: ResponseHead) -> None:
        """Change its lines."""
        head.fields = self._rules.apply(head.fields, exchange)
