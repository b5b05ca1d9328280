"""A connection that is kept open between two probes, so that its end is seen when it happens.

One rule: it says nothing by itself; that the peer ends it is no failure, only a reason to probe.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable

from director.kit.checks.base import Route, Tls
from director.kit.probes.attempt import Attempt
from director.kit.probes.tls import Channel

MOST_UNASKED_BYTES = 64 * 1024
"""What a peer may say on a kept connection that asked for nothing; then it is given up."""

_NEWS = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLERR | select.EPOLLHUP


class KeptConnection:
    """A connection that a probe has left open. `ended` is told when the peer has ended it, and when."""

    __slots__ = (
        "_buffer",
        "_ended",
        "_unasked_bytes",
        "channel",
        "is_lent",
        "number",
        "peer",
        "route",
        "since_at",
        "tls",
        "warning",
    )

    def __init__(
        self, attempt: Attempt, tls: Tls | None, now: float, buffer: memoryview, ended: Callable[[float | None], None]
    ) -> None:
        self.peer: socket.SocketType = attempt.peer
        self.number = attempt.number
        self.channel: Channel | None = attempt.channel
        self.warning = attempt.warning
        self.route: Route = attempt.check.route
        self.tls = tls
        self.since_at = now
        self.is_lent = False
        self._buffer = buffer
        self._ended = ended
        self._unasked_bytes = 0

    @property
    def is_usable(self) -> bool:
        """Whether a request can be sent over it: what comes next is then its answer."""
        return not self.is_lent and not self._unasked_bytes

    def lost(self, now: float | None) -> None:
        """The conversation that it was lent to does not bring it back; `now`: the peer has ended it."""
        self._ended(now)

    def step(self, mask: int, now: float) -> None:
        """The socket has news."""
        if mask & _NEWS and self._is_over():
            self._ended(now)

    def _is_over(self) -> bool:
        while True:
            try:
                size = self.peer.recv_into(self._buffer)
                if not size or not self._take(bytes(self._buffer[:size])):
                    return True
            except BlockingIOError:
                return False
            except OSError:  # ssl.SSLError is one
                return True

    def _take(self, raw: bytes) -> bool:
        """Whether the connection goes on after `raw`."""
        if self.channel is None:
            self._unasked_bytes += len(raw)
        else:
            self.channel.put(raw)  # a session ticket, most likely
            while (said := self.channel.take()) is not None:
                if not said:
                    return False
                self._unasked_bytes += len(said)
        return self._unasked_bytes <= MOST_UNASKED_BYTES
