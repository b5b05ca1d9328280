"""An operator's hands: a line typed on a host, what it prints, and both of them shown.

One rule: what is shown was run, as it is shown.
"""

from __future__ import annotations

import shlex

from director.lab.demo.claims import claim
from director.lab.demo.report import Report
from director.lab.demo.scene import Scene


def types(scene: Scene, report: Report, host: str, line: str, *, exits: int = 0) -> str:
    """Run a line on a host, show it with its output, and hand that over; only a line with a pipe costs a shell.

    Raises: StepFailedError when it exits with another code than `exits`.
    """
    words = ["sh", "-c", line] if " | " in line else shlex.split(line)
    done = scene.lab.host(host).run(*words)
    report.shell(host, line, done.stdout + done.stderr)
    claim(done.exit_code == exits, f"{host}: {line}: exit {done.exit_code} instead of {exits}")
    return done.stdout
