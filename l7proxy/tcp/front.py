"""The forwarded connections of one bound address.

One rule: there is one epoll instance for all of them, within the loop's own. A connection enters it once and leaves it
by being closed: what it is waited for never costs a system call.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import select
import socket
import time

from l7proxy.core.forwarded import TrustedNetworks
from l7proxy.core.model import Listener
from l7proxy.core.proxystatus import Cause
from l7proxy.core.settings.tcp import Tcp
from l7proxy.runtime import Proxy
from l7proxy.tcp.session import CONNECT, Session
from l7proxy.tcp.wire import Address, address_of, close, cut, dial, take_client
from l7proxy.upstreams import BackendState

ACCEPT_AT_ONCE = 64
LOOK_AT_ONCE = 256
EVENTS_AT_ONCE = 256
SHORTAGE_S = 0.1
"""Pause before connections are accepted again when there was no descriptor for one."""
_EVENTS = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLPRI | select.EPOLLET
_SHORT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_monotonic = time.monotonic
_MOST_ADDRESSES = 4096
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 600), (socket.TCP_KEEPINTVL, 30), (socket.TCP_KEEPCNT, 4))
"""As for clients (`http/listening.py`)."""


class TcpFront:
    """Accepts connections, and knows them."""

    def __init__(self, proxy: Proxy, listener: Listener, bound: socket.socket) -> None:
        self.proxy = proxy
        self.clients: set[Session] = set()
        self.now = 0.0
        """When what is being done began, on the loop's clock."""
        self._bound = bound
        self._loop = asyncio.get_running_loop()
        self._serving = False
        self._poll: select.epoll | None = None
        self._ends: dict[int, Session] = {}
        self._next: list[Session] = []
        self._closing: list[tuple[int, bool]] = []
        self._dispatching = False
        self._addresses: dict[object, Address] = {}
        self.configure(listener)

    def configure(self, listener: Listener) -> None:
        """Serve as `listener` says from now on."""
        self.listener = listener
        self.name = listener.name
        self.tcp = listener.tcp or Tcp("")
        self.trusted = TrustedNetworks(listener.trusted_proxies)

    # as a server (asyncio.AbstractServer)

    async def start_serving(self) -> None:
        """Accept. Accepted sockets inherit TCP_NODELAY (tcp(7))."""
        if not self._serving:
            self._bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._serving = True
            self._loop.add_reader(self._bound.fileno(), self._accept)

    def is_serving(self) -> bool:
        return self._serving

    def close(self) -> None:
        """Accept no more; connections go on."""
        if self._bound.fileno() >= 0:
            if self._serving:
                self._loop.remove_reader(self._bound.fileno())
            self._bound.close()
        self._serving = False
        self._retire()

    def _accept(self) -> None:
        bound = self._bound.fileno()
        self.now = _monotonic()
        for _ in range(ACCEPT_AT_ONCE):
            fd, peer, port = take_client(bound)
            if fd >= 0:
                self._welcome(fd, peer, port)
            elif -fd in _SHORT:
                self._pause(-fd)
                return
            elif fd == -errno.EAGAIN:
                break
        self._dispatch()

    def _pause(self, number: int) -> None:
        """Nobody can be accepted for want of something: try again in a moment."""
        self.proxy.refusals.write("connections wait", fields={"reason": errno.errorcode[number], "listener": self.name})
        self._loop.remove_reader(self._bound.fileno())
        self._loop.call_later(SHORTAGE_S, self._resume)

    def _resume(self) -> None:
        if self._serving:
            self._loop.add_reader(self._bound.fileno(), self._accept)

    def take(self, client: socket.socket) -> None:
        """A connection that was accepted elsewhere; it does not block."""
        try:
            peer = client.getpeername()
        except OSError:  # it is gone
            client.close()
            return
        self.now = _monotonic()
        self._welcome(client.detach(), str(peer[0]).partition("%")[0], int(peer[1]))

    def _welcome(self, fd: int, peer: str, port: int) -> None:
        proxy = self.proxy
        if proxy.connections >= proxy.most_clients:
            cut(fd)
            proxy.refusals.write("connection refused", fields={"reason": proxy.full_because, "client": peer})
            proxy.tcp_meters.account(self.name, "", 0, 0, Cause.TOO_MANY_CONNECTIONS)
            return
        session = Session(self, fd, peer, port, self.now)
        try:
            self._watch(fd, session)
        except OSError as error:  # /proc/sys/fs/epoll/max_user_watches, or no memory
            self.close_end(fd, True)
            reason = f"epoll: {error.strerror}"
            proxy.refusals.write("connection refused", fields={"reason": reason, "client": peer})
            return
        proxy.connections += 1
        proxy.counters.requests += 1
        self.clients.add(session)
        try:
            session.begin(self.listener.proxy_protocol and self.trusted.trust(peer))
        except Exception as error:  # noqa: BLE001 -- told with its traceback; others are accepted
            self._crashed(session, error)

    # what sessions ask for

    def dial(self, backend: BackendState, session: Session) -> int:
        """Begin to connect: a descriptor, or a negative errno."""
        endpoint = backend.pool.endpoint
        address = self._addresses.get(endpoint)
        if address is None:
            if len(self._addresses) >= _MOST_ADDRESSES:
                self._addresses.clear()
            address = self._addresses[endpoint] = address_of(endpoint)
        dscp = backend.pool.way.dscp
        fd = dial(address) if dscp is None else dial(address, dscp)
        if fd >= 0:
            try:
                self._watch(fd, session)
            except OSError as error:
                self.close_end(fd, True)
                return -(error.errno or errno.ENOSPC)
        return fd

    def own_address(self, fd: int) -> tuple[str, int]:
        """The address that a client has connected to."""
        client = socket.socket(fileno=fd)
        try:
            host, port, *_ = client.getsockname()
        except OSError:
            return "", 0
        finally:
            client.detach()
        return str(host), int(port)

    def keep_alive(self, fd: int) -> None:
        """Have the kernel look whether a quiet backend is there."""
        backend = socket.socket(fileno=fd)
        try:
            backend.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEPALIVE:
                backend.setsockopt(socket.IPPROTO_TCP, option, value)
        finally:
            backend.detach()

    def tell(self, message: str, session: Session, cause: Cause, reason: str, *, ours: bool = True) -> None:
        """A log line; `ours`: it is about us and our backends, and not about what a client did."""
        backend = session.backend
        fields = {
            "listener": self.name,
            "upstream": session.upstream_name or None,
            "backend": backend.backend.name if backend is not None else None,
            "cause": cause.label,
            "reason": reason,
            "client": session.asker,
        }
        log = self.proxy.failures if ours else self.proxy.refusals
        log.write(message, logging.WARNING, {name: value for name, value in fields.items() if value is not None})

    def again(self, session: Session) -> None:
        """Let `session` go on once others had their turn."""
        if not session.waits:
            session.waits = True
            if not self._next and not self._dispatching:
                self._loop.call_soon(self._dispatch)
            self._next.append(session)

    def close_end(self, fd: int, reset: bool) -> None:
        """Close a descriptor; in a batch of events at its end, so that none of them is taken for another's."""
        self._ends.pop(fd, None)
        if self._dispatching:
            self._closing.append((fd, reset))
        elif reset:
            cut(fd)
        else:
            close(fd)

    def forget(self, session: Session) -> None:
        """It is over."""
        self.clients.discard(session)
        self.proxy.connections -= 1
        self.proxy.counters.ended += 1
        if not self.clients and not self._serving:
            self._loop.call_soon(self._retire)

    # events

    def _watch(self, fd: int, session: Session) -> None:
        if self._poll is None:
            self._poll = select.epoll()
            self._loop.add_reader(self._poll.fileno(), self._dispatch)
        self._ends[fd] = session
        self._poll.register(fd, _EVENTS)

    def _dispatch(self) -> None:
        poll = self._poll
        if poll is None:
            return
        self.now = _monotonic()
        self._dispatching = True
        ends = self._ends
        try:
            for fd, mask in poll.poll(0, EVENTS_AT_ONCE):
                session = ends.get(fd)
                if session is not None:
                    try:
                        session.event(fd, mask)
                    except Exception as error:  # noqa: BLE001 -- told with its traceback; others go on
                        self._crashed(session, error)
            if self._next:
                self._take_turns()
        finally:
            self._dispatching = False
            if self._closing:
                for fd, reset in self._closing:
                    if reset:
                        cut(fd)
                    else:
                        close(fd)
                self._closing.clear()
        if self._next:
            self._loop.call_soon(self._dispatch)

    def _take_turns(self) -> None:
        sessions, self._next = self._next, []
        for session in sessions:
            session.waits = False
            try:
                session.go_on()
            except Exception as error:  # noqa: BLE001 -- as above
                self._crashed(session, error)

    def _crashed(self, session: Session, error: Exception) -> None:
        self.proxy.failures.write("connection failed in itself", level=logging.ERROR, error=error)
        session.end(Cause.INTERNAL_ERROR, "")

    # deadlines and the end

    def close_idle(self, idle_s: float = 0.0) -> None:
        """Close what has no backend yet, and has said nothing; what is forwarded may be in the middle of anything."""
        self.now = _monotonic()
        for session in list(self.clients):
            if session.state < CONNECT and session.is_silent and self.now - session.started_at >= idle_s:
                session.end(Cause.DRAINED, "")

    def abort(self) -> None:
        """Cut every connection."""
        self.now = _monotonic()
        for session in list(self.clients):
            session.end(Cause.DRAINED, "the proxy stops")

    async def sweep(self, now: float) -> None:
        """Look at every connection's deadlines, some at a time."""
        sessions = list(self.clients)
        for start in range(0, len(sessions), LOOK_AT_ONCE):
            self.now = now
            for session in sessions[start : start + LOOK_AT_ONCE]:
                try:
                    session.sweep(now)
                except Exception as error:  # noqa: BLE001 -- as above
                    self._crashed(session, error)
            await asyncio.sleep(0)

    def _retire(self) -> None:
        """Nothing is left to be told of."""
        if not self.clients and not self._serving and self._poll is not None:
            self._loop.remove_reader(self._poll.fileno())
            self._poll.close()
            self._poll = None
