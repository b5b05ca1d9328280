"""The mysql probe: the handshake of MySQL and MariaDB, ended in a way that no server counts against this host.

One rule: a handshake that the server has begun is answered in full. One that breaks off counts as a connect error of
the client's host, and after max_connect_errors of them in a row the server blocks it
(MariaDB sql/hostname.cc, sql_acl.cc, parse_client_handshake_packet); a refused login does not.

Protocol: https://mariadb.com/kb/en/connection/
"""

from __future__ import annotations

import struct

from director.kit.checks.mysql import MysqlProbe
from director.kit.checks.payload import shown_bytes
from director.kit.health import ProbeResult
from director.kit.probes.dialogue import MOST_HEARD_BYTES, Step
from director.kit.probes.quoting import plain

# CLIENT_LONG_PASSWORD, _PROTOCOL_41, _SECURE_CONNECTION, _PLUGIN_AUTH
_CAPABILITIES = 0x1 | 0x200 | 0x8000 | 0x80000
_UTF8 = 33
_LONGEST_BYTES = 4096
"""Of a packet before the session stands."""

_OK, _ERROR, _SWITCH, _GREETING = 0x00, 0xFF, 0xFE, 0x0A
_REFUSED = {1044, 1045, 1251, 1275, 1524, 1698, 1873}
"""Errors about who logs in and how: the server itself takes sessions."""


class MysqlDialogue:
    """The server's greeting, a login without a password, its outcome, and COM_QUIT where it was let in."""

    __slots__ = ("_good", "_greeted", "_heard", "_user")

    most_heard_bytes = MOST_HEARD_BYTES

    def __init__(self, probe: MysqlProbe) -> None:
        self._user = probe.user.encode()
        self._heard = b""
        self._greeted = ""
        self._good: ProbeResult | None = None

    def opened(self) -> Step:
        return b""

    def secured(self) -> Step:
        return b""

    def ended(self) -> ProbeResult:
        if self._good is not None:
            return self._good
        what = "the outcome of the login" if self._greeted else "a greeting"
        return ProbeResult(False, f"connection closed before {what}")

    def heard(self, data: bytes) -> Step:
        self._heard += data
        said = []
        while self._good is None and len(self._heard) >= 4:
            length = int.from_bytes(self._heard[:3], "little")
            if not 0 < length <= _LONGEST_BYTES:
                return self._not_understood()
            if len(self._heard) < 4 + length:
                break
            packet, number = self._heard[4 : 4 + length], self._heard[3]
            step = self._take(packet, (number + 1) & 0xFF)
            if not isinstance(step, bytes):
                return step
            self._heard = self._heard[4 + length :]
            said.append(step)
        return b"".join(said)

    def _take(self, packet: bytes, number: int) -> Step:
        kind = packet[0]
        if kind == _ERROR and len(packet) >= 3:
            return self._of_error(packet)
        if not self._greeted:
            version, zero, _ = packet[1:].partition(b"\0")
            if kind != _GREETING or not zero:
                return self._not_understood()
            self._greeted = (
                plain(version.removeprefix(b"5.5.5-"), 40) or "unknown version"
            )  # MariaDB's, for old clients
            return _packet(self._login(), number)
        if kind == _SWITCH:  # to another way to prove a password: there is none
            return _packet(b"", number)
        if kind == _OK:
            self._good = ProbeResult(True, f"{self._greeted} takes sessions")
            return _packet(b"\x01", 0)  # COM_QUIT
        return self._not_understood()

    def _login(self) -> bytes:
        head = struct.pack("<IIB23x", _CAPABILITIES, 1 << 24, _UTF8)
        return head + self._user + b"\0" + b"\0" + b"mysql_native_password\0"

    def _of_error(self, packet: bytes) -> ProbeResult:
        code = int.from_bytes(packet[1:3], "little")
        text = packet[9:] if packet[3:4] == b"#" else packet[3:]
        if self._greeted and code in _REFUSED:
            return ProbeResult(True, f"{self._greeted} takes sessions, though not this one: {plain(text)}")
        return ProbeResult(False, f"{plain(text) or 'an error without a message'} ({code})")

    def _not_understood(self) -> ProbeResult:
        return ProbeResult(False, f"the answer is not MySQL: it begins with {shown_bytes(self._heard[:40])}")


def _packet(payload: bytes, number: int) -> bytes:
    return len(payload).to_bytes(3, "little") + bytes([number]) + payload
