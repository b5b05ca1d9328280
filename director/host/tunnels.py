"""Tunnel devices of a real server: which are there, put one up, take one off.

One rule: a link is ours when it has the name that we gave it and is the device that we made; anything else is
left alone. A device's settings go with it, so nothing of them needs to be remembered.

Loading a kind's module makes the kernel's own device of it (tunl0, gre0, gretap0, erspan0, sit0, ip6tnl0, ip6gre0)
in every network namespace. They belong to the kernel and stay down: a tunnel that is down takes no packets.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from director.host import sysctl
from director.host.change import Change
from director.host.decapsulation import Device, DeviceKind, End
from director.host.rtnetlink import IFF_UP, iproute
from director.host.sysctl import conf
from director.kit.errors import HostError
from director.kit.net import IPAddress

GRE_CSUM = 0x8000  # linux/if_tunnel.h, in network byte order on the wire
RTN_LOCAL = 2  # linux/rtnetlink.h

_MODULES = {
    DeviceKind.IPIP: "ipip (CONFIG_NET_IPIP)",
    DeviceKind.SIT: "sit (CONFIG_IPV6_SIT)",
    DeviceKind.IP6TNL: "ip6_tunnel (CONFIG_IPV6_TUNNEL)",
    DeviceKind.GRE: "ip_gre (CONFIG_NET_IPGRE)",
    DeviceKind.IP6GRE: "ip6_gre (CONFIG_IPV6_GRE)",
}


def links() -> dict[str, Device | None]:
    """Every link of this network namespace by name, with the tunnel it is; None for whatever else.

    Raises: HostError when the kernel refuses to list them.
    """
    with iproute("list network interfaces") as ipr:
        return {link.get("ifname"): _device(link) for link in ipr.link("dump")}
    return {}


def enforce(named: Mapping[str, Device], there: Mapping[str, Device | None]) -> list[Change]:
    """Have every device, up and with its settings; `there` is what `links` said.

    Raises: HostError when the kernel lacks such devices, or another one takes the same packets.
    """
    changes = []
    for name, device in named.items():
        if there.get(name) != device:
            _create(name, device, there)
            changes.append(Change("device", f"{name} ({device})", None, "present"))
            _settle(name)
        else:
            changes += _settle(name)
    return changes


def remove(named: Mapping[str, Device]) -> list[Change]:
    """Take off those devices that are there and still what we made them.

    Raises: HostError when the kernel refuses.
    """
    if not named:
        return []
    there = links()
    changes = []
    for name, device in named.items():
        if there.get(name) == device:
            with iproute(f"remove {name}", already_so={errno.ENODEV}) as ipr:
                ipr.link("del", index=socket.if_nametoindex(name))
                changes.append(Change("device", f"{name} ({device})", "present", None))
    return changes


def outer_mtu(end: End) -> int:
    """The MTU in bytes of the interface on which the wrapped packets arrive: the one that leads to their sender.

    Raises: HostError when there is no route to it, or it is this host itself.
    """
    device = end.device
    doing = f"find the way to the director {device.remote}" if device.remote else f"find {device.local}"
    unreachable = {errno.ENETUNREACH: "give this host a route to it: it must have one to be reached from there"}
    with iproute(doing, advice=unreachable) as ipr:
        if device.remote:
            (route,) = ipr.route("get", dst=str(device.remote))
            if route["type"] == RTN_LOCAL:
                raise HostError(
                    f"{device.remote} is an address of this host itself: name the directors by the addresses from "
                    "which they send to this real server (on a director: ip route get ADDRESS-OF-THIS-HOST, after src)"
                )
            index = route.get("oif")
        else:
            index = _index_of(device.local, ipr.get_addr())
        return int(ipr.link("get", index=index)[0].get("mtu"))
    return 1500


def _create(name: str, device: Device, there: Mapping[str, Device | None]) -> None:
    kind = device.kind.value
    ends: dict[str, Any] = {
        f"{kind}_{end}": str(address)
        for end, address in (("remote", device.remote), ("local", device.local))
        if address is not None
    }
    if device.checksum:
        ends[f"{kind}_iflags"] = _gre_flags(device.kind)
    rivals = [other for other, what in there.items() if what and replace(what, checksum=device.checksum) == device]
    rival = f"{' or '.join(rivals) or 'another device'} takes the same packets"
    advice = {
        errno.EOPNOTSUPP: f"this kernel has no {kind} devices: modprobe or build its module {_MODULES[device.kind]}",
        errno.EEXIST: f"{rival}: ip link del {rivals[0] if rivals else 'it'}, then try again",
    }
    with iproute(f"add the tunnel device {name} ({device})", advice=advice) as ipr:
        ipr.link("add", ifname=name, kind=kind, **ends)


def _settle(name: str) -> list[Change]:
    wanted = {
        # The inner source is a client, which is routed elsewhere: strict (1) drops it. The kernel takes the maximum
        # of this and `all`, and loose needs an IPv4 address on the device, the VIP (fib_validate_source).
        conf(4, name, "rp_filter"): "2",
        # No link-local address: nothing is to be sent through it, no router is to be looked for there.
        conf(6, name, "addr_gen_mode"): "1",
    }
    changes = sysctl.enforce({key: value for key, value in wanted.items() if sysctl.read(key) is not None})
    with iproute(f"set {name} up") as ipr:
        index = socket.if_nametoindex(name)
        if not ipr.link("get", index=index)[0]["flags"] & IFF_UP:
            ipr.link("set", index=index, state="up")
            changes.append(Change("device", name, "down", "up"))
    return changes


def _device(link: Any) -> Device | None:
    try:
        kind = DeviceKind(link.get(("linkinfo", "kind")))
    except ValueError:
        return None
    data = link.get(("linkinfo", "data"))
    prefix = {DeviceKind.IP6TNL: "IP6TNL", DeviceKind.IP6GRE: "IP6GRE"}.get(kind, kind.value.upper())
    flags = data.get_attr(f"IFLA_{prefix}_IFLAGS") or 0
    return Device(
        kind,
        _address(data.get_attr(f"IFLA_{prefix}_REMOTE")),
        _address(data.get_attr(f"IFLA_{prefix}_LOCAL")),
        checksum=bool(flags & _gre_flags(kind)),
    )


def _index_of(address: IPAddress | None, messages: Iterable[Any]) -> int:
    for message in messages:
        if _address(message.get("local") or message.get("address")) == address:
            return int(message["index"])
    raise HostError(f"this host does not have the address {address} any more: try again")


def _gre_flags(kind: DeviceKind) -> int:
    # pyroute2 swaps gre's flags and not ip6gre's.
    return socket.htons(GRE_CSUM) if kind is DeviceKind.IP6GRE else GRE_CSUM


def _address(text: str | None) -> IPAddress | None:
    address = ip_address(text) if text else None
    return None if address is None or address.is_unspecified else address
