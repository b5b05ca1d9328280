"""The Vagrant lab in namespaces: two directors with the files that the virtual machines get, and one lost by hand.

One rule: what the tour types is typed here; web servers stand in for l7proxy, which has tests of its own.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial

import pytest

from director.lab import topology
from director.lab.demo.scene import CONFIG, FILES, wait_until
from director.lab.hosts import Lab
from director.lab.kernels import Kernel
from tests.deploy.vagrantlab import VAGRANT, director_file, variables

pytestmark = pytest.mark.lab

DIRECTORS = ("director-1", "director-2")


@pytest.fixture(scope="module")
def pair(kernel: Kernel) -> Iterator[Lab]:
    with kernel.lay_out(topology.PAIR) as laid_out:
        yield laid_out


def answers(pair: Lab, vip: str, servers: str = "") -> bool:
    """Whether the client is answered at a VIP, by a server whose name begins with `servers`."""
    done = pair.host("client").run("curl", "-sS", "-m", "1", f"http://{vip}/")
    return done.exit_code == 0 and str(json.loads(done.stdout)["server"]).startswith(servers)


def test_machines_settle_by_what_vagrant_runs(pair: Lab) -> None:
    if shutil.which("ruby") is None:
        pytest.skip("ruby is not installed: apt-get install ruby")
    done = subprocess.run(["ruby", "lab.rb"], cwd=VAGRANT, capture_output=True, text=True, timeout=60, check=True)
    settle = {each["name"]: each["settle"] for each in json.loads(done.stdout)["machines"]}
    web = pair.host("web-1")
    web.run("sh", "-c", "ip -6 address flush dev inside; ip route flush default").check()
    web.run("sh", stdin=settle["web-1"]).check()
    web.run("sh", stdin=settle["web-1"]).check()  # each start of the machine does it again
    assert "via 10.9.1.2 dev inside" in web.run("ip", "route", "get", "10.9.0.10").check().stdout
    assert "via fd09:1::2 dev inside" in web.run("ip", "-6", "route", "get", "fd09::10").check().stdout
    pair.host("director-2").run("sh", stdin=settle["director-2"]).check()
    missing = pair.host("web-2").run("sh", stdin=settle["web-1"])
    assert missing.exit_code != 0
    assert "no interface has the MAC 02:09:01:00:00:11" in missing.stderr


def test_a_directors_vip_is_taken_over_by_hand(pair: Lab) -> None:
    text = FILES.joinpath("nginx.conf").read_text()
    for host in [*pair.hosts("backend"), *pair.hosts("l7proxy")]:
        mine = text if host.host.role == "backend" else text.replace("8080", "80")
        host.write("/etc/nginx/lab.conf", mine.replace("NAME", host.name))
        host.start("nginx", "-c", "/etc/nginx/lab.conf")
    for host in pair.hosts("l7proxy"):
        vips = [word for vip in variables("realservers")["realserver_vips"] for word in ("--vip", vip)]
        host.run("director", "realserver", "apply", *vips).check()
    running = {}
    for name in DIRECTORS:
        pair.host(name).write(CONFIG, director_file(name, "lan"))
        running[name] = pair.host(name).start("director", "run", CONFIG, fresh=False)
    for vip, servers in (("10.9.0.100", "l7proxy-"), ("10.9.0.110", "l7proxy-"), ("10.9.0.101", "web-")):
        wait_until(f"{vip} answers", partial(answers, pair, vip, servers), 30.0)
    running["director-1"].kill_tree()
    pair.host("director-1").link("lan").down()
    readme = (VAGRANT / "README.md").read_text()
    (edit,) = re.findall(r"director-2 -c 'sudo (sed -i .*)'", readme)
    second = pair.host("director-2")
    second.run("sh", "-c", edit).check()
    second.run("director", "check", CONFIG).check()
    running["director-2"].kill(1)
    wait_until("the lost director's VIP answers", partial(answers, pair, "10.9.0.100", "l7proxy-"), 30.0)
    assert answers(pair, "10.9.0.110", "l7proxy-")
    assert not answers(pair, "10.9.0.101"), "NAT stays with the gateway"
