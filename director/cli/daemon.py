"""run, status, drain, enable, weight, maintenance: the daemon, and what is asked of it over its admin socket."""

from __future__ import annotations

import json
import re
import signal
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from director.cli import offered
from director.cli.lines import count, note
from director.cli.options import duration_option, file_argument, json_option, socket_option, state_option

if TYPE_CHECKING:
    from director.core.status import RealServerStatus, Status, VirtualServerStatus


@click.command()
@file_argument
@socket_option
@state_option
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="What to log, on standard error.",
)
def run(file: Path, socket_path: Path, state_directory: Path, log_level: str) -> None:
    """Keep the kernel at what FILE and the probes say, until stopped.

    SIGHUP or `director reload` reloads FILE (a bad one changes nothing). SIGTERM stops, and leaves the table and the
    addresses as they are: the kernel keeps forwarding. On start what is in the kernel is adopted, never flushed.

    Exits 0 when it was told to stop, 1 when it cannot begin, and then nothing has changed.
    """
    # Held back until the director can act on it: by default it would kill, and importing takes its time.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        import faulthandler

        from director import daemon
        from director.kit import logs

        faulthandler.enable(2)  # a watchdog that is not fed ends in SIGABRT: where every thread was is in the log

        logs.configure(log_level.upper())
        daemon.run(file, socket_path, state_directory)
    finally:
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what waits is dropped: it must not kill at the end
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        signal.signal(signal.SIGHUP, before)


@click.command()
@json_option
@socket_option
def status(as_json: bool, socket_path: Path) -> None:
    """Show every virtual server: its real servers, their weights, and why each weight is what it is.

    Exits 0 when the director answers, whatever it says, and 1 when none does.
    """
    from director.api.client import Client

    found = Client(socket_path).status()
    if as_json:
        click.echo(json.dumps(found))
    else:
        _print(found)


def _names(ctx: click.Context, _: click.Parameter, words: tuple[str, ...]) -> tuple[str, ...]:
    """`web a` or `web/a`; while a shell completes them, what there is."""
    if ctx.resilient_parsing:
        return words
    match words[0].split("/") if len(words) == 1 else words:
        case [virtual_server, real_server] if virtual_server and real_server:
            return virtual_server, real_server
    raise click.UsageError("name the virtual server and its real server: `web a` or `web/a`")


_real_server = click.argument(
    "names",
    nargs=-1,
    required=True,
    metavar="VIRTUAL_SERVER REAL_SERVER",
    callback=_names,
    shell_complete=offered.names,
)


@click.command()
@_real_server
@socket_option
def drain(names: tuple[str, str], socket_path: Path) -> None:
    """Give REAL_SERVER of VIRTUAL_SERVER no new connections; those it has go on. Survives a restart.

    Exits 0 when the kernel has it, 1 on an error.
    """
    from director.api.client import Client

    notes = Client(socket_path).drain(*names)
    click.echo(f"{'/'.join(names)} is drained; `director enable` takes it back.")
    note(notes)


@click.command()
@_real_server
@socket_option
def enable(names: tuple[str, str], socket_path: Path) -> None:
    """Undo drain, weight and maintenance: REAL_SERVER is back to what the file and its check say.

    Exits 0 when the kernel has it, 1 on an error.
    """
    from director.api.client import Client

    notes = Client(socket_path).enable(*names)
    click.echo(f"{'/'.join(names)} follows the file and its check again.")
    note(notes)


class _Numbers(click.Command):
    """`-1` is a number that is out of range, and no option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:
            args = [*args, "0"]  # the weight that will be: what a shell has so far are names
        negative = [each for each in args if re.fullmatch(r"-[0-9]+", each)]
        if negative and "--" not in args:
            args = [*(each for each in args if each not in negative), "--", *negative]
        return super().parse_args(ctx, args)


@click.command(cls=_Numbers)
@_real_server
@click.argument("weight", type=click.IntRange(0, 65535))
@socket_option
def weight(names: tuple[str, str], weight: int, socket_path: Path) -> None:
    """Use WEIGHT for REAL_SERVER instead of the file's, while it is up. Survives a restart.

    Exits 0 when the kernel has it, 1 on an error.
    """
    from director.api.client import Client

    notes = Client(socket_path).weight(*names, weight)
    click.echo(f"{'/'.join(names)} has weight {weight} while it is up; `director enable` takes it back.")
    note(notes)


@click.command()
@_real_server
@click.option("--reason", default="", metavar="TEXT", help="Why, for whoever looks at it later.")
@duration_option("--for", "for_s", "End it by itself after DURATION, such as 2h; default: `director enable` ends it.")
@socket_option
def maintenance(names: tuple[str, str], reason: str, for_s: float | None, socket_path: Path) -> None:
    """Take REAL_SERVER of VIRTUAL_SERVER out for work on it: no new connections. Survives a restart.

    Exits 0 when the kernel has it, 1 on an error.
    """
    from director.api.client import Client

    notes = Client(socket_path).maintenance(*names, reason, for_s)
    if for_s is None:
        ends = "`director enable` ends it"
    else:
        at = datetime.now().astimezone() + timedelta(seconds=for_s)
        ends = f"it ends by itself at {at:%Y-%m-%d %H:%M:%S %Z}, or by `director enable`"
    click.echo(f"{'/'.join(names)} is in maintenance; {ends}.")
    note(notes)


def _print(found: Status) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from director.core.naming import by_name

    # Piped output has no width of its own: lines stay whole there.
    console = Console(
        highlight=False, markup=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200
    )
    for virtual in found["virtual_servers"]:
        console.print(Text(_heading(virtual), style="bold"))
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("  real server")
        table.add_column("address", no_wrap=True)
        for heading in ("weight", "kernel", "active", "inactive"):
            table.add_column(heading, justify="right")
        table.add_column("why")
        for real in virtual["real_servers"]:
            style = _style(real)
            table.add_row(
                Text(f"  {real['name']}", style=style),
                Text(by_name(_endpoint(real["address"], real["port"]), real.get("host", ""))),
                Text(str(real["weight"]), style=style),
                _in_kernel(real),
                str(real["active"]),
                str(real["inactive"]),
                Text(real["reason"] + _until(real), style=style),
            )
        console.print(table)
        for real in virtual["real_servers"]:
            if real["warning"]:
                console.print(Text(f"  {real['name']}: {real['warning']}", style="yellow"))
        for sentence in virtual["drift"]:
            console.print(Text(f"  drift: {sentence}", style="yellow"))
        console.print()
    daemon = found["daemon"]
    for line in daemon["reload_refused"]:
        console.print(Text(f"reload refused, the old configuration stays: {line}", style="red"))
    for failure in daemon["failures"]:
        console.print(Text(f"could not change: {failure}", style="red"))
    for sentence in daemon["waiting"]:
        console.print(Text(sentence, style="yellow"))
    for leaving in daemon["leaving"]:
        connections = count(leaving["connections"], "connection")
        left = "" if daemon["drain_left_s"] is None else f", removed in {daemon['drain_left_s']:.0f}s at the latest"
        console.print(Text(f"{leaving['name']} leaves: {connections}{left}", style="yellow"))
    if daemon["unconfirmed"]:
        until, left_s = daemon["unconfirmed"]["until"], daemon["unconfirmed"]["left_s"]
        told = f"NOT CONFIRMED: undone at {until} (in {left_s:.0f}s) unless `director confirm` comes"
        console.print(Text(told, style="bold yellow"))
    for sentence in [*(f"drift: {each}" for each in daemon["drift"]), *daemon["notes"]]:
        console.print(Text(sentence, style="yellow"))
    if daemon["drift_repaired"]:
        console.print(f"changed by somebody else and put right since the start: {daemon['drift_repaired']}")
    agrees = "the kernel agrees" if daemon["converged"] else "the kernel does NOT agree yet"
    if daemon["converged"] and (daemon["drift"] or any(virtual["drift"] for virtual in found["virtual_servers"])):
        agrees += ", but for the drift above"
    console.print(f"director {daemon['version']}, pid {daemon['pid']}, {daemon['config']}: {agrees}")


def _until(real: RealServerStatus) -> str:
    out = real["maintenance"]
    if out is None or out["until"] is None:
        return ""
    return f", until {datetime.fromtimestamp(out['until']).astimezone():%Y-%m-%d %H:%M:%S %Z}"


def _heading(virtual: VirtualServerStatus) -> str:
    from director.core.describe import describe_keys
    from director.core.table import VirtualKey
    from director.kit.duration import format_duration

    entries, there = len(virtual["keys"]), virtual["keys_in_kernel"]
    words = [
        virtual["name"],
        describe_keys(map(VirtualKey.parse, virtual["keys"])),
        virtual["forward"],
        virtual["scheduler"],
        *virtual["scheduler_flags"],
    ]
    if virtual["persistence_s"]:
        words.append(f"persistence {format_duration(virtual['persistence_s'])}")
    if not there:
        words.append("NOT IN THE KERNEL")
    elif there < entries:
        words.append(f"ONLY {there} of {entries} entries in the kernel")
    elif not any(_takes_connections(real) for real in virtual["real_servers"]):
        words.append("NO REAL SERVER TAKES CONNECTIONS")
    if virtual["quorum"] == "lost":
        words.append("QUORUM LOST")
    if virtual["panic"]:
        words.append("PANIC: too many are down for the probes to be trusted")
    if virtual["interface"]:
        words.append(f"vip {'on' if virtual['vip_present'] else 'NOT on'} {virtual['interface']}")
    return "  ".join(words)


def _in_kernel(real: RealServerStatus) -> str:
    weight = "absent" if real["kernel_weight"] is None else str(real["kernel_weight"])
    some = 0 < real["entries_wrong"] < real["entries"]
    return f"{weight} in {real['entries_wrong']} of {real['entries']}" if some else weight


def _takes_connections(real: RealServerStatus) -> bool:
    right = real["entries_wrong"] < real["entries"]
    return bool(real["kernel_weight"] or (right and real["weight"]))


def _style(real: RealServerStatus) -> str:
    if real["health"] == "down":
        return "red"
    return "yellow" if real["weight"] == 0 or real["health"] == "pending" else "green"


def _endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
