"""What this host's own settings lack for a configuration: sentences for the log and the command line.

One rule: it only looks, and a setting that cannot be read is a sentence too, never an end.
"""

from __future__ import annotations

from collections.abc import Iterator

from director.core.model import Config
from director.core.notifying import Script
from director.host import addresses, settings
from director.host.surroundings import dead_connections, path_needs, uses
from director.kit.errors import HostError
from director.kit.scriptfiles import command_problems


def advice(config: Config) -> tuple[str, ...]:
    """One sentence for each setting of this host that is not as `config`'s forwarding methods need it."""
    try:
        return (*dict.fromkeys(addresses.missing(config.vips()).values()), *_unmanaged(config), *_scripts(config))
    except (HostError, OSError) as error:
        return (f"could not look at this host's settings: {error}",)


def _scripts(config: Config) -> Iterator[str]:
    """Programs that would not be run."""
    for each in config.notifications:
        if isinstance(each.receiver, Script):
            problem = command_problems(each.receiver.command, each.receiver.user)
            if problem:
                yield f"{each.label}: {problem}"


def _unmanaged(config: Config) -> tuple[str, ...]:
    """Settings that are for the operator to set: where the director keeps them, the plan has them."""
    if config.manage_settings:
        return ()
    more = path_needs(config).requirements
    return settings.check(uses(config), dead_connections=dead_connections(config), more=more)
