"""A .socket unit for the addresses of a configuration (systemd.socket(5)).

One rule: it binds what l7proxy would bind, as l7proxy would: the same addresses, IPv6 for itself.
"""

from __future__ import annotations

from collections.abc import Iterator

from director.kit.net import Endpoint
from l7proxy.core.model import Config, Listener

FIRST_FREE = 1024
"""Ports from here on need no privilege (ip(7): ip_unprivileged_port_start)."""


def socket_unit(config: Config, source: str, *, is_for_all: bool) -> str | None:
    """The unit's text for ports below 1024, or for all listeners; None where there are none."""
    wanted = dict(_wanted(config, is_for_all))
    if not wanted:
        return None
    lines = [
        f"# Written by `l7proxy socket-unit {'--all ' if is_for_all else ''}{source}`.",
        "# systemd binds these, and keeps them while l7proxy restarts: who connects meanwhile waits.",
        "# After a change: systemctl daemon-reload && systemctl restart l7proxy.socket l7proxy.service",
        "",
        "[Unit]",
        "Description=Ports of l7proxy",
        "Documentation=man:l7proxy(1)",
        "",
        "[Socket]",
    ]
    for bind, said in wanted.items():
        lines += [f"# {said}", f"ListenStream={bind}"]
    lines += ["# An IPv6 address is for IPv6 alone, as in l7proxy.yaml.", "BindIPv6Only=ipv6-only"]
    if any(not bind.address.is_unspecified and not bind.address.is_loopback for bind in wanted):
        lines += ["# Sockets are bound before the network is up, and a VIP may come later.", "FreeBind=yes"]
    lines += [
        "Backlog=4096",
        "FileDescriptorName=l7proxy",
        "# Clients that come while l7proxy cannot be started must not make systemd close the sockets.",
        "TriggerLimitIntervalSec=0",
        "",
        "[Install]",
        "WantedBy=sockets.target",
    ]
    return "\n".join(lines) + "\n"


def _wanted(config: Config, is_for_all: bool) -> Iterator[tuple[Endpoint, str]]:
    """Addresses, and what they are. Of the admin endpoint and the agent only what else could not be bound: who asks
    them while nobody is there is better refused."""
    for bind, listener in sorted(config.binds.items()):
        if is_for_all or bind.port < FIRST_FREE:
            yield bind, f"listener {listener.name}{_kind(listener)}"
    if config.admin is not None and config.admin.port < FIRST_FREE:
        yield config.admin, "admin.bind"
    for bind in config.agent:
        if bind.port < FIRST_FREE:
            yield bind, "agent"


def _kind(listener: Listener) -> str:
    if listener.tcp is not None:
        return ", connections forwarded as they are"
    return ", TLS" if listener.tls is not None else ""
