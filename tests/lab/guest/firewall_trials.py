"""Trials of `director.host.firewall`: `python firewall_trials.py NAME`, as root in a network namespace of its own.

Each asserts for itself, ends with a traceback where it fails, and prints what it did as JSON. They run on the lab's
kernel, where only iptables-legacy works, and on any other.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

from director.core.guard import Answer, Guard
from director.core.rules import GUARD_CHAIN, MARK_CHAIN, SNAT_CHAIN, Mark, Rules, Snat
from director.core.table import Protocol, VirtualKey
from director.host import settings, sysctl
from director.host.firewall import Firewall
from director.kit.net import Endpoint

Result = dict[str, object]
TABLES = ("nat", "mangle", "raw")


def key(text: str) -> VirtualKey:
    return VirtualKey.parse(text)


TRAFFIC = Rules(
    marks=(
        Mark(7, Protocol.TCP, ip_address("10.9.0.100"), ((443, 443),)),
        Mark(7, Protocol.TCP, ip_address("10.9.0.101"), ((8443, 8443),)),
        Mark(8, Protocol.TCP, ip_address("10.9.0.101"), tuple((port, port + 1) for port in range(80, 110, 3))),
        Mark(8, Protocol.UDP, ip_address("10.9.0.101")),
        Mark(7, Protocol.TCP, ip_address("fd09::100"), ((443, 443),)),
    ),
    snats=(
        Snat(key("tcp 10.9.0.100:80")),
        Snat(key("udp 10.9.0.100:53"), ip_address("10.9.1.99")),
        Snat(key("tcp 10.9.0.102:0")),
        Snat(key("fwmark 8")),
        Snat(key("tcp [fd09::100]:80")),
        Snat(key("udp [fd09::100]:53"), ip_address("fd09:1::99")),
    ),
    plain=frozenset({key("tcp 10.9.0.100:81"), key("tcp 10.9.0.102:81"), key("fwmark 7"), key("tcp [fd09::100]:81")}),
)
MARKS = Rules(
    marks=(
        Mark(7, Protocol.TCP, ip_address("192.0.2.10"), ((80, 80), (443, 443), (8000, 8099))),
        Mark(0xFFFFFFFF, Protocol.UDP, ip_address("192.0.2.10")),
        Mark(9, Protocol.SCTP, ip_address("2001:db8::10"), ((80, 80),)),
    ),
    guards=(
        Guard("eth0", (Answer(Endpoint(ip_address("192.0.2.10"), 80), ip_address("192.0.2.2"), datagrams=True),)),
        Guard("eth0.100", (Answer(Endpoint(ip_address("192.0.2.10"), 443), ip_address("192.0.2.3")),)),
    ),
)


def run(*argv: str, stdin: str = "") -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, input=stdin).stdout


def saved(stem: str) -> list[str]:
    """Both tables without what is no rule: comments and counters."""
    lines = [line for table in TABLES for line in run(f"{stem}-save", "-t", table).splitlines()]
    return [line.partition(" [")[0] for line in lines if not line.startswith("#")]


def ours(lines: list[str]) -> list[str]:
    return [line for line in lines if any(name in line for name in (MARK_CHAIN, SNAT_CHAIN, GUARD_CHAIN))]


def enforced(firewall: Firewall, rules: Rules) -> list[str]:
    done = firewall.enforce(rules)
    assert done.failures == (), done.failures
    return [str(change) for change in done.changes]


def try_traffic_rules() -> Result:
    sysctl.write(settings.CONNTRACK, "1")
    return {"changes": enforced(Firewall(), TRAFFIC)}


def try_remove() -> Result:
    return {"changes": enforced(Firewall(), Rules())}


FOREIGN = """\
*nat
:THEIRS - [0:0]
-A POSTROUTING -s 10.77.0.0/24 -m comment --comment "it's \\"{chain}\\"" -j MASQUERADE
-A PREROUTING -j THEIRS
-A THEIRS -p tcp -m tcp --dport 8080 -j ACCEPT
COMMIT
*mangle
:LVS-DIRECTOR-MARKS-NOT - [0:0]
-A PREROUTING -i lo -j MARK --set-xmark 0x1/0x1
-A LVS-DIRECTOR-MARKS-NOT -j ACCEPT
COMMIT
"""


def try_life() -> Result:
    """Among others' rules: made once, repaired whatever is done to them, removed whole."""
    rules = TRAFFIC if sys.argv[2] == "legacy" else MARKS
    stems = [f"{name}-{sys.argv[2]}" for name in ("iptables", "ip6tables")]
    assert enforced(Firewall(), Rules()) == []
    for stem in stems:
        text = FOREIGN.format(chain=SNAT_CHAIN)
        run(f"{stem}-restore", "--noflush", stdin=text.replace("10.77.0.0/24", "fd77::/64") if "6" in stem else text)
    before = [saved(stem) for stem in stems]

    firewall = Firewall()
    assert firewall.differences(Rules()) == ()
    missing = firewall.differences(rules)
    assert all("is missing" in sentence for sentence in missing), missing
    made = enforced(firewall, rules)
    during = [saved(stem) for stem in stems]
    # Others' lines are the same, and in the same order; ours are beside them.
    assert [[line for line in lines if line not in ours(lines)] for lines in during] == [
        [line for line in lines if line not in ours(lines)] for lines in before
    ]
    for each in (firewall, Firewall()):
        assert each.differences(rules) == ()
        assert enforced(each, rules) == []
    assert [saved(stem) for stem in stems] == during

    repairs = {}
    v4, _ = stems
    for name, argv in {
        "flushed": ["-F", MARK_CHAIN],
        "jump deleted": ["-D", "PREROUTING", "-j", MARK_CHAIN],
        "jump doubled": ["-A", "PREROUTING", "-j", MARK_CHAIN],
        "rule added": ["-A", MARK_CHAIN, "-j", "ACCEPT"],
        "narrowed jump": ["-A", "INPUT", "-i", "lo", "-j", MARK_CHAIN],
    }.items():
        run(v4, "-t", "mangle", *argv)
        (change,) = firewall.enforce(rules).changes
        repairs[name] = change.before
    assert firewall.differences(rules) == ()
    # The order among others' jumps may differ now: not what each chain holds.
    assert [sorted(saved(stem)) for stem in stems] == [sorted(lines) for lines in during]

    run(v4, "-t", "mangle", "-F", MARK_CHAIN)
    (said,) = firewall.differences(rules)
    assert said.endswith("rules missing"), said
    fewer = Rules(marks=rules.marks[:1])
    enforced(firewall, fewer)
    assert firewall.differences(fewer) == ()
    gone = enforced(Firewall(), Rules())
    assert [saved(stem) for stem in stems] == before
    # What one has seen without anything of ours, only itself can fill again.
    enforced(firewall, rules)
    assert firewall.remove().failures == ()
    assert [saved(stem) for stem in stems] == before
    return {"made": made, "repairs": repairs, "gone": gone}


def try_nothing_needed() -> Result:
    """Looking loads no module and makes no table: connection tracking stays out of this namespace."""

    def tables() -> dict[str, str]:
        """The legacy tables of this namespace, and the kernel's modules."""
        found = {"modules": " ".join(sorted(os.listdir("/sys/module")))}  # noqa: PTH208
        for version, path in (("4", "/proc/net/ip_tables_names"), ("6", "/proc/net/ip6_tables_names")):
            found[version] = Path(path).read_text() if Path(path).exists() else ""
        return found

    before = tables()
    assert Firewall().differences(Rules()) == ()
    assert Firewall().remove().changes == ()
    assert tables() == before
    enforced(Firewall(), Rules(marks=MARKS.marks[:1]))
    assert tables()["4"].split() == ["mangle"]
    assert tables()["6"] == before["6"] == ""
    Firewall().remove()
    return {}


def try_failures() -> Result:
    """Without rights, without iptables, and with the lock held: sentences, and nothing changed."""
    said: dict[str, object] = {}
    before = saved("iptables-legacy")
    import director.host.iptables as programs

    held = subprocess.Popen(["flock", "/run/xtables.lock", "sleep", "60"])
    programs.LOCK_WAIT_S = 1
    said["locked"] = Firewall().enforce(Rules(marks=MARKS.marks[:1])).failures
    held.kill()
    held.wait()
    path, system = os.environ["PATH"], programs._SYSTEM_PATH
    os.environ["PATH"] = programs._SYSTEM_PATH = "/nowhere"
    said["missing"] = Firewall().enforce(MARKS).failures
    said["nothing needed"] = Firewall().enforce(Rules()).failures
    os.environ["PATH"], programs._SYSTEM_PATH = path, system
    assert saved("iptables-legacy") == before
    os.setuid(65534)
    said["unprivileged"] = Firewall().enforce(Rules(marks=MARKS.marks[:1])).failures
    return said


TRIALS: dict[str, Callable[[], Result]] = {
    "traffic-rules": try_traffic_rules,
    "remove": try_remove,
    "life": try_life,
    "nothing-needed": try_nothing_needed,
    "failures": try_failures,
}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(TRIALS[sys.argv[1]]()) + "\n")
