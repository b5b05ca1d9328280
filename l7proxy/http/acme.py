"""ACME's HTTP-01 challenges (RFC 8555 8.3), answered before any route.

One rule: of the folder nothing is shown but plain files directly in it whose names are tokens; nobody follows a link.
"""

from __future__ import annotations

import asyncio
import os
import stat
from typing import TYPE_CHECKING

from l7proxy.core.model import Listener, Route
from l7proxy.core.settings.acme import CHALLENGES, Acme, token_of
from l7proxy.http.steps import GO_ON, OVER, WAIT
from l7proxy.runtime import RouteState

if TYPE_CHECKING:
    from l7proxy.http.exchange import Exchange

LARGEST_BYTES = 4096
_FIELDS = b"Content-Type: application/octet-stream\r\nCache-Control: no-store\r\n"
_TEXT = b"Content-Type: text/plain; charset=utf-8\r\n"
_NONE = b"404 Not Found: no such challenge\n"


def route_of(listener: Listener) -> Route | None:
    """What stands for a route in logs and metrics where an upstream answers challenges."""
    if listener.acme is None or listener.acme.upstream is None:
        return None
    return Route(f"acme {listener.name}", listener.acme.upstream)


class Challenges:
    """Answers all below /.well-known/acme-challenge/."""

    def __init__(self, listener: Listener, acme: Acme) -> None:
        self._folder = acme.folder
        self._route = route_of(listener)

    def before(self, exchange: Exchange) -> int:
        """GO_ON where no challenge is asked for."""
        head = exchange.head
        if not head.path.startswith(CHALLENGES):
            return GO_ON
        token = token_of(head.path)
        if self._route is not None and token is not None:
            if head.odd and exchange._mend(self._route, head) is not None:
                exchange.respond(404, _TEXT, _NONE)
                return OVER
            exchange.route = self._route
            exchange._dispatch(RouteState(self._route, exchange.snapshot.upstreams, exchange.proxy.board))
            return OVER
        if head.method not in {b"GET", b"HEAD"}:
            exchange.respond(405, b"Allow: GET, HEAD\r\n")
        elif token is None or self._folder is None:
            exchange.respond(404, _TEXT, _NONE)
        else:
            exchange.proxy.spawn(self._answer(exchange, self._folder, token))
            return WAIT
        return OVER

    async def _answer(self, exchange: Exchange, folder: str, token: str) -> None:
        # In a thread: the folder may be on a disk that is slow, or elsewhere.
        content = await asyncio.to_thread(read_challenge, folder, token)
        if content is None:
            exchange.respond(404, _TEXT, _NONE)
        else:
            exchange.respond(200, _FIELDS, content)


def read_challenge(folder: str, token: str) -> bytes | None:
    """What stands in the file `token`; None where there is none that may be shown. Blocks."""
    try:
        descriptor = os.open(
            f"{folder}/{token}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW
        )
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            content = file.read(LARGEST_BYTES + 1)
    except OSError:
        return None
    return content if len(content) <= LARGEST_BYTES else None
