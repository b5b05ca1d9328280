"""One forwarded connection, from the first byte of its client to its log record.

One rule: bytes go on as they came, in both directions, and so does how they end: an end as an end, a reset as a reset.

Readiness is told once each time it begins (EPOLLET, epoll(7)), and remembered here until a call says that it is over.
"""

from __future__ import annotations

import errno
import os
import select
import time
from typing import TYPE_CHECKING

from l7proxy.core.model import AccessLogFormat
from l7proxy.core.proxyprotocol import proxy_header_v1, proxy_header_v2
from l7proxy.core.proxystatus import Cause
from l7proxy.core.settings.backside import ProxyVersion
from l7proxy.http.admission import Places
from l7proxy.tcp.asked import Asked
from l7proxy.tcp.flow import DONE, SOURCE_FAILED, TARGET_FAILED, TURN, Flow
from l7proxy.tcp.greeting import Greeting
from l7proxy.tcp.wire import fault_of, receive
from l7proxy.upstreams import BackendState, UpstreamState

if TYPE_CHECKING:
    from l7proxy.tcp.front import TcpFront

KEEPALIVE_AFTER_S = 5.0
"""Backends' connections that live this long are probed by the kernel while they are quiet; short ones cost nothing."""

_IN = select.EPOLLIN
_OUT = select.EPOLLOUT
_ERR = select.EPOLLERR
_BROKEN = select.EPOLLERR | select.EPOLLHUP
_MORE = select.EPOLLRDHUP | select.EPOLLPRI | select.EPOLLERR | select.EPOLLHUP
_READ = _IN | _MORE
_UNSURE = select.EPOLLPRI | select.EPOLLERR
"""With these, a short read does not say that the end is next: reading stops at urgent data, and before an error."""
_AGAIN = -errno.EAGAIN
_SHORT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_monotonic = time.monotonic
_FIRST_BYTES = 16 * 1024
"""Read at one time of what comes before there is a backend."""
_buffer = bytearray(_FIRST_BYTES)

# What a session is at: its first bytes are awaited; a backend's connection; bytes pass; closed.
GREETING, CONNECT, OPEN, CLOSED = range(4)


class Session:
    """A client's connection and the backend's."""

    def __init__(self, front: TcpFront, client: int, asker: str, port: int, now: float) -> None:
        self.front = front
        self.client = client
        self.backend_fd = -1
        self.asker = asker
        """The client's address, as far as it is known."""
        self.port = port
        self.state = CONNECT
        self.up = Flow()
        self.down = Flow()
        self.up.source = self.down.target = client
        self.started_at = now
        self.chosen_at = 0.0
        self.connected_at = 0.0
        self.heard_at = now
        self.name: str | None = None
        self.upstream: UpstreamState | None = None
        self.upstream_name = ""
        self.backend: BackendState | None = None
        self.retries = 0
        self.waits = False
        """Whether it is among those that have their turn next."""
        self._asked: Asked | None = None
        """What it is to those who have a say in where it goes; None where nobody has."""
        self._destination: tuple[str, int] | None = None
        self._untried: dict[str, int] | None = None
        self._greeting: Greeting | None = None
        self._held = b""
        """What came before there was a backend."""
        self._place: Places | None = None
        """At its backend, where those are counted."""
        self._is_counted = False
        """Whether its backend's counters have it in flight."""
        self._moved = 0
        self._is_kept = False
        self._is_short = False
        """Whether there was no descriptor for a connection to its backend."""

    def begin(self, awaits_header: bool) -> None:
        """Look at what comes first, if need be, or connect."""
        tcp = self.front.tcp
        if awaits_header or tcp.looks:
            self.state = GREETING
            self._greeting = Greeting(tcp, awaits_header)
        else:
            self._route(tcp.upstream)

    # what is told by the loop

    def event(self, fd: int, mask: int) -> None:
        """Something has changed on one of both descriptors."""
        state = self.state
        if fd == self.client:
            if mask & _READ:
                self.up.readable = True
                if mask & _MORE:
                    self.up.eager = True
                    self.up.closing = mask & _UNSURE == 0
            if mask & _OUT:
                self.down.writable = True
            if state == OPEN:
                self.step()
                if mask & _ERR and self.state == OPEN:  # and what it has sent cannot go on
                    self.end(Cause.CLIENT_LEFT, "the client left: its connection was reset", by_client=True)
            elif self._greeting is not None:
                self._read_first(self._greeting)
            elif state == CONNECT and mask & _BROKEN:
                self.end(Cause.CLIENT_LEFT, "the client left before there was a backend", by_client=True)
        elif fd == self.backend_fd:
            if state == CONNECT:
                self._connecting(mask)
            elif state == OPEN:
                if mask & _READ:
                    self.down.readable = True
                    if mask & _MORE:
                        self.down.eager = True
                        self.down.closing = mask & _UNSURE == 0
                if mask & _OUT:
                    self.up.writable = True
                self.step()
                if mask & _ERR and self.state == OPEN:
                    self.end(Cause.CONNECTION_TERMINATED, "the backend left: its connection was reset", by_backend=True)

    def step(self) -> None:
        """Move bytes in both directions."""
        front = self.front
        pipes = front.proxy.pipes
        up, down = self.up, self.down
        self.heard_at = front.now
        came = also = DONE
        if not up.finished:
            up.is_last = down.finished
            came = up.pump(pipes)
            if came >= SOURCE_FAILED:
                self._failed(up, came)
                return
        if not down.finished:
            down.is_last = up.finished
            also = down.pump(pipes)
            if also >= SOURCE_FAILED:
                self._failed(down, also)
                return
        if up.finished and down.finished:
            self.end(None, "")
        elif TURN in {came, also}:
            front.again(self)

    def go_on(self) -> None:
        """Its turn has come again."""
        if self.state == OPEN:
            self.step()

    @property
    def is_silent(self) -> bool:
        """Whether nothing has come of its client."""
        greeting = self._greeting
        return greeting is None or not (greeting.held or greeting.header or self.up.readable)

    def _failed(self, flow: Flow, how: int) -> None:
        """One side is gone without an end: so is the other."""
        by_client = (flow is self.up) == (how == SOURCE_FAILED)
        other = self.down if flow is self.up else self.up
        if how == TARGET_FAILED and not other.finished:
            other.readable = True  # it may have said something before it went
            other.pump(self.front.proxy.pipes)
        words = os.strerror(flow.error)
        if by_client:
            self.end(Cause.CLIENT_LEFT, f"the client left: {words}", by_client=True)
        else:
            self.end(Cause.CONNECTION_TERMINATED, f"the backend left: {words}", by_backend=True)

    # what comes first

    def _read_first(self, greeting: Greeting) -> None:
        """More of a PROXY header, or of a ClientHello."""
        up = self.up
        while up.readable and self.state == GREETING:
            taken = receive(self.client, _buffer)
            if taken > 0:
                if taken < _FIRST_BYTES and not up.eager:
                    up.readable = False
                self.heard_at = self.front.now
                greeting.feed(bytes(_buffer[:taken]))
                if greeting.is_over:
                    self._greeted(greeting)
            elif taken == _AGAIN:
                up.readable = False
            elif taken == 0:
                said = greeting.held or greeting.header
                self.end(Cause.CLIENT_LEFT if said else None, "the client left before it had said where to")
            else:
                self.end(Cause.CLIENT_LEFT, f"the client left: {os.strerror(-taken)}", by_client=True)

    def _greeted(self, greeting: Greeting) -> None:
        """What comes first has come."""
        self._greeting = None
        header = greeting.header
        if header is not None and header.source is not None:
            self.asker, self.port = header.source, header.source_port
        if header is not None and header.destination is not None:
            self._destination = header.destination, header.destination_port
        self._held = greeting.held
        self.name = greeting.name
        if greeting.cause is not None:
            self._refuse(greeting.cause, greeting.reason)
        else:
            self._route(greeting.upstream)

    def _route(self, upstream: str) -> None:
        """Go to an upstream."""
        self.state = CONNECT
        self.upstream_name = upstream
        found = self.upstream = self.front.proxy.snapshot.upstreams.get(upstream)
        if found is None:
            self._refuse(Cause.NO_BACKEND, f"upstream {upstream} is gone")
            return
        if not found.is_plain or found.guard is not None:
            asked = self._asked = Asked(self.asker, self.started_at)
            if not asked.admitted(found):
                self._refuse(Cause.BREAKER_OPEN, f"upstream {upstream} is spared")
                return
        self._try(found)

    def _refuse(self, cause: Cause, reason: str) -> None:
        self.front.tell("connection refused", self, cause, reason, ours=False)
        self.end(cause, "")

    # the backend

    def _try(self, upstream: UpstreamState) -> None:
        """Connect to one backend after the other, until one does not refuse at once."""
        while self.state == CONNECT:
            backend = self._pick(upstream)
            if backend is None:
                self.front.tell("connection not forwarded", self, Cause.NO_BACKEND, upstream.why_nobody())
                self.end(Cause.NO_BACKEND, "")
                return
            if backend.places is not None:
                backend = self._with_place(upstream, backend)
                if backend is None:
                    self.front.tell(
                        "connection not forwarded", self, Cause.CONNECTION_LIMIT, "backends have max_connections"
                    )
                    self.end(Cause.CONNECTION_LIMIT, "")
                    return
            self.backend = backend
            self.chosen_at = self.front.now
            backend.counters.requests += 1
            self._is_counted = True
            fd = self.front.dial(backend, self)
            if fd >= 0:
                self.backend_fd = fd
                return
            if -fd in _SHORT:
                self._is_short = True  # the next look at deadlines tries again
                return
            if not self._may_retry(upstream, backend, -fd):
                return

    def _pick(self, upstream: UpstreamState) -> BackendState | None:
        """The backend whose turn it is, of all or of those that were not tried."""
        untried = self._untried
        if self._asked is not None:
            return self._asked.pick(upstream, upstream.weights if untried is None else untried)
        if untried is None:
            return upstream.next()
        name = upstream.turns.pick(untried)
        return upstream.backends[name] if name is not None else None

    def _with_place(self, upstream: UpstreamState, backend: BackendState) -> BackendState | None:
        """A backend with room for one more, which is taken; `backend` if it has. Connections do not wait for one."""
        free = dict(upstream.weights if self._untried is None else self._untried)
        chosen: BackendState | None = backend
        while chosen is not None and (places := chosen.places) is not None:
            if places.take():
                self._place = places
                return chosen
            free.pop(chosen.backend.name, None)
            asked = self._asked or Asked(self.asker, self.started_at)
            chosen = asked.pick(upstream, free) if free else None
        return chosen

    def _leave_backend(self, backend: BackendState) -> None:
        """It is no longer in flight there."""
        backend.counters.ended += 1
        self._is_counted = False
        if self._place is not None:
            self._place.count.give()
            self._place = None
            if self.upstream is not None and self.upstream.line is not None:
                self.upstream.line.call()

    def _connecting(self, mask: int) -> None:
        backend, upstream = self.backend, self.upstream
        if backend is None or upstream is None:
            return
        if mask & _BROKEN:
            number = fault_of(self.backend_fd) or errno.ECONNRESET
            self._hang_up()
            if self._may_retry(upstream, backend, number):
                self._try(upstream)
        elif mask & _OUT:
            self._connected(backend, mask)

    def _connected(self, backend: BackendState, mask: int) -> None:
        self.state = OPEN
        self.connected_at = self.front.now
        backend.pool.made += 1
        if self._asked is not None and self.upstream is not None:
            self._asked.tell(self.upstream, backend, True)
        up, down = self.up, self.down
        up.target = down.source = self.backend_fd
        up.writable = True
        if mask & _READ:
            down.readable = True
            if mask & _MORE:
                down.eager = True
                down.closing = mask & _UNSURE == 0
        first = self._held
        self._held = b""
        version = backend.pool.way.proxy_protocol
        if version is not None:
            header = self._header(version)
            up.moved -= len(header)  # these are none of the client's
            first = header + first
        if first:
            up.held = first
        self.step()

    def _header(self, version: ProxyVersion) -> bytes:
        """The PROXY header that the backend is told."""
        to = self._destination
        if to is None:
            to = self.front.own_address(self.client)
        make = proxy_header_v1 if version is ProxyVersion.V1 else proxy_header_v2
        return make(self.asker, self.port, to[0], to[1])

    def _hang_up(self) -> None:
        if self.backend_fd >= 0:
            fd = self.backend_fd
            self.backend_fd = -1
            self.front.close_end(fd, True)

    def _may_retry(self, upstream: UpstreamState, backend: BackendState, number: int) -> bool:
        """A backend gave no connection: whether another is tried."""
        cause = cause_of(number)
        self._leave_backend(backend)
        reason = os.strerror(number)
        if number == errno.ETIMEDOUT:
            reason = f"no connection within {upstream.upstream.timeouts.connect_s:g}s"
        untried = self._untried if self._untried is not None else upstream.weights
        self._untried = {name: weight for name, weight in untried.items() if name != backend.backend.name}
        asked = self._asked
        if asked is not None:
            asked.tell(upstream, backend, False)
        if self._untried and (asked is None or asked.may_retry(upstream)):
            self.retries += 1
            self.front.tell("trying another backend", self, cause, reason)
            return True
        self.front.tell("connection not forwarded", self, cause, reason)
        self.end(cause, "")
        return False

    # deadlines and the end

    def sweep(self, now: float) -> None:
        """End what has taken too long."""
        tcp = self.front.tcp
        state = self.state
        if state == OPEN:
            up, down = self.up, self.down
            most_s = tcp.half_closed_s if up.ended or down.ended else tcp.idle_s
            if now - self.heard_at > most_s:
                self.end(Cause.IDLE_TIMEOUT, f"nothing passed for {most_s:g}s")
                return
            if not self._is_kept and now - self.connected_at > KEEPALIVE_AFTER_S:
                self._is_kept = True
                self.front.keep_alive(self.backend_fd)
            moved = up.moved + down.moved
            if moved == self._moved:
                pipes = self.front.proxy.pipes
                up.rest(pipes)
                down.rest(pipes)
            self._moved = moved
        elif state == CONNECT:
            backend, upstream = self.backend, self.upstream
            if backend is None or upstream is None:
                return
            if self._is_short:
                self._is_short = False
                if now - self.heard_at > upstream.upstream.timeouts.connect_s:
                    if self._may_retry(upstream, backend, errno.EMFILE):
                        self._try(upstream)
                else:
                    self._leave_backend(backend)
                    self._try(upstream)
            elif now - self.chosen_at > upstream.upstream.timeouts.connect_s:
                self._hang_up()
                if self._may_retry(upstream, backend, errno.ETIMEDOUT):
                    self._try(upstream)
        elif self._greeting is not None and now - self.started_at > tcp.hello_s:
            self._greeting.late(tcp.hello_s)
            self._greeted(self._greeting)

    def end(
        self,
        cause: Cause | None,
        reason: str,
        *,
        by_client: bool = False,
        by_backend: bool = False,
    ) -> None:
        """It is over: by an end on both sides, or for `cause`, which those who are not `by` it hear of by a reset."""
        if self.state == CLOSED:
            return
        front = self.front
        proxy = front.proxy
        in_order = cause is None
        self.state = CLOSED
        now = front.now
        up, down = self.up, self.down
        up.moved = max(0, up.moved)
        backend = self.backend
        if backend is not None and self._is_counted:
            self._leave_backend(backend)
            backend.counters.bytes_sent += down.moved
        # Whoever has said its end in order, and whose bytes have all gone on, has not broken anything off.
        client_cut = not in_order and not by_client and self.connected_at > 0 and not (by_backend and down.finished)
        backend_cut = not in_order and not by_backend and not (by_client and up.finished)
        front.close_end(self.client, client_cut)
        if self.backend_fd >= 0:
            front.close_end(self.backend_fd, backend_cut)
            self.backend_fd = -1
        up.drop(proxy.pipes)
        down.drop(proxy.pipes)
        self._held = b""
        self._greeting = None
        front.forget(self)
        if self._asked is not None and self.upstream is not None:
            self._asked.over(self.upstream)
        if reason and cause is not None:
            front.tell("connection closed", self, cause, reason, ours=by_backend)
        proxy.tcp_meters.account(front.name, self.upstream_name, up.moved, down.moved, cause)
        if proxy.snapshot.config.access_log is not AccessLogFormat.NONE:
            proxy.access.add_tcp(
                (
                    self.started_at,
                    self.chosen_at,
                    self.connected_at,
                    now,
                    self.asker,
                    front.name,
                    self.name,
                    up.moved,
                    down.moved,
                    self.upstream_name or None,
                    backend.backend.name if backend is not None else None,
                    self.retries,
                    cause,
                )
            )


def cause_of(number: int) -> Cause:
    """Why there is no connection, by its errno."""
    if number == errno.ECONNREFUSED:
        return Cause.CONNECTION_REFUSED
    if number in {errno.EHOSTUNREACH, errno.ENETUNREACH}:
        return Cause.UNROUTABLE
    return Cause.CONNECTION_TIMEOUT if number == errno.ETIMEDOUT else Cause.CONNECTION_FAILED
