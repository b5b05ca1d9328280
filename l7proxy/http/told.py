"""What an exchange remembers, and what rules may ask of it.

One rule: a rule is told what came, or what has become of it so far; nothing is looked up before somebody asks.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Protocol

from l7proxy.core.access import without
from l7proxy.core.captures import captures_of
from l7proxy.core.compression import Encoder
from l7proxy.core.flight import Try
from l7proxy.core.head import RequestHead, ResponseHead
from l7proxy.core.headers import claimed_scheme
from l7proxy.core.lookup import Fields
from l7proxy.core.marking import is_request_id
from l7proxy.core.model import Route
from l7proxy.core.proxystatus import Cause
from l7proxy.core.x509 import ClientCertificate
from l7proxy.http.admission import Line, Places
from l7proxy.http.guard import Guard
from l7proxy.http.link import Piece, UpstreamLink
from l7proxy.http.randomhex import random_hex
from l7proxy.http.steps import Steps
from l7proxy.runtime import Proxy
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


class Told:
    """One request, and what has become of it."""

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

    def strip(self, names: Collection[bytes]) -> None:
        """Let no header called one of `names` (lower-case, with `-`) go on, whoever says it: also what a trusted proxy
        passes on of its client."""
        self.head.fields = without(self.head.fields, names)
        if self.tail:
            self.tail = without(self.tail[:-2], names) + b"\r\n"

    def vouch(self, names: Collection[bytes], lines: bytes = b"") -> None:
        """From now on headers called one of `names` are those in `lines`, which are ours: for backends, and for rules,
        which see everything else as it came."""
        self.strip(names)
        self.head.fields += lines
        self.original = without(self.original, names) + lines
        self._seen = None

    def came_with(self, name: bytes) -> bytes | None:
        """What a trusted proxy says by a header `name` (lower-case) about the request; None where it says nothing."""
        for line in self.head.claims if self.from_proxy else ():
            key, _, value = line.partition(b":")
            if key.lower() == name:
                return value.strip(b" \t")
        return None
