"""What stands on a machine, before and after: the difference is what was left behind."""

from __future__ import annotations

import json
from collections.abc import Iterator

from director.lab.hosts import LabHost
from tests.deploy.stage import PROJECT

Snapshot = dict[str, dict[str, str]]

OF_MODULES = "net/"
"""Settings that appear with a module (ip_vs, nf_conntrack), which may stay loaded: as in a fresh namespace."""


def take(host: LabHost) -> Snapshot:
    """Everything that guest/snapshot.py looks at; it takes some seconds."""
    script = f"{PROJECT}/tests/deploy/guest/snapshot.py"
    found: Snapshot = json.loads(host.run("python3", "-SE", script, timeout_s=60).check().stdout)
    return found


def differences(before: Snapshot, after: Snapshot, fresh: LabHost) -> list[str]:
    """What is not as it was, a line each; `fresh` is a host whose settings nobody has touched."""
    return list(_differences(before, after, fresh))


def _differences(before: Snapshot, after: Snapshot, fresh: LabHost) -> Iterator[str]:
    for kind, was in before.items():
        now = after[kind]
        for name in sorted(was.keys() | now.keys()):
            old, new = was.get(name), now.get(name)
            if old is None and kind == "sysctls" and name.startswith(OF_MODULES):
                there = fresh.run("cat", f"/proc/sys/{name}")
                old = new if there.exit_code else there.stdout.strip()  # one for all namespaces: nobody knows
            if old != new:
                yield f"{kind}: {name}: was {_told(old)}, is {_told(new)}"


def _told(value: str | None) -> str:
    return "not there" if value is None else value or "there"
