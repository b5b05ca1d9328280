"""Names that a shell is offered for a word of the command line: those of the running director."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from director.kit.completion import ANSWER_WITHIN_S, offer

if TYPE_CHECKING:
    import click

    from director.core.status import VirtualServerStatus


def _asked(ctx: click.Context) -> list[VirtualServerStatus]:
    from director.api import SOCKET
    from director.api.client import Client

    return Client(ctx.params.get("socket_path") or SOCKET, ANSWER_WITHIN_S).status()["virtual_servers"]


def _virtual_servers(ctx: click.Context, _: str) -> Iterable[str]:
    return [each["name"] for each in _asked(ctx)]


def _real_servers(ctx: click.Context, _: str) -> Iterable[str]:
    """Those of the virtual server that the line names, or of all."""
    virtual_server = ctx.params.get("virtual_server") or ctx.params.get("vs")
    found = _asked(ctx)
    if virtual_server:
        found = [each for each in found if each["name"] == virtual_server]
    return sorted({real["name"] for each in found for real in each["real_servers"]})


def _either(ctx: click.Context, incomplete: str) -> Iterable[str]:
    """For `web a` and `web/a`: what may come next."""
    match ctx.params.get("names") or ():
        case []:
            found = _asked(ctx)
            if "/" not in incomplete:
                return [each["name"] for each in found]
            return [f"{each['name']}/{real['name']}" for each in found for real in each["real_servers"]]
        case [name] if "/" not in name:
            return [real["name"] for each in _asked(ctx) if each["name"] == name for real in each["real_servers"]]
    return []


virtual_servers = offer(_virtual_servers)
real_servers = offer(_real_servers)
names = offer(_either)
