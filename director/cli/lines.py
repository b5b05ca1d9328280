"""How plans, applies and what they wait for are printed.

One rule: what was asked for goes to standard output, text or JSON; what is told beside it goes to standard error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from director.core.answers import AppliedAnswer, Line, PlannedAnswer
    from director.core.driftlines import DriftLine

_COLOURS = {"+": "green", "~": "yellow", "-": "red"}


def print_plan(answer: PlannedAnswer, as_json: bool) -> None:
    """What would change, and in JSON why it would fail and what else there is."""
    lines = answer["steps"]
    if as_json:
        more = {"failures": answer["failures"], "notes": answer["notes"]}
        click.echo(json.dumps({"steps": lines, **{key: said for key, said in more.items() if said}}))
        return
    _print(lines)
    if lines or not answer["failures"]:
        click.echo(f"{count(len(lines), 'change')} to make." if lines else _SAME)


def print_drift(lines: Sequence[DriftLine], as_json: bool) -> None:
    """What somebody else has changed."""
    from director.core.driftlines import sentence

    if as_json:
        click.echo(json.dumps({"drift": lines}))
        return
    for line in lines:
        click.secho(f"{line['sign']} {sentence(line)}", fg=_COLOURS[line["sign"]])
    if lines:
        click.echo(f"{count(len(lines), 'thing')} changed by somebody else.")
    else:
        click.echo("No drift: the virtual servers in the kernel are as director left them.")


def print_applied(answer: AppliedAnswer, as_json: bool, nothing: str = "") -> None:
    """What was made, and what is to come where that depends on a confirmation or on connections that end."""
    lines, later = answer["steps"], answer["later"]
    if as_json:
        more = {"later": later} if later else {}
        confirm = {"confirm_s": answer["confirm_s"]} if answer["confirm_s"] is not None else {}
        click.echo(json.dumps({"steps": lines, **more, **confirm}))
        return
    _print(lines)
    if lines:
        click.echo(f"{count(len(lines), 'change')} made.")
    elif not (later or answer["failures"] or answer["waiting"]):
        click.echo(nothing or _SAME)
    if later:
        click.echo("Once confirmed:" if answer["confirm_s"] is not None else "To come:")
        _print(later)


def note(sentences: Iterable[str]) -> None:
    """Tell what is worth knowing beside the answer."""
    for sentence in sentences:
        click.echo(f"note: {sentence}", err=True)


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


class Draining:
    """Tells who still drains, a line a change."""

    def __init__(self) -> None:
        self._told: dict[str, int] = {}

    def tell(self, who: Iterable[tuple[str, int]], left_s: float) -> None:
        """`who` still drains, with so many connections, for `left_s` at most; at 0 that was cut."""
        now = dict(who)
        for name, connections in now.items():
            if left_s <= 0:
                verb = "was" if connections == 1 else "were"
                click.echo(f"{name}: {count(connections, 'connection')} {verb} cut at the deadline", err=True)
            elif self._told.get(name) != connections:
                click.echo(f"draining {name}: {count(connections, 'connection')}, {left_s:.0f}s left", err=True)
        for name in self._told.keys() - now.keys():
            click.echo(f"{name} has drained", err=True)
        self._told = now


_SAME = "Nothing to change: the kernel agrees with the file."


def _print(lines: Iterable[Line]) -> None:
    told = [_worded(line) for line in lines]
    if sys.stdout.isatty():
        told = [click.style(each, fg=_COLOURS.get(each[0])) for each in told]
    if told:  # at once: a write for each of ten thousand lines takes longer than all that they tell
        click.echo("\n".join(told))


def _worded(line: Line) -> str:
    detail = f": {line['detail']}" if line["detail"] else ""
    effect = f"; {line['effect']}" if line["effect"] else ""
    return f"{line['sign']} {line['subject']}{detail}{effect}"
