"""The shape of director.yaml: names, types and ranges of its keys, and nothing across sections.

One rule: what one key alone can get wrong is refused here; what two keys together can, in `config.py`.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from director.kit.configfile import Section
from director.kit.duration import Duration, format_duration
from director.kit.net import IPAddress, parse_unicast
from director.kit.probespec import HttpCheckSection, Port, TcpCheckSection


def _address(value: object) -> IPAddress:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not an IP address: use one such as 192.0.2.10 or 2001:db8::10")
    return parse_unicast(value)


def _vip(address: IPAddress) -> IPAddress:
    if address.is_loopback:
        raise ValueError(f"{address} is a loopback address: give the address that clients connect to")
    return address


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", value):
        raise ValueError(
            f"{value!r} is not a name: use up to 63 letters, digits, '_', '-' and '.', a letter or digit first"
        )
    return value


def _interface(value: str) -> str:
    # dev_valid_name() in net/core/dev.c
    if not 0 < len(value) < 16 or value in {".", ".."} or re.search(r"[/:\s]", value):
        raise ValueError(f"{value!r} is not an interface name: use one that `ip link` shows, such as eth0")
    return value


Address = Annotated[IPAddress, BeforeValidator(_address)]
VipAddress = Annotated[IPAddress, BeforeValidator(_address), AfterValidator(_vip)]
Name = Annotated[str, AfterValidator(_name)]
Interface = Annotated[str, AfterValidator(_interface)]
Weight = Annotated[int, Field(strict=True, ge=0, le=65535)]

SCHEDULERS = ("rr", "wrr", "lc", "wlc", "sh", "mh")
Scheduler = Literal["rr", "wrr", "lc", "wlc", "sh", "mh"]
SchedulerFlag = Literal["sh-fallback", "sh-port", "mh-fallback", "mh-port"]


class NoCheckSection(Section):
    """`check: {type: none}`: never probed, taken as up. Overrides a check from `defaults`."""

    type: Literal["none"]


CheckSection = Annotated[TcpCheckSection | HttpCheckSection | NoCheckSection, Field(discriminator="type")]


class PersistenceSection(Section):
    """Keeps a client with the server it was first given."""

    timeout: Duration = Field(300.0, description="how long a client is remembered after its last connection")
    prefix: Annotated[int, Field(strict=True, ge=1, le=128)] | None = Field(
        None, description="clients that share this many leading address bits count as one; default: each alone"
    )

    @field_validator("timeout")
    @classmethod
    def _whole(cls, value: float) -> float:
        if value != int(value):
            raise ValueError(f"{value:g}s has a fraction: the kernel counts whole seconds")
        return value


class RealServerSection(Section):
    """One real server of a virtual server."""

    address: Address
    port: Port | None = Field(None, description="default: the virtual server's port; with dr it must be that one")
    weight: Weight = Field(100, description="share of new connections, 0 to 65535; 0 gives it none")
    check: CheckSection | None = Field(None, description="overrides the virtual server's check")


class VirtualServerSection(Section):
    """One virtual server: the address that clients connect to, and who answers."""

    address: VipAddress = Field(description="the VIP")
    port: Port
    protocol: Literal["tcp", "udp"] = "tcp"
    forward: Literal["nat", "dr"] = Field(description="how packets reach the real servers")
    scheduler: Scheduler = Field("wlc", description="who gets the next connection")
    scheduler_flags: tuple[SchedulerFlag, ...] | None = Field(
        None, description="options of sh and mh; default: sh-fallback or mh-fallback"
    )
    persistence: PersistenceSection | None = None
    interface: Interface | None = Field(
        None, description="the director adds the VIP to this interface; default: `defaults.interface`"
    )
    check: CheckSection | None = Field(None, description="how real servers are probed; default: `defaults.check`")
    real_servers: dict[Name, RealServerSection]


class DefaultsSection(Section):
    """What virtual servers take over where they say nothing."""

    check: CheckSection | None = None
    interface: Interface | None = Field(
        None, description="the interface that VIPs are kept on; without one the director leaves addresses alone"
    )


class FileSection(Section):
    """director.yaml."""

    defaults: DefaultsSection = DefaultsSection()
    drift_interval: Duration = Field(
        10.0, description="longest time between two looks at the kernel's table, at least 100ms"
    )
    virtual_servers: dict[Name, VirtualServerSection]

    @field_validator("drift_interval")
    @classmethod
    def _idle(cls, value: float) -> float:
        if value < 0.1:
            raise ValueError(f"{format_duration(value)} leaves no time for anything else: use at least 100ms")
        return value
