"""The redis probe: AUTH where there is a password, PING, and ROLE where one is wanted.

Protocol: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

from collections.abc import Callable

from director.kit.checks.redis import RedisProbe
from director.kit.health import ProbeResult
from director.kit.probes.dialogue import Step
from director.kit.probes.lines import LineDialogue
from director.kit.probes.quoting import plain

_AUTH = "the answer to AUTH"
_PING = "the answer to PING"
_ROLE = "the answer to ROLE"
_ROLES = {b"master": "master", b"slave": "replica", b"replica": "replica", b"sentinel": "sentinel"}


class RedisDialogue(LineDialogue):
    """`secret` gives the password in a file, or raises ProbeError; the connection can serve another PING afterwards."""

    protocol = "Redis"

    def __init__(self, probe: RedisProbe, secret: Callable[[str], bytes]) -> None:
        super().__init__()
        self._probe = probe
        self._role = probe.role
        self._secret = secret
        self.awaited = _PING if probe.password_file is None else _AUTH

    def opened(self) -> Step:
        if self._probe.password_file is None:
            return _command(b"PING")
        user = (self._probe.username.encode(),) if self._probe.username is not None else ()
        return _command(b"AUTH", *user, self._secret(self._probe.password_file))

    def secured(self) -> Step:
        return self.opened()

    def lasts(self) -> bool:
        return self._role is None and not self.has_extra  # of ROLE's answer, only the beginning has been looked at

    def take(self, line: bytes) -> Step:
        if line[:1] == b"-":
            hint = ": add password_file" if line.startswith(b"-NOAUTH") and self.awaited == _PING else ""
            return ProbeResult(False, f"{self.awaited} is {plain(line[1:])}{hint}")
        match self.awaited, line:
            case "the answer to AUTH", b"+OK":
                self.awaited = _PING
                return _command(b"PING")
            case "the answer to PING", b"+PONG":
                if self._role is None:
                    return ProbeResult(True, "PONG")
                self.awaited = _ROLE
                return _command(b"ROLE")
            case "the answer to ROLE", _:
                return self._of_role(line)
            case _:
                return self.not_understood(line)

    def _of_role(self, line: bytes) -> Step:
        if line[:1] in {b"*", b"$"}:
            return b""
        role = _ROLES.get(line)
        if role is None:
            return self.not_understood(line)
        if role != self._role:
            return ProbeResult(False, f"it is a {role}, expected a {self._role}")
        return ProbeResult(True, f"PONG from a {role}")


def _command(*words: bytes) -> bytes:
    parts = [b"*%d\r\n" % len(words)]
    parts += (b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
    return b"".join(parts)
