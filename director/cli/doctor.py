"""doctor: what keeps this host from serving, and what to do about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from director.cli import exits
from director.cli.options import json_option, vip_address

if TYPE_CHECKING:
    from director.doctor.checkup import Report
    from director.doctor.situation import Situation

DEFAULT_FILE = Path("/etc/director/director.yaml")


@click.command()
@click.argument("file", type=click.Path(path_type=Path, readable=False), required=False)
@click.option("--vip", "vips", multiple=True, metavar="ADDRESS", help="On a real server without FILE: a VIP it serves.")
@click.option("--forward", type=click.Choice(["dr", "tun", "nat"]), help="With --vip: how its packets come here.")
@click.option(
    "--role",
    type=click.Choice(["auto", "director", "realserver"]),
    default="auto",
    show_default=True,
    help="As what to look at this host. auto: a real server of FILE if it has the address of one, else a director.",
)
@json_option
def doctor(file: Path | None, vips: tuple[str, ...], forward: str | None, role: str, as_json: bool) -> int:
    """Find what keeps this host from serving, as a director or as a real server; nothing is changed.

    FILE is the director's configuration, on a real server too [default: /etc/director/director.yaml].

    Prints one line a finding, the worst first: error, warning or note, a code that docs/doctor.md explains, what was
    found where, and what to do; then a line that says how much was looked at.

    Takes a second or two. What it sends: ARP requests or neighbour solicitations for the VIPs and the real servers
    (without root an empty UDP datagram to port 9 of each real server instead); on a nat real server an echo request
    to each VIP; on a real server perhaps a connection to its own port. Without root some looks are skipped, and
    said to be.

    Exits 0 when there is nothing, or notes alone; 2 with warnings; 1 with errors, also when FILE is wrong.
    """
    from director.doctor.checkup import checkup
    from director.doctor.finding import Severity
    from director.doctor.gather import Role
    from director.kit.errors import ConfigError

    report = checkup(_situation(file, vips, forward, role), Role("realserver" if vips else role))
    if role == "realserver" and not report.serves:
        raise ConfigError(
            f"{file or DEFAULT_FILE}: no virtual server has an address of this host as a real server: run this on a "
            "real server, or name what it serves with --vip and --forward"
        )
    if as_json:
        click.echo(json.dumps(_plain(report)))
    else:
        for finding in report.findings:
            click.echo(str(finding))
        click.echo(report.summary())
    if report.count(Severity.ERROR):
        return exits.ERROR
    return exits.WARNINGS if report.count(Severity.WARNING) else exits.OK


def _situation(file: Path | None, vips: tuple[str, ...], forward: str | None, role: str) -> Situation:
    from director.doctor.situation import METHODS, of_config, of_vips

    if bool(vips) != bool(forward):
        raise click.UsageError("--vip and --forward belong together: give both, or a FILE")
    if forward and file:
        raise click.UsageError("give either FILE or --vip")
    if forward and role == "director":
        raise click.UsageError("--vip is for a real server: a director needs FILE")
    if forward:
        return of_vips([vip_address(vip) for vip in vips], METHODS[forward])
    from director.cli.configuration import read_configuration
    from director.kit.errors import ConfigError

    if file is None and not DEFAULT_FILE.exists():
        raise ConfigError(
            f"{DEFAULT_FILE} does not exist: give the director's FILE; on a real server "
            "`director doctor --vip ADDRESS --forward METHOD` does without one"
        )
    file = file or DEFAULT_FILE
    return of_config(read_configuration(file)[1], str(file))


def _plain(report: Report) -> dict[str, object]:
    return {
        "findings": [
            {
                "severity": finding.severity.value,
                "code": finding.code.value,
                "subject": finding.subject,
                "found": finding.found,
                "remedy": finding.remedy,
            }
            for finding in report.findings
        ],
        "looks": list(report.looks),
        "not_made": list(report.unmade),
        "director_of": list(dict.fromkeys(virtual.name for virtual in report.directs)),
        "real_server_of": list(dict.fromkeys(virtual.name for virtual in report.serves)),
    }
