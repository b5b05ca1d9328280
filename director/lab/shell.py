"""A prompt for people: lines typed become commands on the lab's hosts.

One rule: a line is a shell's line, run by sh on one host; only `hosts`, `on HOST` and `exit` are the prompt's own.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable

from director.lab.errors import LabError, StillRunningError
from director.lab.hosts import Lab, Process

HELP = """\
  hosts           who is there
  on HOST         work on HOST from now on
  HOST: LINE      run one line on HOST
  LINE            run a line on the host in the prompt
  Ctrl-C stops a line, Ctrl-D leaves."""

_LOOK_S = 0.1


def converse(lab: Lab, say: Callable[[str], None], ask: Callable[[str], str] = input) -> None:
    """Read lines with `ask` and obey until end of file; `say` writes text as it is, without a newline."""
    here = lab.hosts()[0].name
    exit_code = 0
    say(HELP + "\n")
    while True:
        try:
            line = ask(f"{here}{f' [{exit_code}]' if exit_code else ''}> ").strip()
        except EOFError:
            say("\n")
            return
        except KeyboardInterrupt:
            say("\n")
            continue
        word, _, rest = line.partition(" ")
        names = [host.name for host in lab.hosts()]
        if word in ("exit", "quit"):
            return
        if word == "help":
            say(HELP + "\n")
        elif word == "hosts":
            say(table(lab))
        elif word == "on":
            here = rest.strip() if rest.strip() in names else here
            if here != rest.strip():
                say(f"there is no host {rest.strip()!r}: {', '.join(names)}\n")
        elif word.endswith(":") and word[:-1] in names:
            # The colon tells a host from a program: there is a `director` of both kinds.
            exit_code = _run(lab, word[:-1], rest, say)
        elif line:
            exit_code = _run(lab, here, line, say)


def table(lab: Lab) -> str:
    """Names, roles and addresses, a line a host."""
    width = max(len(host.name) for host in lab.hosts())
    lines = []
    for host in lab.hosts():
        addresses = (f"{name} {link.v4} {link.v6}" for name, link in host.host.links.items())
        lines.append(f"{host.name:{width}}  {host.host.role:9} {', '.join(addresses)}\n")
    return "".join(lines)


def _run(lab: Lab, name: str, line: str, say: Callable[[str], None]) -> int:
    """Run a line, writing its output as it comes; Ctrl-C goes to everything that the line started."""
    try:
        process = lab.host(name).start("sh", "-c", line)
    except LabError as error:
        say(f"{error}\n")
        return 127
    shown = 0
    try:
        while process.alive():
            shown = _show_news(process, shown, say)
            with contextlib.suppress(StillRunningError):
                process.wait(_LOOK_S)
    except KeyboardInterrupt:
        process.kill(signal.SIGINT, group=True)
        until = time.monotonic() + 2.0
        while process.alive() and time.monotonic() < until:
            time.sleep(_LOOK_S)
        process.kill_tree()
    exit_code = process.wait(5.0)
    _show_news(process, shown, say)
    return exit_code


def _show_news(process: Process, shown: int, say: Callable[[str], None]) -> int:
    text = process.output()
    if len(text) > shown:
        say(text[shown:])
    return len(text)
