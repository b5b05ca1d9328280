"""Tables to try on a kernel: random ones by seed, and what ipvsadm prints for them.

One rule: all of it is valid, so that a refusal is a defect.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from random import Random
from types import MappingProxyType

from director.core.table import (
    Forward,
    Protocol,
    RealRow,
    SchedulerFlags,
    Table,
    Tunnel,
    TunnelFlags,
    TunnelKind,
    VirtualEntry,
    VirtualKey,
    VirtualRow,
)
from director.kit.net import Endpoint, IPAddress

SCHEDULERS = ("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "sh", "dh", "sed", "nq", "fo", "ovf", "mh")
WITH_FLAGS = ("sh", "mh")
_CHECKSUMS = (TunnelFlags.NONE, TunnelFlags.CHECKSUM, TunnelFlags.REMOTE_CHECKSUM)


def random_address(random: Random, family: int) -> IPAddress:
    if family == 4:
        return ip_address(f"10.{random.randrange(256)}.{random.randrange(256)}.{random.randrange(1, 255)}")
    return ip_address(f"2001:db8::{random.randrange(1, 0xFFFF):x}:{random.randrange(0xFFFF):x}")


def random_key(random: Random) -> VirtualKey:
    family = random.choice((4, 6))
    if random.random() < 0.2:
        return VirtualKey(family, mark=random.randrange(1, 2**32))
    port = 0 if random.random() < 0.1 else random.randrange(1, 65536)
    return VirtualKey.of(random.choice(tuple(Protocol)), random_address(random, family), port)


def random_row(random: Random, key: VirtualKey) -> VirtualRow:
    scheduler = random.choice(SCHEDULERS)
    flags = SchedulerFlags.NONE
    if scheduler in WITH_FLAGS:
        flags = random.choice((flags, SchedulerFlags.FALLBACK, SchedulerFlags.PORT, SchedulerFlags(0x18)))
    any_port = key.endpoint is not None and not key.endpoint.port  # it means something with persistence only
    if not any_port and random.random() < 0.5:
        one_packet = key.protocol is Protocol.UDP and random.random() < 0.3
        return VirtualRow(scheduler, flags, one_packet=one_packet)
    prefix = random.choice((None, random.randrange(1, 32 if key.family == 4 else 128)))
    engine = "sip" if key.protocol is Protocol.UDP and random.random() < 0.5 else ""
    return VirtualRow(scheduler, flags, random.randint(1, 86400), prefix, engine=engine)


def random_tunnel(random: Random) -> Tunnel:
    kind = random.choice(tuple(TunnelKind))
    if kind is TunnelKind.IPIP:
        return Tunnel()
    flags = random.choice(_CHECKSUMS[: 3 if kind is TunnelKind.GUE else 2])
    return Tunnel(kind, random.randrange(1, 65536) if kind is TunnelKind.GUE else 0, flags)


def random_real(random: Random, family: int) -> tuple[Endpoint, RealRow]:
    forward = random.choice((Forward.NAT, Forward.DR, Forward.TUN))
    if forward is Forward.TUN and random.random() < 0.3:  # the only one that may change the IP version
        family = 10 - family
    upper = random.choice((0, random.randrange(2**31)))
    tunnel = random_tunnel(random) if forward is Forward.TUN else Tunnel()
    row = RealRow(forward, random.randrange(65536), upper, random.randint(0, upper), tunnel)
    return Endpoint(random_address(random, family), random.randrange(1, 65536)), row


def random_entry(random: Random, key: VirtualKey, reals: int) -> VirtualEntry:
    members = dict(random_real(random, key.family) for _ in range(random.randint(0, reals)))
    return VirtualEntry(random_row(random, key), MappingProxyType(members))


def random_table(random: Random, virtuals: int = 6, reals: int = 6) -> Table:
    keys = [random_key(random) for _ in range(random.randint(0, virtuals))]
    return Table(MappingProxyType({key: random_entry(random, key, reals) for key in keys}))


def changed(random: Random, table: Table) -> Table:
    """Some of `table` as it was, some with other rows, fewer and more real servers; and new virtual servers."""
    entries = dict(random_table(random, virtuals=2).entries)
    for key, entry in table.entries.items():
        if random.random() < 0.2:
            continue
        row = random.choice((entry.row, random_row(random, key)))
        reals = {
            real: random.choice((before, random_real(random, key.family)[1]))
            for real, before in entry.reals.items()
            if random.random() < 0.8
        }
        same = {r: (b if r.address.version == key.family else entry.reals[r]) for r, b in reals.items()}
        entries[key] = VirtualEntry(row, MappingProxyType({**same, **random_entry(random, key, 2).reals}))
    return Table(MappingProxyType(entries))


def saved_lines(table: Table) -> list[str]:
    """What `ipvsadm -Sn` prints for `table`, sorted. It prints no thresholds."""
    lines = []
    for key, entry in table.entries.items():
        row = entry.row
        words = [_service_words(key), "-s", row.scheduler]
        if row.persistence_s:
            words += ["-p", str(row.persistence_s)]
            if row.persistence_prefix is not None:
                network = ip_network(f"0.0.0.0/{row.persistence_prefix}") if key.family == 4 else None
                words += ["-M", str(network.netmask if network else row.persistence_prefix)]
        if row.one_packet:
            words.append("-o")
        names = [
            f"{row.scheduler}-{name}"
            for flag, name in ((SchedulerFlags.FALLBACK, "fallback"), (SchedulerFlags.PORT, "port"))
            if flag in row.flags
        ]
        words += ["--pe", row.engine] if row.engine else []
        lines.append(" ".join(["-A", *words, *(["-b", ",".join(names)] if names else [])]))
        for real, member in entry.reals.items():
            letter = {Forward.NAT: "-m", Forward.DR: "-g", Forward.TUN: "-i"}[member.forward]
            tunnel = _tunnel_words(member.tunnel) if member.forward is Forward.TUN else ""
            lines.append(f"-a {_service_words(key)} -r {real} {letter} -w {member.weight}{tunnel}")
    return sorted(lines)


def _service_words(key: VirtualKey) -> str:
    if key.mark is not None:
        signed = key.mark - 2**32 if key.mark >= 2**31 else key.mark  # ipvsadm 1.31 prints it as an int
        return f"-f {signed}" + (" -6" if key.family == 6 else "")
    options = {Protocol.TCP: "-t", Protocol.UDP: "-u", Protocol.SCTP: "--sctp-service", None: ""}
    return f"{options[key.protocol]} {key.endpoint}"


def _tunnel_words(tunnel: Tunnel) -> str:
    port = f" --tun-port {tunnel.port}" if tunnel.kind is TunnelKind.GUE else ""
    checksums = dict(zip(_CHECKSUMS, ("--tun-nocsum", "--tun-csum", "--tun-remcsum"), strict=True))
    flags = "" if tunnel.kind is TunnelKind.IPIP else f" {checksums[tunnel.flags]}"
    return f" --tun-type {tunnel.kind.value}{port}{flags}"
