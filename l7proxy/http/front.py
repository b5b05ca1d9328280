"""The connections of one bound address.

One rule: what a listener is told (whom to trust, which path is its health) may change with a reload; its connections
look here for it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import cast

from l7proxy.core.forwarded import TrustedNetworks
from l7proxy.core.model import Listener
from l7proxy.core.proxystatus import Cause
from l7proxy.http.acme import Challenges
from l7proxy.http.client import ClientConnection
from l7proxy.http.https import GoToHttps, StrictConnection
from l7proxy.http.steps import Before
from l7proxy.http.tls import TlsConnection
from l7proxy.runtime import Proxy

LOOK_AT_ONCE = 256
"""Connections whose deadlines are looked at in one go: a fraction of a millisecond."""


class Front:
    """Makes connections, and knows them."""

    def __init__(self, proxy: Proxy, listener: Listener) -> None:
        self.proxy = proxy
        self.clients: set[ClientConnection] = set()
        """Every connection, also one that is closing."""
        self.configure(listener)

    def configure(self, listener: Listener) -> None:
        """Serve as `listener` says from now on."""
        self.listener = listener
        self.seal = self.proxy.seals.get(listener.name) if listener.tls is not None else None
        self.steps = _steps_of(listener)
        """What answers before any route does, `health` excepted; None where nothing may."""
        self.health = listener.health
        self.trusting = bool(listener.trusted_proxies)
        self.trusted = TrustedNetworks(listener.trusted_proxies)

    def __call__(self) -> asyncio.Protocol:
        seal = self.seal
        connection: ClientConnection
        if seal is None:
            connection = ClientConnection(self)
        elif self.listener.hsts:
            connection = StrictConnection(self, seal)
        else:
            connection = TlsConnection(self, seal)
        return cast("asyncio.Protocol", connection)

    def close_idle(self, idle_s: float = 0.0) -> None:
        """Close connections on which nothing has been answered for so long."""
        for connection in list(self.clients):
            connection.close_if_idle(idle_s)

    def abort(self) -> None:
        """Cut every connection."""
        for connection in list(self.clients):
            connection.doom("the proxy stops", Cause.DRAINED)

    async def sweep(self, now: float) -> None:
        """Look at every connection's deadlines, some at a time: whoever is being answered does not wait for all."""
        connections = list(self.clients)
        for start in range(0, len(connections), LOOK_AT_ONCE):
            for connection in connections[start : start + LOOK_AT_ONCE]:
                try:
                    connection.sweep(now)
                except Exception as error:  # noqa: BLE001 -- told with its traceback; it must not end the sweeper
                    self.proxy.failures.write("connection failed in itself", level=logging.ERROR, error=error)
                    connection.abort()
            await asyncio.sleep(0)


def _steps_of(listener: Listener) -> tuple[Before, ...] | None:
    steps: list[Before] = []
    if listener.acme is not None:
        steps.append(Challenges(listener, listener.acme))
    if listener.to_https is not None:
        steps.append(GoToHttps(listener.to_https))
    return tuple(steps) or None
