"""Scene nat: a virtual server by NAT, from the file to the first answers."""

from __future__ import annotations

from director.lab.demo.claims import claim
from director.lab.demo.hands import types
from director.lab.demo.report import Report
from director.lab.demo.scene import CONFIG, Scene
from director.lab.scenes.measuring import counted, file_of, served

VIP = "10.9.0.101"


def programme(scene: Scene, report: Report) -> None:
    report.explain(
        """Two web servers, web-1 and web-2, listen on port 8080 in a network that the client cannot reach. The
        director gets one more address, the VIP 10.9.0.101, and its kernel is told to pass on whatever comes to
        port 80 there. NAT means: the kernel writes a web server's address over the VIP in each packet to it, and
        the VIP over the web server's address in each packet back. So packets back must come by the director: it
        is the web servers' gateway."""
    )
    scene.start_backends()
    scene.write_config(file_of("nat.yaml"))
    types(scene, report, "director", f"cat {CONFIG}")
    report.explain(
        "plan says what would change, and changes nothing. It exits with 2 where there is something, for scripts."
    )
    types(scene, report, "director", f"director plan {CONFIG}", exits=2)
    report.explain("apply does it: all of it or nothing.")
    types(scene, report, "director", f"director apply {CONFIG}")
    left = types(scene, report, "director", f"director plan {CONFIG}")
    claim("Nothing to change" in left, f"a second plan must be empty, not: {left}")


def serve(scene: Scene, report: Report) -> None:
    report.explain(
        """The client asks the VIP. Look at "server": the two take turns (scheduler: rr). Look at "from": each web
        server sees the client's own address, for NAT changes where a packet goes, and not where it comes from."""
    )
    types(scene, report, "client", f"curl -sS -H 'Connection: close' 'http://{VIP}/?[1-4]'")
    requests = served(scene, report, VIP)
    claim({each["server"] for each in requests} == {"web-1", "web-2"}, "both web servers must have answered")
    us = scene.client.address("lan")
    claim({each["from"] for each in requests} == {us}, f"the web servers must have seen {us}")
    report.explain(
        """The kernel counts packets. InPkts went from the client to a web server, OutPkts from a web server to the
        client. Neither is 0: with NAT the director carries both ways. No packet passes through Python."""
    )
    inwards, outwards = counted(scene, VIP)
    types(scene, report, "director", "ipvsadm -Ln --stats")
    claim(inwards > 0 and outwards > 0, f"packets must pass both ways, not {inwards} in and {outwards} out")
    report.fact("packets_in", inwards)
    report.fact("packets_out", outwards)


def keep(scene: Scene, report: Report) -> None:
    report.explain(
        """Until now nobody looks whether the web servers live. `director run` (on a machine: systemctl start
        director) stays: it probes them, sets their weights, and repairs what others change. It adopts what the
        kernel has."""
    )
    report.shell("director", f"director run {CONFIG} &", "")
    scene.start_director(fresh=False)
    scene.wait_for_status()
    scene.wait_for_weights({"10.9.1.11:8080": 100, "10.9.1.12:8080": 100})
    types(scene, report, "director", "director status")
    left = types(scene, report, "director", f"director plan {CONFIG}")
    claim("Nothing to change" in left, f"the running director must agree with its file, not: {left}")


STEPS = (
    ("a file, a plan, and the kernel is programmed", programme),
    ("requests go through the director, and answers come back through it", serve),
    ("the director stays, and keeps it so", keep),
)
