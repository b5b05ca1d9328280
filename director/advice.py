"""What this host's own settings lack for a configuration: sentences for the log and the command line.

One rule: it only looks, and a setting that cannot be read is a sentence too, never an end.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import suppress

from director.core.model import Config, ServerRef
from director.core.notifying import Script
from director.host import addresses, settings
from director.host.surroundings import dead_connections, path_needs, uses
from director.kit.checks.base import Tls
from director.kit.checks.check import Check, leaves
from director.kit.checks.script import ScriptProbe
from director.kit.errors import HostError
from director.kit.scriptfiles import command_problems


def advice(config: Config) -> tuple[str, ...]:
    """One sentence for each setting of this host that is not as `config`'s forwarding methods need it."""
    try:
        return (*dict.fromkeys(addresses.missing(config.vips()).values()), *_unmanaged(config), *files(config))
    except (HostError, OSError) as error:
        return (f"could not look at this host's settings: {error}",)


def files(config: Config) -> tuple[str, ...]:
    """One sentence for each program that `config` names and that would not be run, and each file not to be read."""
    return tuple(dict.fromkeys((*_programs(config), *_unreadable(config))))


def _programs(config: Config) -> Iterator[str]:
    told = [
        (each.label, each.receiver.command, each.receiver.user)
        for each in config.notifications
        if isinstance(each.receiver, Script)
    ]
    told += [
        (f"{name} of {virtual.name}", hook.command, hook.user)
        for virtual in config.virtual_servers
        for name, hook in (("quorum_up", virtual.policy.quorum.on_up), ("quorum_down", virtual.policy.quorum.on_down))
        if hook is not None
    ]
    told += [
        (f"check of {ref}", check.probe.command, check.probe.user)
        for ref, check in _checks(config)
        if isinstance(check.probe, ScriptProbe)
    ]
    seen: set[tuple[str, str | None]] = set()
    for label, command, user in told:
        if (command[0], user) not in seen:  # one program may check thousands
            seen.add((command[0], user))
            problem = command_problems(command, user)
            if problem:
                yield f"{label}: {problem}"
            if user is not None and os.geteuid() not in {0, _uid(user)}:
                yield (
                    f"{label}: {command[0]} is not run as {user}: a director that is not root runs programs as itself, "
                    "without its capabilities"
                )


def _uid(user: str) -> int | None:
    with suppress(KeyError):
        return pwd.getpwnam(user).pw_uid
    return None


def _unreadable(config: Config) -> Iterator[str]:
    """Certificates, keys and passwords; of many checks that name one file, the first is told."""
    seen: set[str] = set()
    for ref, check in _checks(config):
        tls = getattr(check.probe, "tls", None)
        named = (tls.ca, tls.certificate, tls.key) if isinstance(tls, Tls) else ()
        for path in (*named, getattr(check.probe, "password_file", None)):
            if path is None or path in seen:
                continue
            seen.add(path)
            try:
                with open(path, "rb"):  # noqa: PTH123 -- a look, and no more
                    pass
            except OSError as error:
                yield f"check of {ref}: {path} cannot be read ({error.strerror}): its probes cannot be made"


def _checks(config: Config) -> Iterator[tuple[ServerRef, Check]]:
    for virtual in config.virtual_servers:
        for ref, real in zip(virtual.refs, virtual.real_servers, strict=True):
            for check in (*leaves(real.check), *leaves(real.load)):
                yield ref, check


def _unmanaged(config: Config) -> tuple[str, ...]:
    """Settings that are for the operator to set: where the director keeps them, the plan has them."""
    if config.manage_settings:
        return ()
    more = path_needs(config).requirements
    return settings.check(uses(config), dead_connections=dead_connections(config), more=more)
