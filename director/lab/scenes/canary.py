"""Scene canary: a new version gets a small share of new clients, then half of them; a session stays where it began."""

from __future__ import annotations

import json

from director.lab.demo.claims import StepFailedError, claim
from director.lab.demo.hands import types
from director.lab.demo.report import Report
from director.lab.demo.scene import Scene, finish, told, wait_until
from director.lab.scenes.measuring import file_of

PROXY = "10.9.0.21"
CONFIG = "/etc/l7proxy/l7proxy.yaml"
ASKED = 200
CANARY = "web-3"


def stand(scene: Scene, report: Report) -> None:
    report.explain(
        """The shop runs on web-1 and web-2. Its new version runs on web-3. l7proxy is to give the new version 5 of
        100 new clients, to see how it does. (The client asks l7proxy-1 directly here; behind a director it is the
        same.)"""
    )
    scene.start_backends()
    proxy = scene.lab.host("l7proxy-1")
    proxy.write(CONFIG, file_of("canary.yaml"))
    scene.start_proxy(proxy.name)
    types(scene, report, proxy.name, f"cat {CONFIG}")
    wait_until("l7proxy-1 answers", lambda: scene.client.run("curl", "-s", f"http://{PROXY}/").exit_code == 0, 30.0)
    canary = _ask(scene, report)
    claim(0.03 <= canary / ASKED <= 0.07, f"the canary must get about 5 of 100, not {canary} of {ASKED}")
    report.fact("canary_percent", 100 * canary / ASKED)


def shift(scene: Scene, report: Report) -> None:
    report.explain(
        """It does well: let it have half. The file is changed, and l7proxy reads it again while it serves. A file
        with a mistake would change nothing. The client sends requests meanwhile, and none may fail."""
    )
    load = scene.traffic(60.0, 0.02, (PROXY, "shop.example.org", "/"))
    wait_until("traffic flows", lambda: len(told(load)) > 5)
    _set_shares(scene, report, "shop: 50, canary: 50")
    before = len(told(load))
    wait_until("traffic goes on", lambda: len(told(load)) > before + 10)
    requests = finish(load)
    report.count(requests)
    failed = [request for request in requests if not request["ok"]]
    claim(not failed, f"{len(failed)} of {len(requests)} requests failed over the reload, the first: {failed[:1]}")
    report.say(f"{len(requests)} requests while the file was read again; none failed")
    canary = _ask(scene, report)
    claim(0.45 <= canary / ASKED <= 0.55, f"the canary must get about half, not {canary} of {ASKED}")
    report.fact("canary_percent_after", 100 * canary / ASKED)


def stay(scene: Scene, report: Report) -> None:
    report.explain(
        """A browser keeps the cookie that it got with its first answer. It says which web server the session is with
        (sticky: cookie). Somebody whose session began on the new version stays there, also when its share goes
        down again."""
    )
    jar = _session(scene, report)
    _set_shares(scene, report, "shop: 95, canary: 5")
    said = types(scene, report, "client", f"curl -sS -b {jar} -c {jar} 'http://{PROXY}/?[1-5]'")
    servers = [json.loads(line)["server"] for line in said.splitlines()]
    report.count([{"ok": True}] * len(servers))
    claim(servers == [CANARY] * 5, f"the session must stay on {CANARY}, not: {servers}")
    report.say(f"5 of 5 requests of the session went to {CANARY}, though it gets 5 of 100 new clients")


def _ask(scene: Scene, report: Report) -> int:
    """Ask often as a new client each time, tell who answered, and how many of them the canary was."""
    line = f"curl -sS 'http://{PROXY}/?[1-{ASKED}]' | grep -o 'web-[123]' | sort | uniq -c"
    counts = {name: int(count) for count, name in map(str.split, types(scene, report, "client", line).splitlines())}
    answered = sum(counts.values())
    report.count([{"ok": True}] * answered + [{"ok": False}] * (ASKED - answered))
    claim(answered == ASKED, f"only {answered} of {ASKED} requests were answered")
    return counts.get(CANARY, 0)


def _set_shares(scene: Scene, report: Report, shares: str) -> None:
    types(scene, report, "l7proxy-1", f"sed -i 's/- upstream: .*/- upstream: {{{shares}}}/' {CONFIG}")
    types(scene, report, "l7proxy-1", f"l7proxy check {CONFIG}")
    types(scene, report, "l7proxy-1", "l7proxy reload")


def _session(scene: Scene, report: Report) -> str:
    """The cookie jar of a client whose session is with the canary: of two new clients one is."""
    for number in range(10):
        jar = f"/tmp/jar-{number}"  # noqa: S108 - the lab host's own
        if f'"{CANARY}"' in types(scene, report, "client", f"curl -sS -c {jar} http://{PROXY}/"):
            return jar
    raise StepFailedError(f"none of 10 new clients came to {CANARY}, which gets half of them")


STEPS = (
    ("5 of 100 new clients get the new version", stand),
    ("half of them, from now on", shift),
    ("a session stays where it began", stay),
)
