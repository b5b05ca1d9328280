"""Events on a real kernel: from a backend's death to a script of nobody's, to a follower, and into the journal."""

from __future__ import annotations

import json
import signal

import pytest

from director.lab.demo.scene import Scene, wait_until
from director.lab.hosts import Lab
from tests.lab.test_director_daemon import FILE, WEB1, WEB2, stop

pytestmark = pytest.mark.lab

NOTIFIED = f"""{FILE}
notifications:
  page: {{type: script, command: [/tmp/page], on: [health, wish]}}
"""
PAGE = """#!/bin/sh
{ id -u; grep -E '^(NoNewPrivs|CapEff|CapBnd):' /proc/self/status; cat; } | tr '\\n\\t' '  ' >> /tmp/told
echo >> /tmp/told
"""


def test_a_death_is_followed_notified_and_kept(lab: Lab) -> None:
    scene = Scene(lab)
    host = scene.director

    def told() -> str:
        return host.run("cat", "/tmp/told").stdout

    scene.start_backends()
    host.write("/tmp/page", PAGE, 0o755)
    scene.write_config(NOTIFIED)
    scene.start_director(fresh=False)
    wait_until("verdicts", lambda: told().count('"now": "up"') == 2)
    follower = host.start("director", "events", "--follow", "--json", "--rs", "web-1")
    scene.running.pop("web-1").kill(signal.SIGTERM)  # nginx's workers outlive a killed master
    scene.wait_for_weights({WEB1: 0, WEB2: 100})
    wait_until("the script is told", lambda: '"now": "down"' in told())
    host.run("director", "drain", "plain/web-2").check()
    stop(scene)
    assert follower.wait(20.0) == 0, follower.output()

    followed = [json.loads(line) for line in follower.output().splitlines() if line.startswith("{")]
    (down,) = (each for each in followed if (each["kind"], each["now"]) == ("health", "down"))
    assert (down["virtual_server"], down["was"], down["errno"]) == ("plain", "up", "ECONNREFUSED")

    (page,) = (line for line in told().splitlines() if '"now": "down"' in line)
    user = host.run("id", "-u", "nobody").check().stdout.strip()
    assert page.startswith(f"{user} CapEff: {0:016x} CapBnd: {0:016x} NoNewPrivs: 1 {{")
    assert json.loads(page[page.index("{") :]) == down

    journal = host.run("director", "events").check()
    assert "no director runs: this is the journal in /var/lib/director" in journal.stderr
    assert "plain/web-1: health up -> down" in journal.stdout
    assert "plain/web-2: wish drained: asked by uid 0, pid " in journal.stdout
    assert journal.stdout.splitlines()[-1].endswith("director: daemon runs -> stopped")
