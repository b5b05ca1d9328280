"""events: what happened to virtual servers and real servers, and what happens now.

One rule: without a director its journal still answers, and that is said.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from director.cli import offered
from director.cli.lines import note
from director.cli.options import json_option, socket_option, state_option

if TYPE_CHECKING:
    from director.core.event import EventAnswer

LAST = 100


def _since(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    """A unix time, from `2h` (so long ago) or `2026-01-31T12:00` (of this host's time zone, if it names none)."""
    if value is None:
        return None
    from director.kit.duration import parse_duration  # it imports pydantic, which not every command needs

    now = datetime.now().astimezone()
    try:
        return now.timestamp() - parse_duration(value)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(value).astimezone().timestamp()
    except (ValueError, OverflowError, OSError):
        raise click.BadParameter(
            f"{value!r} is neither a duration nor a time: write how long ago, such as 2h, or 2026-01-31T12:00"
        ) from None


@click.command()
@click.option("--follow", is_flag=True, help="Go on with what happens, until interrupted.")
@click.option(
    "--since", callback=_since, metavar="DURATION|TIME", help=f"Begin so long ago, or then; default: the last {LAST}."
)
@click.option(
    "--vs",
    default="",
    metavar="NAME",
    help="Only events of this virtual server.",
    shell_complete=offered.virtual_servers,
)
@click.option(
    "--rs",
    default="",
    metavar="NAME",
    help="Only events of real servers of this name.",
    shell_complete=offered.real_servers,
)
@json_option
@socket_option
@state_option
def events(
    follow: bool, since: float | None, vs: str, rs: str, as_json: bool, socket_path: Path, state_directory: Path
) -> None:
    """Show what happened, oldest first: every transition with its cause, and the weights before and after.

    With --json one object a line, as in the journal and in notifications. Where no director runs, the journal that it
    left is read.

    Exits 0 when that is known, also if nothing happened, and 1 on an error.
    """
    from director.api.client import Client, NotRunningError

    limit = None if since is not None else LAST
    told = 0
    try:
        for event in Client(socket_path).events(since, vs, rs, limit, follow=follow):
            _print(event, as_json)
            told += 1
        if follow:
            note(["the director has stopped"])
    except NotRunningError:
        there_is = " to follow" if follow else ""
        note([f"no director runs{there_is}: this is the journal in {state_directory}"])
        for event in _journal(state_directory, since, vs, rs, limit):
            _print(event, as_json)
            told += 1
    if not told:
        note(["no such event is known"])


def _journal(directory: Path, since: float | None, vs: str, rs: str, limit: int | None) -> Iterator[EventAnswer]:
    from director.eventfile import Filter, read
    from director.kit.errors import HostError

    try:
        for event in read(directory, Filter(since, vs, rs), limit):
            yield event.plain()
    except OSError as error:
        raise HostError(f"could not read the journal in {directory}: {error.strerror}: run as root") from error


def _print(plain: EventAnswer, as_json: bool) -> None:
    from director.core.event import event_from_plain, sentence

    if as_json:
        click.echo(json.dumps(plain))
        return
    when = datetime.fromtimestamp(plain["at"]).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    click.echo(f"{when}  {sentence(event_from_plain(plain))}")
