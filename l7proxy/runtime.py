"""What changes while the proxy runs: the present snapshot of the configuration, turns, links, health, counters.

One rule: an exchange reads `Proxy.snapshot` once, at its head. A reload swaps the whole snapshot, and carries over
what belongs to backends that stay.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import socket
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from director.kit.checks.check import Check
from director.kit.health import HealthState
from l7proxy.accesslog import AccessLog
from l7proxy.board import Board
from l7proxy.core.balance import RoundRobin
from l7proxy.core.capacity import shared_names
from l7proxy.core.load import Load
from l7proxy.core.metering import Counters, Meters
from l7proxy.core.model import Config, Listener, Route
from l7proxy.core.routing import RouteTable
from l7proxy.core.settings.backside import Way
from l7proxy.core.split import Split
from l7proxy.core.tcpmetering import TcpMeters
from l7proxy.core.wishes import Wishes
from l7proxy.failurelog import FailureLog
from l7proxy.files.contexts import Seal
from l7proxy.flightrecorder import FlightRecorder
from l7proxy.http.admission import line_of, places_of
from l7proxy.http.balancing import Hashed
from l7proxy.http.forwardauth import Inquiries
from l7proxy.http.guard import guard_of
from l7proxy.http.logins import Logins
from l7proxy.http.pool import IdleBudget, LinkPool
from l7proxy.http.steps import Steps, steps_of
from l7proxy.http.sticky import answering
from l7proxy.pipes import PipePool
from l7proxy.upstreams import BackendState, UpstreamState

if TYPE_CHECKING:
    from l7proxy.http.exchange import Exchange


class HealthSource(Protocol):
    """Who knows what checks say: a prober, or what a supervisor's prober has told."""

    def state(self, check: Check) -> HealthState:
        """What is known of `check`."""
        ...


class RouteState:
    """A route at work. `upstream` is None where it answers by itself, `split` where there is one upstream at most."""

    __slots__ = ("_by_upstream", "_keeping", "_upstreams", "keyed", "route", "split", "steps", "upstream")

    def __init__(self, route: Route, upstreams: Mapping[str, UpstreamState], board: Board) -> None:
        self.route = route
        self.upstream = upstreams[route.upstream] if route.upstream else None
        self.split = Split({share.upstream: share.weight for share in route.split}) if route.split else None
        self._by_upstream = {each.upstream: each for each in route.by_upstream}
        self._upstreams = [upstreams[share.upstream] for share in route.split]
        self._keeping = [state for state in self._upstreams if state.sessions is not None]
        pickers = [state.picker for state in self._upstreams if state.upstream.sticky is not None]
        self.keyed = next((picker for picker in pickers if isinstance(picker, Hashed)), None)
        """Whose key decides between the upstreams of a split; None: nobody's."""
        own = [self.upstream] if self.upstream is not None else []
        self.steps: Steps | None = answering(steps_of(route, board), self._upstreams or own)

    def upstream_for(self, exchange: Exchange) -> UpstreamState:
        """Where `exchange` goes. Of a split, a session stays where it is; the route is then that of its upstream."""
        if self.split is None:
            assert self.upstream is not None  # noqa: S101 -- its last step has answered otherwise
            return self.upstream
        found = self._keeper_for(exchange)
        if found is None:
            key = self.keyed.key(exchange) if self.keyed is not None else None
            name = self.split.of_key(key, self.unusable) if key else self.split.next(self.unusable)
            found = next(state for state in self._upstreams if state.upstream.name == name)
        exchange.route = self._by_upstream[found.upstream.name]
        return found

    def _keeper_for(self, exchange: Exchange) -> UpstreamState | None:
        """The upstream of a split that has the client's session, or had: a client whose backend is gone is not moved to
        another version of the application, as long as its own has a backend left."""
        had = None
        for state in self._keeping:
            if state.session_of(exchange) is not None:
                return state
            if had is None and state.had_session(exchange) and state.weights:
                had = state
        return had

    @property
    def unusable(self) -> list[str]:
        """Of a split, the upstreams that have no backend to pick, or are spared."""
        return [state.upstream.name for state in self._upstreams if not state.weights or state.is_spared]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One configuration, ready to serve."""

    config: Config
    table: RouteTable
    upstreams: dict[str, UpstreamState]
    routes: tuple[RouteState, ...] = ()
    """By their place."""
    name: str = "l7proxy"
    """What this proxy is called in Via and Proxy-Status, other than all others."""
    via: bytes = b""
    """The same for Via; empty where none is added."""

    def trouble(self) -> str:
        """Why no request can be answered: no route leads to a backend that takes any. Empty where one does."""
        names = [name for route in self.config.routes for name in route.upstreams or ("",)]
        for listener in self.config.listeners:
            if listener.tcp is not None:
                names += sorted(listener.tcp.upstreams)
        for name in names:
            if not name or self.upstreams[name].weights:
                return ""
        name = names[0]
        return f"no upstream has a backend left; {name}: {self.upstreams[name].why_nobody()}"


@dataclass(slots=True)
class Proxy:
    """What every exchange shares. `most_clients` is what limits.connections and descriptors both allow, `full_because`
    which of them is the less.

    `draining`: each connection ends with its next answer. `is_replaced`: others serve the same addresses meanwhile, so
    nobody who asks how this proxy is hears of it.
    """

    snapshot: Snapshot
    most_clients: int
    group: asyncio.TaskGroup | None = None
    failures: FailureLog = field(default_factory=FailureLog)
    refusals: FailureLog = field(default_factory=lambda: FailureLog("refusals"))
    access: AccessLog = field(default_factory=AccessLog)
    recorder: FlightRecorder = field(default_factory=FlightRecorder)
    counters: Counters = field(default_factory=Counters)
    meters: Meters = field(default_factory=Meters)
    tcp_meters: TcpMeters = field(default_factory=TcpMeters)
    pipes: PipePool = field(default_factory=PipePool)
    connections: int = 0
    draining: bool = False
    is_replaced: bool = False
    problems: tuple[str, ...] = ()
    """Certificates that are not served as their files have them, and why."""
    worker_deaths: int = 0
    reload_refused: bool = False
    """Whether the last reload left the old configuration in force."""
    full_because: str = "limits.connections is reached"
    load: Load = field(default_factory=Load)
    seals: dict[str, Seal] = field(default_factory=dict)
    """How each listener with TLS shakes hands, by its name."""
    logins: Logins = field(default_factory=Logins)
    inquiries: Inquiries = field(default_factory=Inquiries)
    board: Board = field(default_factory=Board.make)
    """What all workers share."""
    wishes: Wishes = field(default_factory=dict)
    asked_at: float = 0.0
    """When the agent was asked last, on the monotonic clock."""

    @property
    def says_draining(self) -> bool:
        """Whether those who share out connections are told to choose another proxy."""
        return self.draining and not self.is_replaced

    def seal(self, listeners: Iterable[Listener]) -> None:
        """Have these shake hands as they say from now on; those of before that are not among them are gone."""
        before, self.seals = self.seals, {}
        for listener in listeners:
            if listener.tls is not None:
                self.seals[listener.name] = seal = before.get(listener.name) or Seal()
                seal.take(listener.tls)

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run what must wait, such as for a connection, beside everything else."""
        if self.group is None:
            work.close()
            raise RuntimeError("the proxy does not run")
        return self.group.create_task(self._guarded(work))

    async def _guarded(self, work: Coroutine[None, None, None]) -> None:
        """What fails in itself is told; the group, and with it everything else, goes on."""
        try:
            await work
        except Exception as error:  # noqa: BLE001 -- logged with its traceback
            self.failures.write("exchange failed in itself", level=logging.ERROR, error=error)


def instance_name(config: Config) -> str:
    """What this proxy is called where the file does not say: the same after a restart, and another one elsewhere.

    It tells nothing of the host to who does not know it: clients see it in Proxy-Status.
    """
    try:
        machine = Path("/etc/machine-id").read_text()
    except OSError:
        machine = socket.gethostname()
    told = " ".join([machine.strip(), *sorted(map(str, config.binds))])
    return "l7proxy-" + hashlib.sha256(told.encode()).hexdigest()[:8]


def make_snapshot(
    config: Config,
    health: HealthSource,
    idle: IdleBudget,
    before: Snapshot | None = None,
    board: Board | None = None,
) -> Snapshot:
    """The snapshot of `config`; backends that stay keep their links, counters and turns. `before` is touched only once
    everything is built. `board` knows all names of `config`; default: one that nobody shares."""
    if board is None:
        board = Board.make()
        board.know(shared_names(config))
    table = RouteTable(config.routes)
    old = before.upstreams if before is not None else {}
    made: dict[str, tuple[dict[str, BackendState], RoundRobin]] = {}
    for name, upstream in config.upstreams.items():
        known = old[name].backends if name in old else {}
        backends: dict[str, BackendState] = {}
        for backend in upstream.backends:
            state = known.get(backend.name)
            way = Way(upstream.tls, backend.host, upstream.proxy_protocol, upstream.dscp)
            if state is None or state.backend.endpoint != backend.endpoint or state.pool.way != way:
                state = BackendState(backend, idle, way)
            backends[backend.name] = state
        made[name] = backends, old[name].turns if name in old else RoundRobin()
    upstreams: dict[str, UpstreamState] = {}
    for name, upstream in config.upstreams.items():
        backends, turns = made[name]
        for backend in upstream.backends:
            state = backends[backend.name]
            state.backend = backend
            state.places = places_of(board, name, backend.name, backend.max_connections, state.places)
            state.health = health.state(backend.check) if backend.check is not None else HealthState()
        turns.keep(backends)
        guard = guard_of(upstream, board)
        upstreams[name] = state_of = UpstreamState(upstream, backends, turns, guard)
        state_of.line = line_of(board, name, upstream.queue, old[name].line if name in old else None)
        if name in old:
            upstreams[name].follow(old[name])
    name = config.name or instance_name(config)
    routes = tuple(RouteState(route, upstreams, board) for route in config.routes)
    splits = {each.route.name: each.split for each in before.routes if each.split} if before is not None else {}
    for each in routes:
        if each.split is not None and (split := splits.get(each.route.name)) is not None:
            each.split.go_on_from(split)
    return Snapshot(config, table, upstreams, routes, name, name.encode("ascii") if config.via else b"")


def checks_of(config: Config) -> dict[Check, HealthState]:
    """Every distinct check, in its first state."""
    return {
        backend.check: HealthState()
        for upstream in config.upstreams.values()
        for backend in upstream.backends
        if backend.check is not None
    }


def pools_of(snapshot: Snapshot) -> set[LinkPool]:
    """All pools of a snapshot."""
    return {state.pool for upstream in snapshot.upstreams.values() for state in upstream.backends.values()}
