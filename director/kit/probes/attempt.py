"""One conversation over one socket: the dialogue's steps, TLS around them, and what bounds them.

One rule: whatever happens on the socket is an outcome; nothing here raises, waits, or closes a socket.
"""

from __future__ import annotations

import errno
import logging
import select
import socket
import ssl
from collections.abc import Callable
from typing import Protocol

from director.kit.checks.base import Tls
from director.kit.checks.check import Check
from director.kit.duration import format_duration
from director.kit.health import ProbeResult
from director.kit.probes.dialogue import Dialogue, Leave, Reconnect, StartTls, Step
from director.kit.probes.failures import describe_os_error, describe_tls_error, failure
from director.kit.probes.sockets import local_ports
from director.kit.probes.tls import Channel

log = logging.getLogger(__name__)

OUTPUT_BYTES = 256
"""The first bytes heard that a result keeps."""

Outcome = ProbeResult | Exception
"""A result; or ProbeError, this host's lack; or another exception, a defect in the probe itself."""
Done = Callable[[Outcome, float], None]
"""Takes an outcome, and the time at which it came."""

Keeper = Callable[["Attempt", float], bool]
"""Asked when an attempt ends well: whether it has taken its connection, which it may if that can stay."""

_OUT, _TROUBLE = select.EPOLLOUT, select.EPOLLERR | select.EPOLLHUP
_IN = select.EPOLLIN | select.EPOLLRDHUP | _TROUBLE
_FINISHED = select.EPOLLRDHUP | _TROUBLE


class Kept(Protocol):
    """A connection that stands between two conversations."""

    peer: socket.SocketType
    number: int
    channel: Channel | None
    warning: str

    def lost(self, now: float | None) -> None:
        """The conversation that it was lent to does not bring it back; `now`: the peer has ended it."""


class Holder(Protocol):
    """Who holds the sockets of attempts."""

    buffer: memoryview

    def release(self, attempt: Attempt) -> None:
        """`attempt` is over."""

    def reconnect(self, attempt: Attempt) -> Outcome | None:
        """Give `attempt` another connection in place of the one it has; what came in the way, if anything."""


class Attempt:
    """One conversation with one target. `peer` and its `number` are the socket's, once there is one.

    `keeper` may keep the connection after a good result; `kept` is the one that the conversation goes over, where it
    has none of its own.
    """

    __slots__ = (
        "_dialogue",
        "_done",
        "_first",
        "_heard_bytes",
        "_holder",
        "_is_connected",
        "_is_drained",
        "_is_first_tls",
        "_now",
        "_parting",
        "_started_at",
        "_tls",
        "_unsent",
        "_warning",
        "channel",
        "check",
        "is_over",
        "keeper",
        "kept",
        "number",
        "peer",
    )

    def __init__(
        self, holder: Holder, check: Check, dialogue: Dialogue, tls: Tls | None, done: Done, now: float
    ) -> None:
        self.check = check
        self.peer: socket.SocketType
        self.number = -1
        self.is_over = False
        self._holder = holder
        self._dialogue = dialogue
        self._tls = tls
        self._done = done
        self._started_at = self._now = now
        self.channel: Channel | None = None
        self.keeper: Keeper | None = None
        self.kept: Kept | None = None
        self._is_drained = True
        self._is_connected = False
        self._is_first_tls = True
        self._unsent = b""
        self._first = b""
        self._heard_bytes = 0
        self._warning = ""
        self._parting: ProbeResult | None = None

    @property
    def warning(self) -> str:
        """What TLS warns of."""
        return self._warning

    @property
    def timeout(self) -> str:
        """How long it may take, in words."""
        return format_duration(self.check.timing.timeout_s)

    def cancel(self) -> None:
        """End without an outcome."""
        if not self.is_over:
            self.is_over = True
            self._holder.release(self)

    def end(self, outcome: Outcome, now: float) -> None:
        """End with `outcome`, unless that has happened before."""
        if self.is_over:
            return
        self.is_over = True
        outcome = self._parting or outcome
        is_good = isinstance(outcome, ProbeResult) and outcome.ok
        is_kept = is_good and self._parting is None and self.keeper is not None and self.keeper(self, now)
        if not is_kept:
            self._holder.release(self)
        if isinstance(outcome, ProbeResult):
            outcome = ProbeResult(
                outcome.ok,
                outcome.reason,
                now - self._started_at,
                outcome.weight,
                outcome.percent,
                outcome.asks,
                "; ".join(filter(None, (self._warning, outcome.warning))) if self._warning else outcome.warning,
                outcome.output or self._first,
                outcome.errno,
            )
        try:
            self._done(outcome, now)
        except Exception:
            log.exception("the outcome of a probe was not taken in", extra={"check": str(self.check)})

    @property
    def can_stay(self) -> bool:
        """Whether the connection can serve another conversation: all was heard, and nothing is still to be said."""
        return self._is_drained and not self._unsent and getattr(self._dialogue, "lasts", _never)()

    def resume(self, kept: Kept) -> Outcome | None:
        """Converse over a connection that stands."""
        self.kept, self.peer, self.number, self.channel = kept, kept.peer, kept.number, kept.channel
        self._warning = kept.warning
        self._is_connected = True
        try:
            return self._do(self._dialogue.opened())
        except OSError:  # ssl.SSLError is one
            return self._reconnect()
        except Exception as error:  # noqa: BLE001 -- told by whoever began it
            return error

    def step(self, mask: int, now: float) -> None:
        """The socket has news."""
        self._now = now
        if mask & select.EPOLLRDHUP:
            self._is_drained = False
        try:
            outcome = self._connected(mask) if not self._is_connected else None
            if outcome is None and self._is_connected:
                if mask & _OUT and self._unsent:
                    self._send(b"")
                if mask & _IN:
                    outcome = self._read(mask)
        except ssl.SSLError as error:
            outcome = ProbeResult(False, describe_tls_error(error))
        except OSError as error:
            outcome = ProbeResult(False, describe_os_error(error), errno=error.errno or 0)
        except Exception as error:  # noqa: BLE001 -- told by whoever began it
            outcome = error
        if outcome is not None:
            self.end(outcome, now)

    def _connected(self, mask: int) -> Outcome | None:
        peer = self.peer
        if mask & _TROUBLE:
            error = peer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                return failure(OSError(error, "connect"), self.check)
            if mask & select.EPOLLHUP:
                return None  # of the conversation that this socket had before
        if not mask & _OUT:
            return None
        target = self.check.target
        # Without a listener, a port of this host's own range can be given to the probe's end, and then TCP's
        # simultaneous open (RFC 9293 3.5) connects the socket with itself.
        if target.port in local_ports() and peer.getsockname()[:2] == (str(target.address), target.port):
            return ProbeResult(False, describe_os_error(ConnectionRefusedError(errno.ECONNREFUSED, "")), errno=111)
        self._is_connected = True
        if self._tls is None:
            return self._do(self._dialogue.opened())
        return self._secure(self._tls)

    def _secure(self, tls: Tls) -> Outcome | None:
        self.channel = Channel(tls, self.check.target.address)
        self.channel.shake()
        self._send(self.channel.to_send())
        return None

    def _do(self, step: Step) -> Outcome | None:
        """Do what the dialogue asks for; its result, once it has one."""
        if isinstance(step, ProbeResult):
            return step
        if isinstance(step, StartTls):
            self._is_first_tls = False
            return self._secure(step.tls)
        if isinstance(step, Leave):
            self._parting = step.result
            if self.channel is not None:
                self._send(self.channel.farewell())
            self.peer.shutdown(socket.SHUT_WR)
            return None
        if isinstance(step, Reconnect):
            return self._reconnect()
        if step:
            if self.channel is not None:
                self.channel.say(step)
                step = self.channel.to_send()
            self._send(step)
        return None

    def _reconnect(self) -> Outcome | None:
        if self.kept is not None and self._is_late():
            self.kept.lost(self._now)
        self._is_connected = False
        self._is_first_tls = self._is_drained = True
        self._unsent = b""
        outcome = self._holder.reconnect(self)
        self.channel = None
        return outcome

    def _send(self, data: bytes) -> None:
        data = self._unsent + data if self._unsent else data
        if data:
            try:
                sent = self.peer.send(data, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                sent = 0
            except (BrokenPipeError, ConnectionResetError):
                sent = len(data)  # what the peer has said before is still to be heard
            self._unsent = data[sent:]

    def _read(self, mask: int) -> Outcome | None:
        peer = self.peer
        buffer = self._holder.buffer
        most = self._dialogue.most_heard_bytes
        while True:
            try:
                size = peer.recv_into(buffer)
            except BlockingIOError:
                return None
            except ConnectionError:
                if not self._is_late():
                    raise
                size = 0
            if not size and self._is_late():
                return self._reconnect()
            heard = bytes(buffer[: min(size, most - self._heard_bytes)])
            self._heard_bytes += size
            self._is_drained = self._is_drained and size < len(buffer)
            if self._parting is not None and size:
                continue
            outcome = self._take(heard) if size else self._ended()
            if outcome is not None:
                return outcome
            if peer is not self.peer:
                return None
            if self._heard_bytes >= most:
                return ProbeResult(False, f"{most // 1024} KiB were heard without an end of the answer")
            if size == 0:
                return ProbeResult(False, "connection closed before an answer")
            if size < len(buffer):
                if mask & _FINISHED:
                    mask = 0  # the end, or an error, is what stands behind the last bytes
                    continue
                return None

    def _take(self, heard: bytes) -> Outcome | None:
        channel = self.channel
        if channel is None:
            return self._hear(heard)
        channel.put(heard)
        if not channel.is_open:
            done = self._shake(channel)
            if done is not None or not channel.is_open:
                return done
        return self._hear_all(channel)

    def _shake(self, channel: Channel) -> Outcome | None:
        try:
            is_open = channel.shake()
        finally:
            self._send(channel.to_send())  # an alert too: it tells the peer why
        if not is_open:
            return None
        self._warning = channel.warning()
        return self._do(self._dialogue.opened() if self._is_first_tls else self._dialogue.secured())

    def _hear_all(self, channel: Channel) -> Outcome | None:
        while (said := channel.take()) is not None:
            if not said and self._is_late():
                return self._reconnect()
            outcome = self._hear(said) if said else self._dialogue.ended()
            if outcome is not None or channel is not self.channel:
                return outcome
        self._send(channel.to_send())
        return None

    def _is_late(self) -> bool:
        """Whether the connection may have been closed in the instant in which it was used again: no failure."""
        return self.kept is not None and not self._first

    def _hear(self, heard: bytes) -> Outcome | None:
        if len(self._first) < OUTPUT_BYTES:
            self._first += heard[: OUTPUT_BYTES - len(self._first)]
        return self._do(self._dialogue.heard(heard))

    def _ended(self) -> Outcome | None:
        channel = self.channel
        if channel is None:
            return self._dialogue.ended()
        if not channel.is_open:
            return ProbeResult(False, "connection closed during the TLS handshake")
        channel.put(b"")
        return self._hear_all(channel)


def _never() -> bool:
    return False
