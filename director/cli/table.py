"""check, plan, apply: a file against the kernel, once.

One rule: with a director running, plan and apply ask it; without one they take its lock and do the same by themselves.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from director.cli import exits
from director.cli.options import file_argument, json_option, socket_option, state_option

if TYPE_CHECKING:
    from director.api.client import Client
    from director.core.model import Config
    from director.core.steps import Applied, Step
    from director.core.vip import Vip
    from director.ipvs.client import IpvsClient
    from director.reconcile import Inputs, Reconciler

ANNOUNCE_EVERY_S = 0.05

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
    text, config, client = _read(file, socket_path)
    lines = client.plan(text, _source(file)) if client.is_running() else _plan_once(config, state_directory)
    _note(_advice(config))
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

    Another forwarding method waits until a real server's connections have ended: a running director sees to the
    rest by itself; without one, run apply again.

    Exits 0 when all was done, or a running director waits for connections to end; 1 on an error: what could be
    done is done and shown all the same where the kernel refused a part.
    """
    from director.kit.errors import DirectorError

    text, config, client = _read(file, socket_path)
    if client.is_running():
        answer = client.apply(text, _source(file))
        lines: Sequence[Line] = answer["steps"]
        failures, notes = answer["failures"], answer["waiting"]
    else:
        applied = _apply_once(config, state_directory, file)
        lines, notes = [_line(step) for step in applied.steps], []
        failures = [*applied.failures, *(f"{sentence}: run apply again then" for sentence in applied.waiting)]
    _note([*notes, *_advice(config)])
    if lines or not (failures or notes):
        _print(lines, as_json, done=True)
    if failures:
        raise DirectorError("\n".join(failures))


def _read(file: Path, socket_path: Path) -> tuple[str, Config, Client]:
    from director.api.client import Client
    from director.core.config import parse_config
    from director.kit.configfile import read_text

    text = read_text(file)
    return text, parse_config(text, str(file)), Client(socket_path)


def _source(file: Path) -> str:
    return str(file.absolute())  # the director works in another directory


def _advice(config: Config) -> tuple[str, ...]:
    from director.advice import advice

    return advice(config)


def _note(sentences: Iterable[str]) -> None:
    for sentence in sentences:
        click.echo(f"note: {sentence}", err=True)


def _plan_once(config: Config, state_directory: Path) -> Sequence[Line]:
    from director.core.steps import steps
    from director.ipvs.client import IpvsClient

    with IpvsClient.open() as kernel:
        reconciler = _reconciler(kernel, state_directory)
        inputs = _inputs_once(config, reconciler, state_directory)
        planned = reconciler.plan(inputs, reconciler.observe(config))
    return [_line(step) for step in steps(planned, config, inputs.weights())]


def _apply_once(config: Config, state_directory: Path, file: Path) -> Applied:
    from director.core.steps import Applied
    from director.host.lockfile import NamespaceLock, StateLock
    from director.ipvs.client import IpvsClient

    raised: list[Vip] = []
    purpose = f"director apply {file}"
    with NamespaceLock(purpose), StateLock(purpose, state_directory), IpvsClient.open() as kernel:
        reconciler = _reconciler(kernel, state_directory, raised.append)
        outcome = reconciler.reconcile(_inputs_once(config, reconciler, state_directory))
    _announce(raised)
    return Applied(outcome.steps, outcome.failures, outcome.waiting)


def _reconciler(
    kernel: IpvsClient, state_directory: Path, announce: Callable[[Vip], None] = lambda vip: None
) -> Reconciler:
    import logging

    from director.host import addresses
    from director.memory import Memory
    from director.reconcile import Reconciler

    # What the log would say is said by this command itself.
    logging.getLogger("director").addHandler(logging.NullHandler())
    return Reconciler(kernel, addresses, Memory(state_directory), announce)


def _announce(vips: Sequence[Vip]) -> None:
    """Tell the neighbours as often as a director does, closer together: somebody waits for this command."""
    import time

    from director.announcements import TIMES
    from director.host.announce import Announcer
    from director.kit.errors import HostError

    if not vips:
        return
    try:
        with Announcer() as announcer:
            for number in range(TIMES):
                if number:
                    time.sleep(ANNOUNCE_EVERY_S)
                for vip in vips:
                    announcer.send_once(vip)
    except HostError as error:  # the address is there, and neighbours learn of it when their ARP entries expire
        _note([str(error)])


def _inputs_once(config: Config, reconciler: Reconciler, state_directory: Path) -> Inputs:
    """Without probes there will be no verdict: a checked server at weight 0 keeps it, others get the file's weight.

    One that another forwarding method has at 0 is taken as drained for the change.
    """
    from director.core.status import found
    from director.overrides import Overrides
    from director.reconcile import Inputs

    table = reconciler.observe(config).table
    adopted = {
        virtual.ref(place.real): 0
        for virtual, place in config.placed()
        if (row := found(table, place)) is not None and (row.forward, row.weight) == (virtual.method.forward, 0)
    }
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
