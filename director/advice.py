"""What this host's own settings lack for a configuration: sentences for the log and the command line.

One rule: it only looks, and a setting that cannot be read is a sentence too, never an end.
"""

from __future__ import annotations

import socket

from director.core.model import Config
from director.host import settings
from director.kit.errors import HostError


def advice(config: Config) -> tuple[str, ...]:
    """One sentence for each setting of this host that is not as `config`'s forwarding methods need it."""
    uses = [
        settings.Use(virtual.name, virtual.method.value, family)
        for virtual in config.virtual_servers
        for family in sorted({key.family for key in virtual.keys})
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
