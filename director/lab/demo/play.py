"""Boots a lab and plays the demonstration in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from director.kit.errors import DirectorError
from director.lab import boot
from director.lab.demo import acts
from director.lab.demo.claims import StepFailedError
from director.lab.demo.report import Report
from director.lab.demo.scene import Scene

Act = Callable[[Scene, Report], None]

ACTS: tuple[tuple[str, Act], ...] = (
    ("the director programs the kernel: a DR and a NAT virtual server", acts.programme),
    ("requests reach the right backends, with the client's address", acts.serve),
    ("a real server dies and comes back", acts.fail_over),
    ("the director dies under traffic and comes back", acts.crash),
)


def play(kernel: str, keep: Callable[[object, object], None] | None) -> bool:
    """Whether every step held. `keep` gets the kernel and the lab before they go. Raises: LabError from booting."""
    report = Report()
    report.say("booting a kernel for the lab")
    with boot(kernel) as booted, booted.lay_out() as lab:
        report.say(f"{booted.kind} kernel {booted.release}: {booted.reason}")
        report.say(f"hosts: {', '.join(host.name for host in lab.hosts())}")
        report.fact("kernel", booted.kind)
        ok = perform(Scene(lab), report, ACTS)
        if keep:
            keep(booted, lab)
    report.finish(ok)
    return ok


def perform(scene: Scene, report: Report, steps: Sequence[tuple[str, Act]]) -> bool:
    """Whether all steps held; the first that does not is the last, and is told with what the programs said."""
    for number, (title, act) in enumerate(steps, 1):
        report.step(number, title)
        began_at = time.monotonic()
        error: Exception | None = None
        try:
            act(scene, report)
        except (StepFailedError, DirectorError) as caught:
            error = caught
            report.error(f"this does not hold: {error}")
            report.fact("error", f"step {number}: {error}")
            _last_words(scene, report)
        report.done(title, error is None, time.monotonic() - began_at)
        if error:
            return False
    return True


def _last_words(scene: Scene, report: Report) -> None:
    for process in scene.running.values():
        report.shell(process.name, "its last words", "\n".join(process.output().splitlines()[-15:]))
