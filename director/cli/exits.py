"""How every command ends: one line on standard error and a documented exit code, never a traceback.

One rule: 0 done, 1 an error that the message explains, 2 `plan` or `drift` found something, `export` left something out
or `doctor` has only warnings, 64 the command line is wrong.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from director.kit.errors import DirectorError

OK = 0
ERROR = 1
CHANGES = 2
WARNINGS = 2  # of `doctor`, without errors
USAGE = 64  # EX_USAGE of sysexits.h
INTERRUPTED = 130


def run(command: click.Command, name: str, arguments: Sequence[str] | None = None) -> int:
    """Run `command` and return the exit code; errors are printed."""
    if sys.stdout is None:  # descriptor 1 is closed: `director status >&-`
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 -- for the process's life
    output = sys.stdout
    try:
        code = command.main(arguments, prog_name=name, standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else OK
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.UsageError as error:
        error.show()
        return USAGE
    except click.ClickException as error:
        error.show()
        return ERROR
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        return _unheard()
    except SystemExit as stop:
        # click and rich end the process so when whoever read our output has left; click puts a wrapper before it.
        if isinstance(stop.__context__, BrokenPipeError) or sys.stdout is not output:
            sys.stdout = output
            return _unheard()
        raise
    except OSError as error:
        # What an operation runs into is translated where it happens: what is left is our own output.
        click.echo(f"{name}: input or output failed: {error.strerror or error}", err=True)
        return ERROR
    except DirectorError as error:
        show(name, error)
        return ERROR


def _unheard() -> int:
    """Nobody reads our output any more: no error, and nothing more can be said."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return OK


def show(name: str, error: DirectorError) -> None:
    """Print an error as operators see it: a configuration's problems bare, so that editors can jump to them."""
    lines = getattr(error, "lines", None)
    for line in lines() if callable(lines) else str(error).splitlines():
        click.echo(line if lines else f"{name}: {line}", err=True)
