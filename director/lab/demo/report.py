"""What the demonstration shows while it runs, and the one line of JSON that it ends with.

One rule: people read standard error, programs standard output.
"""

from __future__ import annotations

import json
import sys
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

    def step(self, number: int, title: str) -> None:
        self._console.print()
        self._console.print(Text(f"Step {number}  {title}", style="bold cyan"))

    def say(self, text: str) -> None:
        self._console.print(Text(f"  {self._elapsed():5.1f}s  {text}"))

    def shell(self, host: str, command: str, output: str) -> None:
        """A command on a host, as its operator would have seen it."""
        self._console.print(Text(f"  {self._elapsed():5.1f}s  [{host}]$ {command}", style="bold"))
        for line in output.rstrip().splitlines():
            self._console.print(Text(f"          {line}", style="dim"), soft_wrap=True)

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

    def finish(self, ok: bool) -> None:
        """The table of steps, and the JSON."""
        result = {"ok": ok, "requests": self._requests, "failed": self._failed, **self._facts}
        result["seconds"] = round(self._elapsed(), 1)
        self._console.print()
        table = Table(box=None, padding=(0, 2, 0, 0))
        for heading in ("step", "holds", "seconds"):
            table.add_column(heading, justify="right" if heading == "seconds" else "left")
        for title, held, seconds in self._steps:
            table.add_row(title, Text("yes" if held else "NO", style="green" if held else "red"), f"{seconds:.1f}")
        self._console.print(table)
        self._console.print()
        sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.flush()

    def _elapsed(self) -> float:
        return time.monotonic() - self._began_at
