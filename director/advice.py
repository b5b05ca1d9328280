"""What this host's own settings lack for a configuration: sentences for the log and the command line.

One rule: it only looks, and a setting that cannot be read is a sentence too, never an end.
"""

from __future__ import annotations

from director.core.model import Config
from director.host import addresses, settings
from director.host.surroundings import dead_connections, path_needs, uses
from director.kit.errors import HostError


def advice(config: Config) -> tuple[str, ...]:
    """One sentence for each setting of this host that is not as `config`'s forwarding methods need it."""
    try:
        return (*dict.fromkeys(addresses.missing(config.vips()).values()), *_unmanaged(config))
    except (HostError, OSError) as error:
        return (f"could not look at this host's settings: {error}",)


def _unmanaged(config: Config) -> tuple[str, ...]:
    """Settings that are for the operator to set: where the director keeps them, the plan has them."""
    if config.manage_settings:
        return ()
    more = path_needs(config).requirements
    return settings.check(uses(config), dead_connections=dead_connections(config), more=more)
