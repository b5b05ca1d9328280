"""The agent: whoever connects is told in one line how this process is (HAProxy, configuration manual, `agent-check`).

One rule: nobody who asks can cost anything. The line and the end of it go out at once; what comes in is forgotten
unread; a peer that does not leave is reset, the oldest first when there are too many. None counts as a client.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from typing import cast

from l7proxy.core.load import answer
from l7proxy.runtime import Proxy

LEAVES_S = 1.0
"""How long a peer may take to close, once it was answered."""
MOST_CONNECTIONS = 16
"""At one time, over all addresses; they are among the descriptors that are KEPT (descriptors.py)."""
MOST_HEARD_BYTES = 4096
"""HAProxy's agent-send, and more than it."""

_RESET = struct.pack("ii", 1, 0)
_forgotten = bytearray(1024)


class Agent:
    """The agent's connections, over all its addresses."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._started_at = time.monotonic()
        self.connections: dict[Visit, None] = {}
        """In the order in which they came."""

    def __call__(self) -> Visit:
        return Visit(self)

    def line(self) -> bytes:
        """What there is to say now."""
        proxy = self._proxy
        return answer(
            proxy.load,
            draining=proxy.says_draining,
            trouble=proxy.snapshot.trouble(),
            running_s=time.monotonic() - self._started_at,
        )

    def admit(self, visit: Visit) -> None:
        """Let another one in, and the oldest go if there are too many: it was answered."""
        if len(self.connections) >= MOST_CONNECTIONS:
            oldest = next(iter(self.connections))
            del self.connections[oldest]
            oldest.reset()
        self.connections[visit] = None
        self._proxy.asked_at = time.monotonic()

    def close(self) -> None:
        """Part with who is still there; the lines go out."""
        for visit in list(self.connections):
            visit.close()


class Visit(asyncio.BufferedProtocol):
    """One connection."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._wire: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._heard_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = cast("asyncio.Transport", transport)
        self._deadline = asyncio.get_running_loop().call_later(LEAVES_S, self.reset)
        self._agent.admit(self)
        self._wire.write(self._agent.line())
        # Not close(): with what the peer has sent still unread that is a reset, which may overtake the line.
        self._wire.write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        self._agent.connections.pop(self, None)
        if self._deadline is not None:
            self._deadline.cancel()

    def get_buffer(self, sizehint: int) -> bytearray:
        return _forgotten

    def buffer_updated(self, nbytes: int) -> None:
        self._heard_bytes += nbytes
        if self._heard_bytes > MOST_HEARD_BYTES:
            self.reset()

    def eof_received(self) -> None:
        """The peer is done, and was answered: the transport closes."""

    def close(self) -> None:
        """Leave first."""
        if self._wire is not None:
            self._wire.close()

    def reset(self) -> None:
        """Cut it off, leaving nothing behind: no unsent bytes, no FIN_WAIT, no TIME_WAIT."""
        if self._wire is not None and not self._wire.is_closing():
            self._wire.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._wire.abort()
