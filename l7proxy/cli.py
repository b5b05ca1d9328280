"""The command line: run and check.

One rule: an operator's mistake is a sentence and an exit code, never a traceback. Heavy parts are imported where they
are used, so that `check` and `--help` start fast.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NoReturn

import click

from director.kit.configfile import InvalidConfigError, read_text
from director.kit.errors import DirectorError

if TYPE_CHECKING:
    from l7proxy.core.model import Config

EXIT_PROBLEM = 1
EXIT_USAGE = 64
"""EX_USAGE of sysexits.h."""

EPILOG = """\b
Exit codes:
  0   done, or stopped by SIGTERM or SIGINT after draining
  1   the configuration has problems, or an address cannot be bound
  64  wrong usage

\b
Signals:
  SIGHUP   read FILE again; a file with problems changes nothing
  SIGTERM  after timeouts.notice, if any: stop accepting, finish what is being answered, exit; a second
           one stops at once"""


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lvs-director", prog_name="l7proxy", message="%(prog)s %(version)s")
def cli() -> None:
    """An HTTP reverse proxy: listeners, routes by host and path, upstreams with checks."""


@cli.command(epilog=EPILOG)
@click.argument("file")
@click.option(
    "--log-level", type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]), default="INFO", show_default=True
)
def run(file: str, log_level: str) -> None:
    """Serve as FILE says, in the foreground. Logs go to standard error, the access log to standard output."""
    from director.kit import logs

    config = _load(file)
    logs.configure(log_level)
    import asyncio

    import uvloop

    from l7proxy import descriptors
    from l7proxy.http.stack import assert_stack
    from l7proxy.listeners import open_sockets
    from l7proxy.server import Server

    assert_stack()
    descriptors.raise_limit()
    sockets = open_sockets(config)

    async def serve() -> None:
        await Server(file, config).run(sockets)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


@cli.command(epilog=EPILOG)
@click.argument("file")
def check(file: str) -> None:
    """Say what is wrong in FILE, all of it, or what is in it."""
    config = _load(file)
    counts = [
        (len(config.listeners), "listener"),
        (len(config.routes), "route"),
        (len(config.upstreams), "upstream"),
        (sum(len(upstream.backends) for upstream in config.upstreams.values()), "backend"),
    ]
    click.echo(f"{file}: ok: " + ", ".join(f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in counts))


def _load(file: str) -> Config:
    from l7proxy.core.config import load_config

    return load_config(read_text(file), file)


def main() -> NoReturn:
    """Run the command line and exit."""
    try:
        cli.main(standalone_mode=False, prog_name="l7proxy")
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(EXIT_USAGE)
    except click.UsageError as error:
        error.show()
        sys.exit(EXIT_USAGE)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except InvalidConfigError as error:
        for line in error.lines():
            click.echo(line, err=True)
        sys.exit(EXIT_PROBLEM)
    except DirectorError as error:
        click.echo(f"l7proxy: {error}", err=True)
        sys.exit(EXIT_PROBLEM)
    sys.exit(0)
