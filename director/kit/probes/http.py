"""The http and https probe: one request, judged by the status, headers and body of its answer.

One rule: no more is heard than decides, and never more of a body than the check says. Cookies, proxies of the
environment and compression play no part in it.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from urllib.parse import urljoin, urlsplit

from director.kit.checks.http import HttpProbe
from director.kit.checks.payload import shown_bytes
from director.kit.health import ProbeResult
from director.kit.net import Endpoint
from director.kit.pattern import Pattern, compile_pattern
from director.kit.probes.answer import BadAnswer, BodyReader, Head, HeadReader
from director.kit.probes.dialogue import MOST_HEARD_BYTES, Reconnect, Step

_DEFAULTS = (("User-Agent", "director-check"), ("Accept", "*/*"))
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_DEFAULT_PORT = {"http": ":80", "https": ":443"}


class _Plan:
    """What is the same for every probe of one check: the request, and what its answer is compared with."""

    __slots__ = ("after", "before", "body", "headers", "statuses", "wants_body")

    def __init__(self, probe: HttpProbe) -> None:
        own = {name.lower() for name, _ in probe.headers}
        fields = [*(each for each in _DEFAULTS if each[0].lower() not in own), *probe.headers]
        self.before = f" HTTP/1.1\r\nHost: {probe.host or ''}".encode()
        self.after = "".join(f"\r\n{name}: {text}" for name, text in fields).encode()
        self.statuses = frozenset(status for low, high in probe.statuses for status in range(low, high + 1))
        self.headers = tuple((name, text, compile_pattern(text)) for name, text in probe.expect_headers)
        self.body: Pattern | None = compile_pattern(probe.body) if probe.body is not None else None
        self.wants_body = self.body is not None or probe.digest is not None


@lru_cache(maxsize=1024)  # reloads bring new ones
def _plan_of(probe: HttpProbe) -> _Plan:
    return _Plan(probe)


def _request(probe: HttpProbe, target: Endpoint, keep: bool, method: str, path: str, content: bytes | None) -> bytes:
    plan = _plan_of(probe)
    parts = [f"{method} {path}".encode(), plan.before, b"" if probe.host else str(target).encode(), plan.after]
    if content is not None:
        parts.append(b"\r\nContent-Length: %d" % len(content))
    parts.append(b"\r\nConnection: keep-alive\r\n\r\n" if keep else b"\r\nConnection: close\r\n\r\n")
    parts.append(content or b"")
    return b"".join(parts)


@lru_cache(maxsize=8192)
def _first_request(probe: HttpProbe, target: Endpoint, keep: bool) -> bytes:
    return _request(probe, target, keep, probe.method, probe.path, probe.content)


class _Answer:
    """An answer from its head on. `judge` and `ended` give the verdict."""

    __slots__ = ("_digest", "_heard", "_heard_bytes", "_plan", "_probe", "_verdict", "_waits", "body", "head")

    def __init__(self, probe: HttpProbe, head: Head, method: str, lasting: bool) -> None:
        self.head = head
        self.body = BodyReader(head, method == "HEAD")
        self._probe = probe
        self._plan = _plan_of(probe)
        self._heard: list[bytes] = []
        self._heard_bytes = 0
        name = probe.digest and probe.digest.partition(":")[0]
        self._digest = hashlib.new(name, usedforsecurity=False) if name else None
        self._verdict = self._of_head()
        self._waits = lasting and head.keeps and self._verdict is not None and self._verdict.ok

    def _of_head(self) -> ProbeResult | None:
        """The verdict, where nothing of the body can change it."""
        head, probe = self.head, self._probe
        if head.status not in self._plan.statuses:
            return ProbeResult(False, f"status {head.status}, expected {_ranges(probe)}")
        for name, text, pattern in self._plan.headers:
            values = head.values(name)
            if not any(map(pattern.search, values)):
                found = f"is {shown_bytes(values[0])}, which does not match {text!r}" if values else "is not there"
                return _failed(head, f"but the header {name} {found}")
        if not self._plan.wants_body:
            return ProbeResult(True, f"status {head.status}")
        if self._digest is not None and not self.body.is_done and (head.length or 0) > probe.max_bytes:
            return self._too_large()
        return None

    def judge(self, data: bytes) -> ProbeResult | None:
        """The verdict after `data`, which stands in or behind the body; None while it takes more."""
        part = self.body.feed(data) if data else b""
        room = self._probe.max_bytes - self._heard_bytes
        self._heard_bytes += len(part)
        if self._verdict is not None:
            return None if self._waits and self._is_to_come() else self._verdict
        if self._digest is not None:
            if len(part) > room:
                return self._too_large()
            self._digest.update(part)
        if self._plan.body is not None:
            self._heard.append(part[:room])
        if self.body.is_done or (self._digest is None and len(part) >= room):
            return self._of_body()
        if self.body.bad:
            return ProbeResult(False, f"not an HTTP answer: {self.body.bad}")
        return None

    def ended(self) -> ProbeResult:
        """The verdict where no more comes."""
        if self._verdict is not None:
            return self._verdict
        if self.body.ends_with_connection:
            return self._of_body()
        return ProbeResult(False, f"the answer broke off: not enough data, {self.body.missing} did not come")

    def _is_to_come(self) -> bool:
        """Whether a body that nothing is expected of has an end worth waiting for."""
        body = self.body
        is_large = max(self._heard_bytes, self.head.length or 0) > self._probe.max_bytes
        return not (body.is_done or body.ends_with_connection or body.bad or is_large)

    def _of_body(self) -> ProbeResult:
        found = []
        if self._digest is not None:
            digest = f"{self._digest.name}:{self._digest.hexdigest()}"
            if digest != self._probe.digest:
                return _failed(self.head, f"but the digest of the body is {digest}")
            found.append("digest")
        if self._plan.body is not None:
            if self._plan.body.search(b"".join(self._heard)) is None:
                return _failed(self.head, f"but the body does not match {self._probe.body!r}")
            found.append("body")
        return ProbeResult(True, f"status {self.head.status}, {' and '.join(found)} match{'es' * (len(found) < 2)}")

    def _too_large(self) -> ProbeResult:
        return _failed(self.head, f"but the body is larger than max_bytes ({self._probe.max_bytes}) allows to digest")


class HttpDialogue:
    """One request to `target` and its answer.

    With `lasting`, in a way that the connection can serve another one: a body is then heard to its end also where
    nothing is expected of it, unless it is larger than the check reads.
    """

    __slots__ = (
        "_answer",
        "_content",
        "_has_answer",
        "_lasting",
        "_method",
        "_path",
        "_probe",
        "_reader",
        "_redirects",
        "_target",
    )

    def __init__(self, probe: HttpProbe, target: Endpoint, lasting: bool = False) -> None:
        self._probe = probe
        self._target = target
        self._lasting = lasting
        self._method, self._path, self._content = probe.method, probe.path, probe.content
        self._redirects = 0
        self._reader = HeadReader()
        self._has_answer = False
        self._answer: _Answer | None = None

    @property
    def most_heard_bytes(self) -> int:
        """What may be heard before there is a result: chunks of one byte each are still an answer."""
        return MOST_HEARD_BYTES + (self._probe.redirects + 1) * 8 * self._probe.max_bytes

    @property
    def is_by_l7proxy(self) -> bool:
        """Whether the answer names this project's proxy as its server: it says so of its own health path only."""
        return self._answer is not None and self._answer.head.values("server") == [b"l7proxy"]

    def opened(self) -> Step:
        if self._redirects:
            return _request(self._probe, self._target, self._lasting, self._method, self._path, self._content)
        return _first_request(self._probe, self._target, self._lasting)

    def secured(self) -> Step:
        return self.opened()

    def heard(self, data: bytes) -> Step:
        self._has_answer = True
        if self._answer is not None:
            return self._answer.judge(data) or b""
        try:
            found = self._reader.feed(data)
        except BadAnswer as error:
            return ProbeResult(False, f"not an HTTP answer: {error}")
        if found is None:
            return b""
        head, rest = found
        if self._probe.redirects and head.status in _REDIRECTS:
            return self._follow(head)
        self._answer = _Answer(self._probe, head, self._method, self._lasting)
        return self._answer.judge(rest) or b""

    def ended(self) -> ProbeResult:
        if self._answer is not None:
            return self._answer.ended()
        if not self._has_answer:
            return ProbeResult(False, "connection closed before an answer")
        return ProbeResult(False, f"not an HTTP answer: {self._reader.broken_off()}")

    def lasts(self) -> bool:
        if self._answer is None or not self._lasting or self._redirects:
            return False
        head, body = self._answer.head, self._answer.body
        return head.keeps and head.status != 101 and body.is_done and not body.has_extra

    def _follow(self, head: Head) -> Step:
        """Ask where a redirect leads, on a new connection: whether this one could go on does not matter then."""
        locations = head.values("location")
        if not locations:
            return _failed(head, "but no Location to follow")
        if self._redirects == self._probe.redirects:
            return _failed(head, f"after {self._redirects} redirects, leads on to {shown_bytes(locations[0])}")
        path = self._path_here(locations[0])
        if path is None:
            return _failed(head, f"leads to {shown_bytes(locations[0])}: only what is on the same host is followed")
        if self._content is not None and head.status in {301, 302, 303}:  # RFC 9110 15.4
            self._method, self._content = "GET", None
        self._path = path
        self._redirects += 1
        self._reader = HeadReader()
        self._has_answer = False
        return Reconnect()

    def _path_here(self, location: bytes) -> str | None:
        """The path and query that `location` asks this server for; None where it leads elsewhere or nowhere."""
        text = location.decode("latin-1")
        if any(not "!" <= c <= "~" for c in text):
            return None
        scheme = "https" if self._probe.tls is not None else "http"
        here = (self._probe.host or str(self._target)).lower().removesuffix(_DEFAULT_PORT[scheme])
        try:
            parts = urlsplit(urljoin(f"{scheme}://{here}{self._path}", text))
        except ValueError:
            return None
        if parts.scheme != scheme or parts.netloc.lower().removesuffix(_DEFAULT_PORT[scheme]) != here:
            return None
        path = parts.path or "/"
        return path + f"?{parts.query}" * bool(parts.query) if path.startswith("/") else None


def _ranges(probe: HttpProbe) -> str:
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in probe.statuses)


def _failed(head: Head, why: str) -> ProbeResult:
    return ProbeResult(False, f"status {head.status}, {why}")
