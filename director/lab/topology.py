"""Who stands where in a lab: hosts, the networks that join them, and their addresses, read from a YAML file.

One rule: a topology that loads can be laid out; all problems of a file are reported at once, with their places.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

from pydantic import Field, StringConstraints

from director.kit.configfile import Finding, InvalidConfigError, Section, read_text
from director.kit.configfile import load as load_section
from director.kit.schemawalk import suggestion
from director.lab.errors import TopologyError

DEFAULT = Path(__file__).with_name("topology.yaml")
PAIR = Path(__file__).with_name("pair.yaml")
NAMED: Mapping[str, Path] = MappingProxyType({"default": DEFAULT, "pair": PAIR})
"""The topologies that come with the lab."""

BASE_SYSCTLS: Mapping[str, str] = MappingProxyType(
    {
        "net.ipv6.conf.all.accept_dad": "0",  # an address is usable at once
        "net.ipv6.conf.default.accept_dad": "0",
        "net.ipv4.conf.all.rp_filter": "0",  # otherwise inherited from the machine
        "net.ipv4.conf.default.rp_filter": "0",
    }
)
"""What every host starts from; a host's own sysctls come after."""


@dataclass(frozen=True, slots=True)
class Network:
    """One segment, a bridge; its name is also the name of the hosts' links on it."""

    name: str
    v4: IPv4Network
    v6: IPv6Network


@dataclass(frozen=True, slots=True)
class Link:
    """A host's leg on a network; `mac` is fixed, so that neighbour tables read the same every time."""

    network: Network
    v4: IPv4Address
    v6: IPv6Address
    mac: str


@dataclass(frozen=True, slots=True)
class Host:
    """A machine of the lab. `gateway` names the host that is its default router; `runs` only describes."""

    name: str
    role: str
    links: Mapping[str, Link]
    gateway: str | None = None
    sysctls: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    runs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Topology:
    """Networks and hosts by name, in the order of the file."""

    networks: Mapping[str, Network]
    hosts: Mapping[str, Host]


def load(path: Path = DEFAULT) -> Topology:
    """Read a topology file.

    Raises: TopologyError, with every problem found.
    """
    try:
        return parse(read_text(path), str(path))
    except InvalidConfigError as error:
        raise TopologyError(str(error)) from error


def parse(text: str, source: str = "topology") -> Topology:
    """Read a topology; `source` names it in messages.

    Raises: TopologyError, with every problem found.
    """
    try:
        given = load_section(text, source, _TopologySection, _findings)
    except InvalidConfigError as error:
        raise TopologyError(str(error)) from error
    networks = {name: Network(name, each.v4, each.v6) for name, each in given.networks.items()}
    hosts = {name: _host(name, each, networks) for name, each in given.hosts.items()}
    return Topology(MappingProxyType(networks), MappingProxyType(hosts))


def gateways_of(topology: Topology, host: Host) -> list[IPv4Address | IPv6Address]:
    """The addresses of a host's default router, on the first network they share; empty without one."""
    if host.gateway is None:
        return []
    there = topology.hosts[host.gateway].links
    shared = next(name for name in host.links if name in there)
    return [there[shared].v4, there[shared].v6]


def as_plain(topology: Topology) -> dict[str, object]:
    """The form that the agent lays out: addresses with prefix lengths, gateways as addresses, all sysctls."""
    ports = iter(range(1, 10_000))
    hosts = {}
    for host in topology.hosts.values():
        links = {}
        for name, link in host.links.items():
            addresses = [f"{link.v4}/{link.network.v4.prefixlen}", f"{link.v6}/{link.network.v6.prefixlen}"]
            links[name] = {"mac": link.mac, "port": f"port{next(ports)}", "addresses": addresses}
        gateways = [str(address) for address in gateways_of(topology, host)]
        hosts[host.name] = {"links": links, "gateways": gateways, "sysctls": {**BASE_SYSCTLS, **host.sysctls}}
    return {"networks": list(topology.networks), "hosts": hosts}


# The file's shape; a link's name holds 15 characters.
_Name = Annotated[str, StringConstraints(pattern=r"^[a-z]([a-z0-9-]{0,13}[a-z0-9])?$")]
_Mac = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$")]
_Sysctl = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+([.][a-zA-Z0-9_-]+)+$")]


class _NetworkSection(Section):
    v4: IPv4Network
    v6: IPv6Network


class _LinkSection(Section):
    v4: IPv4Address
    v6: IPv6Address
    mac: _Mac


class _HostSection(Section):
    role: str
    links: dict[_Name, _LinkSection] = Field(min_length=1)
    gateway: str | None = None
    sysctls: dict[_Sysctl, int | str] = Field(default_factory=dict)
    runs: list[str] = Field(default_factory=list)


class _TopologySection(Section):
    networks: dict[_Name, _NetworkSection] = Field(min_length=1)
    hosts: dict[_Name, _HostSection] = Field(min_length=1)


def _host(name: str, given: _HostSection, networks: Mapping[str, Network]) -> Host:
    links = {key: Link(networks[key], link.v4, link.v6, link.mac) for key, link in given.links.items()}
    sysctls = {key: str(value) for key, value in given.sysctls.items()}
    return Host(name, given.role, MappingProxyType(links), given.gateway, MappingProxyType(sysctls), tuple(given.runs))


def _findings(given: _TopologySection) -> Iterator[Finding]:
    owners: dict[str, str] = {}
    for name, host in given.hosts.items():
        yield from _link_findings(name, host, given.networks, owners)
        if host.gateway is None:
            continue
        path = ("hosts", name, "gateway")
        if host.gateway not in given.hosts:
            yield path, f"no host {host.gateway!r}{suggestion(host.gateway, given.hosts)}"
        elif host.gateway == name or not host.links.keys() & given.hosts[host.gateway].links.keys():
            yield path, f"{host.gateway!r} is on none of its networks: name another host that is"


def _link_findings(
    name: str, host: _HostSection, networks: Mapping[str, _NetworkSection], owners: dict[str, str]
) -> Iterator[Finding]:
    for key, link in host.links.items():
        path = ("hosts", name, "links", key)
        if key not in networks:
            yield path, f"no network {key!r}{suggestion(key, networks)}"
            continue
        for what, address, subnet in (("v4", link.v4, networks[key].v4), ("v6", link.v6, networks[key].v6)):
            if address not in subnet:
                yield (*path, what), f"{address} is not in {key}'s {subnet}: choose one that is"
        for what, value in (("v4", str(link.v4)), ("v6", str(link.v6)), ("mac", link.mac)):
            owner = owners.setdefault(value, name)
            if owner != name:
                yield (*path, what), f"{value} is {owner}'s already: choose another"
