"""What this host's own settings lack for a configuration: sentences for the log and the command line.

One rule: it only looks, and a setting that cannot be read is a sentence too, never an end.
"""

from __future__ import annotations

import socket

from director.core.model import Config, DeadConnections
from director.host import settings
from director.kit.errors import HostError


def advice(config: Config) -> tuple[str, ...]:
    """One sentence for each setting of this host that is not as `config`'s forwarding methods need it."""
    try:
        names = [name for _, name in socket.if_nameindex()]
        missing = (
            f"interface {vip.interface} of {vip.address} does not exist: use one of {', '.join(names)}"
            for vip in config.vips()
            if vip.interface not in names
        )
        return (*missing, *settings.check(uses(config), dead_connections=dead_connections(config)))
    except (HostError, OSError) as error:
        return (f"could not look at this host's settings: {error}",)


def uses(config: Config) -> tuple[settings.Use, ...]:
    """What of `config` asks for settings of this host."""
    return tuple(
        settings.Use(
            virtual.name,
            virtual.method.value,
            family,
            persistent=virtual.row.persistence_s > 0,
            resumes=config.sync is not None and virtual.row.scheduler == "mh",
        )
        for virtual in config.virtual_servers
        for family in sorted({key.family for key in virtual.keys})
    )


def dead_connections(config: Config) -> settings.DeadConnections | None:
    """The wish of `config`; None for what is the kernel's default anyway, so that a choice made by hand stands."""
    return "expire" if config.dead_connections is DeadConnections.EXPIRE else None
