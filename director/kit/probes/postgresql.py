"""The postgresql probe: the start of a session, as pg_isready does it.

Protocol: https://www.postgresql.org/docs/current/protocol-message-formats.html (version 3.0)
"""

from __future__ import annotations

import struct

from director.kit.checks.payload import shown_bytes
from director.kit.checks.postgresql import PostgresqlProbe
from director.kit.health import ProbeResult
from director.kit.probes.dialogue import MOST_HEARD_BYTES, Leave, StartTls, Step
from director.kit.probes.quoting import plain

_SSL_REQUEST = struct.pack(">II", 8, 80877103)
_TERMINATE = b"X\0\0\0\4"
_LONGEST_BYTES = 30_000
"""Of a message before the session stands (libpq, fe-connect.c, pqGetInt of an error's length)."""

_KINDS = {b"R", b"E", b"N", b"v", b"S", b"K", b"Z"}
"""Authentication, ErrorResponse, NoticeResponse, NegotiateProtocolVersion, and once somebody is let in without a
password: ParameterStatus, BackendKeyData, ReadyForQuery."""

_SERVES = (b"28", b"3D000")
"""SQLSTATEs of who asks and for what: the server itself takes sessions (libpq, PQping counts them so)."""


class PostgresqlDialogue:
    """SSLRequest where TLS is wanted, StartupMessage, and the answer to it."""

    __slots__ = ("_asks_tls", "_good", "_heard", "_probe")

    most_heard_bytes = MOST_HEARD_BYTES

    def __init__(self, probe: PostgresqlProbe) -> None:
        self._probe = probe
        self._asks_tls = probe.tls is not None
        self._heard = b""
        self._good: ProbeResult | None = None

    def opened(self) -> Step:
        return _SSL_REQUEST if self._asks_tls else self._startup()

    def secured(self) -> Step:
        return self._startup()

    def ended(self) -> ProbeResult:
        if self._good is not None:
            return self._good
        return ProbeResult(False, "connection closed before an answer")

    def heard(self, data: bytes) -> Step:
        if self._good is not None:
            return b""
        self._heard += data
        if self._asks_tls and self._heard[:1] != b"E":
            return self._of_tls()
        while len(self._heard) >= 5:
            kind, length = struct.unpack_from(">cI", self._heard)
            if kind == b"E" and not 4 <= length <= _LONGEST_BYTES:
                return self._of_old_error()
            if kind not in _KINDS or not 4 <= length <= _LONGEST_BYTES:
                return _not_understood(self._heard)
            if len(self._heard) < 1 + length:
                return b""
            body, self._heard = self._heard[5 : 1 + length], self._heard[1 + length :]
            if kind == b"R" and body != b"\0\0\0\0":
                return Leave(ProbeResult(True, "takes sessions, asks for a password"))
            if kind == b"Z":
                self._good = ProbeResult(True, "takes sessions")
                return _TERMINATE
            if kind == b"E":
                return _of_error(body)
        if self._heard and self._heard[:1] not in _KINDS:
            return _not_understood(self._heard)
        return b""

    def _startup(self) -> bytes:
        self._asks_tls = False
        words = ("user", self._probe.user, "database", self._probe.database, "application_name", "director")
        body = struct.pack(">I", 196608) + b"".join(word.encode() + b"\0" for word in words) + b"\0"
        return struct.pack(">I", 4 + len(body)) + body

    def _of_tls(self) -> Step:
        if self._heard[:1] == b"N":
            return ProbeResult(False, "TLS is not offered")
        if self._heard[:1] != b"S" or self._probe.tls is None:
            return _not_understood(self._heard)
        if len(self._heard) > 1:  # CVE-2021-23222
            return ProbeResult(False, "more was said in clear text behind the answer to SSLRequest")
        self._heard = b""
        return StartTls(self._probe.tls)

    def _of_old_error(self) -> Step:
        """An error from before the protocol was agreed on: a text that ends with a zero byte."""
        text, zero, _ = self._heard[1:].partition(b"\0")
        if not zero and len(text) < _LONGEST_BYTES:
            return b""
        return ProbeResult(False, plain(text))


def _of_error(body: bytes) -> ProbeResult:
    fields = {field[:1]: field[1:] for field in body.split(b"\0") if field}
    code, message = fields.get(b"C", b""), plain(fields.get(b"M", b""))
    if code.startswith(_SERVES):
        return ProbeResult(True, f"takes sessions, though not this one: {message}")
    return ProbeResult(False, f"{message or 'an error without a message'} ({plain(code, 5)})")


def _not_understood(heard: bytes) -> ProbeResult:
    return ProbeResult(False, f"the answer is not PostgreSQL: it begins with {shown_bytes(heard[:40])}")
