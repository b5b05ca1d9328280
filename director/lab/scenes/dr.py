"""Scene dr: a virtual server by direct routing, and what its real servers need for it."""

from __future__ import annotations

from director.lab.demo.claims import claim
from director.lab.demo.hands import types
from director.lab.demo.report import Report
from director.lab.demo.scene import CONFIG, Scene, wait_until
from director.lab.scenes.measuring import counted, file_of, served

VIP = "10.9.0.100"
WEIGHTS = {"10.9.0.21:80": 100, "10.9.0.22:80": 100}


def stand(scene: Scene) -> None:
    """Web servers, both l7proxy, and the director's file everywhere; the director does not run yet."""
    scene.start_backends()
    scene.start_proxies(file_of("l7proxy.yaml"))
    scene.write_config(file_of("dr.yaml"))
    for host in scene.lab.hosts("l7proxy"):
        host.write(CONFIG, file_of("dr.yaml"))


def run(scene: Scene) -> None:
    """Start the director, and wait until both l7proxy serve."""
    scene.start_director(fresh=False)
    scene.wait_for_vip(VIP)
    scene.wait_for_weights(WEIGHTS, 30.0)


def prepare(scene: Scene, report: Report) -> None:
    report.explain(
        """Direct routing (DR) leaves packets as they are: the director only hands them on, within one network, to a
        real server, which answers the client by itself. So each real server must take the VIP 10.9.0.100 for its
        own, and yet never say so when the network asks who has it: only the director may. The real servers here
        are two l7proxy."""
    )
    stand(scene)
    types(scene, report, "director", f"cat {CONFIG}")
    report.explain(
        """One command prepares a real server, from the director's own file: first it is made silent about addresses
        of other interfaces (arp_ignore, arp_announce), then the VIP is put on lo. A second run changes nothing."""
    )
    for host in scene.lab.hosts("l7proxy"):
        types(scene, report, host.name, f"director realserver apply {CONFIG}")
    held = types(scene, report, "l7proxy-1", "ip -brief address show dev lo")
    claim(f"{VIP}/32" in held, f"l7proxy-1 must hold {VIP}, but lo has {held}")


def serve(scene: Scene, report: Report) -> None:
    report.shell("director", f"director run {CONFIG} &", "")
    run(scene)
    types(scene, report, "director", "director status")
    requests = served(scene, report, VIP)
    proxies = {host.address("inside") for host in scene.lab.hosts("l7proxy")}
    claim({each["from"] for each in requests} == proxies, f"both l7proxy must have served, not {proxies}")
    us = scene.client.address("lan")
    claim({each["for"] for each in requests} == {us}, f"the web servers must have been told of {us}")
    report.explain(
        f"""l7proxy sees the client's own address, {us}, without any help, since nobody has rewritten a packet. It
        writes it to its access log (on a machine: journalctl -u l7proxy), and tells it the web servers in
        X-Forwarded-For."""
    )
    log = scene.running["l7proxy-1"].output
    wait_until("l7proxy-1 has logged a request", lambda: f"{us} - " in log())
    lines = [line for line in log().splitlines() if line.startswith(f"{us} - ")]
    report.shell("l7proxy-1", "# the last two lines of its access log", "\n".join(lines[-2:]))


def count(scene: Scene, report: Report) -> None:
    report.explain(
        """Look at OutPkts. It is 0: not one answer came by the director. This is why DR carries much more than NAT:
        answers are mostly the bigger part, and they take the short way."""
    )
    inwards, outwards = counted(scene, VIP)
    types(scene, report, "director", "ipvsadm -Ln --stats")
    claim(inwards > 0 and outwards == 0, f"packets must pass one way only, not {inwards} in and {outwards} out")
    report.fact("packets_in", inwards)
    report.fact("packets_out", outwards)


STEPS = (
    ("real servers get ready for direct routing", prepare),
    ("the director hands requests on; real servers see the client's address", serve),
    ("answers bypass the director", count),
)
