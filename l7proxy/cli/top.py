"""`l7proxy top`: a running l7proxy, looked at again and again.

One rule: rates are differences between two looks; nothing is asked that `status` and `failures` do not ask.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from l7proxy.cli.client import Client
from l7proxy.cli.tables import flight_lines, show, state_of, status_lines, table

if TYPE_CHECKING:
    from rich.console import RenderableType

FAILURES = 8
COLUMNS = ("BACKEND", "STATE", "WEIGHT", "REQ/S", "5XX/S", "MB/S", "IN FLIGHT", "REQUESTS", "WHY")

Look = tuple[float, dict[str, Any], dict[str, Any] | None, list[dict[str, Any]]]


def watch(client: Client, interval_s: float, once: bool) -> None:
    """Show it until interrupted; `once`, or where nobody watches, once."""
    before = _look(client)
    time.sleep(interval_s)
    now = _look(client)
    if once or not sys.stdout.isatty():
        for line in status_lines(now[1], now[2]):
            click.echo(line)
        click.echo()
        show(COLUMNS, rows(before, now))
        for flight in now[3]:
            click.echo(flight_lines(flight, whole=False)[0])
        return
    from rich.live import Live

    with Live(_frame(before, now), screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(interval_s)
            before, now = now, _look(client)
            live.update(_frame(before, now), refresh=True)


def _look(client: Client) -> Look:
    status, drain = client.get("/v1/status"), client.get("/v1/drain")["drain"]
    return time.monotonic(), status, drain, client.get(f"/v1/failures?n={FAILURES}")["failures"]


def rows(before: Look, now: Look) -> list[list[object]]:
    """A row for each backend, the busiest at the top, and one for all."""
    elapsed_s = max(1e-3, now[0] - before[0])

    def rates(was: dict[str, Any] | None, counters: dict[str, Any]) -> list[float]:
        if was is None or was["requests"] > counters["requests"]:
            was = counters
        return [
            (counters["requests"] - was["requests"]) / elapsed_s,
            (counters["answers"]["5xx"] - was["answers"]["5xx"]) / elapsed_s,
            (counters["bytes_sent"] - was["bytes_sent"]) / elapsed_s / 1e6,
        ]

    found: list[tuple[float, list[object]]] = []
    known = before[1]["upstreams"]
    for upstream, state in now[1]["upstreams"].items():
        for name, backend in state["backends"].items():
            was = known.get(upstream, {}).get("backends", {}).get(name)
            counters = backend["counters"]
            per_s = rates(was["counters"] if was is not None else None, counters)
            more: list[object] = [f"{upstream}/{name}", state_of(backend), backend["weight"]]
            why = backend["why"] or (None if backend["up"] else backend["reason"])
            row = [*more, *_shown(per_s), counters["in_flight"], counters["requests"], why]
            found.append((per_s[0], row))
    counters = now[1]["counters"]
    total = rates(before[1]["counters"], counters)
    everything: list[object] = ["all", None, None, *_shown(total), counters["in_flight"], counters["requests"], None]
    return [everything, *(row for _, row in sorted(found, key=lambda each: -each[0]))]


def _shown(rates: list[float]) -> list[object]:
    return [f"{rate:.1f}" for rate in rates]


def _frame(before: Look, now: Look) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    said = [Text(line) for line in status_lines(now[1], now[2])]
    flights = [Text(flight_lines(flight, whole=False)[0], overflow="ellipsis", no_wrap=True) for flight in now[3]]
    return Group(*said, table(COLUMNS, rows(before, now)), *flights)
