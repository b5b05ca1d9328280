"""How an exchange ends: answers of our own, broken transfers, what is counted and written down.

One rule: every exchange is accounted for once, in whatever way it ends, and gives back what it has taken.
"""

from __future__ import annotations

import logging
import time

from l7proxy.core.compression import packed
from l7proxy.core.flight import LONGEST_HEAD_BYTES, LONGEST_TARGET_BYTES, Flight
from l7proxy.core.head import ResponseHead
from l7proxy.core.model import AccessLogFormat
from l7proxy.core.proxystatus import Cause
from l7proxy.http.link import UpstreamLink
from l7proxy.http.replies import reason_phrase, reply_parts
from l7proxy.http.told import Told

_monotonic = time.monotonic


class Ending(Told):
    """One request and its answer, as far as they end."""

    def give_up(self, cause: Cause) -> None:
        """Answer that no backend can, as the upstream says it."""
        sorry = self.upstream.upstream.sorry if self.upstream is not None else None
        if sorry is None:
            self._reply(cause.status, cause.text, cause)
        else:
            self.respond(sorry.status, sorry.content.fields, sorry.content.body, cause)

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

    def put_off(self, cause: Cause, reason: str, again_s: int) -> None:
        """Refuse a request that may come again in `again_s`."""
        if self.over:
            return
        self._log("request refused", reason, cause, ours=False)
        fields = b"Content-Type: text/plain; charset=utf-8\r\nRetry-After: %d\r\n" % again_s
        text = f"{cause.status} {reason_phrase(cause.status)}: {cause.text}\n"
        self.respond(cause.status, fields, text.encode("ascii"), cause)

    def failed_aside(self, cause: Cause, reason: str) -> None:
        """Answer that somebody who had to be asked first was not there."""
        if not self.over:
            self._log("request failed", reason, cause)
            self._reply(cause.status, cause.text, cause)

    def crashed(self, error: Exception) -> None:
        """Something here is wrong in itself."""
        self.proxy.failures.write("exchange failed in itself", level=logging.ERROR, error=error)
        if self.over or self.status:  # it was answered; what failed came after
            self.client.doom("failed in itself")
        else:
            self._drop_link()
            self._reply(500, Cause.INTERNAL_ERROR.text, Cause.INTERNAL_ERROR)

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

    def _broken_off(self, cause: Cause, reason: str) -> None:
        """End the client's connection so that it sees a broken transfer."""
        self._log("answer broken off", reason, cause)
        self._account(_monotonic())
        self.client.break_off()

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

    def _give_place(self) -> None:
        place = self.place
        if place is not None:
            self.place = None
            place.count.give()
            upstream = self.upstream
            if upstream is not None and upstream.line is not None:
                upstream.line.call()

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
                self.user,
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
