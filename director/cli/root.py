"""The root command, with every family's commands in it."""

from __future__ import annotations

import importlib
from typing import Any

import click

_COMMANDS = {
    "check": "director.cli.table:check",
    "plan": "director.cli.table:plan",
    "apply": "director.cli.apply:apply",
    "reload": "director.cli.apply:reload",
    "confirm": "director.cli.apply:confirm",
    "undo": "director.cli.apply:undo",
    "down": "director.cli.down:down",
    "drift": "director.cli.drift:drift",
    "export": "director.cli.export:export",
    "run": "director.cli.daemon:run",
    "status": "director.cli.daemon:status",
    "drain": "director.cli.daemon:drain",
    "enable": "director.cli.daemon:enable",
    "weight": "director.cli.daemon:weight",
    "maintenance": "director.cli.daemon:maintenance",
    "explain": "director.cli.explain:explain",
    "probe": "director.cli.probe:probe",
    "events": "director.cli.events:events",
    "schema": "director.cli.schema:schema",
    "completion": "director.kit.completion:completion",
    "realserver": "director.cli.realserver:realserver",
    "doctor": "director.cli.doctor:doctor",
    "lab": "director.cli.lab:lab",
}


class _LazyGroup(click.Group):
    """Imports a command's file when the command is used: start-up is what an operator waits for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        command: Any = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)  # noqa: S101 -- narrows the type
        return command


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lvs-director", prog_name="director")
def cli() -> None:
    """Program Linux IPVS, keep it right, and say why.

    Exit codes: 0 done, 1 an error that the message explains, 2 `plan` or `drift` found something, `export` left
    something out or `doctor` has only warnings, 64 the command line is wrong.
    """
