"""A booted Debian for each module that asks for one, and hosts around it.

One rule: nothing here runs unless `-m` names `deploy`; a tree that cannot be built is a failure with its reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from director.lab.hosts import Lab, LabHost
from tests.deploy import tree as trees
from tests.deploy.machine import Machine
from tests.deploy.stage import Stage
from tests.deploy.wheels import release

TOPOLOGY = Path(__file__).with_name("topology.yaml")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "deploy" in str(config.getoption("markexpr")):
        return
    booted = [item for item in items if item.get_closest_marker("deploy")]
    if booted:
        config.hook.pytest_deselected(items=booted)
        items[:] = [item for item in items if item not in booted]


@pytest.fixture(scope="session")
def tree() -> Path:
    """The Debian to boot."""
    return trees.tree()


@pytest.fixture(scope="module")
def machine(tree: Path, request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A machine of the module's own. A module that installs something names its releases: WHEELS = ("0.1.0",)."""
    versions: tuple[str, ...] = getattr(request.module, "WHEELS", ())
    mounts = {f"wheels-{version}": release(version, tree) for version in versions}
    with Machine(tree, mounts) as booted:
        yield booted


@pytest.fixture(scope="module")
def around(machine: Machine) -> Lab:
    """The hosts of topology.yaml: `machine` is the booted one."""
    return machine.lay_out(TOPOLOGY)


@pytest.fixture(scope="module")
def debian(around: Lab) -> LabHost:
    """The booted machine, when systemd has started all it starts."""
    host = around.host("machine")
    host.run("systemctl", "is-system-running", "--wait", timeout_s=60).check()
    return host


@pytest.fixture(scope="module")
def stage(debian: LabHost, around: Lab) -> Stage:
    """The machine, with backends and a client around it that serve and can ask."""
    return Stage(around)
