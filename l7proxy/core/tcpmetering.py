"""What is counted of forwarded connections; see `metering.py`.

One rule: labels come from the configuration. A connection is counted once, when it is over.
"""

from __future__ import annotations

from l7proxy.core.metering import Counts, key_of
from l7proxy.core.proxystatus import Cause


class TcpMeter:
    """The cells of one listener and upstream."""

    __slots__ = ("causes", "connections", "received_bytes", "sent_bytes")

    def __init__(self) -> None:
        self.connections = 0
        self.received_bytes = 0
        self.sent_bytes = 0
        self.causes: dict[str, int] = {}


class TcpMeters:
    """All of them; an empty upstream is what was closed before there was one."""

    def __init__(self) -> None:
        self._meters: dict[tuple[str, str], TcpMeter] = {}

    def account(self, listener: str, upstream: str, received_bytes: int, sent_bytes: int, cause: Cause | None) -> None:
        """Count a connection that is over."""
        meter = self._meters.get((listener, upstream))
        if meter is None:
            meter = self._meters[listener, upstream] = TcpMeter()
        meter.connections += 1
        meter.received_bytes += received_bytes
        meter.sent_bytes += sent_bytes
        if cause is not None:
            meter.causes[cause.label] = meter.causes.get(cause.label, 0) + 1

    def counts(self) -> Counts:
        """All of it."""
        counts: Counts = {}
        for (listener, upstream), meter in self._meters.items():
            counts[key_of("l7proxy_tcp_connections", listener, upstream)] = meter.connections
            counts[key_of("l7proxy_tcp_received_bytes", listener, upstream)] = meter.received_bytes
            counts[key_of("l7proxy_tcp_sent_bytes", listener, upstream)] = meter.sent_bytes
            for cause, count in meter.causes.items():
                counts[key_of("l7proxy_tcp_errors", listener, upstream, cause)] = count
        return counts
