"""A table's values in a few words each: what plans, status and messages call them.

One rule: the words are those of the configuration and of ipvsadm.
"""

from __future__ import annotations

from collections.abc import Iterable

from director.core.ports import describe_ports
from director.core.table import (
    Forward,
    RealRow,
    SchedulerFlags,
    SyncDaemon,
    Timeouts,
    Tunnel,
    TunnelFlags,
    TunnelKind,
    VirtualKey,
    VirtualRow,
)
from director.kit.duration import format_duration
from director.kit.net import IPAddress


def describe_virtual(row: VirtualRow) -> str:
    """Scheduler, flags and persistence in a few words."""
    parts = [row.scheduler, *flag_names(row)]
    if row.persistence_s:
        by = "" if row.persistence_prefix is None else f" by /{row.persistence_prefix}"
        parts.append(f"persistence {format_duration(row.persistence_s)}{by}")
    if row.engine:
        parts.append(f"by {row.engine}")
    if row.one_packet:
        parts.append("one-packet")
    return " ".join(parts)


def describe_keys(keys: Iterable[VirtualKey]) -> str:
    """What a virtual server of these listens on: addresses with the same ports are joined.

    >>> describe_keys(VirtualKey.parse(f"tcp 10.0.0.1:{port}") for port in (80, 8000, 8001, 8002))
    'tcp 10.0.0.1:80,8000-8002'
    """
    ports: dict[tuple[str, IPAddress], list[int]] = {}
    marks: dict[int | None, list[str]] = {}
    for key in keys:
        if key.protocol and key.endpoint:
            ports.setdefault((key.protocol.value, key.endpoint.address), []).append(key.endpoint.port)
        else:
            marks.setdefault(key.mark, []).append(f"IPv{key.family}")
    addresses: dict[tuple[str, str], list[str]] = {}
    for (protocol, address), found in ports.items():
        text = f"[{address}]" if address.version == 6 else str(address)
        addresses.setdefault((protocol, describe_ports(tuple(sorted(found)))), []).append(text)
    words = [f"{protocol} {','.join(found)}:{each}" for (protocol, each), found in addresses.items()]
    words += [
        f"fwmark {mark}" + ("" if families == ["IPv4"] else f" ({' and '.join(families)})")
        for mark, families in marks.items()
    ]
    return ", ".join(words)


def flag_names(row: VirtualRow) -> list[str]:
    """ipvsadm's names of the scheduler's flags, such as `mh-port`."""
    words = {SchedulerFlags.FALLBACK: "fallback", SchedulerFlags.PORT: "port", SchedulerFlags.THIRD: "flag-3"}
    return [f"{row.scheduler}-{words[flag]}" for flag in words if flag in row.flags]


def describe_real(row: RealRow) -> str:
    """Forwarding method, weight and thresholds in a few words."""
    limits = f", at most {row.upper_threshold} connections" if row.upper_threshold else ""
    limits += f", again below {row.lower_threshold}" if row.lower_threshold else ""
    return f"{describe_path(row.forward, row.tunnel)}, weight {row.weight}{limits}"


def describe_path(forward: Forward, tunnel: Tunnel) -> str:
    """`nat`, `tun` or `tun by gue port 6080`."""
    if forward is not Forward.TUN or (tunnel.kind is TunnelKind.IPIP and not tunnel.flags):
        return forward.value
    port = f" port {tunnel.port}" if tunnel.port else ""
    sums = {TunnelFlags.CHECKSUM: " with checksums", TunnelFlags.REMOTE_CHECKSUM: " with remote checksums"}
    return f"{forward.value} by {tunnel.kind.value}{port}{sums.get(tunnel.flags, '')}"


def describe_timeouts(timeouts: Timeouts) -> str:
    """The three in the order of `ipvsadm --set`, named."""
    parts = (("tcp", timeouts.tcp_s), ("tcpfin", timeouts.tcpfin_s), ("udp", timeouts.udp_s))
    return " ".join(f"{name} {format_duration(value)}" for name, value in parts)


def describe_sync(daemon: SyncDaemon) -> str:
    """Interface, id and where it sends to or listens."""
    maxlen = f", at most {daemon.maxlen} bytes" if daemon.maxlen else ""
    return f"id {daemon.id} on {daemon.interface}, {daemon.group} port {daemon.port}, ttl {daemon.ttl}{maxlen}"
