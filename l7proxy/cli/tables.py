"""What a running l7proxy says, as tables and sentences.

One rule: what goes into a pipe is aligned text, one row a line, never cut; a terminal gets the same, made pretty.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.table import Table

COLOURS = {"up": "green", "down": "red", "unchecked": "green", "pending": "yellow", "drained": "yellow"}


def show(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table."""
    texts = [[_cell(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(table(columns, texts))
        return
    widths = [max(map(len, column)) for column in zip(columns, *texts, strict=True)]
    for row in [list(columns), *texts]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """The same for a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    made = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        cells = [_cell(cell) for cell in row]
        made.add_row(*(Text(cell, style=COLOURS.get(cell.partition(" ")[0], "")) for cell in cells))
    return made


def backend_rows(backends: Iterable[dict[str, Any]]) -> list[list[object]]:
    """A row for each backend: NAME, ADDRESS, STATE, WEIGHT, IN FLIGHT, REQUESTS, 5XX, WHY."""
    rows: list[list[object]] = []
    for each in backends:
        name = f"{each['upstream']}/{each['backend']}"
        if each.get("gone"):
            rows.append([name, None, "gone", None, None, None, None, f"not in the file: {wished(each['wish'])}"])
            continue
        counters = each["counters"]
        why = "; ".join(filter(None, [each["why"], None if each["up"] else each["reason"]]))
        rows.append(
            [
                name,
                each["address"],
                state_of(each),
                each["weight"],
                counters["in_flight"],
                counters["requests"],
                counters["answers"]["5xx"],
                why,
            ]
        )
    return rows


BACKEND_COLUMNS = ("BACKEND", "ADDRESS", "STATE", "WEIGHT", "IN FLIGHT", "REQUESTS", "5XX", "WHY")


def state_of(backend: dict[str, Any]) -> str:
    """How a backend is, in a word: what is wanted before what is found."""
    wish = backend["wish"]
    if wish is not None and wish["want"] != "enabled":
        return str(wish["want"])
    return str(backend["health"])


def wished(wish: dict[str, Any]) -> str:
    """What the operator wants, in words."""
    parts = [] if wish["want"] == "enabled" else [wish["want"]]
    if wish["weight"] is not None:
        parts.append(f"weight {wish['weight']}")
    return f"{' and '.join(parts) or 'enabled'} by the operator since {wish['since']}"


def status_lines(status: dict[str, Any], drain: dict[str, Any] | None) -> list[str]:
    """What there is to say of the whole, a sentence a line."""
    counters = status["counters"]
    lines = [
        f"{status['name']}: {count(status['connections'], 'client connection')} of {status['most_connections']}, "
        f"{count(counters['in_flight'], 'request')} in flight, {count(counters['requests'], 'request')} so far, "
        f"{status['left_percent']}% left",
        f"workers: {', '.join(str(worker['pid']) for worker in status['workers'])}",
    ]
    if drain is not None:
        told = "a director knows" if drain["director_told"] else "no director has asked the agent since"
        lines.append(
            f"drained by the operator since {drain['since']} ({told})"
            + (", and stops when its clients are gone" if drain["stops"] else ": `l7proxy undrain` takes clients again")
        )
    elif status["draining"]:
        lines.append("draining: it stops")
    if status["trouble"]:
        lines.append(f"trouble: {status['trouble']}")
    # An l7proxy of a former release, asked by this program, does not say it.
    if status.get("reload_refused"):
        lines.append("the last reload was refused, the former configuration serves: `l7proxy reload` says why")
    return lines + [f"problem: {problem}" for problem in status["problems"]]


def flight_lines(flight: dict[str, Any], *, whole: bool) -> list[str]:
    """A failure: its line, and with `whole` all that is known."""
    where = "/".join(filter(None, [flight["upstream"], flight["backend"]])) or "-"
    url = f"{flight['scheme']}://{flight['host']}{flight['target']}"
    lines = [
        f"{flight['time']} {flight['client']} {flight['method'] or '-'} {url} {flight['status']} "
        f"{flight['cause'] or '-'} {where} {flight['total_ms']:g}ms: {flight['reason']}"
    ]
    lines += [
        f"    tried {each['backend']} until {each['after_ms']:g}ms: {each['cause']}: {each['reason']}"
        for each in flight["tries"]
    ]
    if whole:
        phases = [
            f"{name} {flight[key]:g}ms"
            for name, key in (("queue", "queue_ms"), ("connect", "connect_ms"), ("first byte", "first_byte_ms"))
            if flight[key] is not None
        ]
        lines.append(
            f"    route {flight['route'] or '-'}; {', '.join([*phases, f'''total {flight['total_ms']:g}ms'''])}; "
            f"{flight['bytes_in']} bytes in, {flight['bytes_out']} out; pid {flight['pid']}"
        )
        lines += [f"    > {line}" for line in flight["head"]]
    return lines


def count(number: float, noun: str) -> str:
    """`1 request`, `2 requests`."""
    return f"{number:g} {noun}{'' if number == 1 else 's'}"


def _cell(value: object) -> str:
    return "-" if value is None or value == "" else str(value)
