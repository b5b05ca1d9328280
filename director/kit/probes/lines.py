"""Conversations in lines, such as those of mail servers: what they have in common.

One rule: a line is judged when it is whole, so that it makes no difference in which pieces it comes; lines and their
sum are bounded.
"""

from __future__ import annotations

from director.kit.checks.payload import shown_bytes
from director.kit.health import ProbeResult
from director.kit.probes.dialogue import MOST_HEARD_BYTES, StartTls, Step

LONGEST_LINE_BYTES = 8 * 1024
MOST_BYTES = 64 * 1024


class LineDialogue:
    """Base of dialogues that hear lines. What is heard behind the line that decides is not looked at.

    `awaited` is what the next line belongs to, in words: "the greeting". `has_extra`: more has come than what decided.
    """

    most_heard_bytes = MOST_HEARD_BYTES
    protocol = ""

    def __init__(self) -> None:
        self.awaited = "the greeting"
        self.has_extra = False
        self._rest = b""
        self._heard_bytes = 0

    def opened(self) -> Step:
        return b""

    def secured(self) -> Step:
        return b""

    def take(self, line: bytes) -> Step:
        """`line` has come, without its end."""
        raise NotImplementedError

    def ended(self) -> ProbeResult:
        return ProbeResult(False, f"connection closed before {self.awaited}")

    def heard(self, data: bytes) -> Step:
        data = self._rest + data
        at = 0
        said = []
        while (end := data.find(b"\n", at, at + LONGEST_LINE_BYTES)) >= 0:
            self._heard_bytes += end + 1 - at
            if self._heard_bytes > MOST_BYTES:
                return ProbeResult(False, f"{self.awaited} does not end within {MOST_BYTES // 1024} KiB")
            step = self.take(data[at:end].removesuffix(b"\r"))
            at = end + 1
            if isinstance(step, StartTls) and at < len(data):
                # CVE-2011-0411: it would be taken for something that was said under TLS.
                return ProbeResult(False, f"more was said in clear text behind {self.awaited}")
            if not isinstance(step, bytes):
                self.has_extra = at < len(data)
                return step
            said.append(step)
        self._rest = data[at:]
        if len(self._rest) >= LONGEST_LINE_BYTES:
            return self.not_understood(self._rest)
        return b"".join(said)

    def not_understood(self, line: bytes) -> ProbeResult:
        """`line` is nothing that this protocol knows there."""
        return ProbeResult(False, f"{self.awaited} is not {self.protocol}: it begins with {shown_bytes(line[:60], 60)}")
