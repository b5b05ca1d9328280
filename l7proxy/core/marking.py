"""What a route changes in header lines, of requests and of answers.

One rule: lines that nobody names keep their bytes, order and duplicates. Rules look at what came, so that no rule sees
what another one made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Protocol

from l7proxy.core.forwarded import TrustedNetworks, forwarded_element
from l7proxy.core.head import RequestHead
from l7proxy.core.lines import Named
from l7proxy.core.settings.marking import FRAMING, Forwarding, HeaderRules, Marking
from l7proxy.core.strict import is_claim
from l7proxy.core.template import Source

_REQUEST_ID = re.compile(rb"[!#-\[\]-~]{1,200}")
_TRACEPARENT = re.compile(rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(-[!-~]*)?")

Random = Callable[[int], bytes]
"""So many random hexadecimal digits, not all of them 0."""


class Filled(Protocol):
    """What has a value for each exchange."""

    @property
    def fixed(self) -> bytes | None: ...

    def fill(self, source: Source) -> bytes: ...


def is_request_id(value: bytes) -> bool:
    """Whether a request id that came is fit to go on, and to stand in a log as it is."""
    return _REQUEST_ID.fullmatch(value) is not None


def trace_of(came: Sequence[bytes]) -> tuple[bytes, bytes] | None:
    """The trace-id and flags of `traceparent` as it came; None where there is none, more than one, or one that is
    malformed (W3C Trace Context 3.2, 4.3). What a later version has more of is not understood, and not passed on.

    >>> trace_of([b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03"])
    (b'4bf92f3577b34da6a3ce929d0e0e4736', b'01')
    """
    match = _TRACEPARENT.fullmatch(came[0]) if len(came) == 1 else None
    if match is None or (match[1] == b"00" and match[4] is not None):
        return None
    return match[2], b"%02x" % (int(match[3], 16) & 1)


class _Traceparent:
    """The value of `traceparent`: the trace that came with a parent-id of ours, or a new one."""

    fixed = None

    def __init__(self, sampled: bool, random: Random) -> None:
        self._flags = b"01" if sampled else b"00"
        self._random = random

    def fill(self, source: Source) -> bytes:
        found = trace_of(source.seen.all(b"traceparent")) if _TRACEPARENT_LINE.in_lines(source.head.fields) else None
        trace, flags = found if found is not None else (self._random(32), self._flags)
        return b"00-%b-%b-%b" % (trace, self._random(16), flags)


_TRACEPARENT_LINE = Named([b"traceparent"])


class _RequestId:
    """What a request is called."""

    fixed = None

    def fill(self, source: Source) -> bytes:
        return source.request_id


class LineRules:
    """The rules for one direction, ready. `claims` are the headers of theirs that tell who asks (X-Forwarded-*): what
    is set in one is not told otherwise. None where there are none. `dashed` are those that go and have a `-`, for which
    others may take `_`."""

    __slots__ = ("_adds", "_cuts", "_fixed", "_renames", "claims", "dashed")

    def __init__(self, rules: HeaderRules, more: Sequence[tuple[str, Filled]] = ()) -> None:
        sets: list[tuple[str, Filled]] = [*rules.sets, *more]
        cuts = [_lower(name) for name, _ in sets] + [_lower(name) for name in rules.removes if not name.endswith("*")]
        begins = [_lower(name[:-1]) for name in rules.removes if name.endswith("*")]
        self._cuts = Named(cuts, begins, FRAMING) if cuts or begins else None
        self._renames = [(Named([_lower(old)]), _lower(old), new.encode("ascii")) for old, new in rules.renames]
        self._adds = tuple((name.encode("ascii") + b": ", template) for name, template in [*sets, *rules.adds])
        self._fixed: bytes | None = None
        if all(template.fixed is not None for _, template in self._adds):
            self._fixed = b"".join(start + (each.fixed or b"") + b"\r\n" for start, each in self._adds if each.fixed)
        self.dashed = frozenset(name for name in cuts if b"-" in name and b"_" not in name)
        claims = [name for name in cuts if is_claim(name)]
        self.claims = Named(claims) if claims else None

    def __bool__(self) -> bool:
        return bool(self._cuts is not None or self._renames or self._adds)

    def apply(self, fields: bytes, source: Source) -> bytes:
        """Header lines, changed."""
        fields = self.cut(fields)
        if self._fixed is not None:
            return fields + self._fixed
        parts = [fields]
        for start, template in self._adds:
            value = template.fill(source)
            if value:
                parts += (start, value, b"\r\n")
        return b"".join(parts)

    def cut(self, fields: bytes) -> bytes:
        """Header lines without those that go, and with new names."""
        came = fields
        if self._cuts is not None and self._cuts.in_lines(fields):
            fields = self._cuts.without(fields)
        for named, old, new in self._renames:
            if named.in_lines(came):
                fields = renamed(fields, old, new)
        return fields


def renamed(fields: bytes, old: bytes, new: bytes) -> bytes:
    """Header lines where `old` (lower-case) is called `new`, and none is that was called so before.

    >>> renamed(b"New: 1\\r\\nOLD: 2\\r\\n", b"old", b"New")
    b'New: 2\\r\\n'
    """
    gone = new.lower()
    kept = []
    for line in fields.split(b"\r\n"):
        name = line.partition(b":")[0].lower()
        if name == old:
            kept.append(new + line[len(name) :])
        elif name != gone:
            kept.append(line)
    return b"\r\n".join(kept)


def _lower(name: str) -> bytes:
    return name.lower().encode("ascii")


def request_rules(marking: Marking, random: Random) -> LineRules:
    """What is changed on requests."""
    more: list[tuple[str, Filled]] = []
    if marking.request_id is not None:
        more.append((marking.request_id, _RequestId()))
    if marking.traceparent is not None:
        more.append(("traceparent", _Traceparent(marking.traceparent, random)))
    return LineRules(marking.request, more)


def response_rules(marking: Marking) -> LineRules:
    """What is changed on answers."""
    if marking.request_id is None:
        return LineRules(marking.response)
    return LineRules(marking.response, [(marking.request_id, _RequestId())])


def without_tracestate(fields: bytes, source: Source) -> bytes:
    """Header lines without a tracestate that belongs to no trace (W3C Trace Context 3.3)."""
    if not _TRACESTATE.in_lines(fields) or trace_of(source.seen.all(b"traceparent")) is not None:
        return fields
    return _TRACESTATE.without(fields)


_TRACESTATE = Named([b"tracestate"])
_ADDRESSES = TrustedNetworks(())
_element = lru_cache(maxsize=4096)(forwarded_element)


def tail_in(
    form: Forwarding, tail: bytes, own: bytes, head: RequestHead, peer: str, scheme: str, *, from_proxy: bool
) -> bytes:
    """The end of a request's head, telling who asks in another form than X-Forwarded-*.

    `tail` is that end in the usual form, `own` what of it is not about the client, and `from_proxy` whether a trusted
    proxy sent the request: its claims stand, and grow; in `rfc7239` those in X-Forwarded-For as `for`.

    >>> tail_in(Forwarding.RFC7239, b"", b"\\r\\n", RequestHead(), "192.0.2.7", "http", from_proxy=False)
    b'Forwarded: for=192.0.2.7;proto=http\\r\\n\\r\\n'
    """
    if form is Forwarding.NONE:
        return own
    if form is Forwarding.X_FORWARDED:
        return tail
    element = _element(peer, head.authority, scheme.encode("ascii"))
    if not from_proxy:
        return b"Forwarded: %b\r\n%b" % (element, tail if form is Forwarding.BOTH else own)
    came = _values(head.claims, b"forwarded")
    if not came:
        entries = b",".join(_values(head.claims, b"x-forwarded-for")).split(b",")
        addresses = [_ADDRESSES.judge(entry) for entry in map(_strip, entries) if entry]
        came = [_element(each[0] if each else "unknown", b"", b"-").partition(b";")[0] for each in addresses]
    line = b"Forwarded: %b\r\n" % b", ".join([*came, element])
    if form is Forwarding.RFC7239:
        return line + own
    lines = tail.split(b"\r\n")
    return line + b"\r\n".join([each for each in lines if each[:10].lower() != b"forwarded:"])


def _values(claims: Sequence[bytes], name: bytes) -> list[bytes]:
    found = [line.partition(b":") for line in claims]
    return [value.strip(b" \t") for each, _, value in found if each.lower() == name]


def _strip(entry: bytes) -> bytes:
    return entry.strip(b" \t")
