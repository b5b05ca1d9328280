"""director.yaml's text to one `Config`, or to every problem in it.

One rule: this only translates; what two keys together get wrong is in `findings.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

from director.core.findings import findings
from director.core.model import (
    SORRY,
    Config,
    DeadConnections,
    Method,
    OnDrift,
    RealServer,
    RealState,
    Traffic,
    VirtualServer,
)
from director.core.naming import Lookup, Lookups, no_lookup
from director.core.notifyschema import notifications_of
from director.core.policyschema import policy
from director.core.ports import ANY
from director.core.resolve import address_of, addresses_of, check_of, family_of, host_of, keys_of, load_of, tunnel_of
from director.core.schema import FileSection, RealServerSection, SyncSection, VirtualServerSection
from director.core.steering import with_marks
from director.core.table import Protocol, SchedulerFlags, SyncDaemon, SyncRole, Timeouts, VirtualRow
from director.core.vip import Vip
from director.kit.collector import paused
from director.kit.configfile import load

_FLAGS = {"fallback": SchedulerFlags.FALLBACK, "port": SchedulerFlags.PORT}


def parse_config(text: str, source: str, look_up: Lookup = no_lookup) -> Config:
    """The configuration in `text`; `source` is its name in messages, `look_up` knows the names that it has.

    Raises: InvalidConfigError with one line for each problem.
    """
    with paused():
        return build(load(text, source, FileSection, findings, Lookups(look_up)))


def build(file: FileSection) -> Config:
    """The values of a file that has no findings."""
    timeouts = file.timeouts
    config = Config(
        virtual_servers=tuple(_virtual_server(name, section, file) for name, section in file.virtual_servers.items()),
        drift_interval_s=file.drift_interval,
        resolve_interval_s=file.resolve_interval,
        exclusive=file.exclusive,
        timeouts=Timeouts(int(timeouts.tcp), int(timeouts.tcpfin), int(timeouts.udp)) if timeouts else None,
        sync=frozenset(_sync_daemons(file.sync)) if file.sync else None,
        manage_settings=file.settings == "manage",
        dead_connections=DeadConnections(file.dead_connections),
        notifications=notifications_of(file.notifications),
        metrics=file.metrics.bind if file.metrics else None,
    )
    return with_marks(config)


def _virtual_server(name: str, section: VirtualServerSection, file: FileSection) -> VirtualServer:
    interface = section.interface or file.defaults.interface
    reals = [_real_server(real_name, real, section, file) for real_name, real in section.real_servers.items()]
    sorry = (_sorry_server(section),) if section.sorry_server else ()
    keys = keys_of(section)
    return VirtualServer(
        name=name,
        keys=keys,
        row=_row(section),
        method=Method(section.forward),
        # Two directors with one file must insert in one order: Maglev's table depends on it.
        real_servers=(*sorted(reals, key=lambda real: real.at(keys[0]).sort_key()), *sorry),
        vips=tuple(Vip(address, interface) for address in addresses_of(section)) if interface else (),
        on_drift=OnDrift(section.on_drift or file.defaults.on_drift),
        traffic=tuple(_traffic(section)),
        source=section.source,
        policy=policy(section, file.defaults, section.quorum, section.quorum_up, section.quorum_down),
    )


def _traffic(section: VirtualServerSection) -> Iterator[Traffic]:
    for traffic in section.traffic:
        ports = () if traffic.port is None or traffic.port == (ANY,) else traffic.port
        for address in traffic.address:
            yield Traffic(Protocol(traffic.protocol), address, ports)


def _row(section: VirtualServerSection) -> VirtualRow:
    flags = SchedulerFlags.NONE
    default = (f"{section.scheduler}-fallback",) if section.scheduler in {"sh", "mh"} else ()
    for flag in default if section.scheduler_flags is None else section.scheduler_flags:
        flags |= _FLAGS[flag.partition("-")[2]]
    persistence = section.persistence
    bits = persistence.bits if persistence else None
    full = 32 if family_of(section) == 4 else 128
    return VirtualRow(
        scheduler=section.scheduler,
        flags=flags,
        persistence_s=int(persistence.timeout) if persistence else 0,
        persistence_prefix=None if bits == full else bits,
        one_packet=section.one_packet,
        engine=(persistence.engine if persistence else None) or "",
    )


def _real_server(name: str, real: RealServerSection, section: VirtualServerSection, file: FileSection) -> RealServer:
    return RealServer(
        name=name,
        address=address_of(section, real),
        host=host_of(real),
        weight=real.weight,
        port=real.port,
        check=check_of(section, real, file),
        load=load_of(section, real, file),
        tunnel=tunnel_of(section, real),
        upper_threshold=real.upper_threshold,
        lower_threshold=real.lower_threshold,
        state=RealState(real.state),
        method=Method(real.forward) if real.forward not in {None, section.forward} else None,
    )


def _sorry_server(section: VirtualServerSection) -> RealServer:
    sorry = section.sorry_server
    assert sorry is not None  # noqa: S101 -- whoever asks has seen it
    return RealServer(
        name=SORRY,
        address=address_of(section, sorry),
        host=host_of(sorry),
        weight=sorry.weight,
        port=sorry.port,
        tunnel=tunnel_of(section, sorry),
        method=Method(sorry.forward) if sorry.forward not in {None, section.forward} else None,
        is_sorry=True,
    )


def _sync_daemons(section: SyncSection) -> Iterator[SyncDaemon]:
    for role, daemon in ((SyncRole.MASTER, section.master), (SyncRole.BACKUP, section.backup)):
        if daemon is not None:
            yield SyncDaemon(role, daemon.interface, daemon.id, daemon.group, daemon.port, daemon.ttl, daemon.maxlen)
