"""Scene crash: the director is killed under traffic, and started again."""

from __future__ import annotations

from director.lab.demo import acts
from director.lab.demo.hands import types
from director.lab.demo.report import Report
from director.lab.demo.scene import CONFIG, Scene
from director.lab.scenes.measuring import file_of
from director.lab.scenes.nat import VIP


def stand(scene: Scene, report: Report) -> None:
    report.explain(
        """The director only programs the kernel; the kernel forwards. So what happens when the director dies?
        Nothing, as long as no web server dies too: nobody would notice that. This scene kills it while the client
        sends requests."""
    )
    scene.start_backends()
    scene.write_config(file_of("nat.yaml"))
    scene.start_director(fresh=False)
    scene.wait_for_vip(VIP)
    scene.wait_for_weights({"10.9.1.11:8080": 100, "10.9.1.12:8080": 100})
    types(scene, report, "director", "director status")


def die(scene: Scene, report: Report) -> None:
    report.explain(
        """The table is read a hundred times a second meanwhile: the new director finds what the dead one has left,
        takes it over, and must not change anything in it, not for a moment."""
    )
    acts.crash(scene, report, ((VIP, "shop.example.org", "/"),))
    types(scene, report, "director", f"director plan {CONFIG}")
    types(scene, report, "director", "ipvsadm -Ln")


STEPS = (
    ("two web servers serve", stand),
    ("the director is killed, traffic goes on, and it is started again", die),
)
