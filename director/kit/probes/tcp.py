"""The tcp probe: a connection that the peer accepts."""

from __future__ import annotations

from director.kit.health import ProbeResult
from director.kit.probes.dialogue import MOST_HEARD_BYTES, Step

_CONNECTED = ProbeResult(True, "connected")


class TcpDialogue:
    """Nothing is said: that the connection stands is all. It keeps nothing, so one serves every probe."""

    most_heard_bytes = MOST_HEARD_BYTES

    def opened(self) -> Step:
        return _CONNECTED

    def heard(self, data: bytes) -> Step:
        return _CONNECTED

    def secured(self) -> Step:
        return _CONNECTED

    def ended(self) -> ProbeResult:
        return _CONNECTED

    def lasts(self) -> bool:
        return True


TCP = TcpDialogue()
