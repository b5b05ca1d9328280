"""What this host's own settings lack for a configuration: sentences for the log and the command line.

One rule: it only looks, and a setting that cannot be read is a sentence too, never an end.
"""

from __future__ import annotations

import socket

from director.core.model import Config
from director.core.table import Forward
from director.host import settings
from director.kit.errors import HostError

_METHODS: dict[Forward, settings.Method] = {Forward.NAT: "nat", Forward.DR: "dr", Forward.TUN: "tun"}


def advice(config: Config) -> tuple[str, ...]:
    """One sentence for each setting of this host that is not as `config`'s forwarding methods need it."""
    uses = [
        settings.Use(virtual.name, _METHODS[virtual.forward], virtual.key.family)
        for virtual in config.virtual_servers
        if virtual.forward in _METHODS
    ]
    try:
        names = [name for _, name in socket.if_nameindex()]
        missing = (
            f"interface {vip.interface} of {vip.address} does not exist: use one of {', '.join(names)}"
            for vip in config.vips()
            if vip.interface not in names
        )
        return (*missing, *settings.check(uses))
    except (HostError, OSError) as error:
        return (f"could not look at this host's settings: {error}",)
