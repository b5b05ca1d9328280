"""Answers that a route gives by itself: redirects, fixed answers, maintenance.

One rule: what a request brings can choose a place on the host that the file names, and never another host.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from l7proxy.core.forwarded import TrustedNetworks
from l7proxy.core.lookup import query_of
from l7proxy.core.proxystatus import Cause
from l7proxy.core.settings.redirect import Redirect
from l7proxy.core.settings.respond import Maintenance, Respond
from l7proxy.http.steps import GO_ON, OVER

if TYPE_CHECKING:
    from l7proxy.http.exchange import Exchange

_AUTHORITY = re.compile(rb"(?:[0-9A-Za-z._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


class MaintenanceStep:
    """503 to everybody but some."""

    def __init__(self, maintenance: Maintenance) -> None:
        self._content = maintenance.content
        self._allowed = TrustedNetworks(maintenance.allow)

    def before(self, exchange: Exchange) -> int:
        """Answer, or let it pass."""
        if self._allowed and self._allowed.trust(exchange.asker):
            return GO_ON
        exchange.respond(503, self._content.fields, self._content.body, Cause.MAINTENANCE)
        return OVER


class RedirectStep:
    """Elsewhere."""

    def __init__(self, redirect: Redirect) -> None:
        self._redirect = redirect

    def before(self, exchange: Exchange) -> int:
        """Answer."""
        redirect = self._redirect
        start = redirect.start.fill(exchange)
        authority = redirect.authority.fill(exchange)
        location = redirect.rest.fill(exchange)
        if start:
            if not _AUTHORITY.fullmatch(authority):
                exchange.refuse(Cause.MALFORMED_REQUEST, f"a redirect to the host {authority.decode('latin-1')!r}")
                return OVER
            location = start + authority + location
        elif location[1:2] in {b"/", b"\\"}:  # browsers take that for another host
            location = b"/" + location.lstrip(b"/\\")
        if redirect.keep_query and (query := query_of(exchange.head.target)):
            before, mark, fragment = location.partition(b"#")
            location = before + b"?" + query.partition(b"#")[0] + mark + fragment
        exchange.respond(redirect.status, b"Location: %b\r\n" % location)
        return OVER


class RespondStep:
    """The same to everybody."""

    def __init__(self, respond: Respond) -> None:
        self._respond = respond

    def before(self, exchange: Exchange) -> int:
        """Answer."""
        respond = self._respond
        exchange.respond(respond.status, respond.content.fields, respond.content.body)
        return OVER
