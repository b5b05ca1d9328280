"""The director's role as the tests use it: variables, configuration, and what stands when all is well."""

from __future__ import annotations

from typing import Any

from tests.deploy.stage import BACKENDS, VIP, Played, Stage

WEIGHTS = dict.fromkeys(BACKENDS.values(), 100)


def config(**more: object) -> dict[str, Any]:
    """NAT for the backends, and the machine's own settings that it needs."""
    web = {
        "address": VIP,
        "port": 80,
        "forward": "nat",
        "scheduler": "rr",
        "check": {"type": "tcp", "interval": "1s", "timeout": "2s", "rise": 1, "fall": 3},
        "real_servers": {name: {"address": where.partition(":")[0], "port": 8080} for name, where in BACKENDS.items()},
    }
    return {"defaults": {"interface": "lan"}, "virtual_servers": {"web": {**web, **more}}}


def of_release(version: str) -> dict[str, Any]:
    """The variables that say where a release is."""
    return {"program_release": version, "program_source": "wheels", "program_wheels": f"/run/lab/wheels-{version}"}


def install(stage: Stage, version: str, configuration: dict[str, Any] | None = None, **variables: Any) -> Played:
    """Apply the role."""
    return stage.play("director", director_config=configuration or config(), **of_release(version), **variables)


def wait_until_serving(stage: Stage) -> None:
    """The VIP is up and all its real servers have their weights."""
    stage.wait_for(f"the VIP {VIP} is up", f"ip -o address show dev lan | grep -q ' {VIP}/'", 40.0)
    stage.wait_for("both real servers are up", f"[ $(grep -c 'Masq *100 ' /proc/net/ip_vs) = {len(BACKENDS)} ]", 40.0)
