"""The smtp, imap and pop3 probes: greeting, TLS where it is wanted, and a polite end.

One rule: the server's own refusal is the reason. Once the server has shown that it serves, its leave-taking is waited
for, so that its log tells of no client that vanished; how it says so does not matter.
"""

from __future__ import annotations

import re

from director.kit.checks.base import Tls
from director.kit.checks.mail import MailProbe, MailProtocol
from director.kit.health import ProbeResult
from director.kit.probes.dialogue import Leave, StartTls, Step
from director.kit.probes.lines import LineDialogue
from director.kit.probes.quoting import plain

_GREETING = "the greeting"
_LEAVE = "the answer to the last word"


class _MailDialogue(LineDialogue):
    """`good` is what is told once the server has said all that is asked of it."""

    def __init__(self, tls: Tls | None, starttls: bool) -> None:
        super().__init__()
        self._tls = tls
        self._starttls = tls if starttls else None
        self.good: ProbeResult | None = None

    def leave(self, last_word: bytes) -> Step:
        """All is well: say `last_word` and wait for the answer."""
        self.good = ProbeResult(True, "greeted" if self._tls is None else "greeted, TLS stands")
        self.awaited = _LEAVE
        return last_word

    def ended(self) -> ProbeResult:
        return self.good or super().ended()

    def refused(self, what: str) -> ProbeResult:
        """The server says no, or something else than it should."""
        return ProbeResult(False, f"{self.awaited} is {what}")


_REPLY = re.compile(rb"([2-5][0-9]{2})([ -]|\Z)(.*)", re.DOTALL)
_EHLO = "the answer to EHLO"
_HELO = "the answer to HELO"
_STARTTLS = "the answer to STARTTLS"


class SmtpDialogue(_MailDialogue):
    """RFC 5321 and RFC 3207."""

    protocol = "SMTP"

    def __init__(self, probe: MailProbe) -> None:
        super().__init__(probe.tls, probe.starttls)
        self._name = probe.name.encode()
        self._code = b""
        self._offers_tls = False

    def secured(self) -> Step:
        self._starttls = None
        return self._hello(b"EHLO", _EHLO)

    def take(self, line: bytes) -> Step:
        match = _REPLY.fullmatch(line)
        if self.good is not None:
            return Leave(self.good)
        if match is None or self._code not in {b"", match[1]}:
            return self.not_understood(line)
        code, more, text = match.groups()
        if text.strip().upper() == b"STARTTLS":
            self._offers_tls = True
        if more == b"-":
            self._code = code
            return b""
        self._code = b""
        return self._answered(code, plain(line))

    def _answered(self, code: bytes, said: str) -> Step:
        if self.awaited == _EHLO and code[:1] == b"5" and self._starttls is None:
            return self._hello(b"HELO", _HELO)  # RFC 5321 3.2
        if code != (b"250" if self.awaited in {_EHLO, _HELO} else b"220"):
            return self.refused(said)
        if self.awaited == _GREETING:
            return self._hello(b"EHLO", _EHLO)
        if self._starttls is None:
            return self.leave(b"QUIT\r\n")
        if self.awaited == _STARTTLS:
            return StartTls(self._starttls)
        if not self._offers_tls:
            return ProbeResult(False, "STARTTLS is not offered")
        self.awaited = _STARTTLS
        return b"STARTTLS\r\n"

    def _hello(self, verb: bytes, awaited: str) -> bytes:
        self.awaited = awaited
        return b"%s %s\r\n" % (verb, self._name)


class ImapDialogue(_MailDialogue):
    """RFC 9051 (and 3501). Capabilities are not asked for: a server without STARTTLS says BAD."""

    protocol = "IMAP"

    def __init__(self, probe: MailProbe) -> None:
        super().__init__(probe.tls, probe.starttls)

    def secured(self) -> Step:
        return self.leave(b"b LOGOUT\r\n")

    def take(self, line: bytes) -> Step:
        tag, _, rest = line.partition(b" ")
        word = rest.partition(b" ")[0].upper()
        if self.awaited == _GREETING:
            if tag != b"*" or word not in {b"OK", b"PREAUTH", b"BYE"}:
                return self.not_understood(line)
            if word == b"BYE":
                return self.refused(plain(rest))
            if self._starttls is None:
                return self.leave(b"b LOGOUT\r\n")
            self.awaited = _STARTTLS
            return b"a STARTTLS\r\n"
        if self.good is not None:
            return Leave(self.good) if tag == b"b" else b""
        if tag == b"*":
            return self.refused(plain(rest)) if word == b"BYE" else b""
        if tag != b"a":
            return self.not_understood(line)
        return StartTls(self._starttls or Tls()) if word == b"OK" else self.refused(plain(rest))


class Pop3Dialogue(_MailDialogue):
    """RFC 1939 and RFC 2595."""

    protocol = "POP3"

    def __init__(self, probe: MailProbe) -> None:
        super().__init__(probe.tls, probe.starttls)

    def secured(self) -> Step:
        return self.leave(b"QUIT\r\n")

    def take(self, line: bytes) -> Step:
        if self.good is not None:
            return Leave(self.good)
        if line.startswith(b"-ERR"):
            return self.refused(plain(line))
        if not line.startswith(b"+OK"):
            return self.not_understood(line)
        if self._starttls is None:
            return self.leave(b"QUIT\r\n")
        if self.awaited == _STARTTLS:
            return StartTls(self._starttls)
        self.awaited = _STARTTLS
        return b"STLS\r\n"


def mail_dialogue(probe: MailProbe) -> LineDialogue:
    """What the server of `probe` is to be talked to with."""
    match probe.protocol:
        case MailProtocol.SMTP:
            return SmtpDialogue(probe)
        case MailProtocol.IMAP:
            return ImapDialogue(probe)
        case MailProtocol.POP3:
            return Pop3Dialogue(probe)
