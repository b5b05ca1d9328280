"""check, plan, apply: a file against the kernel, once.

One rule: with a director running, plan and apply ask it; without one they take its lock and do the same by themselves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from director.cli import exits
from director.cli.options import file_argument, json_option, socket_option, state_option

if TYPE_CHECKING:
    from director.core.model import Config
    from director.core.plan import Step
    from director.core.vip import Vip
    from director.ipvs.client import IpvsClient
    from director.reconcile import Inputs, Reconciler

Line = Mapping[str, str]
_COLOURS = {"+": "green", "~": "yellow", "-": "red"}


@click.command()
@file_argument
def check(file: Path) -> None:
    """Say whether FILE is a good configuration; nothing is changed.

    Prints one line a problem, file:line:column: what, where, what to do, and exits 1 if there are any.
    """
    from director.core.config import parse_config
    from director.kit.configfile import read_text

    config = parse_config(read_text(file), str(file))
    servers = sum(len(virtual.real_servers) for virtual in config.virtual_servers)
    checked = sum(real.check is not None for virtual in config.virtual_servers for real in virtual.real_servers)
    click.echo(
        f"{click.format_filename(file)}: ok: {_count(len(config.virtual_servers), 'virtual server')}, "
        f"{_count(servers, 'real server')}, {checked} of them checked"
    )


@click.command()
@file_argument
@json_option
@socket_option
@state_option
def plan(file: Path, as_json: bool, socket_path: Path, state_directory: Path) -> int:
    """Show what applying FILE would change; nothing is changed.

    Exits 0 when nothing would change, 2 when something would, 1 on an error.
    """
    lines = _ask_or_do("plan", file, socket_path, state_directory)
    _print(lines, as_json, done=False)
    return exits.CHANGES if lines else exits.OK


@click.command()
@file_argument
@json_option
@socket_option
@state_option
def apply(file: Path, as_json: bool, socket_path: Path, state_directory: Path) -> None:
    """Bring the kernel's table and the addresses to what FILE says, once.

    A running director takes FILE as its configuration until it reloads or restarts. Without one, real servers
    get their configured weight, except that one which is checked and has weight 0 in the kernel keeps it.
    A setting of this host that does not fit is a line `note: ...` on standard error.

    Exits 0 when all was done, 1 on an error: the rest is done all the same where the kernel refused a part.
    """
    lines = _ask_or_do("apply", file, socket_path, state_directory)
    _print(lines, as_json, done=True)


def _ask_or_do(what: str, file: Path, socket_path: Path, state_directory: Path) -> Sequence[Line]:
    from director.advice import advice
    from director.api.client import Client
    from director.core.config import parse_config
    from director.kit.configfile import read_text

    text = read_text(file)
    config = parse_config(text, str(file))
    client = Client(socket_path)
    if client.is_running():
        source = str(file.absolute())  # the director works in another directory
        lines: Sequence[Line] = client.plan(text, source) if what == "plan" else client.apply(text, source)
    else:
        lines = _plan_once(config, state_directory) if what == "plan" else _apply_once(config, state_directory, file)
    for sentence in advice(config):
        click.echo(f"note: {sentence}", err=True)
    return lines


def _plan_once(config: Config, state_directory: Path) -> list[Line]:
    from director.core.plan import steps
    from director.ipvs.client import IpvsClient

    with IpvsClient.open() as kernel:
        reconciler = _reconciler(kernel, state_directory)
        inputs = _inputs_once(config, reconciler, state_directory)
        planned = reconciler.plan(inputs, reconciler.observe(config))
    return [_line(step) for step in steps(planned, config, inputs.weights())]


def _apply_once(config: Config, state_directory: Path, file: Path) -> list[Line]:
    from director.host.lockfile import NamespaceLock
    from director.ipvs.client import IpvsClient
    from director.kit.errors import DirectorError

    with NamespaceLock(f"director apply {file}"), IpvsClient.open() as kernel:
        reconciler = _reconciler(kernel, state_directory)
        outcome = reconciler.reconcile(_inputs_once(config, reconciler, state_directory))
    if outcome.failures:
        raise DirectorError("\n".join(outcome.failures))
    return [_line(step) for step in outcome.steps]


def _reconciler(kernel: IpvsClient, state_directory: Path) -> Reconciler:
    import logging

    from director.host import addresses
    from director.memory import Memory
    from director.reconcile import Reconciler

    # What the log would say is said by this command itself.
    logging.getLogger("director").addHandler(logging.NullHandler())
    return Reconciler(kernel, addresses, Memory(state_directory), _announce_once)


def _announce_once(vip: Vip) -> None:
    from director.host.announce import Announcer
    from director.kit.errors import HostError

    try:
        with Announcer() as announcer:
            announcer.send_once(vip)
    except HostError as error:  # the address is there, and neighbours learn of it when their ARP entries expire
        click.echo(f"note: {error}", err=True)


def _inputs_once(config: Config, reconciler: Reconciler, state_directory: Path) -> Inputs:
    """Without probes there will be no verdict: a checked server at weight 0 keeps it, others get the file's weight."""
    from director.overrides import Overrides
    from director.reconcile import Inputs

    adopted = {ref: weight for ref, weight in reconciler.adopted(config).items() if weight == 0}
    ready = frozenset(virtual.name for virtual in config.virtual_servers)
    return Inputs(config, wishes=Overrides(state_directory).wishes, adopted=adopted, ready=ready)


def _line(step: Step) -> Line:
    return {"sign": step.sign, "subject": step.subject, "detail": step.detail}


def _print(lines: Sequence[Line], as_json: bool, *, done: bool) -> None:
    if as_json:
        click.echo(json.dumps({"steps": lines}))
        return
    for line in lines:
        detail = f": {line['detail']}" if line["detail"] else ""
        click.secho(f"{line['sign']} {line['subject']}{detail}", fg=_COLOURS.get(line["sign"]))
    if lines:
        click.echo(f"{_count(len(lines), 'change')} {'made' if done else 'to make'}.")
    else:
        click.echo("Nothing to change: the kernel agrees with the file.")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
