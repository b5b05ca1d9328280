"""What a proxy is told to do: one frozen configuration, compared by value.

One rule: everything here is complete. Defaults are already in, names are resolved, and nothing refers to a file.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import IPv4Network, IPv6Network

from director.kit.checks.check import Check
from director.kit.net import Endpoint
from l7proxy.core.settings.access import Access
from l7proxy.core.settings.acme import Acme
from l7proxy.core.settings.backside import BackendTls, ProxyVersion
from l7proxy.core.settings.balancing import Balance, Hashing
from l7proxy.core.settings.capacity import Queue
from l7proxy.core.settings.compression import Compression
from l7proxy.core.settings.https import ToHttps
from l7proxy.core.settings.limiting import Limiting
from l7proxy.core.settings.marking import Marking
from l7proxy.core.settings.match import NO_CONDITIONS, Conditions
from l7proxy.core.settings.redirect import Redirect
from l7proxy.core.settings.resilience import Breaker, Outlier, RetryBudget
from l7proxy.core.settings.respond import Maintenance, Respond
from l7proxy.core.settings.rewrite import Rewrite
from l7proxy.core.settings.sorry import Sorry
from l7proxy.core.settings.split import Share
from l7proxy.core.settings.stickiness import Sticky
from l7proxy.core.settings.tcp import Tcp
from l7proxy.core.settings.tls import Tls

IPNetwork = IPv4Network | IPv6Network


def overlap(one: Endpoint, other: Endpoint) -> bool:
    """Whether two sockets cannot both listen: the same port, and one address covers the other.

    >>> from director.kit.net import parse_endpoint
    >>> overlap(parse_endpoint("0.0.0.0:80"), parse_endpoint("10.0.0.1:80"))
    True
    >>> overlap(parse_endpoint("0.0.0.0:80"), parse_endpoint("[::]:80"))
    False
    """
    if one.port != other.port or one.address.version != other.address.version:
        return False
    return one.address == other.address or one.address.is_unspecified or other.address.is_unspecified


class PathKind(Enum):
    """How a route's path is compared."""

    EXACT = "exact"
    REGEX = "regex"
    PREFIX = "prefix"


@dataclass(frozen=True, slots=True)
class PathPattern:
    """A path, a regular expression, or a prefix by whole segments. `text` is without the `=` or `~`."""

    kind: PathKind
    text: str

    def __str__(self) -> str:
        sign = {PathKind.EXACT: "= ", PathKind.REGEX: "~ ", PathKind.PREFIX: ""}[self.kind]
        return sign + self.text


ANY_PATH = PathPattern(PathKind.PREFIX, "/")


class DangerousPath(Enum):
    """What becomes of a path that a backend could read otherwise than routes did: `..` in any disguise, or `%00`."""

    REFUSE = "refuse"
    NORMALISE = "normalise"
    """The normal form, which routes have seen, goes to the backend."""
    FORWARD = "forward"
    """It goes to the backend as it came."""


@dataclass(frozen=True, slots=True)
class Route:
    """Requests of `hosts` (none: of every host) whose path fits go to `upstream`, unless it is empty.

    With a `split`, several upstreams have their shares, and `upstream` is the one with the largest.

    `place` is which one of the configuration's routes it is, from 0. A host is lower-case, without port;
    `*.example.org` stands for every name below example.org.
    """

    name: str
    upstream: str
    hosts: tuple[str, ...] = ()
    path: PathPattern = ANY_PATH
    dangerous_path: DangerousPath = DangerousPath.REFUSE
    place: int = 0
    conditions: Conditions = NO_CONDITIONS
    redirect: Redirect | None = None
    respond: Respond | None = None
    maintenance: Maintenance | None = None
    access: Access | None = None
    limits: Limiting | None = None
    rewrite: Rewrite | None = None
    marking: Marking | None = None
    compression: Compression | None = None
    split: tuple[Share, ...] = ()

    @property
    def upstreams(self) -> tuple[str, ...]:
        """Where its requests can go."""
        if self.split:
            return tuple(share.upstream for share in self.split)
        return (self.upstream,) if self.upstream else ()

    @property
    def by_upstream(self) -> tuple[Route, ...]:
        """The same route once for each of its upstreams; what is counted and logged of an exchange names its own."""
        return tuple(replace(self, upstream=share.upstream) for share in self.split) or (self,)


@dataclass(frozen=True, slots=True)
class Listener:
    """Where clients come in. `trusted_proxies` are the networks whose X-Forwarded-* is believed and extended.

    With `proxy_protocol` their connections begin with a PROXY header, and nobody else's do.
    `health` is a path that l7proxy answers by itself, whatever the host: it says that this process serves.
    `hsts` is a header line for every answer.
    """

    name: str
    binds: tuple[Endpoint, ...]
    trusted_proxies: tuple[IPNetwork, ...] = ()
    health: str | None = None
    proxy_protocol: bool = False
    tls: Tls | None = None
    acme: Acme | None = None
    tcp: Tcp | None = None
    to_https: ToHttps | None = None
    hsts: bytes = b""


@dataclass(frozen=True, slots=True)
class Backend:
    """One member of an upstream. Weight 0 drains; without a check it always counts as up. `host` is its name, where it
    is not written as an address; `unresolved` is why that name has no address: it is down then, and `endpoint` holds
    the port alone."""

    name: str
    endpoint: Endpoint
    weight: int = 1
    check: Check | None = None
    host: str = ""
    unresolved: str = ""
    max_connections: int | None = None
    """Requests that it has at one time, from all workers together."""

    @property
    def address(self) -> str:
        """Where it is, as an operator reads it."""
        if not self.host:
            return str(self.endpoint)
        return f"{self.host}:{self.endpoint.port} ({self.unresolved or self.endpoint.address})"


@dataclass(frozen=True, slots=True)
class UpstreamTimeouts:
    """`response_s`: from the whole request sent to the head of the answer. `idle_s`: between two pieces of a body."""

    connect_s: float = 3.0
    response_s: float = 30.0
    idle_s: float = 60.0
    keepalive_s: float = 4.0


@dataclass(frozen=True, slots=True)
class Upstream:
    """A pool of backends that answer alike."""

    name: str
    backends: tuple[Backend, ...]
    balance: Balance = Balance.ROUND_ROBIN
    timeouts: UpstreamTimeouts = UpstreamTimeouts()
    hashing: Hashing | None = None
    """With Balance.HASH."""
    sticky: Sticky | None = None
    tls: BackendTls | None = None
    proxy_protocol: ProxyVersion | None = None
    dscp: int | None = None
    queue: Queue | None = None
    slow_start_s: float = 0.0
    outlier: Outlier | None = None
    breaker: Breaker | None = None
    retry_budget: RetryBudget | None = None
    sorry: Sorry | None = None


@dataclass(frozen=True, slots=True)
class ClientTimeouts:
    """`head_s`: from the first byte of a request to the end of its head; `idle_s`: between two pieces of a body, either
    way; `tunnel_s`: the same after an upgrade; `drain_s`: how long a stop waits.

    `notice_s`: how long before that it is told to who asks, while clients still come in.
    """

    head_s: float = 10.0
    idle_s: float = 30.0
    keepalive_s: float = 30.0
    tunnel_s: float = 3600.0
    drain_s: float = 30.0
    notice_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What clients can take at most. `headers` is how many lines; `body_bytes` None is no limit: bodies are never held.

    `body_rate` is the mean rate in bytes a second that a request's body must keep up; 0 is none.
    `is_asked_for`: whether somebody wrote `connections`, and is to be told when there is no room for them.
    """

    connections: int = 10_000
    request_line_bytes: int = 8 * 1024
    headers: int = 100
    head_bytes: int = 32 * 1024
    body_bytes: int | None = None
    body_rate: int = 256
    is_asked_for: bool = False


class AccessLogFormat(Enum):
    """How a line of the access log looks."""

    NONE = "none"
    COMBINED = "combined"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Config:
    """All of it. `via` is whether requests carry a Via of ours, `name` what we are called in it (empty: made up).

    `workers` 0 is one for each core. `admin_socket` is a Unix socket's path, `state` a file's; empty is none.
    """

    listeners: tuple[Listener, ...]
    routes: tuple[Route, ...]
    upstreams: dict[str, Upstream]
    timeouts: ClientTimeouts = ClientTimeouts()
    limits: Limits = Limits()
    admin: Endpoint | None = None
    admin_socket: str = ""
    agent: tuple[Endpoint, ...] = ()
    access_log: AccessLogFormat = AccessLogFormat.COMBINED
    via: bool = True
    name: str = ""
    drop_underscores: bool = True
    workers: int = 1
    state: str = ""

    @property
    def binds(self) -> dict[Endpoint, Listener]:
        """Every address that clients come in at, and whose it is."""
        return {bind: listener for listener in self.listeners for bind in listener.binds}
