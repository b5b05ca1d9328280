"""Scene failover: a real server dies under traffic, and comes back."""

from __future__ import annotations

from director.lab.demo import acts
from director.lab.demo.hands import types
from director.lab.demo.report import Report
from director.lab.demo.scene import CONFIG, Scene
from director.lab.scenes import dr


def stand(scene: Scene, report: Report) -> None:
    report.explain(
        """Two l7proxy stand behind the VIP 10.9.0.100. The director probes each with an HTTP request every second.
        Once a probe has failed it looks closer, every 200 ms, and after 2 failures in a row (fall: 2) the real
        server gets no new connections: its weight in the kernel becomes 0. After 2 successes (rise: 2) it is
        back."""
    )
    dr.stand(scene)
    for host in scene.lab.hosts("l7proxy"):
        host.run("director", "realserver", "apply", CONFIG).check()
    dr.run(scene)
    types(scene, report, "director", "director status")


def die(scene: Scene, report: Report) -> None:
    report.explain(
        """The client sends one request after another. Then l7proxy-1 is killed, as a crash would do it. Until the
        director knows, about half of the requests meet a closed port: this is the outage, and it is measured.
        After it none may fail."""
    )
    acts.fail_over(scene, report, ((dr.VIP, "shop.example.org", "/"),))
    report.explain(
        """Everything that happened is in the journal, with its cause. To shorten the outage, probe more often
        (fast_interval), or have a `sentinel`: a connection whose end is noticed at once."""
    )
    types(scene, report, "director", "director events --vs web --rs proxy-1")


STEPS = (
    ("two l7proxy serve", stand),
    ("one dies, its traffic moves to the other one, and it comes back", die),
)
