"""What the demonstration shows while it runs, and the one line of JSON that it ends with.

One rule: people read standard error, programs standard output.
"""

from __future__ import annotations

import json
import sys
import textwrap
import time
from collections import Counter
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


class Report:
    """Collects facts while telling them."""

    def __init__(self) -> None:
        # A pipe has no width: lines stay whole there, as a log wants them.
        self._console = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 120)
        self._began_at = time.monotonic()
        self._facts: dict[str, Any] = {}
        self._requests = 0
        self._failed = 0
        self._steps: list[tuple[str, bool, float]] = []

    def title(self, name: str, text: str) -> None:
        """Which scene it is; it is in the JSON too."""
        self.fact("scene", name)
        self._console.print()
        self._console.print(Text(f"Scene {name}: {text}", style="bold magenta"))

    def step(self, number: int, title: str) -> None:
        self._console.print()
        self._console.print(Text(f"Step {number}  {title}", style="bold cyan"))

    def say(self, text: str) -> None:
        self._console.print(Text(f"  {self._elapsed():5.1f}s  {text}"))

    def shell(self, host: str, command: str, output: str) -> None:
        """A command on a host, as its operator would have seen it."""
        self._console.print(Text(f"  {self._elapsed():5.1f}s  {host}$ {command}", style="bold"), soft_wrap=True)
        for line in output.rstrip().splitlines():
            self._console.print(Text(f"          {line}", style="dim"), soft_wrap=True)

    def explain(self, text: str) -> None:
        """What is about to be seen, or what to see in what was, in a few sentences; `text` is wrapped."""
        self._console.print()
        wrapped = textwrap.wrap(" ".join(text.split()), min(self._console.width, 112) - 2, break_on_hyphens=False)
        self._console.print(Text(textwrap.indent("\n".join(wrapped), "  ")), soft_wrap=True)

    def served(self, requests: list[dict[str, Any]]) -> None:
        """Who served what."""
        counts = Counter((r["url"], r["server"], r["for"] or r["from"]) for r in requests if r["ok"])
        table = Table(box=None, padding=(0, 2, 0, 0), title_justify="left")
        for heading in ("          asked for", "served by", "told the client is", "requests"):
            table.add_column(heading, style="dim" if heading != "requests" else "", header_style="")
        for (url, server, client), count in sorted(counts.items()):
            table.add_row(f"          {url}", server, client, str(count))
        self._console.print(table)

    def count(self, requests: list[dict[str, Any]]) -> None:
        """Add requests to the total; those that did not succeed are failures."""
        self._requests += len(requests)
        self._failed += sum(not request["ok"] for request in requests)

    def fact(self, name: str, value: object) -> None:
        self._facts[name] = value

    def done(self, title: str, held: bool, seconds: float) -> None:
        self._steps.append((title, held, seconds))

    def error(self, text: str) -> None:
        self._console.print(Text(f"  {self._elapsed():5.1f}s  {text}", style="bold red"))

    def result(self, ok: bool) -> dict[str, Any]:
        """What the line of JSON holds."""
        counted = {"ok": ok, "requests": self._requests, "failed": self._failed}
        return {**counted, **self._facts, "seconds": round(self._elapsed(), 1)}

    def finish(self, ok: bool) -> None:
        """The table of steps, and the JSON."""
        self.table()
        print_line(self.result(ok))

    def table(self) -> None:
        """Each step, whether it held, and how long it took."""
        self._console.print()
        table = Table(box=None, padding=(0, 2, 0, 0))
        for heading in ("step", "holds", "seconds"):
            table.add_column(heading, justify="right" if heading == "seconds" else "left")
        for title, held, seconds in self._steps:
            table.add_row(title, Text("yes" if held else "NO", style="green" if held else "red"), f"{seconds:.1f}")
        self._console.print(table)
        self._console.print()

    def _elapsed(self) -> float:
        return time.monotonic() - self._began_at


def print_line(result: dict[str, Any]) -> None:
    """The one line of JSON, on standard output."""
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()
