"""The command line: run, check and schema, and what asks a running l7proxy (operate.py).

One rule: an operator's mistake is a sentence and an exit code, never a traceback. Heavy parts are imported where they
are used, so that `check` and `--help` start fast.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from director.kit.completion import completion, offer_files
from director.kit.configfile import InvalidConfigError
from director.kit.errors import DirectorError
from l7proxy import CODE, commands
from l7proxy.cli.operate import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from l7proxy.files.loading import Loaded
    from l7proxy.inheritance import Inheritance

Result = TypeVar("Result")

EXIT_PROBLEM = 1
EXIT_USAGE = 64
"""EX_USAGE of sysexits.h."""

EPILOG = """\b
Exit codes:
  0   done, or stopped by SIGTERM or SIGINT after draining
  1   the configuration has problems, an address cannot be bound, or no route takes what explain is asked
  64  wrong usage

\b
Signals:
  SIGHUP   read FILE again; a file with problems changes nothing
  SIGTERM  after timeouts.notice, if any: stop accepting, finish what is being answered, exit; a second
           one stops at once
  SIGUSR2  become the program that is installed now, same pid, and read FILE again; no request is lost, and
           a program or FILE with problems changes nothing"""


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lvs-director", prog_name="l7proxy", message=f"%(prog)s %(version)s ({CODE})")
def cli() -> None:
    """An HTTP reverse proxy: listeners, routes by host and path, upstreams with checks."""


@cli.command(epilog=EPILOG)
@click.argument("file", shell_complete=offer_files)
@click.option(
    "--log-level", type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]), default="INFO", show_default=True
)
def run(file: str, log_level: str) -> None:
    """Serve as FILE says, in the foreground. Logs go to standard error, the access log to standard output."""
    import faulthandler

    from director.kit import logs
    from director.kit.service import ServiceManager
    from l7proxy.files.loading import load_file
    from l7proxy.inheritance import become, inherited

    manager = ServiceManager()  # before anything is opened: it names descriptors, and so does this
    left = inherited()
    faulthandler.enable()  # a watchdog ends by SIGABRT what stands still: it is to say where
    logs.configure(log_level)
    loaded = load_file(file, is_start=True) if left is None else _loaded_or_left(file, left)
    loaded.log_warnings()
    from l7proxy import descriptors
    from l7proxy.handed import HandedSockets
    from l7proxy.http.stack import assert_stack
    from l7proxy.listeners import open_sockets
    from l7proxy.server import Server
    from l7proxy.supervisor import Supervisor

    assert_stack()
    descriptors.raise_limit()
    handed = HandedSockets(manager.handed)
    if left is not None:
        _run(Supervisor(file, loaded, log_level, manager, handed).take_over(left))
        return
    sockets = open_sockets(loaded.config, handed)
    if loaded.config.workers > 1:
        _run(Supervisor(file, loaded, log_level, manager, handed).run(sockets))
        return
    handover = _run(Server(file, loaded, log_level, manager, handed).run(sockets))
    if handover is not None:
        become(handover.words, handover.left, manager)


@cli.command(epilog=EPILOG)
@click.argument("file", shell_complete=offer_files)
def check(file: str) -> None:
    """Say what is wrong in FILE, all of it, or what is in it."""
    from l7proxy.files.loading import load_file

    loaded = load_file(file)
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}", err=True)
    config = loaded.config
    counts = [
        (len(config.listeners), "listener"),
        (len(config.routes), "route"),
        (len(config.upstreams), "upstream"),
        (sum(len(upstream.backends) for upstream in config.upstreams.values()), "backend"),
    ]
    click.echo(f"{file}: ok: " + ", ".join(f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in counts))


@cli.command()
@click.option("--markdown", "as_markdown", is_flag=True, help="Print the reference of all keys instead.")
def schema(as_markdown: bool) -> None:
    """Print the JSON Schema of l7proxy.yaml: editors complete and check a file by it."""
    import json

    from director.kit.reference import for_editors, markdown
    from l7proxy.core.schema import ConfigSection

    found, title = ConfigSection.model_json_schema(), "l7proxy.yaml"
    if as_markdown:
        click.echo(markdown(found, title), nl=False)
    else:
        click.echo(json.dumps(for_editors(found, title), indent=2))


@cli.command("socket-unit")
@click.argument("file")
@click.option("--all", "is_for_all", is_flag=True, help="With every listener, also at ports from 1024 on.")
def socket_unit(file: str, is_for_all: bool) -> None:
    """Print a systemd .socket unit with the listeners of FILE below port 1024: l7proxy needs no capability then, and a
    restart refuses nobody there. Where there is none it says so, and the exit code is 1."""
    from director.kit.errors import HostError
    from l7proxy.cli.socketunit import socket_unit
    from l7proxy.files.loading import load_file

    text = socket_unit(load_file(file).config, file, is_for_all=is_for_all)
    if text is None:
        raise HostError(f"{file} has no listener below port 1024, so no .socket unit is needed; --all writes one")
    click.echo(text, nl=False)


@cli.command(commands.WORKER, hidden=True)
@click.option("--control", type=int, required=True)
@click.option("--log-level", default="INFO")
def worker(control: int, log_level: str) -> None:
    """Serve as a supervisor says, who is at the other end of the descriptor CONTROL."""
    import faulthandler
    import socket

    from director.kit import logs
    from l7proxy.worker import Worker, mark_lines

    faulthandler.enable()  # as above: its supervisor is its watchdog
    logs.configure(log_level)
    mark_lines()
    end = socket.socket(fileno=control)
    end.set_inheritable(False)
    _run(Worker(end).run())


@cli.command(commands.REHEARSE, hidden=True)
@click.argument("file")
def rehearse(file: str) -> None:
    """Do what `run` and a worker do before they serve."""
    import l7proxy.supervisor
    import l7proxy.worker  # noqa: F401 -- that it can be imported is what is rehearsed
    from l7proxy.files.loading import load_file
    from l7proxy.http.stack import assert_stack

    assert_stack()
    load_file(file)


def _run(main: Coroutine[Any, Any, Result]) -> Result:
    import asyncio

    import uvloop

    from l7proxy.files.contexts import hush_names

    hush_names()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def _loaded_or_left(file: str, left: Inheritance) -> Loaded:
    """What an earlier program has served; its file where this one makes nothing of that."""
    from l7proxy.files.loading import load_file, load_text

    try:
        return load_text(left.text, left.source, left.files)
    except InvalidConfigError:
        return load_file(file)


for each in (*COMMANDS, completion):
    cli.add_command(each)


def main() -> NoReturn:
    """Run the command line and exit."""
    try:
        cli.main(standalone_mode=False, prog_name="l7proxy")
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(EXIT_USAGE)
    except click.UsageError as error:
        error.show()
        sys.exit(EXIT_USAGE)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:  # nobody reads any more: no error, and nothing more can be said
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except InvalidConfigError as error:
        for line in error.lines():
            click.echo(line, err=True)
        sys.exit(EXIT_PROBLEM)
    except DirectorError as error:
        click.echo(f"l7proxy: {error}", err=True)
        sys.exit(EXIT_PROBLEM)
    sys.exit(0)
