"""One exchange, from the parsed head to the log record:
head -> route -> candidates -> connect, or retry -> transform -> stream -> account.

One rule: the client gets exactly one answer, and never a cut one that looks whole. Before the answer's head is on the
wire every failure becomes a status; after it, the client's connection is broken off.

There is no task and no future: bytes that come from either side call the next step. How the client speaks is the
client's (`client.py`); how the backend does, the link's (`link.py`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from l7proxy.core.flight import MOST_TRIES, Try
from l7proxy.core.framing import LAST_CHUNK, chunk
from l7proxy.core.head import RequestHead, ResponseHead
from l7proxy.core.headers import decrement_max_forwards, names_in_via, request_bytes, trusted_tail
from l7proxy.core.model import DangerousPath, Route
from l7proxy.core.paths import Danger, danger_of, normalised
from l7proxy.core.proxyprotocol import proxy_header_v1, proxy_header_v2
from l7proxy.core.proxystatus import Cause
from l7proxy.core.retry import IDEMPOTENT, MOST_REPLAYED_BYTES, Failure, Retry, retry
from l7proxy.core.settings.backside import ProxyVersion
from l7proxy.http.admission import Line, Places, admit
from l7proxy.http.ending import Ending
from l7proxy.http.guard import OPEN, TRIAL
from l7proxy.http.link import HEAD, Piece, UpstreamLink
from l7proxy.http.pool import ConnectError
from l7proxy.http.steps import GO_ON
from l7proxy.runtime import RouteState
from l7proxy.upstreams import BackendState

_monotonic = time.monotonic


class Exchange(Ending):
    """One request and its answer."""

    # head -> route

    def start(self, piece: bytes, last: bool) -> None:
        """Begin; `piece` is what has come of the body, `last` whether that is all of it."""
        proxy = self.proxy
        client = self.client
        head = self.head
        snapshot = self.snapshot
        front = client.front
        counters = proxy.counters
        counters.requests += 1
        if front.trusting and front.trusted.trust(client.peer):
            self.asker, self.tail = trusted_tail(head, client.peer, client.scheme, snapshot.via, front.trusted)
            self.from_proxy = True
        if not last:
            self.body_done = False
        if piece:
            self.received_bytes = len(piece)
            self._keep(piece, last)
        elif last and head.chunked:
            self._keep(b"", True)
        if front.health is not None and head.path == front.health:
            self.unlogged = True
            draining = proxy.says_draining
            self._reply(503 if draining else 200, "draining" if draining else "ok", None)
            return
        if front.steps is not None:
            for step in front.steps:
                if step.before(self) != GO_ON:
                    return
        if head.via and snapshot.via and names_in_via(head.via, snapshot.via):
            self.refuse(Cause.PROXY_LOOP, "the request went through this proxy before: a backend leads back here")
            return
        if head.max_forwards is not None:
            if head.max_forwards == 0:
                self._reply(200, "OPTIONS ends here", None)
                return
            decrement_max_forwards(head)
        route = snapshot.table.find(head.host, head.path, self)
        if route is None:
            self._log("no route", f"nothing matches host {head.host or '(none)'} and path {head.path}", Cause.NO_ROUTE)
            self._reply(404, Cause.NO_ROUTE.text, Cause.NO_ROUTE)
            return
        self.route = route
        if head.odd:
            danger = self._mend(route, head)
            if danger is not None:
                self.refuse(Cause.DANGEROUS_PATH, danger.value)
                return
        state = snapshot.routes[route.place]
        if state.steps is None:
            self._dispatch(state)
        else:
            self.original = head.fields
            self.steps = state.steps
            self.go_on()

    def go_on(self) -> None:
        """Take the steps of the route that are left, and go to its upstream. Who has made it wait calls this."""
        if self.over or self.steps is None or self.route is None:
            return
        if self._step:  # it has waited, which is no time of the backend's
            self.chosen_at = _monotonic()
        before = self.steps.before
        while self._step < len(before):
            step = before[self._step]
            self._step += 1
            if step.before(self) != GO_ON:
                return
        self._dispatch(self.snapshot.routes[self.route.place])

    def _dispatch(self, state: RouteState) -> None:
        """On to the upstream."""
        upstream = state.upstream
        if upstream is None or state.split is not None:
            upstream = state.upstream_for(self)
        self.upstream = upstream
        guard = self.guard = upstream.guard
        if guard is not None:
            said = guard.admit()
            if said == OPEN:
                self._log("request refused", f"upstream {upstream.upstream.name} is spared", Cause.BREAKER_OPEN)
                self.give_up(Cause.BREAKER_OPEN)
                return
            self.trial = said == TRIAL
        if not self.client.bound:
            backend = upstream.next() if upstream.is_plain else upstream.choose(self, upstream.weights)
            if backend is not None:
                self._go_to(backend)
                return
        elif upstream.sessions is not None:
            upstream.sessions.arrive(self, upstream.session_of(self))
        self._untried = upstream.weights
        self._try()

    def start_refused(self, cause: Cause, reason: str) -> None:
        """Begin, only to answer that it goes no further."""
        self.proxy.counters.requests += 1
        self.body_done = False
        self.refuse(cause, reason)

    def _mend(self, route: Route, head: RequestHead) -> Danger | None:
        """Make the path fit to go on as the route says, or say why it is not."""
        if route.dangerous_path is DangerousPath.FORWARD:
            return None
        method, target, version = head.start.split(b" ")
        raw, mark, query = target.partition(b"?")
        path = raw.decode("ascii")
        if route.dangerous_path is DangerousPath.REFUSE:
            return danger_of(path)
        normal = normalised(path)
        if isinstance(normal, Danger):
            return normal
        head.start = b"%b %b%b%b %b" % (method, normal.encode("ascii"), mark, query, version)
        return None

    # candidates -> connect, or retry

    def _try(self) -> None:
        """Take the next backend of those that are left."""
        upstream, untried = self.upstream, self._untried
        assert upstream is not None and untried is not None  # noqa: S101, PT018 -- start() has set them
        bound = self.client.bound
        if bound:
            held = upstream.held_at(self, untried)
            for backend in bound:
                if backend.pool.is_personal and held is not None and held is not backend:
                    continue
                if backend.backend.name in untried and upstream.backends.get(backend.backend.name) is backend:
                    if backend.places is not None and self._with_place(backend, backend.backend.name) is None:
                        return
                    link = self.client.take_bound(backend)
                    if link is not None and link.vouched and link.vouched != self.asker:
                        link.abort()  # a trusted proxy sends requests of several clients
                    elif link is not None:
                        self.backend = backend
                        self._send(link)
                        return
        chosen = upstream.choose(self, untried)
        if chosen is None:
            self._log("request failed", upstream.why_nobody(), Cause.NO_BACKEND)
            self.give_up(Cause.NO_BACKEND)
            return
        self._go_to(chosen)

    def _go_to(self, backend: BackendState) -> None:
        if backend.places is not None or self.place is not None:
            found = self._with_place(backend)
            if found is None:
                return
            backend = found
        self.backend = backend
        head = self.head
        pool = backend.pool
        link = None if head.bound or pool.is_personal else pool.take()
        if link is not None:
            self.linked_at = _monotonic() if self.retries or self.chosen_at else self.started_at
            self._send(link)
        else:
            self.chosen_at = _monotonic()
            self.proxy.spawn(self._connect(backend))

    # a place at the backend

    def _with_place(self, backend: BackendState, only: str = "") -> BackendState | None:
        """Where to go instead of `backend` if that is full, with a place taken; None: it waits, or was answered. `only`
        is the one backend that will do."""
        if self.place is not None:
            if self.place is backend.places:
                return backend
            self._give_place()
            if backend.places is None:
                return backend
        upstream = self.upstream
        assert upstream is not None  # noqa: S101 -- it has chosen
        return admit(self, backend, self.untried, only or upstream.insists_on(self, backend))

    @property
    def untried(self) -> Mapping[str, int]:
        """The backends that may be picked now and have not failed it, with their weights."""
        upstream, untried = self.upstream, self._untried
        assert upstream is not None  # noqa: S101 -- as above
        weights = upstream.weights
        if untried is None or untried is weights:
            return weights
        return {name: weight for name, weight in weights.items() if name in untried}

    def go_at_last(self, backend: BackendState, place: Places | None) -> None:
        """It has waited, and has its place."""
        self.line = None
        self.place = place
        self.chosen_at = _monotonic()
        try:
            if backend in self.client.bound:
                self._try()
            else:
                self._go_to(backend)
        except Exception as error:  # noqa: BLE001 -- logged with its traceback; others wait
            self.crashed(error)

    def has_waited_in_vain(self, waited_s: float) -> None:
        """No backend was free in time."""
        self.line = None
        self._log("request failed", f"no backend was free within {waited_s:.1f}s", Cause.QUEUE_TIMEOUT)
        self.give_up(Cause.QUEUE_TIMEOUT)

    def has_no_place(self, line: Line | None) -> None:
        """No backend is free, and it cannot wait."""
        reason = "backends have max_connections requests"
        if line is not None:
            reason += f", and {line.queue.length} wait already"
        self._log("request failed", reason, Cause.CONNECTION_LIMIT)
        self.give_up(Cause.CONNECTION_LIMIT)

    async def _connect(self, backend: BackendState) -> None:
        upstream = self.upstream
        assert upstream is not None  # noqa: S101 -- as above
        try:
            try:
                link = await backend.pool.connect(upstream.upstream.timeouts.connect_s, self._opening(backend))
            except ConnectError as error:
                if not self.over:
                    self._failed(Failure.NOT_CONNECTED, error.cause, str(error))
                return
            if self.over and backend.pool.is_personal:
                link.abort()
            elif self.over:
                link.uses = 1  # its end while idle is a stale connection's, though nothing was ever asked on it
                backend.pool.give_back(link, whole=True, now=_monotonic())
            else:
                self.linked_at = _monotonic()
                self._send(link)
        except Exception as error:  # noqa: BLE001 -- logged with its traceback; the group of tasks must not end
            self.crashed(error)

    def _opening(self, backend: BackendState) -> bytes:
        """What a new link to `backend` begins with."""
        version = backend.pool.way.proxy_protocol
        if version is None:
            return b""
        port, here, here_port = self.client.ends()
        write = proxy_header_v1 if version is ProxyVersion.V1 else proxy_header_v2
        return write(self.asker, port if self.asker == self.client.peer else 0, here, here_port)

    def _send(self, link: UpstreamLink) -> None:
        """Send the head and what has come of the body."""
        backend = self.backend
        assert backend is not None  # noqa: S101 -- a link is one to a backend
        head = self.head
        self.link = link
        link.begin(self, head.method == b"HEAD")
        if backend.pool.is_personal:
            link.owner = self.client
            link.vouched = self.asker
        counters = backend.counters
        counters.requests += 1
        data = request_bytes(head, self.tail or self.client.tail(head.authority), backend.authority)
        kept = self._kept
        if kept:
            data = b"".join((data, *kept))
        sent = link.write(data)
        self.sent_at = self.linked_at
        if not sent:
            self._drop_link()
            failure = Failure.STALE_UNSENT if link.uses > 1 else Failure.NOT_CONNECTED
            self._failed(failure, Cause.CONNECTION_TERMINATED, "connection closed before anything was sent")
            return
        if kept and (head.method not in IDEMPOTENT or self._kept_bytes > MOST_REPLAYED_BYTES):
            self._forget()
        if not self.body_done and not link.full:
            self.client.resume()

    @property
    def repeatable(self) -> bool:
        """Whether the request may be sent again after it was sent once."""
        return self.head.method in IDEMPOTENT and not self._forgotten

    def _failed(self, failure: Failure, cause: Cause, reason: str) -> None:
        """An attempt gave no answer: make another, or answer that."""
        backend, upstream = self.backend, self.upstream
        assert backend is not None and upstream is not None  # noqa: S101, PT018 -- as above
        if self.guard is not None and failure not in {Failure.STALE, Failure.STALE_UNSENT}:
            self._tell_guard(0)
        what = retry(failure, self.repeatable)
        if self.tries is None:
            self.tries = []
        if len(self.tries) < MOST_TRIES:
            self.tries.append(Try(backend.backend.name, cause.label, reason, _monotonic()))
        if what is Retry.SAME_BACKEND:
            self.retries += 1
            self.chosen_at = _monotonic()
            self.proxy.spawn(self._connect(backend))
            return
        if what is Retry.OTHER_BACKEND:
            untried = self._untried if self._untried is not None else upstream.weights
            self._untried = {name: weight for name, weight in untried.items() if name != backend.backend.name}
            self._give_place()
            if self._untried and (self.guard is None or self.guard.may_retry()):
                self.retries += 1
                self._log("trying another backend", reason, level=logging.INFO)
                self._try()
                return
        self._log("request failed", reason, cause)
        if failure is Failure.NOT_CONNECTED:
            self.give_up(cause)
        else:
            self._reply(cause.status, cause.text, cause)

    def _tell_guard(self, status: int) -> None:
        """How an attempt has ended; 0 is no answer."""
        guard, upstream, backend = self.guard, self.upstream, self.backend
        if guard is None or upstream is None or backend is None:
            return
        if guard.saw(self, backend.backend.name, status):
            upstream.refresh()

    # the request's body

    @property
    def awaits_welcome(self) -> bool:
        """Whether the client may hold its body back until the backend asks for it (RFC 9110 10.1.1): the time is the
        backend's."""
        return self.head.expects_continue and not self._welcome and not self.received_bytes

    def body(self, piece: bytes, last: bool) -> None:
        """More of the request's body has come."""
        if self.over:
            return
        self.received_bytes += len(piece)
        link = self.link
        if link is None:
            self._keep(piece, last)
            if self._kept_bytes > MOST_REPLAYED_BYTES:
                self.client.pause()
            return
        if not self._forgotten:
            if self.head.method in IDEMPOTENT and self._kept_bytes + len(piece) <= MOST_REPLAYED_BYTES:
                self._keep(piece, last)
            else:
                self._forget()
        link.write(self._framed(piece, last))
        if last:
            self.body_done = True
            self.sent_at = _monotonic()

    def _keep(self, piece: bytes, last: bool) -> None:
        if self._kept is None:
            self._kept = []
        self._kept.append(self._framed(piece, last))
        self._kept_bytes += len(piece)
        if last:
            self.body_done = True

    def _forget(self) -> None:
        self._kept = None
        self._kept_bytes = 0
        self._forgotten = True

    def _framed(self, piece: bytes, last: bool) -> bytes:
        if not self.head.chunked:
            return piece
        framed = chunk(piece) if piece else b""
        return framed + LAST_CHUNK if last else framed

    # the answer

    def interim(self, head: ResponseHead) -> None:
        """A 1xx answer goes on (RFC 9110 15.2), a 100 only to who expects it."""
        self.sent_at = _monotonic()
        if head.status == 100:
            self._welcome = True
        if not self.head.http10 and (head.status != 100 or self.head.expects_continue):
            self.client.interim(head)

    def answer(self, head: ResponseHead, piece: Piece, last: bool) -> None:
        """The answer's head, with what has come of its body."""
        self.status = head.status
        self.first_byte_at = _monotonic()
        self.sent_bytes = len(piece)
        if self.guard is not None:
            self._tell_guard(head.status)
        if head.bound or self.head.bound:
            assert self.link is not None  # noqa: S101 -- it is the link that calls
            self.link.owner = self.client
        if self.steps is not None:
            for step in self.steps.after:
                step.after(self, head)
            if self.encoder is not None:
                piece = self.encoder.begin(head, piece, last)
                self.sent_bytes = len(piece)
        self.client.answer(head, piece, last)
        if last:
            self._end(self.first_byte_at)
        elif self.link is not None:
            self.link.heard_at = self.first_byte_at

    def more(self, piece: Piece, last: bool) -> None:
        """More of the answer's body, or of the tunnel."""
        if self.encoder is not None:
            piece = self.encoder.encode(piece, last)
        self.sent_bytes += len(piece)
        self.client.more(piece, last)
        now = _monotonic()
        if last:
            self._end(now)
        elif self.link is not None:
            self.link.heard_at = now

    def switched(self, head: ResponseHead, early: bytes) -> None:
        """101: from here both directions are opaque."""
        if not self.head.upgrade or head.upgrade != self.head.upgrade:
            self._drop_link()
            reason = "the backend switched protocols without being asked"
            self._failed(Failure.FINAL, Cause.UPGRADE_FAILED, reason)
            return
        self.status = 101
        self.tunnel = True
        self.first_byte_at = _monotonic()
        self.sent_bytes = len(early)
        if self.guard is not None:
            self._tell_guard(101)
        if self.steps is not None:
            for step in self.steps.after:
                step.after(self, head)
        waiting = self.client.switch(head, early)
        if waiting:
            self.from_client(waiting)

    def from_client(self, data: bytes) -> None:
        """A tunnel's bytes."""
        if self.link is not None:
            self.received_bytes += len(data)
            self.link.heard_at = _monotonic()
            self.link.write(data)

    def client_end(self) -> None:
        """The client sends no more; a tunnel's other direction goes on."""
        self._ends += 1
        if self.link is not None and self._ends < 2:
            self.link.write_eof()
        else:
            self._close_tunnel()

    def link_end(self) -> None:
        self._ends += 1
        if self._ends < 2:
            self.client.write_eof()
        else:
            self._close_tunnel()

    def _close_tunnel(self) -> None:
        link = self.link
        if link is not None:
            self._let_go(link)
            link.close()
        now = _monotonic()
        self._account(now)
        self.client.ended(now)

    # flow control

    def link_full(self) -> None:
        self.client.pause()

    def link_ready(self) -> None:
        self.client.resume()

    def client_full(self) -> None:
        """The client takes less than the backend gives."""
        if self.link is not None:
            self.link.pause()

    def client_ready(self) -> None:
        if self.link is not None:
            self.link.heard_at = _monotonic()
            self.link.resume()

    # what goes wrong

    def bad_answer(self, cause: Cause, reason: str) -> None:
        """What came is no answer, or stopped to be one."""
        self._drop_link()
        if self.status:
            self._broken_off(Cause.RESPONSE_INCOMPLETE if cause is Cause.RESPONSE_CODING else cause, reason)
        else:
            self._failed(Failure.FINAL, cause, reason)

    def lost(self, reason: str) -> None:
        """The backend's connection is gone before the answer was whole."""
        link = self.link
        if link is None:
            return
        self._drop_link()
        if self.tunnel:
            now = _monotonic()
            self._account(now)
            self.client.ended(now)
        elif self.status:
            self._broken_off(Cause.RESPONSE_INCOMPLETE, reason)
        elif link.answered:
            self._failed(Failure.FINAL, Cause.RESPONSE_INCOMPLETE, f"{reason} within the answer's head")
        else:
            failure = Failure.STALE if link.uses > 1 else Failure.BROKEN
            self._failed(failure, Cause.CONNECTION_TERMINATED, f"{reason} before an answer")

    def sweep(self, now: float) -> None:
        """End what has taken the backend too long. (To connect has its own timeout.)"""
        link, upstream = self.link, self.upstream
        if link is None or upstream is None:
            return
        timeouts = upstream.upstream.timeouts
        unsent = link.unsent
        if unsent and unsent == self._unsent:
            if now - self._unsent_since_at > timeouts.idle_s:
                self.bad_answer(Cause.WRITE_TIMEOUT, "the backend stopped reading")
                return
        else:
            self._unsent, self._unsent_since_at = unsent, now
        if self.tunnel:
            if now - max(link.heard_at, self.first_byte_at) > self.snapshot.config.timeouts.tunnel_s:
                self._close_tunnel()
        elif link.phase == HEAD:
            if (self.body_done or self.awaits_welcome) and now - self.sent_at > timeouts.response_s:
                self.bad_answer(Cause.RESPONSE_TIMEOUT, "no answer in time")
        elif not link.paused and now - link.heard_at > timeouts.idle_s:
            self.bad_answer(Cause.READ_TIMEOUT, f"nothing came for {timeouts.idle_s:g}s")
