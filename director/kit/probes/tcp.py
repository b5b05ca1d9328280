"""The tcp probe: a connection that the peer accepts, and what it says on it.

One rule: it makes no difference in which pieces an answer comes.
"""

from __future__ import annotations

import re
from functools import lru_cache

from director.kit.checks.payload import shown_bytes
from director.kit.checks.tcp import TcpProbe
from director.kit.health import ProbeResult
from director.kit.pattern import Pattern, compile_pattern
from director.kit.probes.dialogue import MOST_HEARD_BYTES, Dialogue, Step

LARGEST_ANSWER_BYTES = 64 * 1024

_CONNECTED = ProbeResult(True, "connected")
_SECURED = ProbeResult(True, "connected, TLS stands")
_MATCHES = ProbeResult(True, "the answer is as expected")


class TcpDialogue:
    """Nothing is said: that the connection stands is all. It keeps nothing, so one serves every probe."""

    most_heard_bytes = MOST_HEARD_BYTES

    def __init__(self, result: ProbeResult) -> None:
        self._result = result

    def opened(self) -> Step:
        return self._result

    def heard(self, data: bytes) -> Step:
        return self._result

    def secured(self) -> Step:
        return self._result

    def ended(self) -> ProbeResult:
        return self._result

    def lasts(self) -> bool:
        return True


TCP = TcpDialogue(_CONNECTED)
TLS = TcpDialogue(_SECURED)


def tcp_dialogue(probe: TcpProbe) -> Dialogue:
    """The least that decides `probe`."""
    if probe.pattern is not None or probe.begins:
        return AnswerDialogue(probe)
    return TCP if probe.tls is None else TLS


class AnswerDialogue:
    """Something is sent, and the answer is compared as it comes."""

    __slots__ = ("_begins", "_by_line", "_heard", "_is_found", "_line_at", "_pattern", "_probe")

    most_heard_bytes = MOST_HEARD_BYTES

    def __init__(self, probe: TcpProbe) -> None:
        self._probe = probe
        self._begins = probe.begins
        self._pattern: Pattern | None = None
        self._by_line = False
        self._is_found = False
        if probe.pattern is not None:
            self._pattern, self._by_line = _compiled(probe.pattern)
        self._heard = b""
        self._line_at = 0

    def opened(self) -> Step:
        return self._probe.send

    def secured(self) -> Step:
        return self._probe.send

    def heard(self, data: bytes) -> Step:
        self._heard += data[: LARGEST_ANSWER_BYTES - len(self._heard)]
        return self._judge(len(self._heard) == LARGEST_ANSWER_BYTES) or b""

    def ended(self) -> ProbeResult:
        if not self._heard:
            return ProbeResult(False, "connection closed before an answer")
        return self._judge(is_all=True) or self._other()

    def lasts(self) -> bool:
        return False  # what else it says belongs to no question

    def _judge(self, is_all: bool) -> ProbeResult | None:
        """The verdict; None while it takes more."""
        heard, begins = self._heard, self._begins
        if heard[: len(begins)] != begins[: len(heard)]:
            return self._other()
        if self._pattern is not None and not self._is_found:
            self._is_found = self._search(self._pattern, is_all)
        if (self._pattern is None or self._is_found) and len(heard) >= len(begins):
            return _MATCHES
        return self._other() if is_all else None

    def _search(self, pattern: Pattern, is_all: bool) -> bool:
        if not self._by_line:
            return pattern.search(self._heard) is not None
        while (end := self._heard.find(b"\n", self._line_at)) >= 0 or (is_all and self._line_at < len(self._heard)):
            line = self._heard[self._line_at : end if end >= 0 else len(self._heard)]
            if pattern.search(line.removesuffix(b"\r")):
                return True
            self._line_at = end + 1 if end >= 0 else len(self._heard)
        return False

    def _other(self) -> ProbeResult:
        what = f"begin with {shown_bytes(self._begins)}" if self._begins else f"match {self._probe.pattern!r}"
        return ProbeResult(False, f"the answer does not {what}: it begins with {shown_bytes(self._heard[:40])}")


_PARTS = re.compile(r"\\[bBzQ]|\\.|\[\^?\]?(?:\\.|\[:\^?[a-z]+:\]|[^\]\\])*\]|(\$)", re.DOTALL)


@lru_cache(maxsize=256)  # reloads bring new ones
def _compiled(text: str) -> tuple[Pattern, bool]:
    return compile_pattern(text), looks_at_the_end(text)


def looks_at_the_end(pattern: str) -> bool:
    """Whether more text can turn a match of `pattern` into none: it has `$`, `\\b`, `\\B`, `\\z` (or `\\Q`: perhaps).

    >>> looks_at_the_end("ok$"), looks_at_the_end(r"[$] costs \\$5")
    (True, False)
    """
    found = _PARTS.finditer(pattern)
    return any(match[1] or match[0] in {"\\b", "\\B", "\\z", "\\Q"} for match in found)
