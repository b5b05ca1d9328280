"""apply, reload, confirm, undo: all of a file or nothing of it.

One rule: with a director running it does the work, and goes on when this command has gone away; without one this
command takes its lock and does the same.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from director.api import SOCKET
from director.cli import exits
from director.cli.lines import Draining, note, print_applied
from director.cli.options import duration_option, file_argument, json_option, socket_option, state_option
from director.cli.table import advice, read, source
from director.kit import statefile
from director.kit.errors import DirectorError

if TYPE_CHECKING:
    from director.api.client import Client
    from director.core.answers import AppliedAnswer, Line

LOOK_EVERY_S = 0.5  # at a director that drains
LEAST_S = 0.001  # a director that still lists them has not cut anybody off yet


@click.command()
@file_argument
@duration_option("--confirm", "confirm_s", "Undo it after this long, unless `director confirm` comes before.")
@duration_option("--drain", "drain_s", "Remove what is to go when its connections have ended, or after this long.")
@json_option
@socket_option
@state_option
def apply(
    file: Path,
    confirm_s: float | None,
    drain_s: float | None,
    as_json: bool,
    socket_path: Path,
    state_directory: Path,
) -> None:
    """Bring the kernel's table and the addresses to what FILE says, once: all of it, or nothing.

    What is removed is first set to weight 0, and deleted only when all else is as it should be. If a part fails,
    what was there before is put back, and the message says what failed.

    With --confirm the removals wait, and everything undoes itself unless `director confirm` follows, also when the
    shell is gone. With --drain each removal waits for its connections (after the confirmation, if there is one).

    A running director takes FILE as its configuration until it reloads or restarts. Without one, real servers
    get their configured weight, except that one which is checked and has weight 0 in the kernel keeps it.
    A setting of this host that does not fit is a line `note: ...` on standard error.

    Another forwarding method waits until a real server's connections have ended: a running director sees to the
    rest by itself; without one, run apply again.

    Exits 0 when all was done, or awaits `director confirm`, or a running director waits for connections to end; 1 on
    an error.
    """
    from director.cli import alone

    text, config, client = read(file, socket_path, state_directory)
    draining = Draining()
    unfinished: Sequence[str] = ()
    if client.is_running():
        answer = client.apply(text, source(file), confirm_s, drain_s)
        if drain_s is not None and answer["confirm_s"] is None:
            answer = _follow(client, answer, draining)
        note(answer["waiting"])
    else:
        if waits := alone.waiting(state_directory):
            raise DirectorError(f"{waits}: `director confirm` or `director undo` comes first")
        note(alone.left_behind(state_directory))
        if confirm_s is None:
            try:
                answer = alone.apply(config, text, source(file), state_directory, drain_s, draining.tell)
            except KeyboardInterrupt:
                if drain_s is None:
                    raise
                left = f"what drains stays at weight 0: `director apply {file}` removes it"
                raise _interrupted(left, state_directory) from None
        else:
            try:
                answer = alone.apply_until_confirmed(config, text, source(file), state_directory, confirm_s, drain_s)
            except KeyboardInterrupt:
                raise _interrupted("the apply goes on by itself, and awaits confirmation", state_directory) from None
        unfinished = [f"{sentence}: run apply again then" for sentence in answer["waiting"]]
    note([*answer.get("notes", ()), *advice(config)])
    print_applied(answer, as_json)
    if answer["confirm_s"] is not None:
        _tell_confirmation(answer["confirm_s"], socket_path, state_directory, as_json)
    if unfinished or answer["failures"]:
        raise DirectorError("\n".join([*answer["failures"], *unfinished]))


@click.command()
@json_option
@socket_option
def reload(as_json: bool, socket_path: Path) -> None:
    """Have the running director read its own file again: all of it, or nothing, as after SIGHUP.

    It waits for the outcome, and says what has changed. A file with problems changes nothing: each of them is told,
    and the old configuration stays in force.

    Exits 0 when the file is in force, 1 when it was refused or no director runs.
    """
    from director.api.client import Client

    _finish(Client(socket_path).reload(), as_json, "")


@click.command()
@json_option
@socket_option
@state_option
def confirm(as_json: bool, socket_path: Path, state_directory: Path) -> None:
    """Keep what `director apply --confirm` has done, and remove what that has only lowered.

    It also finishes an apply that was cut short. Exits 0 when all is done, 1 on an error.
    """
    from director.api.client import Client
    from director.cli import alone

    client, draining = Client(socket_path), Draining()
    if client.is_running():
        answer = client.confirm()
        if answer["later"]:
            answer = _follow(client, answer, draining)
    else:
        answer = alone.confirm(state_directory, draining.tell)
    _finish(answer, as_json, "Confirmed: there was nothing left to change.")


@click.command()
@json_option
@socket_option
@state_option
def undo(as_json: bool, socket_path: Path, state_directory: Path) -> None:
    """Take back what `director apply --confirm` has done, or an apply that was cut short.

    Exits 0 when everything is as it was before, 1 on an error.
    """
    from director.api.client import Client
    from director.cli import alone

    client = Client(socket_path)
    answer = client.undo() if client.is_running() else alone.undo(state_directory)
    _finish(answer, as_json, "Nothing had to be put back.")


def _finish(answer: AppliedAnswer, as_json: bool, nothing: str) -> None:
    note([*answer["waiting"], *answer.get("notes", ())])
    print_applied(answer, as_json, nothing)
    if answer["failures"]:
        raise DirectorError("\n".join(answer["failures"]))


def _follow(client: Client, answer: AppliedAnswer, draining: Draining) -> AppliedAnswer:
    """Wait until a director has removed what `answer` has left for later; what it has done then."""
    who: list[tuple[str, int]] = []
    until_at: float | None = None
    try:
        while (daemon := client.status()["daemon"])["leaving"]:
            who = [(each["name"], each["connections"]) for each in daemon["leaving"]]
            left_s = daemon["drain_left_s"] or 0.0
            until_at = time.monotonic() + left_s
            draining.tell(who, max(left_s, LEAST_S))
            time.sleep(LOOK_EVERY_S)
    except KeyboardInterrupt:
        left = "the director goes on, and removes what drains in time: `director status` shows it"
        raise _interrupted(left) from None
    # What a removal would do is no question any more.
    done: list[Line] = [{**line, "effect": ""} for line in answer["later"]]
    cut = until_at is not None and time.monotonic() >= until_at
    draining.tell([(name, connections) for name, connections in who if connections] if cut else (), 0.0)
    return {
        **answer,
        "steps": [*answer["steps"], *done],
        "later": [],
        "waiting": daemon["waiting"],
        "failures": daemon["failures"],
    }


def _interrupted(left: str, state_directory: Path | None = None) -> click.exceptions.Exit:
    """Tell what is left behind; the exit code that says why."""
    undo = "" if state_directory is None else f", `director undo{_options(None, state_directory)}` takes all of it back"
    click.echo(f"interrupted: {left}{undo}", err=True)
    return click.exceptions.Exit(exits.INTERRUPTED)


def _tell_confirmation(confirm_s: float, socket_path: Path, state_directory: Path, as_json: bool) -> None:
    from director.undertaking import clock

    options = _options(socket_path, state_directory)
    click.echo(
        f"Not confirmed: undone at {clock(confirm_s)} (in {confirm_s:g}s) unless you type: director confirm{options}\n"
        f"To take it back now: director undo{options}",
        err=as_json,
    )


def _options(socket_path: Path | None, state_directory: Path) -> str:
    """What has to be typed to reach the same place."""
    words = ["--socket", str(socket_path)] if socket_path not in {None, SOCKET} else []
    words += ["--state-dir", str(state_directory)] if state_directory != statefile.DIRECTORY else []
    return "".join(f" {word}" for word in words)
