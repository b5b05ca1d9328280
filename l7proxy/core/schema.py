"""The shape of l7proxy.yaml: names, types and ranges of its keys, and nothing across sections.

One rule: what one key alone can get wrong is refused here; what takes understanding a route, in `config.py`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from director.kit.checks.check import CheckSection
from director.kit.configfile import Section
from director.kit.duration import Duration
from l7proxy.core.routing import normal_path
from l7proxy.core.settings.access import AccessSection
from l7proxy.core.settings.acme import AcmeSection
from l7proxy.core.settings.admin import AdminSection
from l7proxy.core.settings.backside import Dscp, TlsOrNot
from l7proxy.core.settings.balancing import BalanceOrWord, BalanceSection
from l7proxy.core.settings.capacity import MostRequests, QueueSection
from l7proxy.core.settings.compression import CompressionSection
from l7proxy.core.settings.fields import (
    AddressText,
    BindTexts,
    Count,
    FileText,
    Flag,
    Name,
    Networks,
    no_port_alone,
    true_or_more,
)
from l7proxy.core.settings.https import HstsSection, ToHttpsValue
from l7proxy.core.settings.limiting import LimitingSection
from l7proxy.core.settings.marking import MarkingSection
from l7proxy.core.settings.match import MatchSection
from l7proxy.core.settings.redirect import RedirectSection
from l7proxy.core.settings.resilience import BreakerSection, OutlierSection, RetryBudgetSection
from l7proxy.core.settings.respond import MaintenanceSection, RespondSection
from l7proxy.core.settings.rewrite import RewriteSection
from l7proxy.core.settings.sorry import SorrySection
from l7proxy.core.settings.split import Answering
from l7proxy.core.settings.stickiness import StickySection
from l7proxy.core.settings.tcp import TcpSection
from l7proxy.core.settings.tls import TlsSection


class ListenerSection(Section):
    """`http: {bind: "0.0.0.0:80"}`"""

    bind: BindTexts = Field(description="address:port to listen at, or a list of them")
    trusted_proxies: Networks = Field(
        (),
        description="networks whose X-Forwarded-*, Forwarded and X-Real-IP are believed; what others say is replaced",
    )
    health: str | None = Field(
        None, description="a path that l7proxy answers by itself, for the director's check: 200, or 503 while it drains"
    )

    proxy_protocol: Flag = Field(
        False,
        description="connections from `trusted_proxies` begin with a PROXY header, version 1 or 2",
    )
    tls: TlsSection | None = Field(None, description="clients speak TLS here; default: plain HTTP")
    redirect_to_https: ToHttpsValue = Field(
        None,
        description="requests are sent to https:// instead: true, or how; not those for `health` and ACME",
    )
    hsts: HstsSection | None = Field(
        None, description="Strict-Transport-Security on every answer, in place of a backend's own; default: none"
    )
    acme: AcmeSection | None = Field(None, description="answers ACME's HTTP-01 challenges, before any route")
    tcp: TcpSection | None = Field(None, description="forwards connections as they are, instead of speaking HTTP")

    @field_validator("health")
    @classmethod
    def _health(cls, value: str | None) -> str | None:
        plain = value is None or (value.startswith("/") and value.isascii() and not set(value) & set(" ?#*%"))
        if value is not None and (not plain or not value.isprintable() or normal_path(value) != value):
            raise ValueError(f"{value!r} is not a path: begin with /, and use plain characters, such as /-/health")
        return value


class RouteSection(Section):
    """`{match: {host: shop.example.org, path: /v1}, upstream: shop}`; the order of routes does not matter."""

    name: Name | None = Field(None, description="what logs and metrics call it; default: its host and path")
    match: MatchSection = MatchSection()
    upstream: Answering | None = Field(
        None, description="the upstream that answers, or several with their shares: {shop: 95, canary: 5}"
    )
    redirect: RedirectSection | None = Field(None, description="sends the client elsewhere, in place of an upstream")
    respond: RespondSection | None = Field(None, description="a fixed answer, in place of an upstream")
    maintenance: Annotated[MaintenanceSection | None, true_or_more(MaintenanceSection)] = Field(
        None, description="answers 503 to everybody but some; true, or more about it"
    )
    access: AccessSection | None = Field(None, description="who may use this route; default: everybody")
    limits: LimitingSection | None = Field(None, description="how much of it one client, or all of them, may use")
    rewrite: RewriteSection | None = Field(None, description="what path and query the backend sees; default: what came")
    headers: MarkingSection | None = Field(None, description="headers that are changed on requests and on answers")
    compress: Annotated[CompressionSection | None, true_or_more(CompressionSection)] = Field(
        None, description="which answers are compressed; true, or more about it; default: none"
    )
    dangerous_path: Literal["refuse", "normalise", "forward"] = Field(
        "refuse",
        description="a path that climbs (`..`, also behind %2e, %2f, `;` or a backslash) or holds %00: refuse is 400, "
        "normalise sends the normal form that routes have seen, forward sends it as it came",
    )


class UpstreamTimeoutsSection(Section):
    """Timeouts towards backends."""

    connect: Duration = Field(3.0, description="to open a connection; then another backend is tried")
    response: Duration = Field(30.0, description="from the whole request sent to the head of the answer")
    idle: Duration = Field(60.0, description="between two pieces of a body, either way")
    keepalive: Duration = Field(4.0, description="an unused connection is kept this long; less than the backend does")


class BackendSection(Section):
    """`a: {address: 10.0.1.11:8000, weight: 2}`"""

    address: Annotated[AddressText, no_port_alone("10.0.0.1")] = Field(
        description="address:port; a name for the address is looked up at start, and then every 30 s"
    )
    weight: Annotated[int, Field(strict=True, ge=0, le=1000)] = Field(1, description="its share; 0 drains")
    max_connections: MostRequests | None = Field(
        None, description="requests it has at one time, from all workers together; default: the upstream's"
    )


class UpstreamSection(Section):
    """A pool of backends."""

    balance: BalanceOrWord = Field(
        BalanceSection(by="round_robin"),
        description="how backends take turns, or {hash: ...}: what of a request decides; default: round_robin",
    )
    sticky: StickySection | None = Field(None, description="how clients keep their backend; default: they do not")
    tls: TlsOrNot = Field(None, description="backends speak TLS: true, or more about it; default: plain HTTP")
    proxy_protocol: Literal["v1", "v2"] | None = Field(
        None, description="each connection to a backend begins with a PROXY header, and serves one client only"
    )
    dscp: Dscp | None = Field(None, description="mark of packets to backends: 0 to 63, or a name such as AF41")
    max_connections: MostRequests | None = Field(
        None, description="requests that each backend has at one time, from all workers together; default: no limit"
    )
    queue: QueueSection | None = Field(None, description="who waits where backends are at their max_connections")
    slow_start: Duration = Field(
        0.0, description="a backend that was away comes back to its whole share over this time; default: at once"
    )
    outlier: OutlierSection | None = Field(None, description="backends that fail requests are left out for a while")
    breaker: BreakerSection | None = Field(None, description="an upstream that fails requests is spared for a while")
    retry_budget: RetryBudgetSection | None = Field(None, description="what share of requests may be made again")
    sorry: SorrySection | None = Field(None, description="what is answered where no backend can")
    check: CheckSection | None = Field(
        None, description="how backends are probed; default: `defaults.check`, or never, and they count as up"
    )
    timeouts: UpstreamTimeoutsSection = UpstreamTimeoutsSection()
    backends: Annotated[dict[Name, BackendSection], Field(min_length=1)] = Field(description="its members, by name")


class DefaultsSection(Section):
    """What upstreams have that do not say otherwise."""

    check: CheckSection | None = None


class LimitsSection(Section):
    """What clients can take at most."""

    connections: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] = Field(
        10_000, description="client connections at one time; more are answered 503 and closed"
    )
    request_line: Annotated[int, Field(strict=True, ge=256, le=1_048_576)] = Field(
        8 * 1024, description="bytes of a request's first line; a longer one is answered 414"
    )
    headers: Annotated[int, Field(strict=True, ge=10, le=10_000)] = Field(
        100, description="header lines of a request; more are answered 431"
    )
    head_bytes: Annotated[int, Field(strict=True, ge=1024, le=1_048_576)] = Field(
        32 * 1024, description="size of a request's head; a larger one is answered 431"
    )
    body: Count | None = Field(
        None, description="bytes of a request's body; a larger one is answered 413; default: none"
    )
    body_rate: Count = Field(
        256, description="bytes a second that a request's body must keep up on average, after 10 s; 0 is none"
    )


class ClientTimeoutsSection(Section):
    """Timeouts towards clients."""

    head: Duration = Field(10.0, description="for the head of a request, from its first byte")
    idle: Duration = Field(30.0, description="between two pieces of a body, either way")
    keepalive: Duration = Field(30.0, description="an unused connection is kept this long")
    tunnel: Duration = Field(3600.0, description="between two bytes of an upgraded connection")
    drain: Duration = Field(30.0, description="on SIGTERM, requests may take this long to finish")
    notice: Duration = Field(
        0.0,
        description="on SIGTERM, before `drain`: clients still come in for this long, while the agent says drain and "
        "the health path 503; give it more than the director's interval; default: none",
    )


class AgentSection(Section):
    """The agent: one line about this process to whoever connects (HAProxy's agent-check)."""

    bind: BindTexts = Field(description="address:port, or a list of them; for directors only, so keep it from others")


class ConfigSection(Section):
    """What `l7proxy run` serves."""

    listeners: Annotated[dict[Name, ListenerSection], Field(min_length=1)] = Field(
        description="where clients come in, by name"
    )
    routes: tuple[RouteSection, ...] = Field(
        (), description="who answers what; the most specific one that fits wins; none where all listeners are `tcp`"
    )
    upstreams: Annotated[dict[Name, UpstreamSection], Field(min_length=1)] = Field(
        description="pools of backends, by name"
    )
    defaults: DefaultsSection = DefaultsSection()
    timeouts: ClientTimeoutsSection = ClientTimeoutsSection()
    limits: LimitsSection = LimitsSection()
    admin: AdminSection | None = None
    agent: AgentSection | None = None
    state: FileText | None = Field(
        None,
        description="a file that keeps what the operator wants of backends (drain, weight) over a restart; it is made, "
        "mode 0600",
    )
    access_log: Flag | Literal["none", "combined", "json"] = Field(
        "combined", description="a line for each exchange on standard output: combined, json or none; true is combined"
    )
    via: Flag = Field(
        True, description="add Via to requests (RFC 9110 7.6.3), and refuse those that went through this l7proxy before"
    )
    name: Name | None = Field(
        None,
        description="what this l7proxy is called in Via and Proxy-Status, other than all others; default: made from "
        "the host and `bind`",
    )
    underscores: Literal["drop", "forward"] = Field(
        "drop", description="headers with `_` in their names, which CGI takes for `-`: drop or forward"
    )
    workers: Literal["auto"] | Annotated[int, Field(strict=True, ge=1, le=256)] = Field(
        1, description="processes that serve; `auto` is one for each core"
    )
