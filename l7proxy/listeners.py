"""The addresses that are served: clients by a front each, the admin endpoint by its application, and the agent.

One rule: a change is prepared as a whole, or leaves nothing behind. What an address is for may change (the admin's may
become a listener's): its socket is handed over, and no connection to it is refused meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import assert_never

from aiohttp import web

from director.kit.errors import HostError
from director.kit.net import Endpoint
from l7proxy.admin.app import make_app
from l7proxy.agent import Agent
from l7proxy.core.model import Config, Listener
from l7proxy.counts import Collect
from l7proxy.handed import HandedSockets
from l7proxy.http.front import Front
from l7proxy.http.listening import BACKLOG, LATE_S, listen, turn_away
from l7proxy.runtime import Proxy
from l7proxy.tcp.front import TcpFront

log = logging.getLogger("l7proxy")

QUIET_S = 1.0
"""How long a connection must have been idle for a drain to close it: on one that is busier, the next request may be on
its way, and would be lost (nginx, keepalive_min_timeout). It is answered with `Connection: close`."""
ADMIN_IDLE_S = 75.0
ADMIN_LEAVES_S = 1.0
"""How long an answer of the admin endpoint may take when it goes."""


class Own(Enum):
    """What an address is for that no client comes in at."""

    ADMIN = "admin"
    AGENT = "agent"


Role = Listener | Own
Entrance = Front | TcpFront
"""Where clients come in."""


@dataclass(frozen=True, slots=True)
class Served:
    """One address at work."""

    socket: socket.socket
    server: asyncio.AbstractServer | TcpFront
    by: Entrance | web.AppRunner | Agent

    def fits(self, role: Role) -> bool:
        """Whether it may stay for `role`."""
        match role:
            case Listener():
                return isinstance(self.by, Front if role.tcp is None else TcpFront)
            case Own.ADMIN:
                return isinstance(self.by, web.AppRunner)
            case Own.AGENT:
                return isinstance(self.by, Agent)
            case _:
                assert_never(role)


class Listeners:
    """Everything that this process serves, which `serves` picks from a configuration. `leaving` are fronts whose
    address is gone, with connections that are not. The admin endpoint asks `collect`, if given, what all have counted.
    What is `handed` is served at its address, and outlives this.
    """

    def __init__(
        self,
        proxy: Proxy,
        serves: Callable[[Config], dict[Endpoint, Role]] | None = None,
        collect: Collect | None = None,
        handed: HandedSockets | None = None,
    ) -> None:
        self._proxy = proxy
        self._handed = handed or HandedSockets()
        self.kept: frozenset[Endpoint] = frozenset()
        """Addresses whose sockets outlive this process by other means: it was told so."""
        self._serves = serves or roles
        self._collect = collect
        self._agent = Agent(proxy)
        self._served: dict[Endpoint, Served] = {}
        self.leaving: list[Entrance] = []

    @property
    def entrances(self) -> list[Entrance]:
        """Every front that has connections, or may get some."""
        return [served.by for served in self._served.values() if isinstance(served.by, Entrance)] + self.leaving

    @property
    def fronts(self) -> list[Front]:
        """Those that speak HTTP."""
        return [front for front in self.entrances if isinstance(front, Front)]

    @property
    def sockets(self) -> dict[Endpoint, socket.socket]:
        """What is bound, by address."""
        return {bind: served.socket for bind, served in self._served.items()}

    async def prepare(
        self, config: Config, sockets: Mapping[Endpoint, socket.socket] | None = None
    ) -> dict[Endpoint, Served]:
        """Get ready to serve what is new in `config`, or nothing; `commit` or `discard` what comes back. `sockets` are
        bound already, for every address, and those that are not needed are closed; without them they are opened here.

        Raises: HostError.
        """
        wanted = self._serves(config)
        changed = {
            bind: role for bind, role in wanted.items() if bind not in self._served or not self._served[bind].fits(role)
        }
        if sockets is None:
            sockets = open_at(changed, self.sockets, self._handed)
        for bind in sockets.keys() - changed.keys():
            sockets[bind].close()
        opened: dict[Endpoint, Served] = {}
        try:
            for bind, role in changed.items():
                opened[bind] = await self._serve(sockets[bind], role)
        except BaseException:
            for bind in changed.keys() - opened.keys():
                sockets[bind].close()
            await discard(opened)
            raise
        return opened

    async def commit(self, config: Config, opened: Mapping[Endpoint, Served]) -> list[Served]:
        """Serve exactly `config`: `opened`, and of what was there what stays. What goes no longer accepts; what of it
        no client came in at is returned, for `end`."""
        wanted = self._serves(config)
        gone = [self._served.pop(bind) for bind in list(self._served) if bind not in wanted or bind in opened]
        self._served.update(opened)
        for served in gone:
            served.server.close()
            if isinstance(served.by, Entrance):
                self.leaving.append(served.by)
                served.by.close_idle(QUIET_S)
        self._proxy.seal(role for role in wanted.values() if isinstance(role, Listener))
        for bind, role in wanted.items():
            front = self._served[bind].by
            if isinstance(role, Listener) and isinstance(front, Entrance):
                front.configure(role)
        for served in opened.values():
            await served.server.start_serving()
        return [served for served in gone if not isinstance(served.by, Entrance)]

    async def sweep(self, now: float) -> None:
        """Look at every connection's deadlines, and forget fronts whose last one is gone."""
        self.leaving = [front for front in self.leaving if front.clients]
        for front in self.leaving:
            front.close_idle(QUIET_S)
        for front in self.entrances:
            await front.sweep(now)

    async def close(self, *, for_good: bool = False) -> None:
        """Accept no more clients; the admin endpoint and the agent go on. Who queues is let in: a socket that is closed
        resets them, and they may have sent a request; but one that outlives this process keeps them for the next.
        `for_good`: no other process has the other sockets."""
        if for_good:
            for bind, served in self._served.items():
                if isinstance(served.by, Entrance) and served.server.is_serving() and not self._outlives(bind):
                    turn_away(served.socket)
            await asyncio.sleep(LATE_S)
        queued: list[tuple[Entrance, socket.socket]] = []
        for bind, served in self._served.items():
            if isinstance(served.by, Entrance) and served.server.is_serving():
                if not self._outlives(bind):
                    queued += ((served.by, client) for client in _queue_of(served.socket))
                served.server.close()
        loop = asyncio.get_running_loop()
        for front, client in queued:
            if isinstance(front, TcpFront):
                front.take(client)
                continue
            try:
                await loop.connect_accepted_socket(front, client)
            except OSError:
                client.close()

    def _outlives(self, bind: Endpoint) -> bool:
        return bind in self._handed or bind in self.kept

    async def end_own(self) -> None:
        """Close the admin endpoint, and then the agent: it is the last to answer."""
        own = [served for served in self._served.values() if not isinstance(served.by, Entrance)]
        for served in sorted(own, key=lambda served: isinstance(served.by, Agent)):
            await end(served)
        self._agent.close()

    async def _serve(self, bound: socket.socket, role: Role) -> Served:
        if isinstance(role, Listener) and role.tcp is not None:
            forwarding = TcpFront(self._proxy, role, bound)
            return Served(bound, forwarding, forwarding)
        if isinstance(role, Listener):
            front = Front(self._proxy, role)
            return Served(bound, await _server(front, bound), front)
        if role is Own.AGENT:
            return Served(bound, await _server(self._agent, bound), self._agent)
        runner = web.AppRunner(
            make_app(self._proxy, self._collect),
            access_log=None,
            shutdown_timeout=ADMIN_LEAVES_S,
            keepalive_timeout=ADMIN_IDLE_S,
        )
        await runner.setup()
        if runner.server is None:
            raise HostError("the admin endpoint could not be set up")
        return Served(bound, await _server(runner.server, bound), runner)


def _queue_of(bound: socket.socket) -> Iterator[socket.socket]:
    """Accept until nobody waits."""
    while True:
        try:
            client, _ = bound.accept()
        except OSError:  # nobody, or no descriptor for them
            return
        client.setblocking(False)
        yield client


async def _server(protocol_factory: Callable[[], asyncio.BaseProtocol], bound: socket.socket) -> asyncio.Server:
    """A server that does not accept yet; `bound` listens, so clients may queue already."""
    loop = asyncio.get_running_loop()
    return await loop.create_server(protocol_factory, sock=bound, backlog=BACKLOG, start_serving=False)


def roles(config: Config) -> dict[Endpoint, Role]:
    """Every address that `config` binds, and for whom."""
    return {**client_roles(config), **own_roles(config)}


def client_roles(config: Config) -> dict[Endpoint, Role]:
    """The addresses that clients come in at."""
    return dict(config.binds)


def own_roles(config: Config) -> dict[Endpoint, Role]:
    """The others."""
    wanted: dict[Endpoint, Role] = {}
    if config.admin is not None:
        wanted[config.admin] = Own.ADMIN
    wanted.update(dict.fromkeys(config.agent, Own.AGENT))
    return wanted


def open_sockets(config: Config, handed: HandedSockets | None = None) -> dict[Endpoint, socket.socket]:
    """A socket for everything `config` binds, all or none.

    Raises: HostError.
    """
    return open_at(roles(config), {}, handed or HandedSockets())


def open_at(
    binds: Iterable[Endpoint], mine: Mapping[Endpoint, socket.socket], handed: HandedSockets
) -> dict[Endpoint, socket.socket]:
    """A socket for each of `binds`, all or none; for those among `mine` or `handed` a copy.

    Raises: HostError.
    """
    sockets: dict[Endpoint, socket.socket] = {}
    try:
        for bind in binds:
            sockets[bind] = mine[bind].dup() if bind in mine else handed.lend(bind) or listen(bind, mine)
    except BaseException:
        for opened in sockets.values():
            opened.close()
        raise
    return sockets


async def discard(opened: Mapping[Endpoint, Served]) -> None:
    """Take back what `prepare` began."""
    for served in opened.values():
        await end(served)


async def end(served: Served) -> None:
    """Stop serving an address; its connections go with it, except the agent's: they are ending already."""
    served.server.close()
    if isinstance(served.by, Agent):
        return
    if isinstance(served.by, Entrance):
        served.by.abort()
        return
    try:
        async with asyncio.timeout(2 * ADMIN_LEAVES_S):
            await served.by.cleanup()
    except Exception as error:  # noqa: BLE001 -- what serves no longer must not end what does
        log.warning("admin endpoint did not end in order", extra={"reason": repr(error)})
