"""realserver apply, check: what dr, tun and nat need on a real server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from director.cli.options import state_option, vip_address
from director.kit.errors import HostError

if TYPE_CHECKING:
    from director.cli.realserver_parts import Part
    from director.core.table import Tunnel
    from director.kit.net import IPAddress

GUE_PORT = 6080  # IANA's for GUE

_file = click.argument("file", type=click.Path(path_type=Path, readable=False), required=False)
_directors = click.option(
    "--director",
    "directors",
    multiple=True,
    metavar="ADDRESS",
    help="A director, by the address it has on the way to this host; may be repeated.",
)


@click.group()
def realserver() -> None:
    """Prepare this host to be a real server behind a director."""


@realserver.command()
@_file
@click.option("--vip", "vips", multiple=True, metavar="ADDRESS", help="A VIP to answer for; may be repeated.")
@click.option("--forward", type=click.Choice(["dr", "tun", "nat"]), help="With --vip: how its director forwards.  [dr]")
@click.option("--tunnel", type=click.Choice(["ipip", "gre", "gue"]), help="With --forward tun: how it wraps.  [ipip]")
@click.option(
    "--tunnel-port", type=click.IntRange(1, 65535), metavar="PORT", help=f"With --tunnel gue: UDP port.  [{GUE_PORT}]"
)
@click.option("--tunnel-checksum", is_flag=True, help="With --tunnel gre: the director adds checksums.")
@_directors
@click.option("--no-mss", is_flag=True, help="tun: leave alone the segment size that clients are told.")
@click.option("--undo", is_flag=True, help="Take back everything that apply did on this host.")
@state_option
def apply(
    file: Path | None,
    vips: tuple[str, ...],
    forward: str | None,
    tunnel: str | None,
    tunnel_port: int | None,
    tunnel_checksum: bool,
    directors: tuple[str, ...],
    no_mss: bool,
    undo: bool,
    state_directory: Path,
) -> None:
    """Make this host the real server of the VIPs.

    \b
    dr   the VIP on lo, and silence about it (arp_ignore=1, arp_announce=2, set first)
    tun  a tunnel device for each --director with the VIP on it, rp_filter=2 there, the same silence, and
         an iptables rule that tells clients to send what still fits once it is wrapped (MSS)
    nat  nothing: it checks that this host's gateway is the --director

    With FILE, the director's configuration, the VIPs are those of its virtual servers that have one of this
    host's addresses as a real server. A second run changes nothing. A VIP that is no longer named goes.

    Exits 0 when all is set, 1 on an error and when the gateway is wrong.
    """
    from director.host import realserver as host

    tunneling = {"--tunnel": tunnel, "--tunnel-port": tunnel_port, "--tunnel-checksum": tunnel_checksum}
    _check_options(file, vips, forward, tunneling, undo, {"--director": directors, "--no-mss": no_mss})
    state_path = state_directory / host.STATE_PATH.name
    if undo:
        _tell(host.undo(state_path), f"undo: {state_path} remembers nothing.")
        return

    from director.cli import realserver_parts as of
    from director.host.addresses import held

    there = held()
    ends = [_address("--director", text) for text in directors]
    if file:
        parts = of.parts_of_file(file, there)
    else:
        wrapping = _tunnel(tunnel or "ipip", tunnel_port, tunnel_checksum)
        parts = [of.Part(text, vip_address(text), forward or "dr", tunnel=wrapping) for text in vips]
    wanted = of.served(parts, ends, there)
    for each in wanted:
        if each.tunnel and not each.directors:
            click.echo(
                f"warning: {each.vip}: whoever can reach {', '.join(map(str, each.locals))} can put packets into "
                "this host's tunnel: name the directors with --director",
                err=True,
            )
    _tell(host.apply(wanted, state_path, clamp=not no_mss), "change: this host is a real server already.")
    _check_gateway([part for part in parts if part.method == "nat"], ends, ())


@realserver.command()
@_file
@_directors
@click.option("--client", "clients", multiple=True, metavar="ADDRESS", help="A client to find the way to, for all.")
def check(file: Path | None, directors: tuple[str, ...], clients: tuple[str, ...]) -> None:
    """Check what nat needs on this host: that answers leave by the --director. Changes nothing.

    Looks at the way to each --client, without any at the default route. With FILE, the director's configuration,
    it does so for its nat virtual servers that have one of this host's addresses as a real server.

    Exits 0 when all is well, 1 when it is not.
    """
    from director.cli import realserver_parts as of

    if not directors:
        raise click.UsageError("name the director with --director ADDRESS: which router is it?")
    ends = [_address("--director", text) for text in directors]
    to = [_address("--client", text) for text in clients]
    for client in to:
        if client.version not in {end.version for end in ends}:
            raise click.UsageError(f"--client: {client} is IPv{client.version}, and no --director is")
    if file:
        from director.host.addresses import held

        parts = [part for part in of.parts_of_file(file, held()) if part.method == "nat"]
        if not parts:
            click.echo(f"Nothing to check: no nat virtual server of {file} has an address of this host.")
            return
        _check_gateway(parts, ends, to)
    else:
        _check_ways({(end.version, None) for end in ends}, ends, to)
    click.echo("ok: answers leave by the director.")


def _check_options(
    file: Path | None,
    vips: Sequence[str],
    forward: str | None,
    tunneling: dict[str, Any],
    undo: bool,
    others: dict[str, Any],
) -> None:
    """Raises: UsageError for options that do not go together."""
    if undo and (file or vips or forward or any(tunneling.values()) or any(others.values())):
        raise click.UsageError("--undo takes neither FILE nor --vip nor what goes with it: it takes back what it knows")
    if not undo and bool(file) == bool(vips):
        raise click.UsageError("name the VIPs: give either FILE or --vip ADDRESS (or --undo)")
    for option, given in {"--forward": forward, **tunneling}.items():
        if given and file:
            raise click.UsageError(f"{option} goes with --vip: with FILE it is the file that says so")
    for option, given in tunneling.items():
        if given and forward != "tun":
            raise click.UsageError(f"{option} goes with --forward tun")
    if tunneling["--tunnel-port"] and tunneling["--tunnel"] != "gue":
        raise click.UsageError("--tunnel-port goes with --tunnel gue: ipip and gre have no ports")
    if tunneling["--tunnel-checksum"] and tunneling["--tunnel"] != "gre":
        raise click.UsageError("--tunnel-checksum goes with --tunnel gre: gue needs no setting for it, ipip has none")


def _tell(changes: Sequence[object], nothing: str) -> None:
    for change in changes:
        click.echo(str(change))
    if not changes:
        click.echo(f"Nothing to {nothing}")


def _check_gateway(parts: Sequence[Part], directors: Sequence[IPAddress], clients: Sequence[IPAddress]) -> None:
    """Raises: HostError when answers of a nat virtual server do not leave by a director."""
    from director.host import gateway

    for vip in dict.fromkeys(part.vip for part in parts):
        if gateway.is_on_link(vip):
            click.echo(
                f"warning: {vip} is in a network of this host: nat does not work for clients in that network, "
                "since this host answers them directly",
                err=True,
            )
    ways = dict.fromkeys(
        (part.vip.version if part.address is None else part.address.version, part.address) for part in parts
    )
    for version in {version for version, _ in ways} - {director.version for director in directors}:
        hops = " and ".join(str(hop or "no router") for hop in gateway.default(version)) or "no route at all"
        click.echo(
            f"warning: nat: the default route for IPv{version} leads to {hops}, which must be the director: "
            "name it with --director ADDRESS, and it is checked",
            err=True,
        )
    _check_ways(set(ways), directors, clients)


def _check_ways(
    ways: set[tuple[int, IPAddress | None]], directors: Sequence[IPAddress], clients: Sequence[IPAddress]
) -> None:
    from director.host import gateway

    findings: list[str] = []
    for version, source in sorted(ways, key=str):
        routers = [director for director in directors if director.version == version]
        to = [client for client in clients if client.version == version]
        if routers and (to or not clients):
            findings += gateway.check(version, routers, to, source)
    if findings:
        raise HostError("\n".join(dict.fromkeys(findings)))


def _tunnel(kind: str, port: int | None, checksum: bool) -> Tunnel:
    from director.core.table import Tunnel, TunnelFlags, TunnelKind

    flags = TunnelFlags.CHECKSUM if checksum else TunnelFlags.NONE
    return Tunnel(TunnelKind(kind), (port or GUE_PORT) if kind == "gue" else 0, flags)


def _address(option: str, text: str) -> IPAddress:
    from ipaddress import ip_address

    try:
        address = ip_address(text)
    except ValueError:
        raise click.UsageError(f"{option}: {text!r} is not an IP address: use one such as 10.0.0.1") from None
    if address.is_multicast or address.is_unspecified or address.is_loopback:
        raise click.UsageError(f"{option}: {text} is no address of another host")
    return address
