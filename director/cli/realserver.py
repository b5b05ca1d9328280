"""realserver apply: what a DR real server needs on its own host."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from director.cli.options import state_option
from director.kit.errors import ConfigError

if TYPE_CHECKING:
    from director.kit.net import IPAddress


@click.group()
def realserver() -> None:
    """Prepare this host to be a real server behind a director that forwards with dr."""


@realserver.command()
@click.argument("file", type=click.Path(path_type=Path, readable=False), required=False)
@click.option("--vip", "vips", multiple=True, metavar="ADDRESS", help="A VIP to answer for; may be repeated.")
@click.option("--undo", is_flag=True, help="Take back everything that apply did on this host.")
@state_option
def apply(file: Path | None, vips: tuple[str, ...], undo: bool, state_directory: Path) -> None:
    """Put the VIPs on lo and keep this host silent about them (arp_ignore=1, arp_announce=2, set first).

    With FILE, the director's configuration, the VIPs are those of its dr virtual servers that have one of
    this host's addresses as a real server. A second run changes nothing. A VIP that is no longer named goes.
    """
    from director.host import realserver as host

    if undo and (file or vips):
        raise click.UsageError("--undo takes neither FILE nor --vip: it takes back what is remembered")
    if not undo and bool(file) == bool(vips):
        raise click.UsageError("name the VIPs: give either FILE or --vip ADDRESS (or --undo)")
    state_path = state_directory / host.STATE_PATH.name
    if undo:
        changes = host.undo(state_path)
    else:
        changes = host.apply(_from_file(file) if file else [_address(vip) for vip in vips], state_path)
    for change in changes:
        click.echo(str(change))
    if not changes:
        nothing = f"undo: {state_path} remembers nothing." if undo else "change: this host is a real server already."
        click.echo(f"Nothing to {nothing}")


def _address(text: str) -> IPAddress:
    from director.kit.net import parse_unicast

    try:
        address = parse_unicast(text)
    except ValueError as error:
        raise click.UsageError(f"--vip: {error}") from None
    if address.is_loopback:
        raise click.UsageError(f"--vip: {text} is a loopback address: give the address that clients connect to")
    return address


def _from_file(file: Path) -> list[IPAddress]:
    from director.core.config import parse_config
    from director.core.model import Method
    from director.host.addresses import held
    from director.kit.configfile import read_text

    config = parse_config(read_text(file), str(file))
    ours = {vip.address for vip in held()}
    found = [
        key.endpoint.address
        for virtual in config.virtual_servers
        for key in virtual.keys
        if virtual.method is Method.DR and key.endpoint is not None
        if any(real.address in ours for real in virtual.real_servers)
    ]
    if not found:
        raise ConfigError(
            f"{file}: no dr virtual server has an address of this host as a real server "
            f"(it has {', '.join(sorted(map(str, ours)))}): run this on a real server, or name the VIP with --vip"
        )
    return list(dict.fromkeys(found))
