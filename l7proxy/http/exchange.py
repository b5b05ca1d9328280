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
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Protocol

from l7proxy.core.access import without
from l7proxy.core.captures import captures_of
from l7proxy.core.compression import Encoder, packed
from l7proxy.core.flight import LONGEST_HEAD_BYTES, LONGEST_TARGET_BYTES, MOST_TRIES, Flight, Try
from l7proxy.core.framing import LAST_CHUNK, chunk
from l7proxy.core.head import RequestHead, ResponseHead
from l7proxy.core.headers import claimed_scheme, decrement_max_forwards, names_in_via, request_bytes, trusted_tail
from l7proxy.core.lookup import Fields
from l7proxy.core.marking import is_request_id
from l7proxy.core.model import AccessLogFormat, DangerousPath, Route
from l7proxy.core.paths import Danger, danger_of, normalised
from l7proxy.core.proxyprotocol import proxy_header_v1, proxy_header_v2
from l7proxy.core.proxystatus import Cause
from l7proxy.core.retry import IDEMPOTENT, MOST_REPLAYED_BYTES, Failure, Retry, retry
from l7proxy.core.settings.backside import ProxyVersion
from l7proxy.core.x509 import ClientCertificate
from l7proxy.http.admission import Line, Places, admit
from l7proxy.http.guard import OPEN, TRIAL, Guard
from l7proxy.http.link import HEAD, Piece, UpstreamLink
from l7proxy.http.pool import ConnectError
from l7proxy.http.randomhex import random_hex
from l7proxy.http.replies import reason_phrase, reply_parts
from l7proxy.http.steps import GO_ON, Steps
from l7proxy.runtime import Proxy, RouteState
from l7proxy.upstreams import BackendState, UpstreamState

if TYPE_CHECKING:
    from l7proxy.http.front import Front
    from l7proxy.http.sticky import Held

_monotonic = time.monotonic


class Client(Protocol):
    """What an exchange needs of the client's connection."""

    peer: str
    scheme: str
    certificate: ClientCertificate | None
    bound: Mapping[BackendState, UpstreamLink]
    """Links on which this client, and nobody else, is known to a backend."""

    def take_bound(self, backend: BackendState) -> UpstreamLink | None: ...

    def bind(self, backend: BackendState, link: UpstreamLink) -> None: ...

    @property
    def proxy(self) -> Proxy: ...

    @property
    def front(self) -> Front: ...

    def ends(self) -> tuple[int, str, int]: ...

    def tail(self, authority: bytes) -> bytes: ...

    def reply(self, status: int, text: str, cause: Cause | None) -> int: ...

    def respond(self, status: int, fields: bytes, body: bytes, cause: Cause | None) -> int: ...

    def interim(self, head: ResponseHead) -> None: ...

    def answer(self, head: ResponseHead, piece: Piece, last: bool) -> None: ...

    def more(self, piece: Piece, last: bool) -> None: ...

    def switch(self, head: ResponseHead, early: bytes) -> bytes: ...

    def break_off(self) -> None: ...

    def doom(self, reason: str) -> None: ...

    def write_eof(self) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def ended(self, now: float) -> None: ...


class Exchange:
    """One request and its answer."""

    def __init__(self, client: Client, head: RequestHead) -> None:  # noqa: PLR0915 -- what it remembers
        self.client = client
        self.head = head
        self.asker = client.peer
        """The client's address, as far as it is known."""
        self.proxy = client.proxy
        self.snapshot = client.proxy.snapshot
        self.started_at = _monotonic()
        self.route: Route | None = None
        self.upstream: UpstreamState | None = None
        self.backend: BackendState | None = None
        self.link: UpstreamLink | None = None
        self.place: Places | None = None
        """Of the backend's, where those are counted."""
        self.line: Line | None = None
        """Where it waits for one."""
        self.status = 0
        self.cause: Cause | None = None
        self.reason = ""
        """What has gone wrong, in words."""
        self.tries: list[Try] | None = None
        """Attempts that gave no answer."""
        self.retries = 0
        self.received_bytes = 0
        self.sent_bytes = 0
        self.chosen_at = 0.0
        """When the last connection began to be made, where one was."""
        self.linked_at = 0.0
        self.first_byte_at = 0.0
        self.sent_at = 0.0
        """When the request was whole on its way: the backend's time for an answer runs from here."""
        self.body_done = True
        self.over = False
        self.unlogged = False
        """An answer to a health check: it is in no log and no count."""
        self.tunnel = False
        self._welcome = False
        """Whether the backend has asked for the body (100)."""
        self.guard: Guard | None = None
        """Who hears how attempts end, where somebody does."""
        self.trial = False
        """Whether the breaker waits for the end of this one."""
        self.steps: Steps | None = None
        self.encoder: Encoder | None = None
        """What the answer's body passes through, where it is compressed."""
        self._step = 0
        self.original = b""
        """The header lines as they came, where steps may change them."""
        self._seen: Fields | None = None
        self.user = ""
        """Who has proven who it is, where a step has asked for it."""
        self._captures: Mapping[str, bytes | None] | None = None
        self._request_id = b""
        self.session: Held | None = None
        """What its cookie says about a session with its upstream, once somebody has asked."""
        self.tail = b""
        """The end of the head for backends, where it is not the client's usual one."""
        self.from_proxy = False
        """Whether the peer is a trusted proxy."""
        self._untried: dict[str, int] | None = None
        self._kept: list[bytes] | None = None
        """What came of the body and is not sent yet, or may have to be sent again."""
        self._kept_bytes = 0
        self._forgotten = False
        """Whether something of the body was sent that is not kept: nothing can be sent twice any more."""
        self._unsent = 0
        self._unsent_since_at = 0.0
        self._ends = 0
        """Of a tunnel: directions that have ended."""

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

    @property
    def seen(self) -> Fields:
        """The header lines as they came; what rules look at."""
        if self._seen is None:
            self._seen = Fields(self.original or self.head.fields)
        return self._seen

    @property
    def peer(self) -> str:
        """The address that the connection came from."""
        return self.client.peer

    @property
    def scheme(self) -> str:
        """By which the client asks, as far as it is known."""
        claimed = claimed_scheme(self.head) if self.from_proxy else ""
        return claimed or self.client.scheme

    @property
    def subject(self) -> str:
        """Of the client's certificate; empty where it has shown none."""
        certificate = self.client.certificate
        return certificate.subject if certificate is not None else ""

    @property
    def captures(self) -> Mapping[str, bytes | None]:
        """The groups of the route's path."""
        if self._captures is None:
            self._captures = captures_of(self.route.path, self.head.path) if self.route is not None else {}
        return self._captures

    @property
    def request_id(self) -> bytes:
        """What this request is called everywhere: as a trusted proxy says, or by a name of our own."""
        if not self._request_id:
            kept = None
            if self.from_proxy:
                marking = self.route.marking if self.route is not None else None
                name = marking.request_id if marking is not None else None
                kept = self.seen.first((name or "X-Request-ID").lower().encode("ascii"))
            self._request_id = kept if kept and is_request_id(kept) else random_hex(32)
        return self._request_id

    @property
    def route_name(self) -> str:
        return self.route.name if self.route is not None else ""

    @property
    def upstream_name(self) -> str:
        """Of the one it goes to; before that is known, of the route's."""
        if self.upstream is not None:
            return self.upstream.upstream.name
        return self.route.upstream if self.route is not None else ""

    @property
    def backend_name(self) -> str:
        return self.backend.backend.name if self.backend is not None else ""

    @property
    def listener_name(self) -> str:
        return self.client.front.listener.name

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

    def give_up(self, cause: Cause) -> None:
        """Answer that no backend can, as the upstream says it."""
        sorry = self.upstream.upstream.sorry if self.upstream is not None else None
        if sorry is None:
            self._reply(cause.status, cause.text, cause)
        else:
            self.respond(sorry.status, sorry.content.fields, sorry.content.body, cause)

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

    def _give_place(self) -> None:
        place = self.place
        if place is not None:
            self.place = None
            place.count.give()
            upstream = self.upstream
            if upstream is not None and upstream.line is not None:
                upstream.line.call()

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

    def _broken_off(self, cause: Cause, reason: str) -> None:
        """End the client's connection so that it sees a broken transfer."""
        self._log("answer broken off", reason, cause)
        self._account(_monotonic())
        self.client.break_off()

    def client_gone(self, reason: str = "", cause: Cause | None = None) -> None:
        """The client's connection is gone, or is cut off for `reason`; `cause` is one that is not the client's."""
        if self.over:
            return
        link = self.link
        if link is not None:
            self._drop_link()
        if not self.tunnel:
            self.cause = cause or self.cause or Cause.CLIENT_LEFT
            self.status = Cause.CLIENT_LEFT.status if cause is None else self.status or cause.status
        if reason:
            self._log("connection closed", reason, self.cause, ours=False)
        self._account(_monotonic())

    def refuse(self, cause: Cause, reason: str) -> None:
        """Answer a request that goes no further."""
        if self.over:
            return
        self._drop_link()
        self._log("request refused", reason, cause, ours=False)
        if self.status:
            self._account(_monotonic())
            self.client.break_off()
        else:
            self._reply(cause.status, cause.text, cause)

    def deny(self, cause: Cause, reason: str, fields: bytes = b"") -> None:
        """Answer a request that goes no further, with header lines of its own; an empty reason is told nobody."""
        if self.over:
            return
        if reason:
            self._log("request refused", reason, cause, ours=False)
        usual, body = reply_parts(cause.status, cause.text)
        self.respond(cause.status, usual + fields, body, cause)

    def failed_aside(self, cause: Cause, reason: str) -> None:
        """Answer that somebody who had to be asked first was not there."""
        if not self.over:
            self._log("request failed", reason, cause)
            self._reply(cause.status, cause.text, cause)

    def strip(self, names: Collection[bytes]) -> None:
        """Let no header called one of `names` (lower-case, with `-`) go on, whoever says it: also what a trusted proxy
        passes on of its client."""
        self.head.fields = without(self.head.fields, names)
        if self.tail:
            self.tail = without(self.tail[:-2], names) + b"\r\n"

    def came_with(self, name: bytes) -> bytes | None:
        """What a trusted proxy says by a header `name` (lower-case) about the request; None where it says nothing."""
        for line in self.head.claims if self.from_proxy else ():
            key, _, value = line.partition(b":")
            if key.lower() == name:
                return value.strip(b" \t")
        return None

    def put_off(self, cause: Cause, reason: str, again_s: int) -> None:
        """Refuse a request that may come again in `again_s`."""
        if self.over:
            return
        self._log("request refused", reason, cause, ours=False)
        fields = b"Content-Type: text/plain; charset=utf-8\r\nRetry-After: %d\r\n" % again_s
        text = f"{cause.status} {reason_phrase(cause.status)}: {cause.text}\n"
        self.respond(cause.status, fields, text.encode("ascii"), cause)

    def crashed(self, error: Exception) -> None:
        """Something here is wrong in itself."""
        self.proxy.failures.write("exchange failed in itself", level=logging.ERROR, error=error)
        if self.over or self.status:  # it was answered; what failed came after
            self.client.doom("failed in itself")
        else:
            self._drop_link()
            self._reply(500, Cause.INTERNAL_ERROR.text, Cause.INTERNAL_ERROR)

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

    # account

    def _end(self, now: float) -> None:
        """The answer is whole."""
        link, backend = self.link, self.backend
        if link is not None and backend is not None:
            self.link = None
            counters = backend.counters
            counters.ended += 1
            counters.bytes_sent += self.sent_bytes
            counters.by_class[self.status // 100] += 1
            link.resume()  # it may have been held back for a slow client until its last piece
            whole = link.reusable and self.body_done and not link.unsent
            if link.owner is not None and whole:
                link.asker = None
                self.client.bind(backend, link)
            else:
                pool = backend.pool
                pool.give_back(link, whole, now)
        self._account(now)
        self.client.ended(now)

    def _let_go(self, link: UpstreamLink) -> None:
        self.link = None
        link.asker = None
        if self.backend is not None:
            counters = self.backend.counters
            counters.ended += 1
            counters.bytes_sent += self.sent_bytes
            counters.by_class[self.status // 100] += 1

    def _drop_link(self) -> None:
        """Part with the link at once: nobody may have it after this."""
        link = self.link
        if link is not None:
            self._let_go(link)
            link.abort()

    def _reply(self, status: int, text: str, cause: Cause | None) -> None:
        """An answer of our own."""
        self.status = status
        self.cause = cause
        if self.steps is not None and self.steps.own:
            fields, body = reply_parts(status, text, named=cause is None)
            self.sent_bytes = self.client.respond(status, self._own(status, fields), body, cause)
        else:
            self.sent_bytes = self.client.reply(status, text, cause)
        now = _monotonic()
        self._account(now)
        self.client.ended(now)

    def respond(self, status: int, fields: bytes = b"", body: bytes = b"", cause: Cause | None = None) -> None:
        """A whole answer of our own: `fields` are header lines, each with its line end, beside those that every answer
        has."""
        if self.over:
            return
        self._drop_link()
        compression = self.route.compression if self.route is not None else None
        if compression is not None and body:
            fields, body = packed(compression, self.seen, self.head.method, status, fields, body)
        self.status = status
        self.cause = cause
        if self.steps is not None and self.steps.own:
            fields = self._own(status, fields)
        self.sent_bytes = self.client.respond(status, fields, body, cause)
        now = _monotonic()
        self._account(now)
        self.client.ended(now)

    def _own(self, status: int, fields: bytes) -> bytes:
        """The header lines of an answer of our own, after the steps that answers of our own take too."""
        assert self.steps is not None  # noqa: S101 -- who calls has looked
        head = ResponseHead()
        head.status = status
        head.fields = fields
        for step in self.steps.own:
            step.after(self, head)
        return head.fields

    def _account(self, now: float) -> None:
        if self.over:
            return
        self.over = True
        if self.trial and self.guard is not None:
            self.guard.trial_is_void()
        if self.place is not None:
            self._give_place()
        elif self.line is not None:
            self.line.leave(self)
            self.line = None
        if self.steps is not None:
            for step in self.steps.ends:
                step.ended(self)
        counters = self.proxy.counters
        counters.ended += 1
        counters.bytes_sent += self.sent_bytes
        counters.by_class[self.status // 100] += 1
        if self.unlogged:
            return
        meters = self.proxy.meters
        meters.account(
            self.route,
            self.status,
            self.cause,
            self.retries,
            self.received_bytes,
            self.sent_bytes,
            self.started_at,
            self.first_byte_at,
            now,
        )
        if self.status >= 500 or self.cause is not None:
            self._record(now)
        if self.snapshot.config.access_log is AccessLogFormat.NONE:
            return
        head = self.head
        route = self.route
        backend = self.backend
        self.proxy.access.add(
            (
                self.started_at,
                self.chosen_at or self.linked_at,
                self.linked_at,
                self.first_byte_at,
                now,
                self.asker,
                head.method or None,
                head.authority or None,
                head.target or None,
                b"1.0" if head.http10 else b"1.1",
                self.client.scheme,
                self.status,
                self.received_bytes,
                self.sent_bytes,
                route.name if route is not None else None,
                route.upstream if route is not None else None,
                backend.backend.name if backend is not None else None,
                self.retries,
                self.cause,
                head.referer or None,
                head.agent or None,
                self._request_id or None,
            )
        )

    def _record(self, now: float) -> None:
        """Remember what went wrong."""
        head = self.head
        route = self.route
        backend = self.backend
        self.proxy.recorder.add(
            Flight(
                self.started_at,
                self.chosen_at or self.linked_at,
                self.linked_at,
                self.first_byte_at,
                now,
                self.asker,
                self.client.scheme,
                head.method,
                head.target[:LONGEST_TARGET_BYTES],
                head.authority[:LONGEST_TARGET_BYTES],
                (self.original or head.fields)[:LONGEST_HEAD_BYTES],
                route.name if route is not None else None,
                self.upstream.upstream.name if self.upstream is not None else None,
                backend.backend.name if backend is not None else None,
                tuple(self.tries) if self.tries is not None else (),
                self.status,
                self.cause.label if self.cause is not None else None,
                self.reason or ("the backend said so" if self.cause is None else self.cause.text),
                self.received_bytes,
                self.sent_bytes,
            )
        )

    def _log(
        self,
        message: str,
        reason: str,
        cause: Cause | None = None,
        level: int = logging.WARNING,
        ours: bool = True,
    ) -> None:
        """One line; `ours` is whether it is about us and our backends, and not about what a client did."""
        if cause is not None:
            self.cause = cause
        self.reason = reason
        fields = {
            "route": self.route.name if self.route is not None else None,
            "upstream": self.route.upstream if self.route is not None else None,
            "backend": self.backend.backend.name if self.backend is not None else None,
            "status": self.status or (cause.status if cause is not None else None),
            "cause": cause.label if cause is not None else None,
            "reason": reason,
            "client": self.asker,
        }
        failures = self.proxy.failures if ours and cause is not Cause.NO_ROUTE else self.proxy.refusals
        failures.write(message, level, {name: value for name, value in fields.items() if value is not None})
