"""check and plan: a file by itself, and against the kernel.

One rule: with a director running, plan asks it; without one it looks at the kernel by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from director.cli import exits
from director.cli.configuration import read_configuration
from director.cli.lines import count, note, print_plan
from director.cli.options import file_argument, json_option, socket_option, state_option
from director.kit.errors import DirectorError

if TYPE_CHECKING:
    from director.api.client import Client
    from director.core.model import Config


@click.command()
@file_argument
@state_option
def check(file: Path, state_directory: Path) -> None:
    """Say whether FILE is a good configuration; nothing is changed.

    Prints one line a problem, file:line:column: what, where, what to do, and exits 1 if there are any. Lines `note:`
    name programs and files that this host lacks. Then how long a failure and a recovery take to be seen at worst.
    """
    _, config = read_configuration(file, state_directory)
    servers = sum(not real.is_sorry for virtual in config.virtual_servers for real in virtual.real_servers)
    checked = sum(real.check is not None for virtual in config.virtual_servers for real in virtual.real_servers)
    click.echo(
        f"{click.format_filename(file)}: ok: {count(len(config.virtual_servers), 'virtual server')}, "
        f"{count(servers, 'real server')}, {checked} of them checked"
    )
    for line in _detection(config):
        click.echo(line)
    from director.advice import files

    note(files(config))


def _detection(config: Config) -> Iterator[str]:
    """How long a failure and a recovery take to be seen at worst, once for each virtual server's checks alike."""
    from director.core.detection import detection

    for virtual in config.virtual_servers:
        for line in detection(virtual):
            yield f"  {virtual.name}: {line}"


@click.command()
@file_argument
@json_option
@socket_option
@state_option
def plan(file: Path, as_json: bool, socket_path: Path, state_directory: Path) -> int:
    """Show what applying FILE would change, and what that does to traffic; nothing is changed.

    Lines `note: the kernel also holds ...` tell what no file can say and director leaves alone.

    Exits 0 when nothing would change, 2 when something would, 1 on an error, and where an apply would fail.
    """
    from director.cli import alone

    text, config, client = read(file, socket_path, state_directory)
    if client.is_running():
        answer = client.plan(text, source(file))
    else:
        answer = alone.plan(config, state_directory)
        note(alone.left_behind(state_directory))
    note([*answer["notes"], *(each for each in advice(config) if each not in answer["failures"])])
    print_plan(answer, as_json)
    if answer["failures"]:
        raise DirectorError("\n".join(answer["failures"]))
    return exits.CHANGES if answer["steps"] else exits.OK


def read(file: Path, socket_path: Path, state_directory: Path) -> tuple[str, Config, Client]:
    """FILE's text, the configuration that it is, and whom to ask. Raises: InvalidConfigError."""
    from director.api.client import Client

    return *read_configuration(file, state_directory), Client(socket_path)


def source(file: Path) -> str:
    """FILE's name for a process that works in another directory."""
    return str(file.absolute())


def advice(config: Config) -> tuple[str, ...]:
    """What this host's settings lack for `config`."""
    from director.advice import advice

    return advice(config)
