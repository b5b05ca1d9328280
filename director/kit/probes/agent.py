"""The agent probe: HAProxy's agent-check, a line of words in which a server says how it is.

HAProxy, configuration manual 5.2, `agent-check`; where words contradict each other, the last one stands, as there.
"""

from __future__ import annotations

import re

from director.kit.checks.agent import AgentProbe
from director.kit.checks.payload import shown_bytes
from director.kit.health import Asks, ProbeResult
from director.kit.probes.dialogue import MOST_HEARD_BYTES, Step
from director.kit.probes.quoting import plain

LONGEST_LINE_BYTES = 4096

_WORDS = re.compile(rb"[ \t\r,]+")
_PERCENT = re.compile(rb"([0-9]{1,9})%")
_UP = {b"up", b"ready"}
_DOWN = {b"down", b"fail", b"failed", b"stopped"}
_ASKS = {b"drain": Asks.DRAIN, b"maint": Asks.MAINTENANCE}


class AgentDialogue:
    """What is to be sent, and the first line that comes."""

    __slots__ = ("_heard", "_send")

    most_heard_bytes = MOST_HEARD_BYTES

    def __init__(self, probe: AgentProbe) -> None:
        self._send = probe.send
        self._heard = b""

    def opened(self) -> Step:
        return self._send

    def secured(self) -> Step:
        return self._send

    def heard(self, data: bytes) -> Step:
        self._heard += data[: LONGEST_LINE_BYTES - len(self._heard)]
        line, end, _ = self._heard.partition(b"\n")
        if end:
            return understand(line)
        if len(self._heard) == LONGEST_LINE_BYTES:
            return ProbeResult(False, "the agent's line does not end within 4 KiB")
        return b""

    def ended(self) -> ProbeResult:
        if not self._heard:
            return ProbeResult(False, "connection closed before the agent said anything")
        return understand(self._heard)


def understand(line: bytes) -> ProbeResult:
    """What an agent's line amounts to.

    >>> understand(b"up 75%").percent, understand(b"down#disk full").reason
    (75, 'the agent says down: disk full')
    """
    words, _, why = line.partition(b"#")
    known: list[bytes] = []
    ok = True
    percent: int | None = None
    asks: Asks | None = None
    empty = False
    for word in _WORDS.split(words.strip().lower()):
        share = _PERCENT.fullmatch(word)
        if share is not None:
            percent = min(100, int(share[1]))
            empty = percent == 0
        elif word in _DOWN:
            ok = False
        elif word in _UP:
            ok, asks = True, asks if word == b"up" else None
        elif word in _ASKS:
            asks = _ASKS[word]
        elif not word.startswith(b"maxconn:"):
            continue
        known.append(word)
    if not known:
        return ProbeResult(False, f"the agent says nothing that is known: {shown_bytes(line[:60], 60)}")
    said = f"the agent says {' '.join(word.decode() if word.isascii() else '?' for word in known)}"
    said = plain(said.encode()) + (f": {plain(why)}" if why.strip() else "")
    if any(word.startswith(b"maxconn:") for word in known):
        said += " (maxconn is ignored)"
    if empty:
        asks = asks or Asks.DRAIN
    return ProbeResult(ok, said, percent=percent or None, asks=asks)
